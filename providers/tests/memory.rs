//! The in-memory provider holds what every provider has to hold.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use async_trait::async_trait;
use providers::conformance::{Subject, Verdict, check};
use providers::memory::{Fault, Memory, Object};
use providers::{Provider, Scope};
use serde_json::json;
use state::ids::{Channel, MemberId};
use state::resource::Resource;

struct Cloud {
    memory: Memory,
}

#[async_trait]
impl Subject for Cloud {
    fn provider(&self) -> &dyn Provider {
        &self.memory
    }

    fn scope(&self) -> Scope {
        Scope::new(Channel::new("ch-1").unwrap(), MemberId::new("city").unwrap())
    }

    fn resource(&self, name: &str) -> Resource {
        serde_json::from_value(json!({ "name": name, "kind": "memory/object", "owner": "city", "spec": { "size": 1 } })).unwrap()
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        let mut amended = resource.clone();
        amended.spec = serde_json::from_value(json!({ "size": 2 })).unwrap();
        Some(amended)
    }

    async fn disturb(&self, resource: &Resource) -> String {
        assert!(self.memory.set(&self.memory.external(&self.scope(), resource), "size", json!(7)));
        "/size".to_owned()
    }

    async fn count(&self, resource: &Resource) -> usize {
        let external = self.memory.external(&self.scope(), resource);
        usize::from(self.memory.objects().contains_key(&external))
    }

    async fn plant(&self, resource: &Resource) -> bool {
        let object = Object {
            kind: resource.kind.clone(),
            spec: resource.spec.clone(),
            label: None,
            pending: 0,
        };
        self.memory.put(&self.memory.external(&self.scope(), resource), object);
        true
    }

    async fn is_untouched(&self, resource: &Resource) -> bool {
        let objects = self.memory.objects();
        let object = objects.get(&self.memory.external(&self.scope(), resource));
        object.is_some_and(|object| object.label.is_none() && object.spec == resource.spec)
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        let fault = match step {
            0 => Fault::Refuse,
            1 => Fault::LoseReply,
            _ => return false,
        };
        self.memory.fail_next(&resource.name, fault);
        self.memory.apply(&self.scope(), resource).await.unwrap_err();
        true
    }

    async fn forbid(&self, resource: &Resource) -> bool {
        self.memory.forbid([resource.name.clone()]);
        true
    }

    async fn permit(&self, _resource: &Resource) {
        self.memory.forbid([]);
    }

    async fn hang(&self, resource: &Resource) -> bool {
        self.memory.fail_next(&resource.name, Fault::Hang);
        true
    }
}

#[tokio::test]
async fn the_memory_conforms() {
    let cloud = Cloud { memory: Memory::new() };
    let verdicts = check(&cloud).await.unwrap();
    assert!(verdicts.values().all(|verdict| *verdict == Verdict::Holds), "{verdicts:?}");
}

#[tokio::test]
async fn a_slow_memory_conforms() {
    let cloud = Cloud { memory: Memory::new() };
    cloud.memory.slow(3);
    cloud.memory.slow_delete(2);
    check(&cloud).await.unwrap();
    let calls = cloud.memory.calls();
    assert!(calls.created >= 8 && calls.delete > calls.created, "{calls:?}");
}
