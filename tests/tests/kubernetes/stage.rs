//! A cluster, a namespace in it, and a provider as the account that docs/kubernetes.md describes.

use std::path::Path;

use kubernetes::{Kubernetes, KubernetesConfig};
use providers::{Applied, Provider, Scope, Wanted};
use serde_json::{Value, json};
use state::errors::chain;
use state::observation::Observation;
use state::resource::Resource;
use tests::between::Between;
use tests::cluster::{Cluster, Hands, User};

/// The namespace that the tests' objects are in.
pub(crate) const NAMESPACE: &str = "air-tests";

/// Everything that a test needs.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) provider: Kubernetes,
    pub(crate) admin: Hands,
    pub(crate) runtime: tokio::runtime::Runtime,
}

/// What the account may do: the manifests that docs/kubernetes.md has an administrator apply.
fn permissions() -> Vec<Value> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kubernetes/permissions.yaml")).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

impl Stage {
    /// Starts it; none when the programs are missing.
    pub(crate) fn new() -> Option<Self> {
        Some(Self::on(Cluster::start()?))
    }

    /// Starts one in which nobody but the tests does anything.
    pub(crate) fn without_controllers() -> Option<Self> {
        Some(Self::on(Cluster::without_controllers()?))
    }

    fn on(cluster: Cluster) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let admin = runtime.block_on(cluster.hands(User::Admin));
        runtime.block_on(async {
            admin
                .apply(
                    "/api/v1/namespaces",
                    "kubectl",
                    &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
                )
                .await;
            for permission in permissions() {
                let plural = if permission["kind"] == "ClusterRole" {
                    "clusterroles"
                } else {
                    "clusterrolebindings"
                };
                admin
                    .apply(&format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), "kubectl", &permission)
                    .await;
            }
        });
        let provider = provider(&cluster, &cluster.folder().join("records"));
        let stage = Self {
            cluster,
            provider,
            admin,
            runtime,
        };
        stage.runtime.block_on(stage.grant());
        stage
    }

    /// Grants Charter's account its rights in the tests' namespace.
    pub(crate) async fn grant(&self) {
        self.grant_in(NAMESPACE).await;
    }

    /// Grants them in another one.
    pub(crate) async fn grant_in(&self, namespace: &str) {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "charter" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "charter" },
            "subjects": [{ "kind": "User", "name": "charter", "apiGroup": "rbac.authorization.k8s.io" }],
        });
        let bindings = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings");
        self.admin.apply(&bindings, "kubectl", &binding).await;
    }

    /// A provider whose member lets orders make kinds without a namespace, as an account that may.
    pub(crate) async fn allowing(&self, kinds: &[&str]) -> Kubernetes {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "charter-all" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "charter" },
            "subjects": [{ "kind": "User", "name": "charter", "apiGroup": "rbac.authorization.k8s.io" }],
        });
        self.admin
            .apply("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "kubectl", &binding)
            .await;
        Kubernetes::new(KubernetesConfig {
            cluster_kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            ..config(&self.cluster, &self.cluster.folder().join("records"))
        })
    }

    /// Has the provider read at every look, or watch, through somebody who can spoil what it says.
    pub(crate) fn between(&mut self, watch: bool) -> Between {
        let between = self.runtime.block_on(Between::on(&self.cluster.kubeconfig(User::Charter)));
        self.provider = Kubernetes::new(KubernetesConfig {
            watch,
            kubeconfig: Some(between.kubeconfig().to_owned()),
            ..config(&self.cluster, &self.cluster.folder().join("records"))
        });
        between
    }

    /// A stage without controllers whose provider watches through somebody, and a manifest of a config map `web` that it has applied.
    pub(crate) fn watched() -> Option<(Self, Between, Resource)> {
        let mut stage = Self::without_controllers()?;
        let between = stage.between(true);
        let web = manifest("web", &[config_map("web", &json!({ "a": "1" }))]);
        let applied = stage.runtime.block_on(stage.apply(&web));
        assert!(matches!(applied, Ok(Applied::Done { .. })), "{applied:?}");
        Some((stage, between, web))
    }

    /// Gives the provider a secret.
    pub(crate) fn secret(&self, name: &str, value: &str) {
        use std::os::unix::fs::PermissionsExt;
        let file = self.cluster.folder().join("secrets").join(name);
        std::fs::write(&file, value).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Sees one resource, as a process does that has only just started: what a watch would tell in a moment it reads.
    pub(crate) async fn see(&self, resource: &Resource) -> Observation {
        let wanted = Wanted::of(resource);
        let fresh = provider(&self.cluster, &self.cluster.folder().join("records"));
        let mut seen = fresh.observe(&scope(), &[wanted]).await;
        seen.resources.remove(&resource.name).unwrap()
    }

    pub(crate) async fn apply(&self, resource: &Resource) -> Result<Applied, String> {
        let done = self.provider.apply(&scope(), resource).await;
        done.map_err(|error| chain(&error))
    }
}

/// A provider as Charter's account, with a folder of secrets.
pub(crate) fn provider(cluster: &Cluster, records: &Path) -> Kubernetes {
    let config = config(cluster, records);
    config.check().unwrap();
    Kubernetes::new(config)
}

fn config(cluster: &Cluster, records: &Path) -> KubernetesConfig {
    let secrets = cluster.folder().join("secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    serde_json::from_value(json!({
        "kubeconfig": cluster.kubeconfig(User::Charter), "namespaces": ["air-*"], "records": records, "secrets": secrets,
    }))
    .unwrap()
}

pub(crate) fn scope() -> Scope {
    Scope::new("smart-city-1".parse().unwrap(), "city".parse().unwrap())
}

/// A manifest of these objects.
pub(crate) fn manifest(name: &str, objects: &[Value]) -> Resource {
    with(name, &json!({ "namespace": NAMESPACE, "objects": objects }))
}

/// A manifest with this specification.
pub(crate) fn with(name: &str, spec: &Value) -> Resource {
    serde_json::from_value(json!({ "name": name, "kind": "kubernetes/manifest", "owner": "city", "spec": spec })).unwrap()
}

pub(crate) fn config_map(name: &str, data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}
