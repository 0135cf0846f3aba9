//! The paths that the server answers, who may ask, and how often.

pub(crate) mod organizations;
pub(crate) mod states;

mod blobs;
mod configurations;
mod runs;
mod variables;
mod workspaces;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde_json::json;

use crate::answer::{Answer, Refusal, document, one};
use crate::{Shared, documents};

/// The largest configuration or state that is taken.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The version of the API.
const VERSION: &str = "2.6";

/// What handlers share.
pub(crate) type App = State<Arc<Shared>>;

/// How often a token has asked in a second that began at some time.
pub(crate) struct Window {
    began: Instant,
    asked: u32,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct User(pub(crate) String);

/// Where the server was asked, for the addresses that it gives.
#[derive(Clone, Debug)]
pub(crate) struct Base(pub(crate) String);

/// All paths.
pub(crate) fn router(shared: Arc<Shared>, address: SocketAddr) -> Router {
    let api = Router::new()
        .route("/ping", get(|| async { StatusCode::NO_CONTENT }))
        .route("/account/details", get(account))
        .route("/organizations", get(organizations::list).post(organizations::create))
        .route(
            "/organizations/{name}",
            get(organizations::read).patch(organizations::update).delete(organizations::delete),
        )
        .route("/organizations/{name}/entitlement-set", get(organizations::entitlements))
        .route("/organizations/{name}/runs/queue", get(organizations::queue))
        .route("/organizations/{name}/capacity", get(organizations::capacity))
        .route("/organizations/{name}/workspaces", get(workspaces::list).post(workspaces::create))
        .route(
            "/organizations/{name}/workspaces/{workspace}",
            get(workspaces::read_named)
                .patch(workspaces::update_named)
                .delete(workspaces::delete_named),
        )
        .route(
            "/organizations/{name}/workspaces/{workspace}/actions/safe-delete",
            post(workspaces::safe_delete_named),
        )
        .route(
            "/workspaces/{id}",
            get(workspaces::read).patch(workspaces::update).delete(workspaces::delete),
        )
        .route("/workspaces/{id}/actions/{action}", post(workspaces::act))
        .route("/workspaces/{id}/vars", get(variables::list).post(variables::create))
        .route("/workspaces/{id}/all-vars", get(variables::list))
        .route(
            "/workspaces/{id}/vars/{variable}",
            get(variables::read).patch(variables::update).delete(variables::delete),
        )
        .route(
            "/workspaces/{id}/configuration-versions",
            get(configurations::list).post(configurations::create),
        )
        .route("/configuration-versions/{id}", get(configurations::read))
        .route("/configuration-versions/{id}/download", get(configurations::download))
        .route("/configuration-versions/{id}/actions/archive", post(configurations::archive))
        .route("/workspaces/{id}/runs", get(runs::list))
        .route("/runs", post(runs::create))
        .route("/runs/{id}", get(runs::read))
        .route("/runs/{id}/plan", get(runs::plan_of))
        .route("/runs/{id}/apply", get(runs::apply_of))
        .route("/runs/{id}/actions/{action}", post(runs::act))
        .route("/runs/{id}/comments", get(runs::comments).post(runs::comment))
        .route("/runs/{id}/run-events", get(runs::events))
        .route("/runs/{id}/task-stages", get(runs::nothing))
        .route("/runs/{id}/policy-checks", get(runs::nothing))
        .route("/comments/{id}", get(runs::read_comment))
        .route("/plans/{id}", get(runs::plan))
        .route("/plans/{id}/json-output", get(runs::json_output))
        .route("/applies/{id}", get(runs::apply))
        .route("/workspaces/{id}/state-versions", post(states::create))
        .route("/state-versions", get(states::list))
        .route("/workspaces/{id}/current-state-version", get(states::current))
        .route("/workspaces/{id}/current-state-version-outputs", get(states::current_outputs))
        .route("/state-versions/{id}", get(states::read))
        .route("/state-versions/{id}/outputs", get(states::outputs))
        .route("/state-version-outputs/{id}", get(states::output))
        .fallback(|| async { Refusal::absent() })
        .layer(from_fn_with_state(Arc::clone(&shared), admit));
    let blobs = Router::new()
        .route("/configurations/{key}", put(blobs::upload_configuration))
        .route("/logs/{key}/{phase}", get(blobs::log))
        .route("/plans/{key}", get(blobs::plan))
        .route("/states/{key}", get(blobs::state).put(blobs::upload_state))
        .route("/states/{key}/json", get(blobs::state).put(blobs::ignore));
    Router::new()
        .route("/.well-known/terraform.json", get(discovery))
        .nest("/api/v2", api)
        .nest(documents::BLOBS, blobs)
        .fallback(|| async { Refusal::absent() })
        .layer(DefaultBodyLimit::max(MAX_BYTES))
        .layer(from_fn_with_state(address, based))
        .with_state(shared)
}

async fn discovery() -> Response {
    let services = json!({ "tfe.v2": "/api/v2/", "tfe.v2.1": "/api/v2/", "tfe.v2.2": "/api/v2/", "state.v2": "/api/v2/" });
    ([(header::CONTENT_TYPE, "application/json")], services.to_string()).into_response()
}

async fn account(axum::Extension(user): axum::Extension<User>) -> Answer {
    one(documents::user(&user.0))
}

/// Says where the server was asked: a client's name for it is another one than its own, behind somebody who passes requests on.
async fn based(State(address): State<SocketAddr>, mut request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let plain = |host: &&str| {
        host.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'-' | b'[' | b']'))
    };
    let host = host.filter(plain).map_or_else(|| address.to_string(), str::to_owned);
    request.extensions_mut().insert(Base(format!("http://{host}")));
    next.run(request).await
}

/// Lets in who has a token, as often as is allowed.
async fn admit(State(shared): App, mut request: Request, next: Next) -> Response {
    let Some(user) = bearer(request.headers()).and_then(|token| shared.user(token)) else {
        return Refusal::new(StatusCode::UNAUTHORIZED, "").into_response();
    };
    let rate = shared.settings.rate;
    let left = {
        let mut rates = shared.rates();
        let now = Instant::now();
        let window = rates.entry(user.clone()).or_insert(Window { began: now, asked: 0 });
        if now.duration_since(window.began) >= Duration::from_secs(1) {
            *window = Window { began: now, asked: 0 };
        }
        window.asked += 1;
        let until = Duration::from_secs(1).saturating_sub(now.duration_since(window.began));
        rate.checked_sub(window.asked).ok_or(until)
    };
    request.extensions_mut().insert(User(user));
    let mut response = match left {
        Ok(_) => next.run(request).await,
        Err(_) => {
            let errors = json!({ "errors": [{ "status": "429", "title": "Too Many Requests" }] });
            document(StatusCode::TOO_MANY_REQUESTS, &errors)
        }
    };
    let headers = response.headers_mut();
    let reset = left.err().unwrap_or_default();
    for (name, value) in [
        ("tfp-api-version", VERSION.to_owned()),
        ("x-ratelimit-limit", rate.to_string()),
        ("x-ratelimit-remaining", left.unwrap_or(0).to_string()),
        ("x-ratelimit-reset", format!("{}.{:03}", reset.as_secs(), reset.subsec_millis())),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
