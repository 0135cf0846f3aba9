//! `/healthz` and `/metrics` of a running service, on loopback.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::control::ServiceStatus;
use crate::shutdown::Shutdown;

/// Serves both until it is asked to stop. The listener is bound by the caller, who tells its address.
pub async fn serve(listener: TcpListener, status: watch::Receiver<ServiceStatus>, mut stopping: Shutdown) {
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .with_state(status);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stopping.wait().await })
        .await;
    if let Err(error) = served {
        tracing::warn!(error = %error, "/healthz and /metrics are not served any more");
    }
}

/// Binds the listener.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Healthy: the peers say which channels they have joined, and every channel is followed, not frozen, and its last pass did not end early.
async fn health(State(status): State<watch::Receiver<ServiceStatus>>) -> Response {
    let status = status.borrow().clone();
    let mut ills = Vec::new();
    if let Some(why) = &status.undiscovered {
        ills.push(format!("the peers don't say which channels they have joined: {why}"));
    }
    for (channel, one) in &status.channels {
        if let Some(why) = &one.frozen {
            ills.push(format!("{channel} is frozen: {why}"));
        } else if let Some(why) = &one.ledger_error {
            ills.push(format!("{channel} is not followed: {why}"));
        } else if let Some(why) = one.pass.as_ref().and_then(|pass| pass.error.as_ref()) {
            ills.push(format!("{channel}: the last pass ended early: {why}"));
        }
    }
    if ills.is_empty() {
        (StatusCode::OK, "ok\n".to_owned()).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", ills.join("\n"))).into_response()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    channel: String,
}

async fn metrics(State(status): State<watch::Receiver<ServiceStatus>>) -> Response {
    match rendered(&status.borrow()) {
        Ok(text) => (
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The figures of a status, in the OpenMetrics text format.
fn rendered(status: &ServiceStatus) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("charter");
    type Column = (&'static str, &'static str, fn(&crate::control::ChannelStatus) -> i64);
    let columns: [Column; 10] = [
        ("block", "The last block that was taken in", |one| {
            one.block.and_then(|block| block.try_into().ok()).unwrap_or(-1)
        }),
        ("lag_blocks", "Blocks of the ledger that are not taken in yet", |one| {
            one.lag.try_into().unwrap_or(i64::MAX)
        }),
        ("connected", "Whether blocks are being received", |one| one.connected.into()),
        ("frozen", "Whether the channel is frozen", |one| one.frozen.is_some().into()),
        (
            "undecided",
            "Transactions that are called invalid on the peer's word alone",
            |one| one.rerun.map_or(0, |rerun| rerun.undecided.try_into().unwrap_or(i64::MAX)),
        ),
        (
            "unconfirmed_blocks",
            "Blocks that the second peer has not confirmed; 0 where there is none",
            |one| one.testimony.as_ref().map_or(0, |said| said.waiting.try_into().unwrap_or(i64::MAX)),
        ),
        ("paused", "Whether applying is paused", |one| one.paused.into()),
        ("converged", "Whether the last pass left nothing to do", |one| {
            one.pass.as_ref().is_some_and(|pass| pass.converged).into()
        }),
        ("failed_steps", "Steps that failed in the last pass", |one| {
            one.pass.as_ref().map_or(0, |pass| pass.failed.try_into().unwrap_or(i64::MAX))
        }),
        (
            "last_pass_timestamp_seconds",
            "When the last pass ended, seconds since the Unix epoch",
            |one| one.pass.as_ref().map_or(0, |pass| pass.at.seconds()),
        ),
    ];
    for (name, help, value) in columns {
        let family = Family::<Labels, Gauge>::default();
        registry.register(name, help, family.clone());
        for (channel, one) in &status.channels {
            family
                .get_or_create(&Labels {
                    channel: channel.to_string(),
                })
                .set(value(one));
        }
    }
    let started = Gauge::<i64>::default();
    started.set(status.started_at.seconds());
    registry.register(
        "start_timestamp_seconds",
        "When the service started, seconds since the Unix epoch",
        started,
    );
    if let Some(until) = status.certificate_until {
        let expires = Gauge::<i64>::default();
        expires.set(until.seconds());
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate that the service signs with expires, seconds since the Unix epoch",
            expires,
        );
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ChannelStatus;

    #[test]
    fn figures_are_by_channel() {
        let mut status = ServiceStatus {
            certificate_until: Some(state::time::Timestamp::clamped(1_780_000_000)),
            ..ServiceStatus::default()
        };
        let one = ChannelStatus {
            block: Some(7),
            lag: 2,
            connected: true,
            ..ChannelStatus::default()
        };
        status.channels.insert("smart-city-1".parse().unwrap(), one);
        let text = rendered(&status).unwrap();
        for line in [
            "charter_block{channel=\"smart-city-1\"} 7",
            "charter_lag_blocks{channel=\"smart-city-1\"} 2",
            "charter_connected{channel=\"smart-city-1\"} 1",
            "charter_certificate_expiry_timestamp_seconds 1780000000",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
