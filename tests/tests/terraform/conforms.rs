//! What every provider has to hold, with a real engine.

use std::time::Duration;

use async_trait::async_trait;
use providers::conformance::{Subject, check};
use providers::{Provider, Scope};
use serde_json::json;
use state::resource::Resource;
use tests::passes::scope;
use tests::relay::Fault;

use crate::hosted::{Hosted, base64};
use crate::stage::{Stage, engine, one};

struct Workspaces(Stage);

#[async_trait]
impl Subject for Workspaces {
    fn provider(&self) -> &dyn Provider {
        &self.0.provider
    }

    fn scope(&self) -> Scope {
        scope()
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
        for script in self.0.provider.render(&scope(), resource).unwrap() {
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
        let scope = scope();
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

struct Hostings(Hosted);

#[async_trait]
impl Subject for Hostings {
    fn provider(&self) -> &dyn Provider {
        &self.0.provider
    }

    fn scope(&self) -> Scope {
        scope()
    }

    fn resource(&self, name: &str) -> Resource {
        one(name, &json!("small"))
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        Some(one(resource.name.as_str(), &json!("large")))
    }

    async fn disturb(&self, resource: &Resource) -> String {
        let tiny = |state: &mut serde_json::Value| {
            state["resources"][0]["instances"][0]["attributes"]["input"]["value"] = json!("tiny");
        };
        self.0.meddle(resource, tiny).await;
        "/terraform_data.station/input".to_owned()
    }

    async fn count(&self, resource: &Resource) -> usize {
        self.0.count(resource).await
    }

    async fn plant(&self, resource: &Resource) -> bool {
        // Somebody's workspace, with one thing in it that somebody has written down.
        let workspace = json!({ "data": { "type": "workspaces", "attributes": { "name": format!("air_{}", resource.name) } } });
        self.0.did("POST", "/organizations/acme/workspaces", &workspace).await;
        let id = self.0.id(resource).await;
        self.0.did("POST", &format!("/workspaces/{id}/actions/lock"), &json!({})).await;
        let value = json!({ "value": "small", "type": "string" });
        let attributes = json!({ "id": "4a6a5ac2-9b4d-4b36-8b0b-0d9a4a9d1f6e", "input": value, "output": value, "triggers_replace": null });
        let state = json!({
            "version": 4, "terraform_version": "1.9.0", "serial": 1, "lineage": "b7a7fb0e-6d0a-4f7c-9f6d-6a0a2f6e3c11",
            "outputs": { "size": { "value": "small", "type": "string" } },
            "resources": [{
                "mode": "managed", "type": "terraform_data", "name": "station", "provider": "provider[\"terraform.io/builtin/terraform\"]",
                "instances": [{ "schema_version": 0, "attributes": attributes, "sensitive_attributes": [] }],
            }],
        });
        let attributes = json!({ "serial": 1, "md5": "", "state": base64(state.to_string().as_bytes()) });
        let body = json!({ "data": { "type": "state-versions", "attributes": attributes } });
        self.0.did("POST", &format!("/workspaces/{id}/state-versions"), &body).await;
        self.0.did("POST", &format!("/workspaces/{id}/actions/unlock"), &json!({})).await;
        true
    }

    async fn is_untouched(&self, resource: &Resource) -> bool {
        self.0.count(resource).await == 1
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        let Some(moment) = [2, 10, 30, 100, 250, 500, 900, 1500].get(usize::try_from(step).unwrap()) else {
            return false;
        };
        let scope = scope();
        let work = self.0.provider.apply(&scope, resource);
        let _ = tokio::time::timeout(Duration::from_millis(*moment), work).await;
        true
    }

    async fn forbid(&self, _resource: &Resource) -> bool {
        self.0.relay.spoil(1_000, "", "/", Fault::Refuse(403, Vec::new()));
        true
    }

    async fn permit(&self, _resource: &Resource) {
        self.0.relay.relent();
    }

    async fn hang(&self, _resource: &Resource) -> bool {
        self.0.relay.spoil(1, "", "/", Fault::Hang);
        true
    }
}

#[test]
fn workspaces_on_a_server_conform() {
    let Some(stage) = Hosted::new(&json!({ "recheck_seconds": 0 })) else {
        return;
    };
    let handle = stage.runtime.handle().clone();
    let subject = Hostings(stage);
    let verdicts = handle.block_on(check(&subject)).unwrap();
    assert!(verdicts.len() >= 15, "{verdicts:?}");
}
