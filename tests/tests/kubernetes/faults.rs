//! What goes wrong with a cluster, and with what others do on it: nothing is taken, pruned or deleted on a guess.

use axum::http::StatusCode;
use kubernetes::{Kubernetes, KubernetesConfig};
use providers::{Applied, Deleted, Observed, Provider, ProviderError, Wanted};
use serde_json::{Value, json};
use state::errors::chain;
use state::observation::Observation;
use state::resource::Resource;
use tests::between::Fault;
use tests::cluster::{User, until_async};

use crate::stage::{NAMESPACE, Stage, config_map, manifest, scope, with};

const CONFIG_MAPS: &str = "/api/v1/namespaces/air-tests/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/air-tests/deployments";

fn deployment(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [{ "name": "main", "image": image }] } },
        },
    })
}

/// Nothing is known of a resource, for a reason with these words, and nothing is called unwanted.
#[track_caller]
fn is_unknown(seen: &Observed, resource: &Resource, words: &str) {
    let told = format!("{:?}", seen.resources[&resource.name]);
    assert!(
        told.starts_with("Unknown") && told.contains(words) && seen.orphans.is_empty(),
        "{told}"
    );
}

fn present(seen: &Observation) -> (Vec<&str>, Option<&str>, Option<&str>) {
    match seen {
        Observation::Present {
            owned: true,
            drift,
            replace,
            blocked,
            ..
        } => {
            let paths = drift.iter().map(|field| field.path.as_str()).collect();
            (paths, replace.as_deref(), blocked.as_deref())
        }
        other => panic!("{other:?}"),
    }
}

async fn made(stage: &Stage, resource: &Resource) {
    until_async(&format!("{} is made", resource.name), async || match stage.see(resource).await {
        seen if seen.in_sync() => Ok(()),
        Observation::Absent => Err(format!("{:?}", stage.apply(resource).await)),
        seen => Err(format!("{seen:?}")),
    })
    .await;
}

/// Nothing differs: a controller may still have to see it.
async fn undisturbed(stage: &Stage, resource: &Resource) {
    until_async(&format!("{} is ready", resource.name), async || match stage.see(resource).await {
        seen if seen.in_sync() => Ok(()),
        seen @ Observation::Pending { .. } => Err(format!("{seen:?}")),
        seen => panic!("{seen:?}"),
    })
    .await;
}

#[test]
fn what_others_do_is_theirs_and_what_is_ours_comes_back() {
    let Some(stage) = Stage::new() else { return };
    stage.runtime.block_on(async {
        let web = manifest("web", &[deployment("web", "a:1"), config_map("web", &json!({ "a": "1" }))]);
        made(&stage, &web).await;
        // A field that we don't apply is nobody's drift.
        stage
            .admin
            .merge(
                DEPLOYMENTS,
                "web",
                &json!({ "metadata": { "annotations": { "note": "x" } }, "spec": { "paused": true } }),
            )
            .await;
        stage.admin.merge(CONFIG_MAPS, "web", &json!({ "data": { "b": "2" } })).await;
        undisturbed(&stage, &web).await;
        // One that we do is, and one path tells; it comes back, and the others' stays.
        stage.admin.merge(DEPLOYMENTS, "web", &json!({ "spec": { "replicas": 3 } })).await;
        assert_eq!(present(&stage.see(&web).await), (vec!["/objects/0/spec/replicas"], None, None));
        stage.apply(&web).await.unwrap();
        made(&stage, &web).await;
        assert_eq!(
            stage.admin.get(CONFIG_MAPS, "web").await.unwrap()["data"],
            json!({ "a": "1", "b": "2" })
        );
        // An object that was deleted, and one that nobody ordered any more.
        stage.admin.delete(CONFIG_MAPS, "web").await;
        assert_eq!(present(&stage.see(&web).await).0, ["/objects/1"]);
        stage.apply(&web).await.unwrap();
        let less = manifest("web", &[deployment("web", "a:1")]);
        assert_eq!(present(&stage.see(&less).await).0, ["/leftovers/ConfigMap/web"]);
        stage.apply(&less).await.unwrap();
        assert!(stage.admin.get(CONFIG_MAPS, "web").await.is_none());
        made(&stage, &less).await;

        // kubectl applies the same object beside us, with another image: neither takes it from the other.
        let theirs =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "shared" }, "data": { "theirs": "1", "both": "same" } });
        let ours = manifest("shared", &[config_map("shared", &json!({ "ours": "1", "both": "same" }))]);
        made(&stage, &ours).await;
        stage.admin.apply(CONFIG_MAPS, "kubectl", &theirs).await;
        undisturbed(&stage, &ours).await;
        // What they manage alone is contested, until the order takes it.
        let more = json!([config_map("shared", &json!({ "ours": "1", "both": "same", "theirs": "2" }))]);
        let contested = with("shared", &json!({ "namespace": NAMESPACE, "objects": more }));
        let seen = stage.see(&contested).await;
        let blocked = present(&seen).2.unwrap();
        assert!(blocked.contains(".data.theirs (kubectl)") && blocked.contains("take"), "{blocked}");
        assert!(stage.apply(&contested).await.unwrap_err().contains(".data.theirs (kubectl)"));
        assert_eq!(stage.admin.get(CONFIG_MAPS, "shared").await.unwrap()["data"]["theirs"], "1");
        let granted = with(
            "shared",
            &json!({ "namespace": NAMESPACE, "objects": more, "take": [{ "object": "ConfigMap/shared", "fields": [".data.theirs"] }] }),
        );
        assert_eq!(present(&stage.see(&granted).await), (vec!["/objects/0/data/theirs"], None, None));
        stage.apply(&granted).await.unwrap();
        made(&stage, &granted).await;

        // Fields that are left alone keep what others give them.
        let ignoring = with(
            "scaled",
            &json!({
                "namespace": NAMESPACE, "objects": [deployment("scaled", "a:1")],
                "ignore": [{ "object": "Deployment/scaled", "paths": ["/spec/replicas"] }],
                "outputs": { "name": { "object": "Deployment/scaled", "pointer": "/metadata/name" } },
            }),
        );
        made(&stage, &ignoring).await;
        stage
            .admin
            .merge(&format!("{DEPLOYMENTS}/scaled"), "scale", &json!({ "spec": { "replicas": 0 } }))
            .await;
        undisturbed(&stage, &ignoring).await;
        assert_eq!(stage.see(&ignoring).await.outputs().unwrap().get("name"), Some(&json!("scaled")));
    });
}

#[test]
fn what_cannot_be_changed_is_replaced_only_where_the_order_says_so() {
    let Some(stage) = Stage::new() else { return };
    stage.runtime.block_on(async {
        let frozen = |value: &str, replace: Value| {
            let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "frozen" }, "immutable": true, "data": { "k": value } });
            with("frozen", &json!({ "namespace": NAMESPACE, "objects": [object], "replace": replace }))
        };
        made(&stage, &frozen("1", json!([]))).await;
        let seen = stage.see(&frozen("2", json!([]))).await;
        let (_, replace, blocked) = present(&seen);
        assert!(replace.is_none() && blocked.is_some_and(|why| why.contains("replace names ConfigMap/frozen")), "{seen:?}");
        let seen = stage.see(&frozen("2", json!(["ConfigMap/frozen"]))).await;
        let (_, replace, blocked) = present(&seen);
        assert!(blocked.is_none() && replace.is_some_and(|why| why.contains("data")), "{seen:?}");
        // Any other refusal is an error, and never a reason to delete.
        let bad = with(
            "frozen",
            &json!({ "namespace": NAMESPACE, "objects": [config_map("frozen", &json!({ "k": 5 }))], "replace": ["ConfigMap/frozen"] }),
        );
        let seen = stage.see(&bad).await;
        let (_, replace, blocked) = present(&seen);
        assert!(replace.is_none() && blocked.is_some(), "{seen:?}");
        assert_eq!(stage.admin.get(CONFIG_MAPS, "frozen").await.unwrap()["data"]["k"], "1");
    });
}

#[test]
fn a_server_that_goes_makes_everything_unknown_and_nothing_unwanted() {
    let Some(mut stage) = Stage::new() else { return };
    let web = manifest("web", &[config_map("web", &json!({ "a": "1" }))]);
    stage.runtime.block_on(made(&stage, &web));
    stage.cluster.kill_server();
    stage.runtime.block_on(async {
        assert!(matches!(stage.see(&web).await, Observation::Unknown { .. }));
        assert!(stage.provider.observe(&scope(), &[]).await.orphans.is_empty());
        assert!(stage.apply(&web).await.is_err());
    });
    stage.cluster.start_server();
    stage.runtime.block_on(async {
        until_async("it is seen again", async || match stage.see(&web).await {
            seen if seen.in_sync() => Ok(()),
            seen => Err(format!("{seen:?}")),
        })
        .await;
        // An API that is served by nobody: what is of it is unknown, and the rest is seen.
        let service = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": "v1.gone.example" },
            "spec": { "group": "gone.example", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": { "namespace": NAMESPACE, "name": "nobody" } },
        });
        stage
            .admin
            .apply("/apis/apiregistration.k8s.io/v1/apiservices", "kubectl", &service)
            .await;
        let odd = manifest(
            "odd",
            &[json!({ "apiVersion": "gone.example/v1", "kind": "Thing", "metadata": { "name": "x" } })],
        );
        let both: Vec<Wanted<'_>> = [&web, &odd].into_iter().map(Wanted::of).collect();
        until_async("its kinds can't be asked for", async || {
            let seen = stage.provider.observe(&scope(), &both).await;
            match (&seen.resources[&web.name], &seen.resources[&odd.name]) {
                (web, Observation::Unknown { .. }) if web.in_sync() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let only = stage.provider.observe(&scope(), &both[1..]).await;
        assert!(only.orphans.is_empty(), "{:?}", only.orphans);
    });
}

#[test]
fn a_role_that_a_binding_has_already_is_immutable() {
    let Some(stage) = Stage::without_controllers() else { return };
    stage.runtime.block_on(async {
        let binding = |role: &str| {
            let object = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "bound" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
                "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE }],
            });
            with(
                "bound",
                &json!({ "namespace": NAMESPACE, "objects": [object], "replace": ["RoleBinding/bound"] }),
            )
        };
        // As the administrator by his kubeconfig, acting as another: who binds a role has to have its rights.
        let kubeconfig = stage.cluster.kubeconfig(User::Admin);
        let config: KubernetesConfig = serde_json::from_value(json!({
            "kubeconfig": kubeconfig, "context": "test", "namespaces": ["air-*"], "records": stage.cluster.folder().join("acting"),
            "impersonate": { "user": "somebody", "groups": ["system:masters"] },
        }))
        .unwrap();
        let acting = Kubernetes::new(config);
        acting.apply(&scope(), &binding("view")).await.unwrap();
        let other = binding("edit");
        let seen = acting.observe(&scope(), &[Wanted::of(&other)]).await;
        let (_, replace, blocked) = present(&seen.resources[&other.name]);
        assert!(blocked.is_none() && replace.is_some_and(|why| why.contains("roleRef")), "{seen:?}");
        // A context that the kubeconfig doesn't have, and somebody who may do nothing.
        let base = json!({ "kubeconfig": kubeconfig, "namespaces": ["air-*"], "records": stage.cluster.folder().join("nobody") });
        for (key, value, words) in [
            ("context", json!("elsewhere"), "kubernetes.context"),
            ("impersonate", json!({ "user": "nobody" }), "cannot list"),
        ] {
            let mut config = base.clone();
            config[key] = value;
            let provider = Kubernetes::new(serde_json::from_value(config).unwrap());
            let seen = provider.observe(&scope(), &[Wanted::of(&other)]).await;
            is_unknown(&seen, &other, words);
        }
    });
}

#[test]
fn a_server_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_asks() {
    let Some((stage, between, web)) = Stage::watched() else { return };
    stage.runtime.block_on(async {
        let wanted = [Wanted::of(&web)];
        for (code, why) in [(StatusCode::TOO_MANY_REQUESTS, "429"), (StatusCode::INTERNAL_SERVER_ERROR, "500")] {
            // Long enough for what is looked at meanwhile on a machine that has much to do.
            between.spoil(&[Fault::Refuse(code, 5)]);
            // All that is wanted is unknown, and nothing is called unwanted.
            let seen = stage.provider.observe(&scope(), &wanted).await;
            is_unknown(&seen, &web, why);
            between.seen();
            let none = stage.provider.observe(&scope(), &[]).await;
            assert!(none.orphans.is_empty());
            let refused = stage.apply(&web).await.unwrap_err();
            assert!(refused.contains("asked to be left alone"), "{refused}");
            assert!(between.seen().is_empty(), "it is not asked before it wants to be");
            until_async("it is seen again", async || {
                let seen = stage.provider.observe(&scope(), &wanted).await;
                if seen.resources[&web.name].in_sync() {
                    Ok(())
                } else {
                    Err(format!("{seen:?}"))
                }
            })
            .await;
        }
    });
}

#[test]
fn kinds_of_ones_own_come_with_their_definition_and_go_with_it() {
    let Some(stage) = Stage::new() else { return };
    stage.runtime.block_on(async {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "stations.air.example" },
            "spec": {
                "group": "air.example", "scope": "Namespaced", "names": { "plural": "stations", "singular": "station", "kind": "Station" },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "properties": { "street": { "type": "string" }, "height": { "type": "integer", "default": 3 } } },
                } } } }],
            },
        });
        let station = json!({ "apiVersion": "air.example/v1", "kind": "Station", "metadata": { "name": "harbour" }, "spec": { "street": "Quay" } });
        let own = manifest("stations", &[station.clone(), definition]);
        // What has no namespace needs a word of the member's own, and the server hears nothing of it before.
        let refused = stage.provider.apply(&scope(), &own).await.unwrap_err();
        assert!(matches!(refused, ProviderError::Invalid(_)) && chain(&refused).contains("kubernetes.cluster_kinds"), "{refused:?}");
        let unknown = manifest("unknown", std::slice::from_ref(&station));
        assert!(stage.apply(&unknown).await.unwrap_err().contains("the server has no kind Station (air.example/v1)"));
        let allowed = stage.allowing(&["CustomResourceDefinition"]).await;
        let provider = &allowed;
        let see = async |resource: &Resource| {
            let wanted = Wanted::of(resource);
            provider.observe(&scope(), &[wanted]).await.resources[&resource.name].clone()
        };
        assert_eq!(see(&own).await, Observation::Absent);
        until_async("definition and object are there", async || match see(&own).await {
            seen if seen.in_sync() => Ok(()),
            seen => Err(format!("{seen:?}, {:?}", provider.apply(&scope(), &own).await.map_err(|error| chain(&error)))),
        })
        .await;
        assert!(see(&own).await.in_sync(), "a default of the schema is no drift");
        // Somebody else's station keeps the definition.
        let theirs = json!({ "apiVersion": "air.example/v1", "kind": "Station", "metadata": { "name": "theirs" }, "spec": {} });
        let stations = format!("/apis/air.example/v1/namespaces/{NAMESPACE}/stations");
        stage.admin.apply(&stations, "kubectl", &theirs).await;
        let delete = async || provider.delete(&scope(), &own.kind, &own.name, "smart-city-1/stations").await.map_err(|error| chain(&error));
        until_async("only the definition is left", async || match delete().await {
            Ok(Deleted::Pending { why }) if why.contains("it still holds Station air-tests/theirs") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert!(stage.admin.get(&stations, "harbour").await.is_none() && stage.admin.get(&stations, "theirs").await.is_some());
        stage.admin.delete(&stations, "theirs").await;
        until_async("it is gone", async || match delete().await {
            Ok(Deleted::Gone) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(see(&own).await, Observation::Absent);
    });
}

#[test]
fn a_namespace_goes_when_nobody_else_has_anything_in_it() {
    let Some(stage) = Stage::new() else { return };
    stage.runtime.block_on(async {
        let resource: Resource = serde_json::from_value(json!({
            "name": "data", "kind": "kubernetes/namespace", "owner": "city", "spec": { "name": "air-data", "labels": { "team": "air" } },
        }))
        .unwrap();
        let elsewhere: Resource = serde_json::from_value(json!({
            "name": "data", "kind": "kubernetes/namespace", "owner": "city", "spec": { "name": "kube-public" },
        }))
        .unwrap();
        assert!(chain(&stage.provider.validate(&elsewhere).unwrap_err()).contains("kubernetes.namespaces"));
        made(&stage, &resource).await;
        assert_eq!(stage.see(&resource).await.outputs().unwrap().get("name"), Some(&json!("air-data")));
        stage
            .admin
            .merge(
                "/api/v1/namespaces",
                "air-data",
                &json!({ "metadata": { "labels": { "team": "tram" } } }),
            )
            .await;
        assert_eq!(present(&stage.see(&resource).await).0, ["/metadata/labels/team"]);
        stage.grant_in("air-data").await;
        stage
            .admin
            .apply(
                "/api/v1/namespaces/air-data/configmaps",
                "kubectl",
                &config_map("theirs", &json!({})),
            )
            .await;
        let delete = async || {
            stage
                .provider
                .delete(&scope(), &resource.kind, &resource.name, "smart-city-1/data")
                .await
                .map_err(|error| chain(&error))
        };
        until_async("what somebody has there keeps it", async || match delete().await {
            Ok(Deleted::Pending { why }) if why.contains("it still holds ConfigMap air-data/theirs") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        stage.admin.delete("/api/v1/namespaces/air-data/configmaps", "theirs").await;
        until_async("it is gone", async || match delete().await {
            Ok(Deleted::Gone) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert!(stage.admin.get("/api/v1/namespaces", "air-data").await.is_none());
    });
}

#[test]
fn a_webhook_that_refuses_is_told_and_secrets_are_in_nothing_that_is_said() {
    let Some(stage) = Stage::new() else { return };
    stage.secret("password", "canary-9913");
    stage.runtime.block_on(async {
        let secret = |name: &str| {
            let object = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "p": { "$secret": "password" } } });
            manifest(name, &[object])
        };
        made(&stage, &secret("s")).await;
        let secrets = "/api/v1/namespaces/air-tests/secrets";
        stage.admin.merge(secrets, "s", &json!({ "data": { "p": "Y2FuYXJ5LTU1MTI=" } })).await;
        let seen = format!("{:?}", stage.see(&secret("s")).await);
        assert!(seen.contains("/objects/0/data/p") && !seen.contains("Y2Fu") && !seen.contains("canary"), "{seen}");
        let bad = with(
            "s",
            &json!({ "namespace": NAMESPACE, "objects": [{ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "type": "kubernetes.io/tls", "stringData": { "p": { "$secret": "password" } } }] }),
        );
        let said = format!("{:?} {:?}", stage.see(&bad).await, stage.apply(&bad).await);
        assert!(!said.contains("canary") && !said.contains("Y2Fu"), "{said}");
        let scripts = stage.provider.render(&scope(), &secret("s")).unwrap();
        assert!(!String::from_utf8_lossy(&scripts[0].bytes).contains("canary"));
        for file in std::fs::read_dir(stage.cluster.folder().join("records/smart-city-1/city")).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(!text.contains("canary") && !text.contains("Y2Fu"), "{text}");
        }

        let hook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": { "name": "refuses" },
            "webhooks": [{
                "name": "refuses.air.example", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
                "clientConfig": { "url": "https://127.0.0.1:9/" },
                "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"] }],
                "objectSelector": { "matchLabels": { "charter.dao/member": "city" } },
            }],
        });
        stage.admin.apply("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", "kubectl", &hook).await;
        let web = manifest("web", &[config_map("web", &json!({ "a": "1" }))]);
        until_async("the webhook is asked", async || match stage.apply(&web).await {
            Err(error) if error.contains("refuses.air.example") => Ok(()),
            Ok(Applied::Done { .. }) => {
                let gone = stage.provider.delete(&scope(), &web.kind, &web.name, "smart-city-1/web").await;
                Err(format!("{gone:?}"))
            }
            other => Err(format!("{other:?}")),
        })
        .await;
    });
}
