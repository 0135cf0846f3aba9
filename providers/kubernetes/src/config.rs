//! What the member itself allows on its cluster: `[kubernetes]` of `charter.toml`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::ids::SecretName;

use providers::secrets::{self, SecretError};

/// A member's cluster, and what orders may make there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesConfig {
    /// The kubeconfig file; none: the identity of the pod that Charter runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; none: its current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// A user that Charter acts as, with these groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impersonate: Option<Impersonate>,
    /// The namespaces that orders may use and make: names, or beginnings followed by `*`.
    pub namespaces: BTreeSet<String>,
    /// The kinds without a namespace that orders may make beside namespaces, such as `CustomResourceDefinition`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cluster_kinds: BTreeSet<String>,
    /// A folder with one file for each secret, readable by its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
    /// The folder in which Charter remembers what it has made.
    #[serde(default = "records")]
    pub records: PathBuf,
    /// The most objects that one pass deletes.
    #[serde(default = "deletions")]
    pub deletions: u32,
    /// Whether a service watches what it has listed, instead of listing it at every look.
    #[serde(default = "watch")]
    pub watch: bool,
}

/// Whom Charter acts as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impersonate {
    /// The user.
    pub user: String,
    /// Its groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

fn records() -> PathBuf {
    "kubernetes".into()
}

fn watch() -> bool {
    true
}

fn deletions() -> u32 {
    100
}

impl KubernetesConfig {
    /// A cluster by its kubeconfig's current context, where orders may use these namespaces.
    pub fn new(kubeconfig: PathBuf, namespaces: BTreeSet<String>) -> Self {
        Self {
            kubeconfig: Some(kubeconfig),
            context: None,
            impersonate: None,
            namespaces,
            cluster_kinds: BTreeSet::new(),
            secrets: None,
            records: records(),
            deletions: deletions(),
            watch: watch(),
        }
    }

    /// Makes its paths those below a folder, where they are relative.
    pub fn resolve(&mut self, folder: &Path) {
        self.records = folder.join(&self.records);
        for path in [&mut self.kubeconfig, &mut self.secrets].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    /// Checks what can be checked without the cluster; the text names the setting.
    pub fn check(&self) -> Result<(), String> {
        if self.namespaces.is_empty() {
            return Err("kubernetes.namespaces is empty: name the namespaces that orders may use, such as \"smart-city-*\"".into());
        }
        let plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        match self.namespaces.iter().find(|name| !plain(name.strip_suffix('*').unwrap_or(name))) {
            Some(bad) => Err(format!(
                "kubernetes.namespaces: {bad:?} is neither a namespace's name nor its beginning followed by *"
            )),
            None if self.deletions == 0 => Err("kubernetes.deletions has to be at least 1".into()),
            None => Ok(()),
        }
    }

    /// Whether orders may use a namespace.
    pub(crate) fn gives(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|name| match name.strip_suffix('*') {
            Some(beginning) => namespace.starts_with(beginning),
            None => name == namespace,
        })
    }

    pub(crate) fn secret(&self, name: &SecretName) -> Result<String, SecretError> {
        secrets::read("kubernetes", self.secrets.as_deref(), name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_given_by_name_or_beginning() {
        let mut config = KubernetesConfig::new("config".into(), ["air-*", "data"].map(str::to_owned).into());
        assert!(config.check().is_ok());
        for (namespace, given) in [("air-1", true), ("data", true), ("data-2", false), ("kube-system", false)] {
            assert_eq!(config.gives(namespace), given, "{namespace}");
        }
        for bad in ["*", "Air", "a*b", ""] {
            config.namespaces = [bad.to_owned()].into();
            assert!(config.check().is_err(), "{bad}");
        }
    }
}
