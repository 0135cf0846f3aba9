//! Making and changing what a resource asks for, object by object, what others stand on first.

use std::collections::BTreeSet;

use serde_json::Value;
use state::resource::Resource;

use providers::{Applied, ProviderError, Scope, failed};

use crate::health::{Health, health};
use crate::object::{self, Object, ObjectId, Owner};
use crate::record::{Last, Record};
use crate::send::{self, Sent};
use crate::server::{ApiKind, Apply, Contested, Server};
use crate::spec::{self, Manifest};
use crate::{Hindrance, Seen, Site, delete, live};

/// Applies all objects of a resource. It returns before they are ready.
pub(crate) async fn apply(site: &Site, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
    site.unsettle(scope, &resource.name);
    let origin = resource.origin(&scope.channel);
    let external = origin.to_string();
    let manifest = spec::read(&site.config, resource, &origin)?;
    let make = |hindrance: Hindrance| failed("make", &external, hindrance);
    let server = site.server().await.map_err(|trouble| make(trouble.into()))?;
    let mut objects: Vec<&Object> = manifest.objects.iter().collect();
    objects.sort_by_key(|object| (object.id.stage(), object.index));
    let plan = plan(site, server, scope, resource, &manifest, &objects).await;
    let Plan { ready, missing } = plan.map_err(|trouble| trouble.into_error(&external))?;

    // What is about to be made is written down first: whatever happens, nothing of it is lost sight of.
    let mut record = match site.record(scope, &resource.name).map_err(|error| make(error.into()))? {
        Some(record) => record,
        None => Record::new().map_err(|error| make(error.into()))?,
    };
    let wanted: BTreeSet<ObjectId> = ready.iter().map(|(_, _, sent)| sent.id.clone()).collect();
    record.objects.extend(wanted.iter().cloned());
    let save = |record: &Record| site.records(scope, |records| records.put(&resource.name, record.clone()));
    save(&record).map_err(|error| make(error.into()))?;

    let mut waits = None;
    let mut live: Vec<Option<Value>> = vec![None; manifest.objects.len()];
    let mut stage = None;
    for (object, kind, sent) in ready {
        // What has to be there first is waited for across passes, not here.
        if waits.is_some() && stage.is_some_and(|stage| stage < object.id.stage()) {
            break;
        }
        let done = one(site, server, scope, resource, object, &kind, sent, &mut record).await;
        let done = match done {
            Ok(done) => done,
            Err(trouble) => {
                save(&record).map_err(|error| make(error.into()))?;
                return Err(trouble.into_error(&external));
            }
        };
        if let Health::Waits(why) = health(&done) {
            if object.id.is_ground() {
                stage = Some(object.id.stage());
            }
            waits.get_or_insert(format!("{}: {why}", object.id));
        }
        live[object.index] = Some(done);
    }
    if let Some(id) = missing {
        // A definition may have been taken in just now: its kinds are asked for again.
        server.forget_kinds();
        waits.get_or_insert(format!("{id}: the server doesn't know its kind yet"));
    }
    if waits.is_none() {
        let leftovers: Vec<ObjectId> = record.objects.difference(&wanted).cloned().collect();
        let left = delete::objects(site, server, scope, &resource.name, leftovers, &mut record).await;
        // What was done until then is remembered, whatever came of the rest.
        save(&record).map_err(|error| make(error.into()))?;
        waits = left.map_err(make)?;
    } else {
        save(&record).map_err(|error| make(error.into()))?;
    }
    Ok(match waits {
        Some(why) => Applied::Pending { external, why },
        None => Applied::Done {
            external,
            outputs: send::outputs(&manifest, |index| live.get(index)?.as_ref()),
        },
    })
}

/// What can be sent now.
struct Plan<'a> {
    ready: Vec<(&'a Object, ApiKind, Sent)>,
    /// The first object whose kind its own resource is about to define.
    missing: Option<ObjectId>,
}

/// Why a resource is not made.
enum Refusal {
    Invalid(providers::Invalid),
    NotOwned(String),
    Failed(Hindrance),
}

impl Refusal {
    fn into_error(self, external: &str) -> ProviderError {
        match self {
            Refusal::Invalid(invalid) => invalid.into(),
            Refusal::NotOwned(external) => ProviderError::NotOwned { external },
            Refusal::Failed(hindrance) => failed("make", external, hindrance),
        }
    }
}

impl<T: Into<Hindrance>> From<T> for Refusal {
    fn from(hindrance: T) -> Self {
        Refusal::Failed(hindrance.into())
    }
}

/// Finds the kinds of all objects before the first one is sent.
async fn plan<'a>(
    site: &Site,
    server: &Server,
    scope: &Scope,
    resource: &Resource,
    manifest: &Manifest,
    objects: &[&'a Object],
) -> Result<Plan<'a>, Refusal> {
    let mut plan = Plan {
        ready: Vec::new(),
        missing: None,
    };
    for object in objects {
        let Some(kind) = server.kind(&object.id).await? else {
            if !defines(manifest, &object.id) {
                return Err(Hindrance::NoKind(format!("{} ({})", object.id.kind, object.id.api_version())).into());
            }
            plan.missing.get_or_insert(object.id.clone());
            continue;
        };
        send::placed(site, resource, object, &kind).map_err(Refusal::Invalid)?;
        let sent = send::sent(site, scope, resource, object, &kind)?;
        plan.ready.push((object, kind, sent));
    }
    Ok(plan)
}

/// Whether a resource defines a kind itself.
fn defines(manifest: &Manifest, id: &ObjectId) -> bool {
    manifest.objects.iter().any(|object| {
        let text = |pointer: &str| {
            Value::Object(object.body.clone())
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        object.id.kind == "CustomResourceDefinition"
            && text("/spec/group").as_deref() == Some(&id.group)
            && text("/spec/names/kind").as_deref() == Some(&id.kind)
    })
}

/// Applies one object, if it is ours, nobody's yet, or to be taken over.
#[allow(clippy::too_many_arguments, reason = "each is one thing that sending an object needs")]
async fn one(
    site: &Site,
    server: &Server,
    scope: &Scope,
    resource: &Resource,
    object: &Object,
    kind: &ApiKind,
    mut sent: Sent,
    record: &mut Record,
) -> Result<Value, Refusal> {
    let seen = site.memory().seen.remove(&(scope.clone(), sent.id.clone()));
    let live = match seen {
        Some(Seen::Nothing) => None,
        Some(Seen::This(text)) => serde_json::from_str(&text).ok(),
        None => server.get(kind, &sent.id).await?,
    };
    let key = object.id.to_string();
    let digest = send::digest(&record.salt, &sent.body);
    let mut over = send::over(record.sent.get(&key), &digest);
    if let Some(live) = &live {
        match object::owner(live, scope, &resource.name) {
            Owner::Ours => {}
            Owner::Anothers(other) => {
                let object = sent.id.to_string();
                return Err(match providers::adopts(resource) {
                    true => Hindrance::Anothers { object, other }.into(),
                    false => Refusal::NotOwned(object),
                });
            }
            Owner::Nobody if !providers::adopts(resource) => return Err(Refusal::NotOwned(sent.id.to_string())),
            Owner::Nobody => over = Contested::Take,
        }
        send::leave_alone(&mut sent.body, live, &object.rules.ignore);
    }
    let done = send::send(server, kind, object, &sent, Apply::Do, over).await?;
    site.watches.put(scope, kind, &done);
    let clean = live::version(&done).to_owned();
    record.sent.insert(key, Last { digest, clean });
    Ok(done)
}
