//! What every provider has to hold, with a real engine.

use std::time::Duration;

use async_trait::async_trait;
use providers::conformance::{Subject, check};
use providers::{Provider, Scope};
use serde_json::json;
use state::resource::Resource;

use crate::stage::{Stage, engine, one};

struct Workspaces(Stage);

#[async_trait]
impl Subject for Workspaces {
    fn provider(&self) -> &dyn Provider {
        &self.0.provider
    }

    fn scope(&self) -> Scope {
        self.0.scope()
    }

    fn resource(&self, name: &str) -> Resource {
        one(name, &json!("small"))
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        Some(one(resource.name.as_str(), &json!("large")))
    }

    async fn disturb(&self, resource: &Resource) -> String {
        self.0.meddle(resource, |state| {
            state["resources"][0]["instances"][0]["attributes"]["input"]["value"] = json!("tiny");
        });
        "/terraform_data.station/input".to_owned()
    }

    async fn count(&self, resource: &Resource) -> usize {
        let state = self.0.state(resource);
        state.map_or(0, |state| state["resources"].as_array().map_or(0, Vec::len))
    }

    async fn plant(&self, resource: &Resource) -> bool {
        let folder = self.0.workspace(resource);
        std::fs::create_dir_all(&folder).unwrap();
        for script in self.0.provider.render(&self.0.scope(), resource).unwrap() {
            let name = script.name.split_once('.').unwrap().1.to_owned();
            std::fs::write(folder.join(name), script.bytes).unwrap();
        }
        for words in [&["init"][..], &["apply", "-auto-approve"]] {
            let done = std::process::Command::new(engine().unwrap())
                .args(words)
                .arg("-input=false")
                .current_dir(&folder)
                .output()
                .unwrap();
            assert!(done.status.success(), "{done:?}");
        }
        true
    }

    async fn is_untouched(&self, resource: &Resource) -> bool {
        self.count(resource).await == 1
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        let Some(moment) = [5, 150, 400, 900, 1500].get(usize::try_from(step).unwrap()) else {
            return false;
        };
        // Who is dropped leaves what it has started running, as a Charter that dies does.
        let scope = self.0.scope();
        let work = self.0.provider.apply(&scope, resource);
        let _ = tokio::time::timeout(Duration::from_millis(*moment), work).await;
        true
    }

    async fn forbid(&self, _resource: &Resource) -> bool {
        self.0.tell("forbid");
        true
    }

    async fn permit(&self, _resource: &Resource) {
        self.0.untell("forbid");
    }

    async fn hang(&self, _resource: &Resource) -> bool {
        self.0.tell("hang");
        true
    }
}

#[test]
fn workspaces_conform() {
    // Every look is one by the engine.
    let Some(stage) = Stage::new(&json!({ "recheck_seconds": 0 })) else {
        return;
    };
    let handle = stage.runtime.handle().clone();
    let subject = Workspaces(stage);
    let verdicts = handle.block_on(check(&subject)).unwrap();
    assert!(verdicts.len() >= 15, "{verdicts:?}");
}
