//! A provider whose objects live in memory, for tests, simulation and benchmarks. It is deterministic, and fails where it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use state::canonical;
use state::ids::{Kind, OutputName, ResourceName};
use state::observation::{FieldDrift, Observation};
use state::resource::{OnRetire, Origin, Outputs, Resource};
use state::spec::Spec;
use thiserror::Error;

use crate::{Applied, Deleted, Invalid, Observed, Orphan, Provider, ProviderError, Scope, Script, Wanted};

/// A fault that a call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails before anything is done.
    Refuse,
    /// The call does its work, and its answer is lost.
    LoseReply,
    /// The call does nothing and never answers.
    Hang,
    /// The call changes nothing yet, and answers that what is there has to stop first.
    StopFirst,
}

/// An object in the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its content.
    pub spec: Spec,
    /// Its owner label; none: it is a stranger's.
    pub label: Option<Label>,
    /// How many looks it takes until it is ready.
    pub pending: u32,
}

/// The owner label of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// For whom it was made.
    pub scope: Scope,
    /// For which resource it was made.
    pub name: ResourceName,
    /// What happens to it when it is retired.
    pub on_retire: OnRetire,
}

/// How often each operation was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Bulk observations.
    pub observe: u64,
    /// Makings and changes.
    pub apply: u64,
    /// Deletions.
    pub delete: u64,
    /// Releases.
    pub release: u64,
    /// Objects that were made anew.
    pub created: u64,
    /// Objects that were changed.
    pub changed: u64,
}

#[derive(Debug, Default)]
struct World {
    objects: BTreeMap<String, Object>,
    calls: Calls,
    faults: BTreeMap<ResourceName, Vec<Fault>>,
    forbidden: BTreeSet<ResourceName>,
    all_forbidden: Option<String>,
    slowness: u32,
    delete_slowness: u32,
    leaving: BTreeMap<String, u32>,
}

/// The in-memory provider. All its settings can be changed while it is used.
#[derive(Debug)]
pub struct Memory {
    kinds: Vec<Kind>,
    world: Mutex<World>,
}

/// A fault that was asked for happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Injected {
    /// The call was refused.
    #[error("the cloud refused the call")]
    Refused,
    /// The answer was lost.
    #[error("the connection broke before the answer came")]
    Lost,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty memory that makes `memory/object`.
    pub fn new() -> Self {
        Self::with_kinds(vec![Kind::new("memory/object").expect("the literal is a valid kind")])
    }

    /// An empty memory that makes these kinds.
    pub fn with_kinds(kinds: Vec<Kind>) -> Self {
        Self {
            kinds,
            world: Mutex::default(),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often each operation was called.
    pub fn calls(&self) -> Calls {
        self.world().calls
    }

    /// All objects, by external name.
    pub fn objects(&self) -> BTreeMap<String, Object> {
        self.world().objects.clone()
    }

    /// Puts an object there, or in the place of one.
    pub fn put(&self, external: &str, object: Object) {
        self.world().objects.insert(external.to_owned(), object);
    }

    /// Takes an object away from outside.
    pub fn take(&self, external: &str) -> Option<Object> {
        self.world().objects.remove(external)
    }

    /// Changes one field of an object from outside; false when there is no such object.
    pub fn set(&self, external: &str, field: &str, value: Value) -> bool {
        let mut world = self.world();
        let Some(object) = world.objects.get_mut(external) else {
            return false;
        };
        let mut map = object.spec.as_map().clone();
        map.insert(field.to_owned(), value);
        match Spec::new(map) {
            Ok(spec) => {
                object.spec = spec;
                true
            }
            Err(_) => false,
        }
    }

    /// Makes the next call that changes a resource meet a fault. Faults queue up.
    pub fn fail_next(&self, name: &ResourceName, fault: Fault) {
        self.world().faults.entry(name.clone()).or_default().push(fault);
    }

    /// Forbids the observation of some resources from now on.
    pub fn forbid(&self, names: impl IntoIterator<Item = ResourceName>) {
        self.world().forbidden = names.into_iter().collect();
    }

    /// Makes everything unobservable for a reason, or observable again.
    pub fn blind(&self, why: Option<&str>) {
        self.world().all_forbidden = why.map(str::to_owned);
    }

    /// Sets how many looks it takes until what is made from now on is ready.
    pub fn slow(&self, looks: u32) {
        self.world().slowness = looks;
    }

    /// Sets how many calls it takes until what is deleted is gone.
    pub fn slow_delete(&self, calls: u32) {
        self.world().delete_slowness = calls;
    }

    /// Takes the fault of a call, and hangs if that is the fault.
    async fn fault(&self, name: &ResourceName) -> Option<Fault> {
        let fault = {
            let mut world = self.world();
            let queue = world.faults.get_mut(name);
            queue.filter(|queue| !queue.is_empty()).map(|queue| queue.remove(0))
        };
        if fault == Some(Fault::Hang) {
            std::future::pending::<()>().await;
        }
        fault
    }
}

fn external(scope: &Scope, name: &ResourceName, origin: Option<&Origin>) -> String {
    Origin::of(&scope.channel, name, origin).to_string()
}

fn outputs(external: &str, spec: &Spec) -> Outputs {
    let mut all = Outputs::new();
    if let Ok(id) = OutputName::new("id") {
        all.insert(id, external.into());
    }
    // `outputs` of a specification are given back as they are: a test says what it needs.
    if let Some(Value::Object(given)) = spec.as_map().get("outputs") {
        for (name, value) in given {
            if let Ok(name) = OutputName::new(name.as_str()) {
                all.insert(name, value.clone());
            }
        }
    }
    all
}

fn differences(wanted: &Spec, found: &Spec) -> Vec<FieldDrift> {
    let keys: BTreeSet<&String> = wanted.as_map().keys().chain(found.as_map().keys()).collect();
    keys.into_iter()
        .filter(|key| wanted.as_map().get(*key) != found.as_map().get(*key))
        .map(|key| FieldDrift {
            path: format!("/{}", state::spec::pointer_token(key)),
            wanted: wanted.as_map().get(key).cloned(),
            found: found.as_map().get(key).cloned(),
        })
        .collect()
}

fn see(object: &mut Object, external: String, scope: &Scope, wanted: &Wanted<'_>) -> Observation {
    let owned = object
        .label
        .as_ref()
        .is_some_and(|label| label.scope == *scope && label.name == *wanted.name);
    if let Some(holder) = object.label.as_ref().filter(|_| !owned && wanted.origin.is_some()) {
        let why = crate::still_held(&format!("{}/{}", holder.scope.channel, holder.name));
        return Observation::Pending { external, why };
    }
    let drift = match wanted.resource {
        Some(resource) => differences(&resource.spec, &object.spec),
        None => Vec::new(),
    };
    if owned && object.pending > 0 && drift.is_empty() {
        object.pending -= 1;
        let why = "it is still coming up".to_owned();
        return Observation::Pending { external, why };
    }
    // A field of this name can't be changed in place.
    let fixed = drift.iter().any(|field| field.path == "/fixed");
    Observation::Present {
        outputs: outputs(&external, &object.spec),
        owned,
        replace: (fixed || object.kind != *wanted.kind).then(|| "the field fixed can't be changed".to_owned()),
        // Somebody else manages a field of this name.
        blocked: drift
            .iter()
            .any(|field| field.path == "/contested")
            .then(|| "the field contested is managed by others: take it, or leave it out".to_owned()),
        drift,
        external,
    }
}

#[async_trait]
impl Provider for Memory {
    fn kinds(&self) -> Vec<Kind> {
        self.kinds.clone()
    }

    fn validate(&self, resource: &Resource) -> Result<(), Invalid> {
        match resource.spec.as_map().get("invalid") {
            Some(_) => Err(Invalid::Spec {
                resource: resource.name.clone(),
                message: "invalid: this field is never valid".to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn external(&self, scope: &Scope, resource: &Resource) -> String {
        external(scope, &resource.name, resource.origin.as_deref())
    }

    fn render(&self, _scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid> {
        self.validate(resource)?;
        let bytes = canonical::document(&resource.spec).map_err(|error| Invalid::Spec {
            resource: resource.name.clone(),
            message: error.to_string(),
        })?;
        Ok(vec![Script {
            name: format!("{}.json", resource.name),
            bytes,
        }])
    }

    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed {
        let mut world = self.world();
        let world = &mut *world;
        world.calls.observe += 1;
        let mut observed = Observed::default();
        for wanted in wanted {
            let external = external(scope, wanted.name, wanted.origin);
            let forbidden = world
                .forbidden
                .contains(wanted.name)
                .then(|| "the cloud forbids to look at it".to_owned());
            let observation = match (world.all_forbidden.clone().or(forbidden), world.objects.get_mut(&external)) {
                (Some(why), _) => Observation::Unknown { why },
                (None, None) => Observation::Absent,
                (None, Some(object)) => see(object, external, scope, wanted),
            };
            observed.resources.insert(wanted.name.clone(), observation);
        }
        if world.all_forbidden.is_some() {
            return observed;
        }
        for (external, object) in &world.objects {
            if let Some(label) = &object.label
                && label.scope == *scope
                && !observed.resources.contains_key(&label.name)
            {
                observed.orphans.push(Orphan {
                    name: label.name.clone(),
                    kind: object.kind.clone(),
                    external: external.clone(),
                    on_retire: label.on_retire,
                });
            }
        }
        observed
    }

    async fn apply(&self, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
        self.world().calls.apply += 1;
        self.validate(resource)?;
        let external = external(scope, &resource.name, resource.origin.as_deref());
        let fault = self.fault(&resource.name).await;
        if fault == Some(Fault::Refuse) {
            return Err(injected("make", external, Injected::Refused));
        }
        if fault == Some(Fault::StopFirst) {
            let why = "what is there was told to stop".to_owned();
            return Ok(Applied::Pending { external, why });
        }
        let mut world = self.world();
        let label = Label {
            scope: scope.clone(),
            name: resource.name.clone(),
            on_retire: resource.on_retire,
        };
        let slowness = world.slowness;
        let pending = match world.objects.get_mut(&external) {
            Some(object) => {
                if object
                    .label
                    .as_ref()
                    .is_none_or(|found| (&found.scope, &found.name) != (scope, &resource.name))
                    && (object.label.is_some() || !crate::adopts(resource))
                {
                    return Err(ProviderError::NotOwned { external });
                }
                let changed = object.spec != resource.spec || object.label.as_ref() != Some(&label);
                object.spec = resource.spec.clone();
                object.label = Some(label);
                let pending = object.pending;
                world.calls.changed += u64::from(changed);
                pending
            }
            None => {
                let object = Object {
                    kind: resource.kind.clone(),
                    spec: resource.spec.clone(),
                    label: Some(label),
                    pending: slowness,
                };
                world.objects.insert(external.clone(), object);
                world.leaving.remove(&external);
                world.calls.created += 1;
                slowness
            }
        };
        if fault == Some(Fault::LoseReply) {
            return Err(injected("make", external, Injected::Lost));
        }
        if pending > 0 {
            let why = "it is still coming up".to_owned();
            return Ok(Applied::Pending { external, why });
        }
        let outputs = outputs(&external, &resource.spec);
        Ok(Applied::Done { external, outputs })
    }

    async fn delete(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
        self.world().calls.delete += 1;
        let fault = self.fault(name).await;
        if fault == Some(Fault::Refuse) {
            return Err(injected("delete", external.to_owned(), Injected::Refused));
        }
        let mut world = self.world();
        let ours = world.objects.get(external).is_some_and(|object| {
            object
                .label
                .as_ref()
                .is_some_and(|label| label.scope == *scope && label.name == *name)
        });
        if ours {
            let slowness = world.delete_slowness;
            let left = world.leaving.entry(external.to_owned()).or_insert(slowness);
            if *left > 0 {
                *left -= 1;
                return Ok(Deleted::Pending {
                    why: "it is still going".to_owned(),
                });
            }
            world.leaving.remove(external);
            world.objects.remove(external);
        }
        match fault {
            Some(Fault::LoseReply) => Err(injected("delete", external.to_owned(), Injected::Lost)),
            _ => Ok(Deleted::Gone),
        }
    }

    async fn release(&self, scope: &Scope, _kind: &Kind, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
        self.world().calls.release += 1;
        let fault = self.fault(name).await;
        if fault == Some(Fault::Refuse) {
            return Err(injected("release", external.to_owned(), Injected::Refused));
        }
        let mut world = self.world();
        if let Some(object) = world.objects.get_mut(external)
            && object
                .label
                .as_ref()
                .is_some_and(|label| label.scope == *scope && label.name == *name)
        {
            object.label = None;
        }
        match fault {
            Some(Fault::LoseReply) => Err(injected("release", external.to_owned(), Injected::Lost)),
            _ => Ok(()),
        }
    }
}

fn injected(operation: &'static str, external: String, source: Injected) -> ProviderError {
    ProviderError::Failed {
        operation,
        external,
        source: Box::new(source),
    }
}
