//! What the member itself allows Terraform to do: `[terraform]` of `charter.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use state::ids::SecretName;
use state::resource::Resource;

use providers::fields;
use providers::secrets::{self, SecretError};

use crate::spec::WorkspaceSpec;

/// An engine on this machine, and what orders may run by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerraformConfig {
    /// The engine's program on this machine: `tofu` or `terraform`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<PathBuf>,
    /// In its place: an organization on a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<CloudConfig>,
    /// The providers that orders may use, by their sources, such as `hashicorp/time`. What is built into the engine needs no word.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub providers: BTreeSet<String>,
    /// The modules of a registry that orders may use, by their sources, or beginnings followed by `*`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub modules: BTreeSet<String>,
    /// Whether configurations may run programs on this machine: provisioners, and the provider `hashicorp/external`.
    #[serde(default)]
    pub provisioners: bool,
    /// A folder of provider packages, as `providers mirror` lays it out; without it they come from their registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<PathBuf>,
    /// A folder of configurations in files, which orders name by their digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configurations: Option<PathBuf>,
    /// Where states are kept, as a backend's type and settings; `{workspace}` in a text is the workspace's name. Without it: beside its
    /// configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Variables of the engine's environment, such as a cloud's credentials, by the secrets that hold them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, SecretName>,
    /// A folder with one file for each secret, readable by its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
    /// The folder of working directories and of what Charter remembers.
    #[serde(default = "folder")]
    pub folder: PathBuf,
    /// How long one run of the engine may take, in seconds.
    #[serde(default = "deadline_seconds")]
    pub deadline_seconds: u64,
    /// How long what was seen to be as ordered counts as that, in seconds.
    #[serde(default = "recheck_seconds")]
    pub recheck_seconds: u64,
    /// How many engines run at a time.
    #[serde(default = "runs")]
    pub runs: u32,
}

/// Where states are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The backend's type: `s3`, `http`, `pg`, …
    pub r#type: String,
    /// Its settings.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// An organization on a server of Terraform Cloud's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudConfig {
    /// The server's address.
    #[serde(default = "address")]
    pub address: String,
    /// The organization.
    pub organization: String,
    /// The secret that holds a token of it, of a user or a team.
    pub token: SecretName,
    /// The project that workspaces are made in, by its identity; without it: the organization's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The version of Terraform that workspaces are made with; without it: the server's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terraform_version: Option<String>,
    /// How long a request may take, in seconds.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u64,
}

fn address() -> String {
    "https://app.terraform.io".to_owned()
}

fn timeout_seconds() -> u64 {
    30
}

impl CloudConfig {
    /// An organization on a server, with a token that a secret holds.
    pub fn new(address: impl Into<String>, organization: impl Into<String>, token: SecretName) -> Self {
        Self {
            address: address.into(),
            organization: organization.into(),
            token,
            project: None,
            terraform_version: None,
            timeout_seconds: timeout_seconds(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let (scheme, rest) = self.address.split_once("://").unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let here = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
        match scheme {
            "https" if !host.is_empty() => {}
            "http" if here => {}
            "http" => return Err("terraform.cloud.address is not encrypted: only a server on this machine may be asked by http".into()),
            _ => return Err("terraform.cloud.address is no address: https://HOST".into()),
        }
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        for (setting, text) in [
            ("organization", Some(&self.organization)),
            ("project", self.project.as_ref()),
            ("terraform_version", self.terraform_version.as_ref()),
        ] {
            if text.is_some_and(|text| !word(text)) {
                return Err(format!(
                    "terraform.cloud.{setting} may hold letters, digits, '-', '_' and '.', and not nothing"
                ));
            }
        }
        if !(1..=600).contains(&self.timeout_seconds) {
            return Err("terraform.cloud.timeout_seconds has to be between 1 and 600".into());
        }
        Ok(())
    }
}

fn folder() -> PathBuf {
    "terraform".into()
}

fn deadline_seconds() -> u64 {
    1_800
}

fn recheck_seconds() -> u64 {
    900
}

fn runs() -> u32 {
    2
}

impl TerraformConfig {
    /// An engine by its program.
    pub fn new(engine: impl Into<PathBuf>) -> Self {
        Self {
            engine: Some(engine.into()),
            cloud: None,
            providers: BTreeSet::new(),
            modules: BTreeSet::new(),
            provisioners: false,
            mirror: None,
            configurations: None,
            backend: None,
            environment: BTreeMap::new(),
            secrets: None,
            folder: folder(),
            deadline_seconds: deadline_seconds(),
            recheck_seconds: recheck_seconds(),
            runs: runs(),
        }
    }

    /// An organization on a server.
    pub fn hosted(cloud: CloudConfig) -> Self {
        Self {
            engine: None,
            cloud: Some(cloud),
            ..Self::new("")
        }
    }

    /// Gives orders the providers and modules that a resource names.
    pub fn give(&mut self, resource: &Resource) {
        let Ok(spec) = fields::read::<WorkspaceSpec>(&resource.spec) else {
            return;
        };
        let required = spec
            .configuration
            .get("terraform")
            .and_then(|block| block.get("required_providers"));
        let sources = required.and_then(Value::as_object).into_iter().flat_map(Map::values);
        let sources = sources.filter_map(|one| one.get("source").and_then(Value::as_str));
        self.providers.extend(sources.map(str::to_owned));
        self.modules.extend(spec.module.map(|module| module.source));
    }

    /// Makes its paths those below a folder, where they are relative. A program's name alone is looked for where programs are.
    pub fn resolve(&mut self, folder: &Path) {
        self.folder = folder.join(&self.folder);
        if let Some(engine) = self.engine.as_mut().filter(|engine| engine.components().count() > 1) {
            *engine = folder.join(&*engine);
        }
        for path in [&mut self.mirror, &mut self.secrets, &mut self.configurations]
            .into_iter()
            .flatten()
        {
            *path = folder.join(&*path);
        }
    }

    /// Checks what can be checked without the engine; the text names the setting.
    pub fn check(&self) -> Result<(), String> {
        match (&self.engine, &self.cloud) {
            (Some(engine), None) if engine.as_os_str().is_empty() => {
                return Err("terraform.engine is empty: name tofu or terraform".into());
            }
            (Some(_), None) => {}
            (None, Some(cloud)) => cloud.check()?,
            (None, None) => return Err("terraform needs an engine, tofu or terraform, or a [terraform.cloud]".into()),
            (Some(_), Some(_)) => return Err("terraform has an engine and a [terraform.cloud]: leave one of them out".into()),
        }
        if self.cloud.is_some() {
            for (setting, set) in [("mirror", self.mirror.is_some()), ("backend", self.backend.is_some())] {
                if set {
                    return Err(format!(
                        "terraform.{setting} is for an engine on this machine: leave it out beside [terraform.cloud]"
                    ));
                }
            }
        }
        if !(1..=86_400).contains(&self.deadline_seconds) {
            return Err("terraform.deadline_seconds has to be between 1 and 86400".into());
        }
        if !(1..=64).contains(&self.runs) {
            return Err("terraform.runs has to be between 1 and 64".into());
        }
        if let Some(bad) = self.environment.keys().find(|name| !is_variable(name)) {
            return Err(format!("terraform.environment: {bad:?} is no variable that may be set"));
        }
        Ok(())
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    pub(crate) fn recheck(&self) -> Duration {
        Duration::from_secs(self.recheck_seconds)
    }

    /// Whether orders may use a provider, by its source.
    pub(crate) fn gives_provider(&self, source: &str) -> bool {
        self.providers.contains(source)
            || self
                .providers
                .iter()
                .any(|given| source.strip_suffix(given.as_str()).is_some_and(is_registry))
    }

    /// Whether orders may use a module, by its source.
    pub(crate) fn gives_module(&self, source: &str) -> bool {
        self.modules.iter().any(|given| match given.strip_suffix('*') {
            Some(beginning) => source.starts_with(beginning),
            None => given == source,
        })
    }

    /// The backend's block for a workspace.
    pub(crate) fn backend_block(&self, workspace: &str) -> Value {
        let mut settings = Map::new();
        match &self.backend {
            None => {
                settings.insert("local".to_owned(), Value::Object(Map::new()));
            }
            Some(backend) => {
                let filled = backend.settings.iter().map(|(name, text)| {
                    let text = text.replace("{workspace}", workspace);
                    (name.clone(), Value::String(crate::render::data(&text)))
                });
                settings.insert(backend.r#type.clone(), Value::Object(filled.collect()));
            }
        }
        Value::Object(settings)
    }

    pub(crate) fn secret(&self, name: &SecretName) -> Result<String, SecretError> {
        secrets::read("terraform", self.secrets.as_deref(), name)
    }
}

/// What stands before a source that names its registry.
fn is_registry(before: &str) -> bool {
    matches!(before, "registry.terraform.io/" | "registry.opentofu.org/")
}

/// Whether a variable may be given to the engine: none that Charter sets itself, or that would load other code.
fn is_variable(name: &str) -> bool {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    plain && !name.starts_with("TF_") && !name.starts_with("LD_") && !matches!(name, "PATH" | "HOME")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_what_is_named() {
        let mut config = TerraformConfig::new("tofu");
        config.providers = ["hashicorp/time".to_owned()].into();
        config.modules = ["our/network/aws".to_owned(), "team/*".to_owned()].into();
        for (source, given) in [
            ("hashicorp/time", true),
            ("registry.terraform.io/hashicorp/time", true),
            ("registry.opentofu.org/hashicorp/time", true),
            ("evil.example/hashicorp/time", false),
            ("hashicorp/local", false),
            ("xhashicorp/time", false),
        ] {
            assert_eq!(config.gives_provider(source), given, "{source}");
        }
        assert!(config.gives_module("our/network/aws") && config.gives_module("team/a/b") && !config.gives_module("our/network"));
        assert!(config.check().is_ok());
        for name in ["TF_LOG", "LD_PRELOAD", "PATH", "a", ""] {
            config.environment = [(name.to_owned(), "secret".parse().unwrap())].into();
            assert!(config.check().is_err(), "{name}");
        }
    }

    #[test]
    fn a_backend_is_filled_with_the_workspaces_name_and_nothing_else() {
        let mut config = TerraformConfig::new("tofu");
        assert_eq!(config.backend_block("ch.net"), serde_json::json!({ "local": {} }));
        config.backend = Some(Backend {
            r#type: "s3".into(),
            settings: [("key".to_owned(), "charter/{workspace}/${x}".to_owned())].into(),
        });
        assert_eq!(
            config.backend_block("ch.net"),
            serde_json::json!({ "s3": { "key": "charter/ch.net/$${x}" } })
        );
    }
}
