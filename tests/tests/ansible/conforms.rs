//! What every provider has to hold, with a real Ansible on a real host.

use std::time::Duration;

use async_trait::async_trait;
use providers::conformance::{Subject, check};
use providers::{Provider, Scope};
use serde_json::json;
use state::resource::Resource;

use tests::passes::scope;

use crate::stage::Stage;

struct Playbooks(Stage);

impl Playbooks {
    fn sized(&self, name: &str, size: &str) -> Resource {
        let path = format!("/srv/{name}");
        let tasks = json!([{ "name": "the size", "copy": { "dest": path, "content": "{{ size }}", "mode": "0644" } }]);
        let retire = json!([{ "hosts": "all", "gather_facts": false, "tasks": [{ "file": { "path": path, "state": "absent" } }] }]);
        self.0.playbook(
            name,
            &tasks,
            &json!({ "variables": { "size": size }, "retire": { "plays": retire } }),
        )
    }

    /// What is carried to another channel has another name there.
    fn name(resource: &Resource) -> String {
        let task = &resource.spec.to_value()["plays"][0]["tasks"][0];
        task["copy"]["dest"].as_str().unwrap().trim_start_matches("/srv/").to_owned()
    }
}

#[async_trait]
impl Subject for Playbooks {
    fn provider(&self) -> &dyn Provider {
        &self.0.provider
    }

    fn scope(&self) -> Scope {
        scope()
    }

    fn resource(&self, name: &str) -> Resource {
        self.sized(name, "small")
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        Some(self.sized(resource.name.as_str(), "large"))
    }

    async fn disturb(&self, resource: &Resource) -> String {
        std::fs::write(self.0.hosts[0].file(&Self::name(resource)), "tiny").unwrap();
        "/web1/the size".to_owned()
    }

    async fn count(&self, resource: &Resource) -> usize {
        usize::from(self.0.hosts[0].text(&Self::name(resource)).is_some())
    }

    async fn plant(&self, _resource: &Resource) -> bool {
        // What somebody else does on a host has no name that it could stand in the way of.
        false
    }

    async fn is_untouched(&self, _resource: &Resource) -> bool {
        true
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        let Some(moment) = [5, 400, 900, 1500].get(usize::try_from(step).unwrap()) else {
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
fn playbooks_conform() {
    // Every look is one by Ansible.
    let Some(stage) = Stage::new(&["web1"], &json!({ "recheck_seconds": 0 })) else {
        return;
    };
    let handle = stage.runtime.handle().clone();
    let subject = Playbooks(stage);
    let verdicts = handle.block_on(check(&subject)).unwrap();
    assert!(verdicts.len() >= 15, "{verdicts:?}");
}
