//! Somebody between Charter and a Kubernetes API server, who passes everything on until he is told to spoil something.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// The largest request that is passed on.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What is done to a request instead of passing it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, to be asked again after so many seconds.
    Refuse(StatusCode, u64),
    /// It is never answered.
    Hang,
    /// A watch is told that its version is forgotten; what is no watch is passed on.
    Expire,
    /// A watch is refused for good; what is no watch is passed on.
    Forbid,
    /// A watch is ended as soon as it is begun; what is no watch is passed on.
    End,
}

impl Fault {
    /// Whether it is for watches only.
    fn of_watches(self) -> bool {
        matches!(self, Self::Expire | Self::Forbid | Self::End)
    }
}

/// He himself. He ends with this.
pub struct Between {
    kubeconfig: PathBuf,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    client: kube::Client,
    faults: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Between {
    /// Goes between the server that a kubeconfig names, as its user, and whoever takes the kubeconfig that he writes beside it.
    ///
    /// # Panics
    /// When he can't.
    pub async fn on(kubeconfig: &Path) -> Self {
        let file = kube::config::Kubeconfig::read_from(kubeconfig).expect("the tests' kubeconfig");
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await;
        let mut config = config.expect("the tests' kubeconfig");
        config.read_timeout = None;
        let shared = Arc::new(Shared {
            client: kube::Client::try_from(config).expect("the tests' kubeconfig"),
            faults: Mutex::default(),
            seen: Mutex::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        let own = kubeconfig.with_extension("between");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "between",
            "clusters": [{ "name": "between", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
            "users": [{ "name": "between", "user": {} }],
            "contexts": [{ "name": "between", "context": { "cluster": "between", "user": "between" } }],
        });
        std::fs::write(&own, config.to_string()).expect("the folder is this test's");
        Self {
            kubeconfig: own,
            shared,
            task: serving.abort_handle(),
        }
    }

    /// The kubeconfig that leads to him.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Spoils the next requests, one after the other.
    pub fn spoil(&self, faults: &[Fault]) {
        locked(&self.shared.faults).extend(faults);
    }

    /// How many faults are still to come.
    pub fn left(&self) -> usize {
        locked(&self.shared.faults).len()
    }

    /// The requests since this was asked last: methods, and paths with what follows them.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.shared.seen))
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn status(code: StatusCode, reason: &str, after: u64) -> String {
    let code = code.as_u16();
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "spoilt by a test",
        "details": { "retryAfterSeconds": after },
    });
    status.to_string()
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    locked(&shared.seen).push(format!("{} {}", request.method(), request.uri()));
    let fault = {
        let mut faults = locked(&shared.faults);
        let now = faults.front().is_some_and(|fault| watches || !fault.of_watches());
        if now { faults.pop_front() } else { None }
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    match fault {
        Some(Fault::Refuse(code, after)) => {
            let after_so_long = [(header::RETRY_AFTER, after.to_string())];
            (code, after_so_long, json, status(code, "TooManyRequests", after)).into_response()
        }
        Some(Fault::Hang) => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        Some(Fault::Expire) => {
            let status = status(StatusCode::GONE, "Expired", 0);
            (json, format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n")).into_response()
        }
        Some(Fault::Forbid) => (StatusCode::FORBIDDEN, json, status(StatusCode::FORBIDDEN, "Forbidden", 0)).into_response(),
        Some(Fault::End) => json.into_response(),
        None => passed(&shared, request)
            .await
            .unwrap_or_else(|why| (StatusCode::BAD_GATEWAY, why).into_response()),
    }
}

async fn passed(shared: &Shared, request: Request) -> Result<Response, String> {
    let (mut head, body) = request.into_parts();
    let own: [HeaderName; 3] = [header::HOST, header::AUTHORIZATION, header::CONTENT_LENGTH];
    own.iter().for_each(|name| {
        head.headers.remove(name);
    });
    let bytes = to_bytes(body, MAX_BYTES).await.map_err(|error| error.to_string())?;
    let request = axum::http::Request::from_parts(head, kube::client::Body::from(bytes.to_vec()));
    let answer = shared.client.send(request).await.map_err(|error| error.to_string())?;
    let (mut head, body) = answer.into_parts();
    head.headers.remove(header::TRANSFER_ENCODING);
    Ok(Response::from_parts(head, Body::new(body)))
}
