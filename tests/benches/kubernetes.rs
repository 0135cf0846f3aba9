//! A cluster with many objects: first apply beside `kubectl apply --server-side` of the same files, and passes that change nothing, with
//! their calls counted at the server.
//!
//! `KUBERNETES_BIN=target/servers/bin cargo bench -p tests --bench kubernetes [-- RESOURCES]`

#![allow(clippy::unwrap_used, reason = "a benchmark ends when something is wrong")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt;
use kubernetes::{Kubernetes, KubernetesConfig};
use providers::{Provider, Scope, Wanted};
use serde_json::{Value, json};
use state::resource::Resource;
use tests::cluster::{Cluster, Hands, User};

/// How many resources are applied at a time: as many as the executor does.
const AT_A_TIME: usize = 16;
/// The word that makes this program the process that only looks.
const LOOK: &str = "look";

fn objects(index: usize, namespace: &str) -> Vec<Value> {
    let name = format!("app-{index}");
    let meta = || json!({ "name": name, "namespace": namespace });
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta() }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(), "data": { "a": "1", "b": "two" } }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta(), "spec": { "clusterIP": "None", "selector": { "app": name }, "ports": [{ "port": 80 }] } }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(),
            "spec": { "replicas": 0, "selector": { "matchLabels": { "app": name } }, "template": {
                "metadata": { "labels": { "app": name } }, "spec": { "containers": [{ "name": "main", "image": "registry.example/main:1" }] },
            } },
        }),
    ]
}

/// How many requests the server has answered, by verb.
async fn calls(admin: &Hands) -> std::collections::BTreeMap<String, u64> {
    let text = admin.text("metrics").await;
    let mut all = std::collections::BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let verb = line
            .split("verb=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or_default();
        let dry = if line.contains("dry_run=\"All\"") { " (dry run)" } else { "" };
        let count: f64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
        *all.entry(format!("{verb}{dry}")).or_default() += count as u64;
    }
    all
}

fn since(before: &std::collections::BTreeMap<String, u64>, after: &std::collections::BTreeMap<String, u64>) -> String {
    let all: Vec<String> = after
        .iter()
        .map(|(verb, count)| (verb, count - before.get(verb).unwrap_or(&0)))
        .filter(|(verb, count)| {
            *count > 0
                && ["GET", "LIST", "PATCH", "APPLY", "DELETE", "POST"]
                    .iter()
                    .any(|one| verb.starts_with(one))
        })
        .map(|(verb, count)| format!("{count} {verb}"))
        .collect();
    all.join(", ")
}

fn provider(kubeconfig: &Path, records: &Path) -> Kubernetes {
    let config: KubernetesConfig =
        serde_json::from_value(json!({ "kubeconfig": kubeconfig, "namespaces": ["air-*"], "records": records })).unwrap();
    Kubernetes::new(config)
}

/// A figure of this process, in KiB.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count: usize = words.iter().find_map(|word| word.parse().ok()).unwrap_or(1_000);
    if let [first, _, kubeconfig, records] = words.as_slice()
        && first == LOOK
    {
        return look(count, Path::new(kubeconfig), Path::new(records));
    }
    // Controllers would take a part of the machine that is not the same for both.
    let Some(cluster) = Cluster::without_controllers() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let admin = cluster.hands(User::Admin).await;
        for namespace in ["air-charter", "air-kubectl"] {
            let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
            admin.apply("/api/v1/namespaces", "kubectl", &body).await;
        }
        let all: Vec<Resource> = (0..count).map(resource).collect();
        let wanted: Vec<Wanted<'_>> = all.iter().map(Wanted::of).collect();
        let scope = scope();
        let records = cluster.folder().join("records");
        let first = provider(&cluster.kubeconfig(User::Admin), &records);
        let (before, start) = (calls(&admin).await, Instant::now());
        first.observe(&scope, &wanted).await;
        let looked = start.elapsed();
        let mut applied = futures::stream::iter(all.iter().map(|resource| first.apply(&scope, resource))).buffer_unordered(AT_A_TIME);
        while let Some(done) = applied.next().await {
            done.unwrap();
        }
        drop(applied);
        let ours = start.elapsed();
        println!(
            "first apply of {} objects in {count} resources: {ours:?} (the look before: {looked:?}): {}",
            count * 4,
            since(&before, &calls(&admin).await)
        );

        let folder = cluster.folder().join("manifests");
        std::fs::create_dir_all(&folder).unwrap();
        for index in 0..count {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects(index, "air-kubectl") });
            std::fs::write(folder.join(format!("app-{index}.json")), list.to_string()).unwrap();
        }
        let (before, start) = (calls(&admin).await, Instant::now());
        let kubectl = Command::new("kubectl")
            .args(["apply", "--server-side", "-f"])
            .arg(&folder)
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig(User::Admin))
            .stdout(Stdio::null())
            .status();
        match kubectl {
            Ok(status) if status.success() => {
                let theirs = start.elapsed();
                println!(
                    "kubectl apply --server-side of the same: {theirs:?}, {:.2} times ours: {}",
                    theirs.as_secs_f64() / ours.as_secs_f64(),
                    since(&before, &calls(&admin).await)
                );
            }
            other => println!("kubectl was not run: {other:?}"),
        }

        // Nobody fills in what a controller would: that it has seen each deployment, and has nothing to do for it.
        let seen = json!({ "status": { "observedGeneration": 1 } });
        let folders: Vec<String> = (0..count)
            .map(|index| format!("/apis/apps/v1/namespaces/air-charter/deployments/app-{index}"))
            .collect();
        let statuses = folders.iter().map(|folder| admin.merge(folder, "status", &seen));
        let mut statuses = futures::stream::iter(statuses).buffer_unordered(AT_A_TIME);
        while statuses.next().await.is_some() {}
        drop(statuses);
        looks(&first, &all, &admin, "in the same process").await;
        // Memory is told of a process that does nothing else.
        let ended = Command::new(std::env::current_exe().unwrap())
            .args([LOOK, &count.to_string()])
            .arg(cluster.kubeconfig(User::Admin))
            .arg(&records)
            .status()
            .unwrap();
        assert!(ended.success());
    });
}

fn resource(index: usize) -> Resource {
    serde_json::from_value(json!({
        "name": format!("app-{index}"), "kind": "kubernetes/manifest", "owner": "city", "spec": { "objects": objects(index, "air-charter") },
    }))
    .unwrap()
}

fn scope() -> Scope {
    Scope::new("smart-city-1".parse().unwrap(), "city".parse().unwrap())
}

/// Looks again and again at what is in sync.
async fn looks(provider: &Kubernetes, all: &[Resource], admin: &Hands, when: &str) {
    let wanted: Vec<Wanted<'_>> = all.iter().map(Wanted::of).collect();
    for look in ["first", "second", "third", "fourth"] {
        let (before, memory) = (calls(admin).await, status("VmRSS"));
        let start = Instant::now();
        let seen = provider.observe(&scope(), &wanted).await;
        let took = start.elapsed();
        let unsettled = seen.resources.values().filter(|seen| !seen.in_sync()).count();
        println!(
            "{look} look {when}: {took:?}, {unsettled} not in sync; {} KiB resident, {} more than before it: {}",
            status("VmRSS"),
            status("VmRSS").saturating_sub(memory),
            since(&before, &calls(admin).await)
        );
        // As a service does between its looks: what was listed is watched from here on.
        let _ = tokio::time::timeout(Duration::from_millis(500), provider.changed(&scope())).await;
    }
}

/// The process that only looks.
fn look(count: usize, cluster: &Path, records: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let all: Vec<Resource> = (0..count).map(resource).collect();
        let admin = Hands::of(cluster).await;
        let provider = provider(cluster, records);
        let _ = calls(&admin).await;
        let before = status("VmRSS");
        looks(&provider, &all, &admin, "in a new process").await;
        let objects = u64::try_from(count * 4).unwrap();
        let (kept, peak) = (status("VmRSS").saturating_sub(before), status("VmHWM").saturating_sub(before));
        println!(
            "memory: {kept} KiB kept and {peak} KiB at most for {objects} objects, {:.2} and {:.2} KiB each",
            kept as f64 / objects as f64,
            peak as f64 / objects as f64
        );
    });
}
