//! What every provider has to hold, on a real server.

use async_trait::async_trait;
use providers::conformance::{Subject, check};
use providers::{Provider, Scope};
use serde_json::{Value, json};
use state::resource::Resource;
use tests::between::{Between, Fault};

use crate::stage::{NAMESPACE, Stage, config_map, manifest, scope};

const CONFIG_MAPS: &str = "/api/v1/namespaces/air-tests/configmaps";

/// A config map and a service, under one provider that watches or reads each time.
struct Manifests(Stage, Reading, Between);

#[derive(PartialEq)]
enum Reading {
    Watches,
    Lists,
}

fn folder(object: &Value) -> String {
    match object["kind"].as_str().unwrap() {
        "ConfigMap" => CONFIG_MAPS.to_owned(),
        _ => format!("/api/v1/namespaces/{NAMESPACE}/services"),
    }
}

#[async_trait]
impl Subject for Manifests {
    fn provider(&self) -> &dyn Provider {
        &self.0.provider
    }

    fn scope(&self) -> Scope {
        scope()
    }

    fn resource(&self, name: &str) -> Resource {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
        });
        manifest(name, &[config_map(name, &json!({ "colour": "red", "size": "1" })), service])
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        let mut spec = resource.spec.to_value();
        spec["objects"][0]["data"]["size"] = json!("2");
        Some(crate::stage::with(resource.name.as_str(), &spec))
    }

    async fn disturb(&self, resource: &Resource) -> String {
        let change = json!({ "data": { "colour": "blue" } });
        self.0.admin.merge(CONFIG_MAPS, resource.name.as_str(), &change).await;
        "/objects/0/data/colour".to_owned()
    }

    async fn count(&self, resource: &Resource) -> usize {
        let mut there = 0;
        for object in resource.spec.as_map()["objects"].as_array().unwrap() {
            let name = object["metadata"]["name"].as_str().unwrap();
            there += usize::from(self.0.admin.get(&folder(object), name).await.is_some());
        }
        assert!(there % 2 == 0, "one object of two is there");
        there / 2
    }

    async fn plant(&self, resource: &Resource) -> bool {
        for object in resource.spec.as_map()["objects"].as_array().unwrap() {
            self.0.admin.apply(&folder(object), "kubectl", object).await;
        }
        true
    }

    async fn is_untouched(&self, resource: &Resource) -> bool {
        let found = self.0.admin.get(CONFIG_MAPS, resource.name.as_str()).await.unwrap();
        found["data"]["colour"] == "red" && found["metadata"]["labels"].is_null()
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        // After each of the objects, as if Charter had died before it wrote down what came of it.
        let objects = resource.spec.as_map()["objects"].as_array().unwrap();
        let Some(upto) = objects.get(..=step as usize) else { return false };
        let part = manifest(resource.name.as_str(), upto);
        self.0.provider.apply(&scope(), &part).await.unwrap();
        true
    }

    async fn forbid(&self, _resource: &Resource) -> bool {
        if self.1 == Reading::Watches {
            // A server lets a watch go on that it has allowed.
            return false;
        }
        let bindings = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings");
        self.0.admin.delete(&bindings, "charter").await;
        // The server takes a moment to hear of it.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        true
    }

    async fn permit(&self, _resource: &Resource) {
        self.0.grant().await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }

    async fn hang(&self, _resource: &Resource) -> bool {
        self.2.spoil(&[Fault::Hang]);
        true
    }
}

fn conform(reading: Reading) {
    let Some(mut stage) = Stage::new() else { return };
    let between = stage.between(reading == Reading::Watches);
    let handle = stage.runtime.handle().clone();
    let subject = Manifests(stage, reading, between);
    let verdicts = handle.block_on(check(&subject)).unwrap();
    assert!(verdicts.len() >= 15, "{verdicts:?}");
}

#[test]
fn manifests_conform() {
    conform(Reading::Lists);
}

#[test]
fn watched_manifests_conform() {
    conform(Reading::Watches);
}
