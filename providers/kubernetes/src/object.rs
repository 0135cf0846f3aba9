//! One Kubernetes object: what it is called, whose it is, and what is sent for it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use state::ids::ResourceName;
use state::resource::OnRetire;

use providers::Scope;

use crate::server::MANAGER;

/// What the keys of Charter's labels and annotations begin with.
pub(crate) const LABEL_PREFIX: &str = "charter.dao/";
pub(crate) const CHANNEL: &str = "charter.dao/channel";
pub(crate) const MEMBER: &str = "charter.dao/member";
pub(crate) const RESOURCE: &str = "charter.dao/resource";
pub(crate) const ON_RETIRE: &str = "charter.dao/on-retire";
/// The resource's kind and its external name, which its labels don't tell.
pub(crate) const KIND: &str = "charter.dao/kind";
pub(crate) const ORIGIN: &str = "charter.dao/origin";

/// What an object is called. Two versions of one group name the same object.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectId {
    /// The group; empty: the core.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

type Key<'a> = (&'a str, &'a str, Option<&'a str>, &'a str);

impl ObjectId {
    fn key(&self) -> Key<'_> {
        (&self.group, &self.kind, self.namespace.as_deref(), &self.name)
    }

    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `Kind/name`, as rules name it.
    pub(crate) fn short(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    /// The namespace that it is in, or that it is itself.
    pub(crate) fn place(&self) -> Option<&String> {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace") => Some(&self.name),
            _ => self.namespace.as_ref(),
        }
    }

    pub(crate) fn is_secret(&self) -> bool {
        self.group.is_empty() && self.kind == "Secret"
    }

    /// When it is made, the least first; deleted in reverse.
    pub(crate) fn stage(&self) -> u8 {
        match (self.group.as_str(), self.kind.as_str()) {
            ("", "Namespace") => 0,
            ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
            ("scheduling.k8s.io" | "storage.k8s.io" | "node.k8s.io" | "networking.k8s.io", kind) if kind.ends_with("Class") => 2,
            ("rbac.authorization.k8s.io", "ClusterRole" | "Role") | ("", "ServiceAccount") => 3,
            ("rbac.authorization.k8s.io", _) => 4,
            ("", "ConfigMap" | "Secret" | "PersistentVolume" | "PersistentVolumeClaim" | "LimitRange" | "ResourceQuota") => 5,
            ("", "Service") => 6,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => 9,
            ("" | "apps" | "batch" | "autoscaling" | "policy" | "networking.k8s.io", _) => 7,
            _ => 8,
        }
    }

    /// Whether everything after it has to wait until it is there and ready.
    pub(crate) fn is_ground(&self) -> bool {
        self.stage() < 2
    }

    /// What a live object is called.
    pub(crate) fn of(live: &Value) -> Option<Self> {
        let text = |pointer: &str| live.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let api_version = text("/apiVersion")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text("/kind")?,
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name")?,
        })
    }
}

impl PartialEq for ObjectId {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Ord for ObjectId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for ObjectId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// One object of a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// Its place in the manifest.
    pub(crate) index: usize,
    pub(crate) id: ObjectId,
    pub(crate) body: Map<String, Value>,
    pub(crate) rules: Rules,
}

/// What the specification says of one object beside its content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// JSON pointers to fields that others set.
    pub(crate) ignore: Vec<String>,
    /// Fields that are taken from other managers.
    pub(crate) take: Vec<String>,
    /// Whether it may be deleted and made anew.
    pub(crate) replace: bool,
}

/// Whose a live object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This resource's.
    Ours,
    /// Another resource's of some Charter: channel and name.
    Anothers(String),
    /// Nobody's that Charter knows.
    Nobody,
}

/// Reads the owner label of a live object.
pub(crate) fn owner(live: &Value, scope: &Scope, name: &ResourceName) -> Owner {
    match labelled(live) {
        None => Owner::Nobody,
        Some((channel, member, resource))
            if (channel, member, resource) == (scope.channel.as_str(), scope.member.as_str(), name.as_str()) =>
        {
            Owner::Ours
        }
        Some((channel, _, resource)) => Owner::Anothers(format!("{channel}/{resource}")),
    }
}

/// The labels count where Charter put them: controllers copy those of a service to what they make of it.
fn labelled(live: &Value) -> Option<(&str, &str, &str)> {
    let managers = live.get("metadata")?.get("managedFields")?.as_array()?;
    managers
        .iter()
        .find(|one| one["manager"] == MANAGER && one["operation"] == "Apply")?;
    let label = |key: &str| live.get("metadata")?.get("labels")?.get(key)?.as_str();
    Some((label(CHANNEL)?, label(MEMBER)?, label(RESOURCE)?))
}

/// The resource of a scope that a live object was made for.
pub(crate) fn made_for(live: &Value, scope: &Scope) -> Option<ResourceName> {
    let (channel, member, resource) = labelled(live)?;
    let ours = (channel, member) == (scope.channel.as_str(), scope.member.as_str());
    ours.then(|| ResourceName::new(resource).ok()).flatten()
}

/// What is to happen to a live object when its resource is retired, as its annotation says.
pub(crate) fn on_retire(live: &Value) -> OnRetire {
    match annotation(live, ON_RETIRE) {
        Some("retain") => OnRetire::Retain,
        _ => OnRetire::Delete,
    }
}

/// One annotation of a live object.
pub(crate) fn annotation<'a>(live: &'a Value, key: &str) -> Option<&'a str> {
    live.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// What a live object is known by, whatever takes its name later.
pub(crate) fn uid(live: &Value) -> &str {
    live.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default()
}

/// The label selector of everything that a scope has.
pub(crate) fn selector(scope: &Scope) -> String {
    format!("{CHANNEL}={},{MEMBER}={}", scope.channel, scope.member)
}
