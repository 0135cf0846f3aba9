//! The specifications of `kubernetes/manifest` and `kubernetes/namespace`, checked before a server sees anything of them.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use state::ids::{Channel, Kind, OutputName};
use state::resource::{Origin, Resource};

use providers::Invalid;

use crate::config::KubernetesConfig;
use crate::object::{LABEL_PREFIX, Object, ObjectId, Rules};

/// The most objects of one resource.
const MAX_OBJECTS: usize = 256;
/// The longest name of a namespace.
const MAX_LABEL: usize = 63;

/// Kubernetes objects, applied and deleted together.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManifestSpec {
    /// The namespace of those that name none, or a reference to one.
    #[serde(default)]
    namespace: Option<Value>,
    /// The objects, as `kubectl apply` takes them.
    #[schemars(length(min = 1, max = 256))]
    objects: Vec<Map<String, Value>>,
    /// Fields that others set: they are made as written, and not looked at afterwards.
    #[serde(default)]
    ignore: Vec<PathRule>,
    /// Fields that are taken from another manager, as the server names them (`.spec.replicas`).
    #[serde(default)]
    take: Vec<FieldRule>,
    /// Objects that may be deleted and made anew where the server says that a field is immutable.
    #[serde(default)]
    replace: BTreeSet<String>,
    /// What it gives to others.
    #[serde(default)]
    outputs: BTreeMap<OutputName, OutputRule>,
}

/// Fields of one object, by JSON pointers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PathRule {
    /// `Kind/name`.
    object: String,
    /// JSON pointers into it.
    paths: Vec<String>,
}

/// Fields of one object, in the server's words.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FieldRule {
    /// `Kind/name`.
    object: String,
    /// Fields, each with everything below it.
    fields: Vec<String>,
}

/// A field that becomes an output.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OutputRule {
    /// `Kind/name`.
    object: String,
    /// A JSON pointer into it, as the server has it.
    pointer: String,
}

/// A namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamespaceSpec {
    /// Its name; without it: channel and resource, with a hyphen between.
    #[serde(default)]
    name: Option<String>,
    /// Its labels.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What a resource asks for.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// The objects, in the order of the specification.
    pub(crate) objects: Vec<Object>,
    /// What it gives: the place of an object, and a pointer into it.
    pub(crate) outputs: BTreeMap<OutputName, (usize, String)>,
}

impl Manifest {
    /// The objects of which something is given.
    pub(crate) fn giving(&self) -> impl Iterator<Item = &ObjectId> {
        self.outputs
            .values()
            .filter_map(|(index, _)| self.objects.get(*index).map(|object| &object.id))
    }
}

/// The JSON schemas of the kinds' specifications.
pub(crate) fn schemas() -> BTreeMap<Kind, Value> {
    BTreeMap::from([
        (kind("manifest"), schemars::schema_for!(ManifestSpec).to_value()),
        (kind("namespace"), schemars::schema_for!(NamespaceSpec).to_value()),
    ])
}

pub(crate) fn kind(name: &str) -> Kind {
    Kind::new(format!("kubernetes/{name}")).expect("a literal kind of this crate is valid")
}

/// Reads what a resource asks for, and holds it to what the member gives. References may still stand for values, but not for what an
/// object is called.
pub(crate) fn read(config: &KubernetesConfig, resource: &Resource, origin: &Origin) -> Result<Manifest, Invalid> {
    let manifest = parse(resource, origin).map_err(|message| Invalid::Spec {
        resource: resource.name.clone(),
        message,
    })?;
    for object in &manifest.objects {
        if let Some(namespace) = object.id.place().filter(|namespace| !config.gives(namespace)) {
            return Err(Invalid::Denied {
                resource: resource.name.clone(),
                message: format!(
                    "{} is in the namespace {namespace}, which this member doesn't give: add it to kubernetes.namespaces in charter.toml to allow it",
                    object.id
                ),
            });
        }
    }
    Ok(manifest)
}

fn parse(resource: &Resource, origin: &Origin) -> Result<Manifest, String> {
    let value = resource.spec.to_value();
    match resource.kind.name() {
        "namespace" => namespace(serde_json::from_value(value).map_err(|error| error.to_string())?, origin),
        _ => manifest(serde_json::from_value(value).map_err(|error| error.to_string())?),
    }
}

/// The namespaces that a resource names, for a configuration that lets it be made.
pub fn namespaces(resource: &Resource, channel: &Channel) -> BTreeSet<String> {
    let manifest = parse(resource, &resource.origin(channel));
    let objects = manifest.into_iter().flat_map(|manifest| manifest.objects);
    objects.filter_map(|object| object.id.place().cloned()).collect()
}

fn namespace(spec: NamespaceSpec, origin: &Origin) -> Result<Manifest, String> {
    let name = spec.name.unwrap_or_else(|| format!("{}-{}", origin.channel, origin.resource));
    if name.len() > MAX_LABEL {
        return Err(format!(
            "name: {name} is longer than {MAX_LABEL} characters: give the namespace a shorter name"
        ));
    }
    let body = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": spec.labels, "annotations": spec.annotations },
    });
    let Value::Object(body) = body else {
        return Err("it is no object".into());
    };
    let object = object(0, body, None)?;
    let outputs = BTreeMap::from([(
        OutputName::new("name").map_err(|error| error.to_string())?,
        (0, "/metadata/name".to_owned()),
    )]);
    Ok(Manifest {
        objects: vec![object],
        outputs,
    })
}

fn manifest(spec: ManifestSpec) -> Result<Manifest, String> {
    if !(1..=MAX_OBJECTS).contains(&spec.objects.len()) {
        return Err(format!(
            "objects: a manifest has 1 to {MAX_OBJECTS} objects, this one {}",
            spec.objects.len()
        ));
    }
    let namespace = match &spec.namespace {
        None => None,
        Some(Value::String(name)) => Some(name.clone()),
        // Which one is known when its resource is there: nothing is made before.
        Some(Value::Object(map)) if map.contains_key("$ref") => None,
        Some(_) => return Err("namespace: a name, or {\"$ref\": \"resource.outputs.name\"}".into()),
    };
    let mut objects = Vec::new();
    for (index, body) in spec.objects.into_iter().enumerate() {
        let object = object(index, body, namespace.as_deref())?;
        if objects.iter().any(|other: &Object| other.id == object.id) {
            return Err(format!("objects/{index}: {} stands twice", object.id));
        }
        objects.push(object);
    }
    let find = |objects: &[Object], field: &str, named: &str| -> Result<usize, String> {
        let mut found = objects.iter().enumerate().filter(|(_, object)| object.id.short() == named);
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Ok(index),
            (None, _) => Err(format!("{field}: no object is {named}: write Kind/name of one of objects")),
            (Some(_), Some(_)) => Err(format!("{field}: several objects are {named}; make them resources of their own")),
        }
    };
    for rule in spec.ignore {
        let index = find(&objects, "ignore", &rule.object)?;
        if let Some(bad) = rule
            .paths
            .iter()
            .find(|path| !path.starts_with('/') || path.starts_with("/metadata/name"))
        {
            return Err(format!("ignore: {bad:?} is no JSON pointer to a field that can be left alone"));
        }
        objects[index].rules.ignore.extend(rule.paths);
    }
    for rule in spec.take {
        let index = find(&objects, "take", &rule.object)?;
        objects[index].rules.take.extend(rule.fields);
    }
    for named in &spec.replace {
        let index = find(&objects, "replace", named)?;
        objects[index].rules.replace = true;
    }
    let mut outputs = BTreeMap::new();
    for (name, rule) in spec.outputs {
        let index = find(&objects, "outputs", &rule.object)?;
        let secret = objects[index].id.is_secret() && !rule.pointer.starts_with("/metadata/");
        if secret || !rule.pointer.starts_with('/') {
            return Err(format!(
                "outputs.{name}: {:?} is no JSON pointer to a field that others may see",
                rule.pointer
            ));
        }
        outputs.insert(name, (index, rule.pointer));
    }
    Ok(Manifest { objects, outputs })
}

fn object(index: usize, body: Map<String, Value>, namespace: Option<&str>) -> Result<Object, String> {
    let at = format!("objects/{index}");
    let text = |pointer: &str| -> Result<String, String> {
        let mut value = body.get(pointer.split('/').next().unwrap_or_default());
        if let Some(field) = pointer.split_once('/').map(|(_, field)| field) {
            value = value.and_then(|value| value.get(field));
        }
        match value {
            Some(Value::String(text)) if !text.is_empty() && text.len() <= 253 => Ok(text.clone()),
            Some(_) => Err(format!("{at}/{pointer}: it has to be a text of 1 to 253 characters")),
            None => Err(format!("{at}/{pointer} is missing")),
        }
    };
    let (api_version, kind, name) = (text("apiVersion")?, text("kind")?, text("metadata/name")?);
    let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    if !plain(group, ".-") || !plain(version, "") || version.is_empty() || !plain(&kind, "") {
        return Err(format!("{at}: {api_version:?}, {kind:?} is no apiVersion and kind"));
    }
    if kind.ends_with("List") {
        return Err(format!("{at}: write the objects of a {kind} one by one"));
    }
    if !plain(&name, ".-:") {
        return Err(format!("{at}/metadata/name: {name:?} is no name of an object"));
    }
    let own = match body.get("metadata").and_then(|metadata| metadata.get("namespace")) {
        None => None,
        Some(Value::String(namespace)) if plain(namespace, "-") && !namespace.is_empty() => Some(namespace.clone()),
        Some(_) => return Err(format!("{at}/metadata/namespace: it has to be a namespace's name")),
    };
    let id = ObjectId {
        group: group.to_owned(),
        version: version.to_owned(),
        kind,
        namespace: own.or_else(|| namespace.map(str::to_owned)),
        name,
    };
    for field in ["labels", "annotations"] {
        let map = body
            .get("metadata")
            .and_then(|metadata| metadata.get(field))
            .and_then(Value::as_object);
        if let Some(key) = map.and_then(|map| map.keys().find(|key| key.starts_with(LABEL_PREFIX))) {
            return Err(format!("{at}/metadata/{field}: {key} is Charter's own"));
        }
    }
    for field in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"] {
        if body.get("metadata").is_some_and(|metadata| metadata.get(field).is_some()) {
            return Err(format!("{at}/metadata/{field}: the server writes it"));
        }
    }
    if body.contains_key("status") {
        return Err(format!("{at}/status: the server's controllers write it"));
    }
    secrets(&at, &id, &body)?;
    Ok(Object {
        index,
        id,
        body,
        rules: Rules::default(),
    })
}

/// A Secret's values are references to secrets, and nothing else holds one: everybody who may look at a workload could read it there.
fn secrets(at: &str, id: &ObjectId, body: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in body {
        let holds = id.is_secret() && (key == "data" || key == "stringData");
        if !holds {
            if let Some(pointer) = find_secret(value, format!("{at}/{key}")) {
                return Err(format!("{pointer}: a secret can only be a value of a Secret's data or stringData"));
            }
            continue;
        }
        let Value::Object(entries) = value else {
            return Err(format!("{at}/{key}: it has to be a map"));
        };
        for (name, value) in entries {
            let reference = value.as_object().is_some_and(|map| map.len() == 1 && map.contains_key("$secret"));
            if !reference {
                return Err(format!(
                    "{at}/{key}/{name}: a literal value would be on the ledger for all to read; write {{\"$secret\": \"name\"}}"
                ));
            }
        }
    }
    Ok(())
}

fn find_secret(value: &Value, at: String) -> Option<String> {
    match value {
        Value::Object(map) if map.contains_key("$secret") => Some(at),
        Value::Object(map) => map.iter().find_map(|(key, value)| find_secret(value, format!("{at}/{key}"))),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .find_map(|(index, value)| find_secret(value, format!("{at}/{index}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_spec(spec: &Value) -> Result<Manifest, Invalid> {
        let config: KubernetesConfig = serde_json::from_value(json!({ "namespaces": ["air-*"] })).unwrap();
        let resource: Resource =
            serde_json::from_value(json!({ "name": "web", "kind": "kubernetes/manifest", "owner": "city", "spec": spec })).unwrap();
        read(&config, &resource, &"ch/web".parse().unwrap())
    }

    #[test]
    fn what_is_wrong_is_named() {
        let config_map = |metadata: Value| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
        let secret = |data: Value| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": data });
        for (spec, words) in [
            (json!({}), "missing field `objects`"),
            (json!({ "objects": [] }), "1 to 256 objects"),
            (
                json!({ "objects": [{ "apiVersion": "v1", "metadata": { "name": "x" } }] }),
                "objects/0/kind is missing",
            ),
            (
                json!({ "objects": [{ "apiVersion": "v1", "kind": "Pod" }] }),
                "objects/0/metadata/name is missing",
            ),
            (
                json!({ "objects": [config_map(json!({ "name": "x", "namespace": "kube-system" }))] }),
                "kubernetes.namespaces",
            ),
            (
                json!({ "namespace": "other", "objects": [config_map(json!({ "name": "x" }))] }),
                "kubernetes.namespaces",
            ),
            (
                json!({ "objects": [config_map(json!({ "name": "../x" }))] }),
                "is no name of an object",
            ),
            (
                json!({ "objects": [config_map(json!({ "name": "x", "labels": { "charter.dao/member": "eve" } }))] }),
                "is Charter's own",
            ),
            (
                json!({ "objects": [secret(json!({ "password": "canary" }))] }),
                "objects/0/stringData/password: a literal value",
            ),
            (
                json!({ "objects": [{ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x" }, "spec": { "env": [{ "$secret": "s" }] } }] }),
                "objects/0/spec/env/0: a secret can only be",
            ),
            (
                json!({ "objects": [{ "apiVersion": "v1", "kind": "ConfigMapList", "metadata": { "name": "x" } }] }),
                "one by one",
            ),
            (
                json!({ "objects": [config_map(json!({ "name": "x" }))], "replace": ["Job/x"] }),
                "replace: no object is Job/x",
            ),
            (
                json!({ "objects": [secret(json!({ "p": { "$secret": "s" } }))], "outputs": { "p": { "object": "Secret/s", "pointer": "/data/p" } } }),
                "others may see",
            ),
        ] {
            let error = read_spec(&spec).unwrap_err().to_string();
            assert!(error.contains(words), "{spec}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let good =
            json!({ "namespace": "air-1", "objects": [config_map(json!({ "name": "x" })), secret(json!({ "p": { "$secret": "s" } }))] });
        let manifest = read_spec(&good).unwrap();
        assert_eq!(manifest.objects[0].id.to_string(), "ConfigMap air-1/x");
    }
}
