//! Somebody between Charter and a server of HTTP, who passes everything on, counts it, and spoils what he is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// The largest body that is passed on.
const MAX_BYTES: usize = 128 * 1024 * 1024;

/// What is done to a request, or to its answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is refused with a status and headers, and never passed on.
    Refuse(u16, Vec<(&'static str, &'static str)>),
    /// It is never answered, and never passed on.
    Hang,
    /// It is passed on, and its answer is cut off.
    Cut,
    /// It is passed on, and one text of its answer is another one.
    Rewrite(String, String),
    /// It is passed on, and its answer is this.
    Answer(String),
    /// It is answered with this, and never passed on.
    Reply(String),
}

/// A fault, and which requests it befalls.
struct Trap {
    /// The method, and what the path holds.
    method: &'static str,
    path: String,
    fault: Fault,
    /// How many requests more.
    left: usize,
}

/// He himself. He ends with this.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    target: SocketAddr,
    client: reqwest::Client,
    traps: Mutex<Vec<Trap>>,
    seen: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Goes between a server on this machine and whoever asks at his address.
    ///
    /// # Panics
    /// When he can't.
    pub async fn on(target: SocketAddr) -> Self {
        // Every client of this process needs one, though nothing is encrypted here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client without a proxy");
        let shared = Arc::new(Shared {
            target,
            client,
            traps: Mutex::default(),
            seen: Mutex::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            shared,
            task: serving.abort_handle(),
        }
    }

    /// Where he is asked.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Spoils the next requests of a method whose paths hold a text; an empty method is any.
    pub fn spoil(&self, times: usize, method: &'static str, path: &str, fault: Fault) {
        locked(&self.shared.traps).push(Trap {
            method,
            path: path.to_owned(),
            fault,
            left: times,
        });
    }

    /// Spoils nothing any more. How many faults nobody ran into.
    pub fn relent(&self) -> usize {
        let left = std::mem::take(&mut *locked(&self.shared.traps));
        left.iter().map(|trap| trap.left).sum()
    }

    /// The requests since this was asked last: methods, and paths with what follows them.
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.shared.seen))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (method, uri) = (request.method().as_str().to_owned(), request.uri().to_string());
    locked(&shared.seen).push(format!("{method} {uri}"));
    let fault = {
        let mut traps = locked(&shared.traps);
        let fits = |trap: &&mut Trap| trap.left > 0 && (trap.method.is_empty() || trap.method == method) && uri.contains(&trap.path);
        traps.iter_mut().find(fits).map(|trap| {
            trap.left -= 1;
            trap.fault.clone()
        })
    };
    match &fault {
        Some(Fault::Refuse(code, headers)) => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = status.into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, header::HeaderValue::from_static(value));
            }
            return response;
        }
        Some(Fault::Reply(text)) => return text.clone().into_response(),
        Some(Fault::Hang) => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            return StatusCode::GATEWAY_TIMEOUT.into_response();
        }
        _ => {}
    }
    let answer = passed(&shared, request).await;
    let (status, headers, bytes) = match answer {
        Ok(answer) => answer,
        Err(why) => return (StatusCode::BAD_GATEWAY, why).into_response(),
    };
    let body = match fault {
        Some(Fault::Cut) => {
            let cut = futures::stream::once(async { Err::<Vec<u8>, _>(std::io::Error::other("cut by a test")) });
            Body::from_stream(cut)
        }
        Some(Fault::Rewrite(from, to)) => Body::from(String::from_utf8_lossy(&bytes).replace(&from, &to)),
        Some(Fault::Answer(text)) => Body::from(text),
        _ => Body::from(bytes),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

type Passed = (StatusCode, axum::http::HeaderMap, Vec<u8>);

async fn passed(shared: &Shared, request: Request) -> Result<Passed, String> {
    let (head, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_BYTES).await.map_err(|error| error.to_string())?;
    let url = format!("http://{}{}", shared.target, head.uri);
    // The host stays the one that was asked for: the addresses that the server gives lead here again.
    let builder = shared.client.request(head.method, url).headers(head.headers).body(bytes);
    let answer = builder.send().await.map_err(|error| error.to_string())?;
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    let bytes = answer.bytes().await.map_err(|error| error.to_string())?;
    Ok((status, headers, bytes.to_vec()))
}
