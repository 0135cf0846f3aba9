//! Everyday manifests, in the shapes that users fight with: applied, then seen as they are, twice, and again once the controllers were there.

use providers::{Applied, Provider, Wanted};
use serde_json::{Value, json};
use state::errors::chain;
use state::observation::Observation;
use state::resource::Resource;
use tests::cluster::until_async;

use crate::stage::{NAMESPACE, Stage, config_map, manifest, scope};

fn object(api: &str, kind: &str, name: &str, rest: &Value) -> Value {
    let mut object = json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name } });
    for (key, value) in rest.as_object().unwrap() {
        if key == "metadata" {
            for (key, value) in value.as_object().unwrap() {
                object["metadata"][key] = value.clone();
            }
        } else {
            object[key] = value.clone();
        }
    }
    object
}

fn container(more: &Value) -> Value {
    let mut container = json!({ "name": "main", "image": "registry.example/main:1" });
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    container
}

fn pods(app: &str, containers: &[Value]) -> Value {
    json!({ "metadata": { "labels": { "app": app } }, "spec": { "containers": containers } })
}

fn workload(kind: &str, name: &str, container: &Value, more: &Value) -> Value {
    let mut spec = json!({ "selector": { "matchLabels": { "app": name } }, "template": pods(name, std::slice::from_ref(container)) });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    object("apps/v1", kind, name, &json!({ "spec": spec }))
}

/// The manifests, each a resource of its own.
fn everyday() -> Vec<(&'static str, Value)> {
    let plain = container(&json!({}));
    let mut all = vec![
        ("cm", config_map("cm", &json!({ "a": "1", "multi": "line 1\nline 2\n" }))),
        (
            "cm-labelled",
            object(
                "v1",
                "ConfigMap",
                "cm-labelled",
                &json!({ "metadata": { "labels": { "app.kubernetes.io/name": "x" }, "annotations": { "note": "" } }, "data": { "empty": "" } }),
            ),
        ),
        (
            "svc-policies",
            object(
                "v1",
                "Service",
                "svc-policies",
                &json!({ "spec": { "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP", "selector": { "app": "x" }, "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53 }] } }),
            ),
        ),
        ("cm-empty", object("v1", "ConfigMap", "cm-empty", &json!({}))),
        (
            "cm-binary",
            object("v1", "ConfigMap", "cm-binary", &json!({ "binaryData": { "blob": "AAEC/w==" } })),
        ),
        (
            "cm-immutable",
            object(
                "v1",
                "ConfigMap",
                "cm-immutable",
                &json!({ "data": { "k": "v" }, "immutable": true }),
            ),
        ),
        (
            "secret",
            object(
                "v1",
                "Secret",
                "secret",
                &json!({ "stringData": { "password": { "$secret": "password" } } }),
            ),
        ),
        (
            "secret-data",
            object(
                "v1",
                "Secret",
                "secret-data",
                &json!({ "type": "Opaque", "data": { "p": { "$secret": "password" } } }),
            ),
        ),
        (
            "secret-auth",
            object(
                "v1",
                "Secret",
                "secret-auth",
                &json!({ "type": "kubernetes.io/basic-auth", "stringData": { "username": { "$secret": "user" }, "password": { "$secret": "password" } } }),
            ),
        ),
        (
            "service",
            object(
                "v1",
                "Service",
                "service",
                &json!({ "spec": { "selector": { "app": "x" }, "ports": [{ "port": 80 }] } }),
            ),
        ),
        (
            "service-named",
            object(
                "v1",
                "Service",
                "service-named",
                &json!({ "spec": { "selector": { "app": "x" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }, { "name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP" }] } }),
            ),
        ),
        (
            "service-headless",
            object(
                "v1",
                "Service",
                "service-headless",
                &json!({ "spec": { "clusterIP": "None", "selector": { "app": "x" }, "ports": [{ "port": 80 }] } }),
            ),
        ),
        (
            "service-external",
            object(
                "v1",
                "Service",
                "service-external",
                &json!({ "spec": { "type": "ExternalName", "externalName": "air.example" } }),
            ),
        ),
        (
            "service-node",
            object(
                "v1",
                "Service",
                "service-node",
                &json!({ "spec": { "type": "NodePort", "selector": { "app": "x" }, "ports": [{ "port": 80 }] } }),
            ),
        ),
        (
            "service-sticky",
            object(
                "v1",
                "Service",
                "service-sticky",
                &json!({ "spec": { "sessionAffinity": "ClientIP", "selector": { "app": "x" }, "ports": [{ "name": "udp", "port": 53, "protocol": "UDP" }, { "name": "tcp", "port": 53 }] } }),
            ),
        ),
        (
            "account",
            object("v1", "ServiceAccount", "account", &json!({ "automountServiceAccountToken": false })),
        ),
        ("deployment", workload("Deployment", "deployment", &plain, &json!({}))),
        (
            "deployment-none",
            workload("Deployment", "deployment-none", &plain, &json!({ "replicas": 0 })),
        ),
        (
            "deployment-port",
            workload(
                "Deployment",
                "deployment-port",
                &container(&json!({ "ports": [{ "containerPort": 80 }, { "containerPort": 53, "protocol": "UDP" }] })),
                &json!({}),
            ),
        ),
        (
            "deployment-quantities",
            workload(
                "Deployment",
                "deployment-quantities",
                &container(
                    &json!({ "resources": { "requests": { "cpu": "0.5", "memory": "0.5Gi" }, "limits": { "cpu": "1000m", "memory": "1024Mi" } } }),
                ),
                &json!({}),
            ),
        ),
        (
            "deployment-quantities-2",
            workload(
                "Deployment",
                "deployment-quantities-2",
                &container(
                    &json!({ "resources": { "requests": { "cpu": "500m", "memory": "1000Ki" }, "limits": { "cpu": 2, "ephemeral-storage": "1e3" } } }),
                ),
                &json!({}),
            ),
        ),
        (
            "deployment-env",
            workload(
                "Deployment",
                "deployment-env",
                &container(
                    &json!({ "env": [{ "name": "A", "value": "" }, { "name": "B", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }, { "name": "C", "valueFrom": { "secretKeyRef": { "name": "secret", "key": "password" } } }], "envFrom": [{ "configMapRef": { "name": "cm" } }] }),
                ),
                &json!({}),
            ),
        ),
        (
            "deployment-probes",
            workload(
                "Deployment",
                "deployment-probes",
                &container(
                    &json!({ "livenessProbe": { "httpGet": { "path": "/", "port": 80 } }, "readinessProbe": { "tcpSocket": { "port": 80 }, "periodSeconds": 5 }, "startupProbe": { "exec": { "command": ["true"] } } }),
                ),
                &json!({}),
            ),
        ),
        (
            "deployment-strategy",
            workload(
                "Deployment",
                "deployment-strategy",
                &plain,
                &json!({ "strategy": { "type": "Recreate" } }),
            ),
        ),
        (
            "deployment-rolling",
            workload(
                "Deployment",
                "deployment-rolling",
                &plain,
                &json!({ "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": "25%" } }, "revisionHistoryLimit": 2 }),
            ),
        ),
        ("daemon-set", workload("DaemonSet", "daemon-set", &plain, &json!({}))),
        (
            "stateful-set",
            workload("StatefulSet", "stateful-set", &plain, &json!({ "serviceName": "service-headless" })),
        ),
        (
            "stateful-set-claims",
            workload(
                "StatefulSet",
                "stateful-set-claims",
                &container(&json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] })),
                &json!({ "serviceName": "service-headless", "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1024Mi" } } } }] }),
            ),
        ),
        (
            "replica-set",
            workload("ReplicaSet", "replica-set", &plain, &json!({ "replicas": 1 })),
        ),
        (
            "pod",
            object(
                "v1",
                "Pod",
                "pod",
                &json!({ "spec": { "containers": [plain], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0 } }),
            ),
        ),
        (
            "job",
            object(
                "batch/v1",
                "Job",
                "job",
                &json!({ "spec": { "template": { "spec": { "containers": [plain], "restartPolicy": "Never" } } } }),
            ),
        ),
        (
            "job-limits",
            object(
                "batch/v1",
                "Job",
                "job-limits",
                &json!({ "spec": { "backoffLimit": 0, "ttlSecondsAfterFinished": 60, "completions": 2, "parallelism": 2, "template": { "spec": { "containers": [plain], "restartPolicy": "OnFailure" } } } }),
            ),
        ),
        (
            "cron-job",
            object(
                "batch/v1",
                "CronJob",
                "cron-job",
                &json!({ "spec": { "schedule": "0 4 * * *", "jobTemplate": { "spec": { "template": { "spec": { "containers": [plain], "restartPolicy": "Never" } } } } } }),
            ),
        ),
        (
            "cron-job-suspended",
            object(
                "batch/v1",
                "CronJob",
                "cron-job-suspended",
                &json!({ "spec": { "schedule": "@daily", "suspend": true, "timeZone": "Etc/UTC", "concurrencyPolicy": "Forbid", "jobTemplate": { "spec": { "template": { "spec": { "containers": [plain], "restartPolicy": "Never" } } } } } }),
            ),
        ),
        (
            "hpa",
            object(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                "hpa",
                &json!({ "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "deployment-none" }, "maxReplicas": 3 } }),
            ),
        ),
        (
            "hpa-metrics",
            object(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                "hpa-metrics",
                &json!({ "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "deployment-none" }, "minReplicas": 1, "maxReplicas": 3, "metrics": [
                    { "type": "Resource", "resource": { "name": "memory", "target": { "type": "Utilization", "averageUtilization": 80 } } },
                    { "type": "Resource", "resource": { "name": "cpu", "target": { "type": "AverageValue", "averageValue": "0.5" } } },
                ] } }),
            ),
        ),
        (
            "pdb",
            object(
                "policy/v1",
                "PodDisruptionBudget",
                "pdb",
                &json!({ "spec": { "minAvailable": "50%", "selector": { "matchLabels": { "app": "x" } } } }),
            ),
        ),
        (
            "pdb-number",
            object(
                "policy/v1",
                "PodDisruptionBudget",
                "pdb-number",
                &json!({ "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "y" } } } }),
            ),
        ),
        (
            "ingress",
            object(
                "networking.k8s.io/v1",
                "Ingress",
                "ingress",
                &json!({ "spec": { "rules": [{ "host": "air.example", "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "service", "port": { "number": 80 } } } }] } }] } }),
            ),
        ),
        (
            "ingress-tls",
            object(
                "networking.k8s.io/v1",
                "Ingress",
                "ingress-tls",
                &json!({ "metadata": { "annotations": { "example/rewrite": "/" } }, "spec": { "ingressClassName": "nginx", "tls": [{ "hosts": ["air.example"], "secretName": "tls" }], "defaultBackend": { "service": { "name": "service", "port": { "name": "http" } } } } }),
            ),
        ),
        (
            "policy-deny",
            object(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "policy-deny",
                &json!({ "spec": { "podSelector": {}, "policyTypes": ["Ingress"] } }),
            ),
        ),
        (
            "policy-allow",
            object(
                "networking.k8s.io/v1",
                "NetworkPolicy",
                "policy-allow",
                &json!({ "spec": { "podSelector": { "matchLabels": { "app": "x" } }, "ingress": [{ "from": [{ "podSelector": {} }], "ports": [{ "port": 80 }] }], "egress": [{ "to": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }] }] } }),
            ),
        ),
        (
            "claim",
            object(
                "v1",
                "PersistentVolumeClaim",
                "claim",
                &json!({ "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "0.5Gi" } } } }),
            ),
        ),
        (
            "claim-class",
            object(
                "v1",
                "PersistentVolumeClaim",
                "claim-class",
                &json!({ "spec": { "storageClassName": "", "accessModes": ["ReadOnlyMany"], "resources": { "requests": { "storage": "1Gi" } } } }),
            ),
        ),
        (
            "quota",
            object(
                "v1",
                "ResourceQuota",
                "quota",
                &json!({ "spec": { "hard": { "count/widgets.air.example": "1000", "services.loadbalancers": "2" } } }),
            ),
        ),
        (
            "limits",
            object(
                "v1",
                "LimitRange",
                "limits",
                &json!({ "spec": { "limits": [{ "type": "PersistentVolumeClaim", "max": { "storage": "100Gi" } }] } }),
            ),
        ),
        (
            "role",
            object(
                "rbac.authorization.k8s.io/v1",
                "Role",
                "role",
                &json!({ "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"] }] }),
            ),
        ),
        (
            "role-binding",
            object(
                "rbac.authorization.k8s.io/v1",
                "RoleBinding",
                "role-binding",
                &json!({ "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "role" }, "subjects": [{ "kind": "ServiceAccount", "name": "account", "namespace": NAMESPACE }] }),
            ),
        ),
        (
            "lease",
            object(
                "coordination.k8s.io/v1",
                "Lease",
                "lease",
                &json!({ "spec": { "holderIdentity": "me", "leaseDurationSeconds": 15 } }),
            ),
        ),
        (
            "slice",
            object(
                "discovery.k8s.io/v1",
                "EndpointSlice",
                "slice",
                &json!({ "metadata": { "labels": { "kubernetes.io/service-name": "service-external" } }, "addressType": "IPv4", "endpoints": [{ "addresses": ["10.1.2.3"] }], "ports": [{ "port": 80 }] }),
            ),
        ),
        (
            "template",
            object(
                "v1",
                "PodTemplate",
                "template",
                &json!({ "template": pods("x", std::slice::from_ref(&plain)) }),
            ),
        ),
    ];
    // The same deployment with one more everyday thing each.
    let pod_specs = [
        (
            "volumes",
            json!({ "volumes": [{ "name": "tmp", "emptyDir": {} }, { "name": "cm", "configMap": { "name": "cm", "items": [{ "key": "a", "path": "a" }] } }, { "name": "s", "secret": { "secretName": "secret" } }] }),
        ),
        (
            "projected",
            json!({ "volumes": [{ "name": "p", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }, { "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } }] } }] }),
        ),
        (
            "init",
            json!({ "initContainers": [{ "name": "init", "image": "registry.example/init:1", "command": ["sh", "-c", "exit 0"] }] }),
        ),
        (
            "sidecar",
            json!({ "initContainers": [{ "name": "sidecar", "image": "registry.example/side:1", "restartPolicy": "Always" }] }),
        ),
        (
            "security",
            json!({ "securityContext": { "runAsNonRoot": true, "fsGroup": 1000, "seccompProfile": { "type": "RuntimeDefault" } } }),
        ),
        (
            "affinity",
            json!({ "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100, "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "x" } } } }] } } }),
        ),
        (
            "spread",
            json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": { "matchLabels": { "app": "x" } } }] }),
        ),
        (
            "tolerations",
            json!({ "tolerations": [{ "key": "gpu", "operator": "Exists", "effect": "NoSchedule" }], "nodeSelector": { "kubernetes.io/os": "linux" } }),
        ),
        (
            "dns",
            json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["10.0.0.10"], "options": [{ "name": "ndots", "value": "2" }] }, "hostAliases": [{ "ip": "10.0.0.1", "hostnames": ["a"] }] }),
        ),
        (
            "account",
            json!({ "serviceAccountName": "account", "automountServiceAccountToken": true, "imagePullSecrets": [{ "name": "pull" }] }),
        ),
    ];
    for (name, more) in pod_specs {
        let name: &'static str = Box::leak(format!("pod-{name}").into_boxed_str());
        let mut deployment = workload("Deployment", name, &plain, &json!({ "replicas": 0 }));
        deployment["spec"]["template"]["spec"]
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all.push((name, deployment));
    }
    all
}

/// Whether nothing would be changed: it may still have to become ready.
fn is_as_asked(seen: &Observation) -> bool {
    matches!(seen, Observation::Pending { .. }) || seen.in_sync()
}

#[test]
fn everyday_manifests_stay_as_they_were_applied() {
    let Some(stage) = Stage::new() else { return };
    stage.secret("password", "canary-7261");
    stage.secret("user", "city");
    let all: Vec<Resource> = everyday().into_iter().map(|(name, object)| manifest(name, &[object])).collect();
    assert!(all.len() >= 58, "{}", all.len());
    let wanted: Vec<Wanted<'_>> = all.iter().map(Wanted::of).collect();
    stage.runtime.block_on(async {
        let seen = stage.provider.observe(&scope(), &wanted).await;
        for resource in &all {
            assert_eq!(seen.resources[&resource.name], Observation::Absent, "{}", resource.name);
            let applied = stage.provider.apply(&scope(), resource).await;
            assert!(
                matches!(applied, Ok(Applied::Done { .. } | Applied::Pending { .. })),
                "{}: {}",
                resource.name,
                applied.err().map(|error| chain(&error)).unwrap_or_default()
            );
        }
        let unchanged = async |when: &str| {
            let seen = stage.provider.observe(&scope(), &wanted).await;
            assert!(seen.orphans.is_empty(), "{when}: {:?}", seen.orphans);
            for (name, seen) in &seen.resources {
                assert!(is_as_asked(seen), "{when}, {name}: {seen:?}");
            }
        };
        unchanged("right after").await;
        unchanged("and again").await;
        // The controllers have been there when they have made what they make of these.
        until_async("the controllers have seen them", async || {
            let sets = stage
                .admin
                .list(&format!("/apis/apps/v1/namespaces/{NAMESPACE}/replicasets"))
                .await
                .len();
            let slices = stage
                .admin
                .list(&format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"))
                .await
                .len();
            let deployment = stage
                .admin
                .get(&format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments"), "deployment")
                .await;
            let seen = deployment.is_some_and(|found| found["status"]["observedGeneration"].is_u64());
            (sets >= 15 && slices >= 5 && seen)
                .then_some(())
                .ok_or(format!("{sets} replica sets, {slices} slices"))
        })
        .await;
        unchanged("once the controllers were there").await;
        // A provider that remembers nothing finds everything, and nothing else.
        let forgetful = crate::stage::provider(&stage.cluster, &stage.cluster.folder().join("others"));
        let seen = forgetful.observe(&scope(), &wanted).await;
        for (name, seen) in &seen.resources {
            assert!(is_as_asked(seen), "with its records lost, {name}: {seen:?}");
        }
        assert!(seen.orphans.is_empty(), "{:?}", seen.orphans);
        let few = &wanted[..wanted.len() - 1];
        let orphans = forgetful.observe(&scope(), few).await.orphans;
        assert_eq!(orphans.len(), 1, "{orphans:?}");
    });
}
