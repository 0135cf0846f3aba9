//! A provider whose workspaces are on a server: our own, with a real engine, behind somebody who spoils what he is told to.

use std::path::PathBuf;

use providers::Provider;
use serde_json::{Value, json};
use state::resource::Resource;
use terraform::{Terraform, TerraformConfig};
use tests::passes::{Acting, runtime};
use tests::relay::Relay;
use tests::wait::until;
use tfc_server::{Server, Settings};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::stage::engine;

/// Everything that a test needs.
pub(crate) struct Hosted {
    folder: tempfile::TempDir,
    pub(crate) provider: Terraform,
    pub(crate) relay: Relay,
    /// The server's own address, where nothing is spoilt.
    direct: String,
    token: String,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) runtime: Runtime,
}

impl Acting for Hosted {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

impl Hosted {
    /// Makes one; none when there is no engine. `more` are settings of the provider's.
    pub(crate) fn new(more: &Value) -> Option<Self> {
        Self::with(None, more)
    }

    /// Makes one whose engine takes providers from a folder.
    pub(crate) fn with(mirror: Option<PathBuf>, more: &Value) -> Option<Self> {
        let engine = engine()?;
        let folder = tempfile::Builder::new().prefix("charter-tfc-").tempdir().unwrap();
        let settings = Settings {
            folder: folder.path().join("server"),
            engine,
            mirror,
            runs: 2,
            rate: 1_000,
        };
        let server = Server::open(settings).unwrap();
        server.organization("acme").unwrap();
        let token = std::fs::read_to_string(server.token()).unwrap();
        let secrets = folder.path().join("secrets");
        std::fs::create_dir(&secrets).unwrap();
        let runtime = runtime();
        let (stop, stopped) = oneshot::channel::<()>();
        let (relay, address) = runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let stopping = async {
                let _ = stopped.await;
            };
            tokio::spawn(server.serve(listener, stopping));
            (Relay::on(address).await, address)
        });
        let provider = provider(folder.path().to_owned(), &relay, more);
        let stage = Self {
            folder,
            provider,
            relay,
            direct: format!("http://{address}"),
            token,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            stop: Some(stop),
            runtime,
        };
        stage.secret("tfc", &stage.token);
        Some(stage)
    }

    /// Keeps a secret for the provider.
    pub(crate) fn secret(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join("secrets").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn direct(&self) -> &str {
        &self.direct
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A path of the stage's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another provider in the place of the one that is there, as after a Charter's death.
    pub(crate) fn renew(&mut self, more: &Value) {
        self.provider = provider(self.folder.path().to_owned(), &self.relay, more);
    }

    /// Asks the server itself, as somebody else with a token.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, format!("{}/api/v2{path}", self.direct));
        let request = request.bearer_auth(&self.token).header("content-type", "application/vnd.api+json");
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// The workspace of a resource, if there is one.
    pub(crate) async fn workspace(&self, resource: &Resource) -> Option<Value> {
        let path = format!("/organizations/acme/workspaces/air_{}", resource.name);
        let (status, value) = self.ask("GET", &path, &Value::Null).await;
        (status == 200).then(|| value["data"].clone())
    }

    /// The identity of a resource's workspace.
    pub(crate) async fn id(&self, resource: &Resource) -> String {
        let workspace = self.workspace(resource).await.expect("the workspace is there");
        workspace["id"].as_str().unwrap().to_owned()
    }

    /// Its state, if it has one.
    pub(crate) async fn state(&self, resource: &Resource) -> Option<Value> {
        let workspace = self.workspace(resource).await?;
        let id = workspace["relationships"]["current-state-version"]["data"]["id"]
            .as_str()?
            .to_owned();
        let (_, version) = self.ask("GET", &format!("/state-versions/{id}"), &Value::Null).await;
        let address = version["data"]["attributes"]["hosted-state-download-url"].as_str()?.to_owned();
        let text = self.client.get(address).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).ok()
    }

    /// How many things its state has.
    pub(crate) async fn count(&self, resource: &Resource) -> usize {
        let state = self.state(resource).await;
        state.map_or(0, |state| state["resources"].as_array().map_or(0, Vec::len))
    }

    /// Changes the state of a resource behind everybody's back, as somebody does who has locked it.
    pub(crate) async fn meddle(&self, resource: &Resource, change: impl Fn(&mut Value)) {
        let id = self.id(resource).await;
        let mut state = self.state(resource).await.unwrap();
        change(&mut state);
        let serial = state["serial"].as_u64().unwrap() + 1;
        state["serial"] = json!(serial);
        self.did("POST", &format!("/workspaces/{id}/actions/lock"), &json!({})).await;
        let text = base64(state.to_string().as_bytes());
        let attributes = json!({ "serial": serial, "md5": "", "lineage": state["lineage"], "state": text });
        let body = json!({ "data": { "type": "state-versions", "attributes": attributes } });
        self.did("POST", &format!("/workspaces/{id}/state-versions"), &body).await;
        self.did("POST", &format!("/workspaces/{id}/actions/unlock"), &json!({})).await;
    }

    /// Asks for what has to be granted.
    pub(crate) async fn did(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, value) = self.ask(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {value}");
        value
    }

    /// All runs of a resource's workspace, the newest first.
    pub(crate) fn runs(&self, resource: &Resource) -> Vec<Value> {
        self.runtime.block_on(async {
            let id = self.id(resource).await;
            let runs = self
                .did("GET", &format!("/workspaces/{id}/runs?page[size]=100"), &Value::Null)
                .await;
            runs["data"].as_array().unwrap().clone()
        })
    }

    /// The newest run of a resource's workspace that waits to be confirmed, or the like.
    pub(crate) fn run_that_is(&self, resource: &Resource, status: &str) -> String {
        until(&format!("a run is {status}"), || {
            let runs = self.runs(resource);
            let found = runs.iter().find(|run| run["attributes"]["status"] == status);
            found
                .map(|run| run["id"].as_str().unwrap().to_owned())
                .ok_or_else(|| json!(runs).to_string())
        })
    }

    /// Queues a run of somebody else's, on the configuration that was uploaded last.
    pub(crate) fn foreign_run(&self, resource: &Resource, more: Value) -> String {
        self.runtime.block_on(async {
            let id = self.id(resource).await;
            let versions = self
                .did("GET", &format!("/workspaces/{id}/configuration-versions"), &Value::Null)
                .await;
            let configuration = &versions["data"][0];
            let relationships = json!({
                "workspace": { "data": { "type": "workspaces", "id": id } },
                "configuration-version": { "data": { "type": "configuration-versions", "id": configuration["id"] } },
            });
            let body = json!({ "data": { "type": "runs", "attributes": more, "relationships": relationships } });
            self.did("POST", "/runs", &body).await["data"]["id"].as_str().unwrap().to_owned()
        })
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

fn provider(folder: PathBuf, relay: &Relay, more: &Value) -> Terraform {
    let mut config = json!({
        "cloud": { "address": relay.address(), "organization": "acme", "token": "tfc", "timeout_seconds": 2 },
        "folder": folder.join("work"), "secrets": folder.join("secrets"),
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config: TerraformConfig = serde_json::from_value(config).unwrap();
    config.check().unwrap();
    Terraform::new(config).unwrap()
}

/// RFC 4648, for a state in a request.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}
