//! A provider with a real engine, behind a script that counts its runs, and hangs or fails when it is told to.

use std::path::{Path, PathBuf};

use providers::Provider;
use serde_json::{Value, json};

use state::resource::Resource;
use terraform::{Terraform, TerraformConfig};
use tests::passes::{Acting, runtime};
use tokio::runtime::Runtime;

/// Everything that a test needs.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    pub(crate) provider: Terraform,
    pub(crate) runtime: Runtime,
}

impl Acting for Stage {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

/// The engine to try; none, and one line, where there is none.
pub(crate) fn engine() -> Option<PathBuf> {
    let named = std::env::var_os("TERRAFORM").map(PathBuf::from);
    if named.is_none() {
        eprintln!("missing: TERRAFORM, which tests/run terraform sets; nothing was tried with an engine");
    }
    named
}

impl Stage {
    /// Makes one; none when there is no engine. `more` are settings of the provider's.
    pub(crate) fn new(more: &Value) -> Option<Self> {
        let engine = engine()?;
        let folder = tempfile::Builder::new().prefix("charter-terraform-").tempdir().unwrap();
        let root = folder.path().display();
        let script = format!(
            "echo \"$1\" >> {root}/runs\n\
             if [ -e {root}/hang ]; then rm {root}/hang; exec sleep 4; fi\n\
             if [ -e {root}/forbid ]; then echo 'Error: not allowed' >&2; exit 1; fi\n\
             if [ \"$1\" = apply ] && [ -e {root}/slow ]; then sleep 1; fi\n\
             exec {} \"$@\"\n",
            engine.display()
        );
        tests::command::script(&folder.path().join("engine"), &script);
        let provider = provider(folder.path(), more);
        Some(Self {
            folder,
            provider,
            runtime: runtime(),
        })
    }

    /// Puts another provider in the place of the one that is there, as after a Charter's death.
    pub(crate) fn renew(&mut self, more: &Value) {
        self.provider = provider(self.folder.path(), more);
    }

    /// A path of the stage's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The working directory of a resource.
    pub(crate) fn workspace(&self, resource: &Resource) -> PathBuf {
        self.path("work").join(format!("air.{}", resource.name))
    }

    /// Tells the engine to do something another way, once or until it is told otherwise.
    pub(crate) fn tell(&self, word: &str) {
        std::fs::write(self.path(word), "").unwrap();
    }

    pub(crate) fn untell(&self, word: &str) {
        std::fs::remove_file(self.path(word)).unwrap();
    }

    /// What the engine was run for since the last call.
    pub(crate) fn runs(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("runs")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("runs"));
        text.lines().map(str::to_owned).collect()
    }

    /// The state of a resource, as the engine keeps it.
    pub(crate) fn state(&self, resource: &Resource) -> Option<Value> {
        let text = std::fs::read_to_string(self.workspace(resource).join("terraform.tfstate")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Changes the state of a resource behind everybody's back.
    pub(crate) fn meddle(&self, resource: &Resource, change: impl Fn(&mut Value)) {
        let mut state = self.state(resource).unwrap();
        change(&mut state);
        state["serial"] = json!(state["serial"].as_u64().unwrap() + 1);
        std::fs::write(self.workspace(resource).join("terraform.tfstate"), state.to_string()).unwrap();
    }
}

fn provider(folder: &Path, more: &Value) -> Terraform {
    let mut config = json!({
        "engine": folder.join("engine"), "folder": folder.join("work"), "secrets": folder.join("secrets"), "deadline_seconds": 60,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config: TerraformConfig = serde_json::from_value(config).unwrap();
    config.check().unwrap();
    Terraform::new(config).unwrap()
}

pub(crate) fn resource(name: &str, spec: &Value) -> Resource {
    serde_json::from_value(json!({ "name": name, "kind": "terraform/workspace", "owner": "city", "spec": spec })).unwrap()
}

/// A workspace of one thing, which is what its variable says.
pub(crate) fn one(name: &str, size: &Value) -> Resource {
    resource(
        name,
        &json!({
            "configuration": {
                "resource": { "terraform_data": { "station": { "input": "${var.size}" } } },
                "output": { "size": { "value": "${terraform_data.station.output}" } },
            },
            "variables": { "size": size },
        }),
    )
}
