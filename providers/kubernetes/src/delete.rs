//! Deleting what was made, and letting go of it.

use serde_json::{Map, Value, json};
use state::ids::ResourceName;

use providers::{Deleted, ProviderError, Scope, failed};

use crate::object::{self, CHANNEL, KIND, MEMBER, ON_RETIRE, ORIGIN, ObjectId, Owner, RESOURCE};
use crate::record::Record;
use crate::server::{ApiKind, Server, Trouble};
use crate::{Hindrance, Site};

/// Deletes everything that was made for a resource.
pub(crate) async fn delete(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
    let trouble = |hindrance: Hindrance| failed("delete", external, hindrance);
    site.unsettle(scope, name);
    let Some(mut record) = site.record(scope, name).map_err(|error| trouble(error.into()))? else {
        return Ok(Deleted::Gone);
    };
    let server = site.server().await.map_err(|error| trouble(error.into()))?;
    let all: Vec<ObjectId> = record.objects.iter().cloned().collect();
    let waits = objects(site, server, scope, name, all, &mut record).await;
    let kept = site.records(scope, |records| match record.objects.is_empty() {
        true => records.remove(name),
        false => records.put(name, record),
    });
    kept.map_err(|error| trouble(error.into()))?;
    providers::taken_down(waits, external)
}

/// Deletes objects of a resource, what stands on others first; what is gone leaves the record. Says what is waited for.
pub(crate) async fn objects(
    site: &Site,
    server: &Server,
    scope: &Scope,
    name: &ResourceName,
    mut ids: Vec<ObjectId>,
    record: &mut Record,
) -> Result<Option<String>, Hindrance> {
    ids.sort_by_key(|id| std::cmp::Reverse(id.stage()));
    let mut waits: Option<(u8, String)> = None;
    for id in ids {
        // What others stand on goes when they are gone.
        if waits.as_ref().is_some_and(|(stage, _)| *stage > id.stage()) && id.is_ground() {
            break;
        }
        match one(site, server, scope, name, &id).await? {
            None => {
                record.objects.remove(&id);
                record.sent.remove(&id.to_string());
            }
            Some(why) => {
                waits.get_or_insert((id.stage(), format!("{id}: {why}")));
            }
        }
    }
    Ok(waits.map(|(_, why)| why))
}

/// Deletes one object; none: it is gone, or not ours.
async fn one(site: &Site, server: &Server, scope: &Scope, name: &ResourceName, id: &ObjectId) -> Result<Option<String>, Hindrance> {
    let Some(kind) = server.kind(id).await? else {
        // Without its definition nothing of a kind is there.
        return Ok(None);
    };
    let Some(live) = server.get(&kind, id).await? else {
        return Ok(None);
    };
    if object::owner(&live, scope, name) != Owner::Ours {
        return Ok(None);
    }
    if live.pointer("/metadata/deletionTimestamp").is_some() {
        let finalizers = live.pointer("/metadata/finalizers").and_then(Value::as_array);
        let names: Vec<&str> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
        return Ok(Some(match names.is_empty() {
            true => "it is going".to_owned(),
            false => format!("it is going, and waits for {}", names.join(", ")),
        }));
    }
    if let Some(why) = holds_others(server, scope, id, &live).await? {
        return Ok(Some(why));
    }
    {
        let mut memory = site.memory();
        if memory.deletions == 0 {
            return Ok(Some(format!(
                "a pass deletes {} objects (kubernetes.deletions): the next one goes on",
                site.config.deletions
            )));
        }
        memory.deletions -= 1;
    }
    server.delete(&kind, id, object::uid(&live)).await?;
    Ok(match server.get(&kind, id).await? {
        Some(now) if object::uid(&now) == object::uid(&live) => {
            site.watches.put(scope, &kind, &now);
            Some("it is going".to_owned())
        }
        _ => {
            site.watches.gone(scope, &kind, &live);
            None
        }
    })
}

/// Why a namespace or a definition may not go: with it would go what others have there.
async fn holds_others(server: &Server, scope: &Scope, id: &ObjectId, live: &Value) -> Result<Option<String>, Hindrance> {
    let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kinds, namespace): (Vec<ApiKind>, Option<&str>) = match (id.group.as_str(), id.kind.as_str()) {
        ("", "Namespace") => {
            let all = server.all_kinds().await?;
            (all.into_iter().filter(|kind| kind.namespaced).collect(), Some(&id.name))
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            let versions = live.pointer("/spec/versions").and_then(Value::as_array);
            let served = versions.into_iter().flatten().find(|version| version["served"] == true);
            let version = served.and_then(|version| version["name"].as_str()).unwrap_or_default();
            let of = ObjectId {
                group: text("/spec/group").to_owned(),
                version: version.to_owned(),
                kind: text("/spec/names/kind").to_owned(),
                namespace: None,
                name: String::new(),
            };
            (server.kind(&of).await?.into_iter().collect(), None)
        }
        _ => return Ok(None),
    };
    for kind in kinds {
        let mut other = None;
        let look = |object: Value| {
            if other.is_none() && is_others(scope, &object) {
                other = Some(ObjectId::of(&object).map_or_else(|| kind.to_string(), |id| id.to_string()));
            }
        };
        match server.list(&kind, namespace, "", look).await {
            Ok(_) => {}
            Err(trouble) if matches!(trouble.code(), Some(404 | 405)) => continue,
            Err(trouble) if trouble.code() == Some(403) => {
                return Ok(Some(format!(
                    "whether it still holds any {kind} of others can't be seen: {trouble}"
                )));
            }
            Err(trouble) => return Err(trouble.into()),
        }
        if let Some(other) = other {
            return Ok(Some(format!(
                "it still holds {other}, which is not of this channel: move that away first"
            )));
        }
    }
    Ok(None)
}

/// Whether an object is somebody's that is neither this scope nor the cluster itself.
fn is_others(scope: &Scope, live: &Value) -> bool {
    let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let owned = live
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .is_some_and(|all| !all.is_empty());
    let clusters = match (text("/kind"), text("/metadata/name")) {
        ("ServiceAccount", "default") | ("ConfigMap", "kube-root-ca.crt") => true,
        // Who may do something in a namespace is nothing of value once it is gone.
        (kind, _) => matches!(
            kind,
            "RoleBinding" | "Event" | "Endpoints" | "EndpointSlice" | "Lease" | "PodMetrics" | "ControllerRevision"
        ),
    };
    !owned && !clusters && object::made_for(live, scope).is_none()
}

/// Takes the owner labels off everything that was made for a resource.
pub(crate) async fn release(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
    let trouble = |hindrance: Hindrance| failed("release", external, hindrance);
    site.unsettle(scope, name);
    let Some(record) = site.record(scope, name).map_err(|error| trouble(error.into()))? else {
        return Ok(());
    };
    let server = site.server().await.map_err(|error| trouble(error.into()))?;
    for id in &record.objects {
        let_go(site, server, scope, name, id).await.map_err(|error| trouble(error.into()))?;
    }
    site.records(scope, |records| records.remove(name))
        .map_err(|error| trouble(error.into()))
}

async fn let_go(site: &Site, server: &Server, scope: &Scope, name: &ResourceName, id: &ObjectId) -> Result<(), Trouble> {
    let Some(kind) = server.kind(id).await? else { return Ok(()) };
    let Some(live) = server.get(&kind, id).await? else { return Ok(()) };
    if object::owner(&live, scope, name) != Owner::Ours {
        return Ok(());
    }
    let none = |keys: &[&str]| -> Map<String, Value> { keys.iter().map(|key| ((*key).to_owned(), Value::Null)).collect() };
    let change = json!({ "metadata": {
        "uid": object::uid(&live),
        "labels": none(&[CHANNEL, MEMBER, RESOURCE]),
        "annotations": none(&[KIND, ORIGIN, ON_RETIRE]),
    } });
    let now = server.merge(&kind, id, &change).await?;
    site.watches.gone(scope, &kind, &now);
    Ok(())
}
