//! The example with one member on Kubernetes: one line of its network.yaml is another one.

use serde_json::{Value, json};
use tests::World;
use tests::cluster::{Hands, User};
use tests::wait::until_within;
use tests::world::smart_city;

use crate::stage::Stage;

const NAMESPACE: &str = "smart-city-breeze";

/// Says of every pod what a node's kubelet would: that it runs.
async fn run_pods(admin: &Hands) {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    if admin.get("/api/v1/namespaces", NAMESPACE).await.is_none() {
        return;
    }
    for pod in admin.list(&pods).await {
        if pod["status"]["phase"] != "Running" {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let ready = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
            let running = json!({ "status": { "phase": "Running", "conditions": ready } });
            admin.merge(&format!("{pods}/{name}"), "status", &running).await;
        }
    }
}

#[test]
fn one_line_of_the_example_takes_a_member_to_kubernetes() {
    let Some(stage) = Stage::new() else { return };
    let world = World::new();
    let example = world.root().join("example");
    tests::tree::copy(&smart_city(), &example);
    let network = std::fs::read_to_string(example.join("network.yaml")).unwrap();
    let changed = network.replace("submit: v1/breeze.yaml", "submit: v1/breeze-kubernetes.yaml");
    assert_eq!(
        network
            .lines()
            .zip(changed.lines())
            .filter(|(before, after)| before != after)
            .count(),
        1
    );
    std::fs::write(example.join("network.yaml"), changed).unwrap();
    let folder = example.display().to_string();
    world.charter(&["up", &folder, "--once"]).exits(1).says(&[
        "breeze orders kubernetes/namespace, and there is no cluster for it",
        "name a kubeconfig file in KUBECONFIG",
    ]);

    world.give("KUBECONFIG", stage.cluster.kubeconfig(User::Admin));
    let mut up = world.start(&["up", &folder, "--once"]);
    until_within(std::time::Duration::from_secs(120), "everything has converged", || {
        stage.runtime.block_on(run_pods(&stage.admin));
        if up.runs() { Err(up.stderr()) } else { Ok(()) }
    });
    let standing = world
        .charter(&["status", "--member", "breeze", "--channel", "smart-city-1"])
        .exits(0);
    assert!(
        standing.stdout.contains("forecast") && !standing.stdout.contains("pending"),
        "{}",
        standing.stdout
    );
    let get = |folder: &str| {
        stage
            .runtime
            .block_on(stage.admin.get(&format!("/api/v1/namespaces/{NAMESPACE}/{folder}"), "forecast"))
    };
    let map = get("configmaps").unwrap();
    assert!(
        map["data"]["readings"].as_str().unwrap().starts_with("127.0.0.1:"),
        "the city's address: {map}"
    );

    // What was rendered is what was sent, and anybody's tool can send it.
    let by = ["--member", "breeze", "--channel", "smart-city-1"];
    let rendered = world.charter(&[&["render", "forecast"], &by[..]].concat()).exits(0);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&rendered.stdout).unwrap();
    let items = documents[0]["items"].as_array().unwrap();
    assert_eq!(items.len(), 3, "{}", rendered.stdout);
    assert_eq!(items[0]["data"], map["data"]);
    let service = stage.runtime.block_on(
        stage
            .admin
            .apply(&format!("/api/v1/namespaces/{NAMESPACE}/services"), "kubectl", &items[2]),
    );
    assert_eq!(service["spec"]["clusterIP"], get("services").unwrap()["spec"]["clusterIP"]);
    let out = world.root().join("rendered").display().to_string();
    let files = world.charter(&[&["render", "--out", &out], &by[..]].concat()).exits(0);
    assert_eq!(files.lines(), [format!("{out}/forecast.json"), format!("{out}/forecasts.json")]);
    world
        .charter(&[&["render", "forcast"], &by[..]].concat())
        .exits(1)
        .says(&["breeze has no resource forcast", "RESOURCE is one of forecast, forecasts"]);

    world.charter(&["down", "--yes"]).exits(0);
    let left = stage.runtime.block_on(stage.admin.get("/api/v1/namespaces", NAMESPACE));
    assert!(left.is_none(), "{left:?}");
}
