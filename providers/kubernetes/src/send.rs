//! What is sent for an object: its content, the labels that say whose it is, and secrets in the place of their names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::core::response::StatusCause;
use serde_json::{Map, Value, json};
use state::canonical::Digest;
use state::ids::SecretName;
use state::observation::FieldDrift;
use state::resource::{OnRetire, Outputs, Resource};

use providers::{Invalid, Scope, Script};

use crate::object::{CHANNEL, KIND, MEMBER, ON_RETIRE, ORIGIN, Object, ObjectId, RESOURCE};
use crate::record::Last;
use crate::server::{ApiKind, Apply, Contested, Server, Trouble};
use crate::spec::{self, Manifest};
use crate::{Hindrance, Site};

/// Where a server has an object, and what is sent for it.
pub(crate) struct Sent {
    pub(crate) id: ObjectId,
    pub(crate) body: Value,
}

/// Says where the server has an object, as far as the member lets it be made.
pub(crate) fn placed(site: &Site, resource: &Resource, object: &Object, kind: &ApiKind) -> Result<ObjectId, Invalid> {
    let mut id = object.id.clone();
    if kind.namespaced {
        return match id.namespace {
            Some(_) => Ok(id),
            None => Err(Invalid::Spec {
                resource: resource.name.clone(),
                message: format!(
                    "objects/{}: {} names no namespace, and the resource neither",
                    object.index, object.id
                ),
            }),
        };
    }
    id.namespace = None;
    let a_namespace = kind.group.is_empty() && kind.kind == "Namespace";
    if a_namespace || site.config.cluster_kinds.contains(&kind.kind) {
        return Ok(id);
    }
    Err(Invalid::Denied {
        resource: resource.name.clone(),
        message: format!(
            "{} is of no namespace: add {} to kubernetes.cluster_kinds in charter.toml to allow it",
            object.id, kind.kind
        ),
    })
}

/// Puts together what is sent.
pub(crate) fn sent(site: &Site, scope: &Scope, resource: &Resource, object: &Object, kind: &ApiKind) -> Result<Sent, Hindrance> {
    let id = placed(site, resource, object, kind).map_err(|invalid| Hindrance::Invalid(invalid.to_string()))?;
    let mut body = with_labels(scope, resource, object, &id);
    if id.is_secret() {
        let mut values = Map::new();
        for field in ["stringData", "data"] {
            for (key, value) in body.remove(field).as_ref().and_then(Value::as_object).into_iter().flatten() {
                let name = value.get("$secret").and_then(Value::as_str).unwrap_or_default();
                let name = SecretName::new(name).map_err(|error| Hindrance::Invalid(error.to_string()))?;
                values.insert(key.clone(), STANDARD.encode(site.config.secret(&name)?).into());
            }
        }
        body.insert("data".into(), Value::Object(values));
    }
    Ok(Sent {
        id,
        body: Value::Object(body),
    })
}

fn with_labels(scope: &Scope, resource: &Resource, object: &Object, id: &ObjectId) -> Map<String, Value> {
    let mut body = object.body.clone();
    let metadata = body.entry("metadata").or_insert_with(|| json!({}));
    let mut add = |field: &str, all: &[(&str, String)]| {
        let Some(metadata) = metadata.as_object_mut() else { return };
        let map = metadata.entry(field).or_insert_with(|| json!({}));
        if let Some(map) = map.as_object_mut() {
            map.extend(all.iter().map(|(key, value)| ((*key).to_owned(), Value::String(value.clone()))));
        }
    };
    add(
        "labels",
        &[
            (CHANNEL, scope.channel.to_string()),
            (MEMBER, scope.member.to_string()),
            (RESOURCE, resource.name.to_string()),
        ],
    );
    let mut annotations = vec![
        (KIND, resource.kind.to_string()),
        (ORIGIN, resource.origin(&scope.channel).to_string()),
    ];
    if resource.on_retire == OnRetire::Retain {
        annotations.push((ON_RETIRE, "retain".to_owned()));
    }
    add("annotations", &annotations);
    if let Some(metadata) = metadata.as_object_mut() {
        match &id.namespace {
            Some(namespace) => metadata.insert("namespace".into(), namespace.clone().into()),
            None => metadata.remove("namespace"),
        };
    }
    body
}

/// Gives fields that others set the value that they have.
pub(crate) fn leave_alone(body: &mut Value, live: &Value, pointers: &[String]) {
    for pointer in pointers {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        let key = key.replace("~1", "/").replace("~0", "~");
        let Some(map) = body.pointer_mut(parent).and_then(Value::as_object_mut) else {
            continue;
        };
        match live.pointer(pointer) {
            Some(value) => map.insert(key, value.clone()),
            None => map.remove(&key),
        };
    }
}

/// A digest of what is sent, of no use without its salt.
pub(crate) fn digest(salt: &str, body: &Value) -> String {
    Digest::of(format!("{salt}\0{body}").as_bytes()).hex()
}

/// What is done about fields that others manage. What was sent before just as now was all ours then: who changed it since gives it back.
pub(crate) fn over(last: Option<&Last>, digest: &str) -> Contested {
    match last {
        Some(last) if last.digest == digest => Contested::Take,
        _ => Contested::Leave,
    }
}

/// Applies what is sent. Fields of other managers are taken only where the specification grants it, or all of them when it takes over.
pub(crate) async fn send(
    server: &Server,
    kind: &ApiKind,
    object: &Object,
    sent: &Sent,
    how: Apply,
    over: Contested,
) -> Result<Value, Hindrance> {
    match server.apply(kind, &sent.id, &sent.body, how, over).await {
        Ok(result) => Ok(result),
        Err(trouble) if trouble.code() == Some(409) && over == Contested::Leave => {
            let conflicts = conflicts(&trouble);
            let granted = |cause: &&StatusCause| object.rules.take.iter().any(|field| below(&cause.field, field));
            let open: Vec<String> = conflicts
                .iter()
                .filter(|cause| !granted(cause))
                .map(|cause| format!("{} ({})", cause.field, manager(cause)))
                .collect();
            if conflicts.is_empty() {
                return Err(hidden(sent, trouble));
            }
            if !open.is_empty() {
                return Err(Hindrance::Contested {
                    object: sent.id.to_string(),
                    fields: open.join(", "),
                });
            }
            let taken = server.apply(kind, &sent.id, &sent.body, how, Contested::Take).await;
            taken.map_err(|trouble| hidden(sent, trouble))
        }
        Err(trouble) => Err(hidden(sent, trouble)),
    }
}

/// What a server says of a Secret may hold its values.
fn hidden(sent: &Sent, trouble: Trouble) -> Hindrance {
    match trouble {
        Trouble::Refused { .. } if sent.id.is_secret() && (trouble.is_misfit() || matches!(trouble.code(), Some(400 | 422))) => {
            Hindrance::Hidden(sent.id.to_string())
        }
        trouble => Hindrance::Server(trouble),
    }
}

fn conflicts(trouble: &Trouble) -> Vec<&StatusCause> {
    trouble
        .causes()
        .iter()
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .collect()
}

/// Who manages a field, from the words `conflict with "kubectl" using apps/v1`.
fn manager(cause: &StatusCause) -> &str {
    cause.message.split('"').nth(1).unwrap_or("another manager")
}

fn below(field: &str, granted: &str) -> bool {
    field
        .strip_prefix(granted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The field that can't be changed in place, when that and nothing else is why the server refuses.
pub(crate) fn immutable(hindrance: &Hindrance) -> Option<String> {
    let Hindrance::Server(trouble) = hindrance else { return None };
    let causes = trouble.causes();
    let says_so = |cause: &StatusCause| {
        !cause.field.is_empty()
            && ["immutable", "may not be changed", "may not change", "cannot change", "updates to"]
                .iter()
                .any(|word| cause.message.contains(word))
    };
    (trouble.code() == Some(422) && !causes.is_empty() && causes.iter().all(says_so))
        .then(|| causes.iter().map(|cause| cause.field.clone()).collect::<Vec<_>>().join(", "))
}

/// What a resource gives, from its live objects by their places.
pub(crate) fn outputs<'a>(manifest: &Manifest, live: impl Fn(usize) -> Option<&'a Value>) -> Outputs {
    let mut all = Outputs::new();
    for (name, (index, pointer)) in &manifest.outputs {
        let value = live(*index).and_then(|live| live.pointer(pointer));
        let value = match value {
            Some(Value::Number(number)) if number.is_f64() => Some(Value::String(number.to_string())),
            Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Some(value.clone()),
            Some(Value::Array(_) | Value::Object(_) | Value::Null) | None => None,
        };
        all.extend(value.map(|value| (name.clone(), value)));
    }
    all
}

/// The drift of an object that is not there, or of one that nobody wants.
pub(crate) fn existence(path: String, wanted: Option<&ObjectId>, found: Option<&ObjectId>) -> FieldDrift {
    let words = |id: Option<&ObjectId>| id.map(|id| Value::String(id.to_string()));
    FieldDrift {
        path,
        wanted: words(wanted),
        found: words(found),
    }
}

/// Renders plain manifests. A secret's value is its name in angle brackets: the script holds none.
pub(crate) fn render(site: &Site, scope: &Scope, resource: &Resource) -> Result<Vec<Script>, Invalid> {
    let wrong = |message: String| Invalid::Spec {
        resource: resource.name.clone(),
        message,
    };
    let manifest = spec::read(&site.config, resource, &resource.origin(&scope.channel))?;
    let items: Vec<Value> = manifest
        .objects
        .iter()
        .map(|object| {
            let mut body = with_labels(scope, resource, object, &object.id);
            if object.id.is_secret() {
                let mut values = Map::new();
                for field in ["data", "stringData"] {
                    for (key, value) in body.remove(field).as_ref().and_then(Value::as_object).into_iter().flatten() {
                        let name = value.get("$secret").and_then(Value::as_str).unwrap_or_default();
                        values.insert(key.clone(), format!("<{name}>").into());
                    }
                }
                body.insert("stringData".into(), Value::Object(values));
            }
            Value::Object(body)
        })
        .collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let mut bytes = serde_json::to_vec_pretty(&list).map_err(|error| wrong(error.to_string()))?;
    bytes.push(b'\n');
    Ok(vec![Script {
        name: format!("{}.json", resource.name),
        bytes,
    }])
}
