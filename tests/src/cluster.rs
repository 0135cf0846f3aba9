//! A real Kubernetes cluster without nodes: etcd, an API server with RBAC, and the controllers, as processes of a test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::core::Request;
use kube::core::params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::wait::until_within;

/// The programs, built from tests/servers.
const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kube-controller-manager"];
/// How long the server may take to answer first.
const PATIENCE: Duration = Duration::from_secs(90);

/// Who may ask the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The administrator.
    Admin,
    /// The account that Charter has: what docs/kubernetes.md grants it, and nothing else.
    Charter,
}

impl User {
    fn token(self) -> &'static str {
        match self {
            User::Admin => "admin-token",
            User::Charter => "charter-token",
        }
    }
}

/// A running cluster.
pub struct Cluster {
    folder: tempfile::TempDir,
    programs: PathBuf,
    url: String,
    etcd: Option<Child>,
    server: Option<Child>,
    controllers: Option<Child>,
    ports: [u16; 3],
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

impl Cluster {
    /// Finds the programs in the folder that `KUBERNETES_BIN` names; where they are missing one line says so.
    pub fn programs() -> Option<PathBuf> {
        let folder = std::env::var_os("KUBERNETES_BIN").map(PathBuf::from);
        let missing: Vec<&str> = match &folder {
            Some(folder) => PROGRAMS.into_iter().filter(|name| !folder.join(name).is_file()).collect(),
            None => PROGRAMS.to_vec(),
        };
        if missing.is_empty() {
            return folder;
        }
        eprintln!(
            "missing: {}; KUBERNETES_BIN names the folder they are in (tests/run kubernetes builds them)",
            missing.join(", ")
        );
        None
    }

    /// Starts one with its controllers, if its programs are there.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub fn start() -> Option<Self> {
        let mut cluster = Self::without_controllers()?;
        let kubeconfig = cluster.kubeconfig(User::Admin).display().to_string();
        cluster.controllers = Some(cluster.spawn(
            "kube-controller-manager",
            &[
                &format!("--kubeconfig={kubeconfig}"),
                "--leader-elect=false",
                "--service-account-private-key-file=accounts.key",
                "--root-ca-file=certificates/apiserver.crt",
                "--secure-port=0",
                "--concurrent-namespace-syncs=20",
            ],
        ));
        Some(cluster)
    }

    /// Starts one in which nobody fills anything in.
    ///
    /// # Panics
    /// When it doesn't come up.
    pub fn without_controllers() -> Option<Self> {
        let programs = Self::programs()?;
        let folder = tempfile::Builder::new()
            .prefix("charter-cluster-")
            .tempdir()
            .expect("a temporary folder can be made");
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("the folder was just made");
        write("accounts.key", key.serialize_pem());
        write("accounts.pub", key.public_key_pem());
        write(
            "tokens.csv",
            format!(
                "{},admin,1,system:masters\n{},charter,2\n",
                User::Admin.token(),
                User::Charter.token()
            ),
        );
        let ports = [free_port(), free_port(), free_port()];
        let mut cluster = Self {
            url: format!("https://127.0.0.1:{}", ports[2]),
            folder,
            programs,
            etcd: None,
            server: None,
            controllers: None,
            ports,
        };
        cluster.etcd = Some(cluster.spawn(
            "etcd",
            &[
                "--data-dir=etcd",
                &format!("--listen-client-urls=http://127.0.0.1:{}", ports[0]),
                &format!("--advertise-client-urls=http://127.0.0.1:{}", ports[0]),
                &format!("--listen-peer-urls=http://127.0.0.1:{}", ports[1]),
                &format!("--initial-advertise-peer-urls=http://127.0.0.1:{}", ports[1]),
                &format!("--initial-cluster=default=http://127.0.0.1:{}", ports[1]),
                "--unsafe-no-fsync",
                "--log-level=error",
            ],
        ));
        cluster.start_server();
        Some(cluster)
    }

    /// Starts the API server on the state that is there, and waits until it answers.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn start_server(&mut self) {
        self.server = Some(self.spawn(
            "kube-apiserver",
            &[
                &format!("--etcd-servers=http://127.0.0.1:{}", self.ports[0]),
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-account-key-file=accounts.pub",
                "--service-account-signing-key-file=accounts.key",
                "--cert-dir=certificates",
                &format!("--secure-port={}", self.ports[2]),
                "--bind-address=127.0.0.1",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--token-auth-file=tokens.csv",
                "--authorization-mode=RBAC",
                "--watch-cache=true",
            ],
        ));
        for user in [User::Admin, User::Charter] {
            self.kubeconfig(user);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        until_within(PATIENCE, "the API server answers", || {
            let ended = self.server.as_mut().and_then(|server| server.try_wait().ok().flatten());
            assert!(ended.is_none(), "the API server ended: {ended:?}");
            runtime.block_on(async {
                let client = self.client(User::Admin).await.map_err(|error| error.to_string())?;
                let ready = Request::new("")
                    .get("readyz", &GetParams::default())
                    .map_err(|error| error.to_string())?;
                let found = client.request_text(ready).await;
                found.map(drop).map_err(|error| error.to_string())
            })
        });
    }

    /// Kills the API server.
    ///
    /// # Panics
    /// When it can't be.
    pub fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("it is a child of this process");
            server.wait().expect("it is a child of this process");
        }
    }

    /// The process of the API server.
    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    fn spawn(&self, program: &str, words: &[&str]) -> Child {
        let log = std::fs::File::create(self.folder.path().join(format!("{program}.log"))).expect("the folder is this test's");
        Command::new(self.programs.join(program))
            .args(words)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program was found")
    }

    /// The cluster's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The kubeconfig of a user.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        let path = self.folder.path().join(format!("{user:?}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": {
                "server": self.url, "certificate-authority": self.folder.path().join("certificates/apiserver.crt"),
            } }],
            "users": [{ "name": "test", "user": { "token": user.token() } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        std::fs::write(&path, config.to_string()).expect("the folder is this test's");
        path
    }

    /// The port on which the API server listens on this machine.
    pub fn port(&self) -> u16 {
        self.ports[2]
    }

    /// Writes what a pod of a service account finds in its file system, into a folder.
    ///
    /// # Panics
    /// When there is no such account.
    pub async fn identity(&self, namespace: &str, account: &str) -> PathBuf {
        let folder = self.folder.path().join(format!("{namespace}.{account}"));
        let client = self.client(User::Admin).await.expect("the cluster answers");
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
        let accounts = Request::new(format!("/api/v1/namespaces/{namespace}/serviceaccounts"));
        let request = accounts.create_subresource("token", account, &PostParams::default(), body.to_string().into());
        let given: Value = client.request(request.expect("a plain name")).await.expect("the account is there");
        let token = given["status"]["token"].as_str().expect("a token was given");
        std::fs::create_dir_all(&folder).expect("the folder is this test's");
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("the folder is this test's");
        write("token", token.as_bytes());
        write("namespace", namespace.as_bytes());
        let authority = std::fs::read(self.folder.path().join("certificates/apiserver.crt"));
        write("ca.crt", &authority.expect("the server has written it"));
        folder
    }

    async fn client(&self, user: User) -> Result<Client, Box<dyn std::error::Error>> {
        client(&self.kubeconfig(user)).await
    }

    /// What a user says to the server.
    ///
    /// # Panics
    /// When there is no way to it.
    pub async fn hands(&self, user: User) -> Hands {
        Hands {
            client: self.client(user).await.expect("the cluster answers"),
        }
    }
}

async fn client(kubeconfig: &Path) -> Result<Client, Box<dyn std::error::Error>> {
    let file = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in PROGRAMS {
                let log = std::fs::read_to_string(self.folder.path().join(format!("{program}.log"))).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                eprintln!("-- the last words of {program}: {}", last.join("\n   "));
            }
        }
        for child in [&mut self.controllers, &mut self.server, &mut self.etcd].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Looks until a condition holds, as [`crate::until`] does.
///
/// # Panics
/// When it doesn't in time.
pub async fn until_async<T, E: std::fmt::Display>(what: &str, look: impl AsyncFn() -> Result<T, E>) -> T {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) => assert!(
                std::time::Instant::now() < end,
                "not within {} s: {what}: {last}",
                PATIENCE.as_secs()
            ),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a user says to the server, by paths such as `/api/v1/namespaces/air/configmaps`.
pub struct Hands {
    client: Client,
}

impl Hands {
    /// Those of a kubeconfig's user.
    ///
    /// # Panics
    /// When there is no way to the cluster.
    pub async fn of(kubeconfig: &Path) -> Self {
        Self {
            client: client(kubeconfig).await.expect("the cluster answers"),
        }
    }

    /// Reads an object; none when it is not there.
    ///
    /// # Panics
    /// When the server says anything else.
    pub async fn get(&self, folder: &str, name: &str) -> Option<Value> {
        let request = Request::new(folder).get(name, &GetParams::default()).expect("a plain name");
        match self.client.request(request).await {
            Ok(found) => Some(found),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{folder}/{name}: {error}"),
        }
    }

    /// Reads something that is no object.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn text(&self, name: &str) -> String {
        let request = Request::new("").get(name, &GetParams::default()).expect("a plain name");
        self.client
            .request_text(request)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Lists objects.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn list(&self, folder: &str) -> Vec<Value> {
        let request = Request::new(folder).list(&ListParams::default()).expect("a plain path");
        let found: Value = self
            .client
            .request(request)
            .await
            .unwrap_or_else(|error| panic!("{folder}: {error}"));
        found["items"].as_array().cloned().unwrap_or_default()
    }

    /// Applies an object as a field manager, taking what others manage.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn apply(&self, folder: &str, manager: &str, body: &Value) -> Value {
        let name = body["metadata"]["name"].as_str().expect("an object has a name");
        let request = Request::new(folder).patch(name, &PatchParams::apply(manager).force(), &Patch::Apply(body));
        let done = self.client.request(request.expect("a plain name")).await;
        done.unwrap_or_else(|error| panic!("{folder}/{name}: {error}"))
    }

    /// Changes an object as `kubectl edit` does, or a part of it such as `status`.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn merge(&self, folder: &str, name: &str, change: &Value) -> Value {
        let params = PatchParams {
            field_manager: Some("kubectl-edit".to_owned()),
            ..PatchParams::default()
        };
        let request = Request::new(folder).patch(name, &params, &Patch::Merge(change));
        let done = self.client.request(request.expect("a plain name")).await;
        done.unwrap_or_else(|error| panic!("{folder}/{name}: {error}"))
    }

    /// Deletes an object; one that isn't there is fine.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn delete(&self, folder: &str, name: &str) {
        let request = Request::new(folder)
            .delete(name, &DeleteParams::background())
            .expect("a plain name");
        match self.client.request::<Value>(request).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{folder}/{name}: {error}"),
        }
    }
}
