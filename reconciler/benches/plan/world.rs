//! A world that only stands: it holds what a store says was applied and compares every look with it, and nothing can be changed in it.
//!
//! The in-memory provider of the tests keeps owner labels, faults and counts for each object, which would be most of the peak.

use std::collections::BTreeMap;

use async_trait::async_trait;
use providers::{Applied, Deleted, Invalid, Observed, Orphan, Provider, ProviderError, Scope, Script, Wanted};
use state::git::{GitError, Store};
use state::ids::{Kind, OutputName, ResourceName};
use state::inventory::Entry;
use state::observation::{FieldDrift, Observation};
use state::paths;
use state::resource::{OnRetire, Outputs, Resource};
use state::spec::Spec;

use crate::support::{channel, kind};

/// What stands, by name.
pub struct World {
    objects: BTreeMap<ResourceName, Spec>,
    id: OutputName,
}

impl World {
    /// What a store's inventory says was applied.
    pub fn of(store: &Store) -> Self {
        let head = store.head(&paths::actual_ref(&channel())).unwrap().unwrap();
        let mut objects = BTreeMap::new();
        // One by one: what is read and dropped again here would stay in the peak.
        let read = store.read_all(head, "inventory", |_, bytes| {
            let entry: Entry = serde_json::from_slice(bytes).unwrap();
            objects.insert(entry.resource.name, entry.resource.spec);
            Ok::<(), GitError>(())
        });
        read.unwrap();
        Self {
            objects,
            id: OutputName::new("id").unwrap(),
        }
    }

    fn see(&self, scope: &Scope, wanted: &Wanted<'_>) -> Observation {
        let Some(found) = self.objects.get(wanted.name) else {
            return Observation::Absent;
        };
        let external = format!("{}/{}", scope.channel, wanted.name);
        let differs = wanted.resource.is_some_and(|resource| resource.spec != *found);
        Observation::Present {
            outputs: Outputs::from([(self.id.clone(), external.as_str().into())]),
            external,
            owned: true,
            drift: differs.then(drift).into_iter().collect(),
            replace: None,
            blocked: None,
        }
    }
}

fn drift() -> FieldDrift {
    FieldDrift {
        path: "/".to_owned(),
        wanted: None,
        found: None,
    }
}

fn nothing_changes(operation: &'static str, name: &ResourceName) -> ProviderError {
    ProviderError::Failed {
        operation,
        external: name.to_string(),
        source: "nothing changes in this world".into(),
    }
}

#[async_trait]
impl Provider for World {
    fn kinds(&self) -> Vec<Kind> {
        vec![kind()]
    }

    fn validate(&self, _: &Resource) -> Result<(), Invalid> {
        Ok(())
    }

    fn external(&self, scope: &Scope, resource: &Resource) -> String {
        format!("{}/{}", scope.channel, resource.name)
    }

    fn render(&self, _: &Scope, _: &Resource) -> Result<Vec<Script>, Invalid> {
        Ok(Vec::new())
    }

    async fn observe(&self, scope: &Scope, wanted: &[Wanted<'_>]) -> Observed {
        let seen = wanted.iter().map(|wanted| (wanted.name.clone(), self.see(scope, wanted)));
        let resources: BTreeMap<ResourceName, Observation> = seen.collect();
        let unwanted = self.objects.keys().filter(|name| !resources.contains_key(*name));
        let orphan = |name: &ResourceName| Orphan {
            name: name.clone(),
            kind: kind(),
            external: format!("{}/{name}", scope.channel),
            on_retire: OnRetire::Delete,
        };
        Observed {
            orphans: unwanted.map(orphan).collect(),
            resources,
        }
    }

    async fn apply(&self, _: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
        Err(nothing_changes("make", &resource.name))
    }

    async fn delete(&self, _: &Scope, _: &Kind, name: &ResourceName, _: &str) -> Result<Deleted, ProviderError> {
        Err(nothing_changes("delete", name))
    }

    async fn release(&self, _: &Scope, _: &Kind, name: &ResourceName, _: &str) -> Result<(), ProviderError> {
        Err(nothing_changes("release", name))
    }
}
