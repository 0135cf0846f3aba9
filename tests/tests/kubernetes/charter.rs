//! A member whose part of a DAO runs on its cluster: ordered on the ledger, seen by everybody, healed, and taken down again.

use serde_json::{Value, json};
use tests::wait::until;
use tests::{Running, World, documents};

use crate::stage::{NAMESPACE, Stage, config_map};

const CHANNEL: &str = "smart-city-1";

/// Gives a member the tests' cluster, by hand as its engineer would.
fn on(world: &World, stage: &Stage, member: &str) {
    let path = world.config(member);
    let text = std::fs::read_to_string(&path).unwrap();
    let kubeconfig = stage.cluster.kubeconfig(tests::cluster::User::Charter);
    let table = format!(
        "\n[kubernetes]\nkubeconfig = {:?}\nnamespaces = [\"air-*\"]\n",
        kubeconfig.display().to_string()
    );
    std::fs::write(&path, text + &table).unwrap();
}

fn resource(name: &str, spec: &Value, more: &Value) -> Value {
    let mut resource = json!({ "name": name, "kind": "kubernetes/manifest", "owner": "city", "spec": spec });
    resource.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    resource
}

#[test]
fn a_members_part_runs_on_its_cluster() {
    let Some(stage) = Stage::new() else { return };
    let world = World::smart_city();
    let wrong = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x", "namespace": "kube-system" } }]);
    let file = world.file(
        "order.yaml",
        &documents::order(vec![resource("wrong", &json!({ "objects": wrong }), &json!({}))]).to_string(),
    );
    let by = ["--member", "city", "--channel", CHANNEL];
    world
        .charter(&[&["plan", "-f", &file], &by[..]].concat())
        .exits(7)
        .says(&["no provider of this Charter makes kubernetes/manifest: configure one"]);
    on(&world, &stage, "city");
    // What happens on the cluster wakes its Charter: it would look by itself every hour only.
    world.set("city", "interval_seconds", "3600");
    world
        .charter(&[&["plan", "-f", &file], &by[..]].concat())
        .exits(3)
        .says(&["in the namespace kube-system, which this member doesn't give: add it to kubernetes.namespaces"]);

    // What is too large, or grows when it is read, is refused before a server sees it.
    let large = json!([config_map("large", &json!({ "a": "x".repeat(2 * 1024 * 1024) }))]);
    let large = documents::order(vec![resource("large", &json!({ "objects": large }), &json!({}))]).to_string();
    let mut growing = "apiVersion: charter/v1\nkind: Order\nx0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..10 {
        let all = vec![format!("*a{}", level - 1); 10].join(", ");
        growing += &format!("x{level}: &a{level} [{all}]\n");
    }
    growing += "resources: [{ name: growing, kind: kubernetes/manifest, owner: city, spec: { objects: *a9 } }]\n";
    for (name, text, words) in [
        ("large.yaml", large, "a document has at most"),
        ("growing.yaml", growing, "budget breached"),
    ] {
        let file = world.file(name, &text);
        world.charter(&[&["plan", "-f", &file], &by[..]].concat()).exits(1).says(&[words]);
    }

    let ledger = world.ledger();
    let services: Vec<_> = ["city", "breeze"].map(|member| world.serve(member)).into();
    let stations = resource(
        "stations",
        &json!({
            "namespace": NAMESPACE,
            "objects": [
                config_map("stations", &json!({ "digest": documents::reference("air-quality.outputs.digest") })),
                { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "stations" }, "spec": { "selector": { "app": "stations" }, "ports": [{ "port": 80 }] } },
            ],
            "outputs": { "address": { "object": "Service/stations", "pointer": "/spec/clusterIP" } },
        }),
        &json!({ "exports": ["address"] }),
    );
    let user = json!({
        "name": "stations-at", "kind": "machine/file", "owner": "breeze", "spec": { "content": documents::reference("stations.outputs.address") },
    });
    world.submit("city", CHANNEL, &documents::order(vec![stations, user])).exits(0);
    // The address of the one member's service is in the other member's file, by way of the ledger.
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let services_folder = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let get = |folder: &str, name: &str| stage.runtime.block_on(stage.admin.get(folder, name));
    until("the other member knows the address", || {
        let address = get(&services_folder, "stations")
            .map(|found| found["spec"]["clusterIP"].clone())
            .unwrap_or_default();
        let there = std::fs::read_to_string(world.member("breeze").join("machine/smart-city-1/stations-at")).unwrap_or_default();
        if !there.is_empty() && address == there.as_str() {
            Ok(())
        } else {
            Err(format!("{address} {there}"))
        }
    });
    world.converged();
    // Drift is healed, and on the ledger.
    stage
        .runtime
        .block_on(stage.admin.merge(&maps, "stations", &json!({ "data": { "digest": "forged" } })));
    until("the map is as it was ordered", || {
        let digest = get(&maps, "stations")
            .map(|found| found["data"]["digest"].clone())
            .unwrap_or_default();
        if digest.as_str().is_some_and(|digest| digest.starts_with("sha256:")) {
            Ok(())
        } else {
            Err(digest)
        }
    });
    until("the report says so", || {
        let said = world.store("breeze").log("reported/smart-city-1", "%B").join("\n");
        if said.contains("update stations") {
            Ok(())
        } else {
            Err(said.lines().take(12).collect::<Vec<_>>().join("\n"))
        }
    });
    // What was run is kept, as kubectl takes it.
    let script: Value = world.store("city").json("actual/smart-city-1", &script(&world));
    assert_eq!((&script["kind"], script["items"].as_array().unwrap().len()), (&json!("List"), 2));
    world
        .submit("city", CHANNEL, &documents::retirement(&["stations-at", "stations"]))
        .exits(0);
    until("nothing is left on the cluster", || {
        let left = (get(&maps, "stations").is_some(), get(&services_folder, "stations").is_some());
        if left == (false, false) { Ok(()) } else { Err(format!("{left:?}")) }
    });
    for service in services {
        service.stop();
    }
    ledger.stop();
    world.charter(&["replay", "--compare"]).exits(0);
    world.charter(&["verify"]).exits(0);
}

/// Where the script of the stations is kept.
fn script(world: &World) -> String {
    let listed = world
        .store("city")
        .git(&["ls-tree", "-r", "--name-only", "actual/smart-city-1", "scripts/"])
        .exits(0);
    let found = listed
        .lines()
        .into_iter()
        .find(|path| path.ends_with("/stations.json"))
        .map(str::to_owned);
    found.unwrap_or_else(|| panic!("{}", listed.stdout))
}

#[test]
fn the_identity_of_its_pod_is_enough() {
    let Some(stage) = Stage::new() else { return };
    if !tests::spaces::allowed("nothing was tried in a file system as a pod has it") {
        return;
    }
    let (world, namespace) = (World::smart_city(), "air-pod");
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "charter" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "charter" },
        "subjects": [{ "kind": "ServiceAccount", "name": "charter", "namespace": namespace }],
    });
    let identity = stage.runtime.block_on(async {
        for (folder, object) in [
            (
                "/api/v1/namespaces".to_owned(),
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
            ),
            (
                format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
                json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "charter" } }),
            ),
            (
                format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"),
                binding,
            ),
        ] {
            stage.admin.apply(&folder, "kubectl", &object).await;
        }
        stage.cluster.identity(namespace, "charter").await
    });
    let path = world.config("city");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "\n[kubernetes]\nnamespaces = [\"air-*\"]\n").unwrap();
    let order = |namespace: &str| {
        let spec = json!({ "namespace": namespace, "objects": [config_map("stations", &json!({ "a": "b" }))] });
        documents::order(vec![resource("stations", &spec, &json!({}))])
    };
    // Outside of a pod there is none.
    let file = world.file("order.yaml", &order(namespace).to_string());
    let said = world.charter(&["plan", "-f", &file, "--member", "city", "--channel", CHANNEL]);
    assert!(said.stdout.contains("kubernetes.kubeconfig"), "{said}");

    let _ledger = world.ledger();
    world.give("KUBERNETES_SERVICE_HOST", "127.0.0.1");
    world.give("KUBERNETES_SERVICE_PORT", stage.cluster.port().to_string());
    let serve = world.command(&["serve", "--config", &path.display().to_string()]);
    let mut pod = world.bare_command("unshare");
    pod.args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(
            "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && ln -s \"$0\" /run/secrets/kubernetes.io/serviceaccount \
             && exec \"$@\"",
        )
        .arg(identity)
        .arg(serve.get_program())
        .args(serve.get_args());
    let mut pod = Running::start(pod, world.root().join("pod.out"), world.root().join("pod.err"));
    pod.says("/healthz");
    world.submit("city", CHANNEL, &order(namespace)).exits(0);
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    until("the map is there", || {
        match stage.runtime.block_on(stage.admin.get(&maps, "stations")) {
            Some(map) if map["data"]["a"] == "b" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // What its account may not do is said.
    let objects = json!({ "namespace": NAMESPACE, "objects": [config_map("x", &json!({}))] });
    let other = documents::order(vec![resource("elsewhere", &objects, &json!({}))]);
    world.submit("city", CHANNEL, &other).exits(0);
    until("it is refused", || {
        let said = world.charter(&["status", "--member", "city", "-o", "json"]).stdout;
        let refused = said.contains("system:serviceaccount:air-pod:charter");
        if refused { Ok(()) } else { Err(said) }
    });
}
