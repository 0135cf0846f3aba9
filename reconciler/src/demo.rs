//! The programs that `examples/smart-city` orders: three small HTTP services on loopback.
//!
//! They are part of the binary so that the example needs nothing but Charter. A real member's `[machine.commands]` names its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use clap::Subcommand;
use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The most bytes that a service reads from a file or from another service.
const MAX_BYTES: u64 = 1024 * 1024;
/// How long a service waits for another one.
const DEADLINE: Duration = Duration::from_secs(5);

/// One of the example's services.
#[derive(Clone, Debug, Subcommand)]
pub enum Demo {
    /// Serves the data set in the file that DATA names, at /readings.
    Readings,
    /// Forecasts from the service at READINGS with the model in the file MODEL, at /forecast.
    Forecast,
    /// Shows the routes in the file TIMETABLE, and what the service at FORECAST says of them, at /.
    Routes,
}

/// A service can't start or can't answer.
#[derive(Debug, Error)]
pub enum DemoError {
    /// An environment variable is missing.
    #[error("the environment has no {0}")]
    Environment(&'static str),
    /// The port can't be listened on.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file can't be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// Another service can't be reached.
    #[error("cannot reach {0}")]
    Reach(String, #[source] std::io::Error),
    /// Another service answers something else.
    #[error("{0} answers something that is no data set")]
    Answer(String),
    /// The model can't be read.
    #[error("the model is not valid")]
    Model(#[from] serde_json::Error),
}

impl IntoResponse for DemoError {
    fn into_response(self) -> Response {
        (StatusCode::BAD_GATEWAY, format!("{self}\n")).into_response()
    }
}

#[derive(Clone)]
struct Inputs(BTreeMap<&'static str, String>);

impl Inputs {
    fn new(names: &[&'static str]) -> Result<Self, DemoError> {
        let value = |name: &&'static str| match std::env::var(name) {
            Ok(value) => Ok((*name, value)),
            Err(_) => Err(DemoError::Environment(name)),
        };
        Ok(Self(names.iter().map(value).collect::<Result<_, _>>()?))
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// Runs a service until it is told to stop.
pub async fn run(demo: Demo) -> Result<(), DemoError> {
    let (inputs, router) = match demo {
        Demo::Readings => (&["DATA"][..], Router::new().route("/readings", get(readings))),
        Demo::Forecast => (&["MODEL", "READINGS"][..], Router::new().route("/forecast", get(forecast))),
        Demo::Routes => (&["TIMETABLE", "FORECAST"][..], Router::new().route("/", get(routes))),
    };
    let router = router.with_state(Inputs::new(inputs)?);
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .ok_or(DemoError::Environment("PORT"))?;
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .map_err(|source| DemoError::Listen { port, source })?;
    println!("listening on 127.0.0.1:{port}");
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped())
        .await
        .map_err(|source| DemoError::Listen { port, source })
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

async fn readings(State(inputs): State<Inputs>) -> Result<Response, DemoError> {
    let text = read(Path::new(inputs.get("DATA"))).await?;
    Ok(([(header::CONTENT_TYPE, "text/csv")], text).into_response())
}

#[derive(Deserialize)]
struct Model {
    limit: u64,
}

async fn forecast(State(inputs): State<Inputs>) -> Result<String, DemoError> {
    let model: Model = serde_json::from_str(&read(Path::new(inputs.get("MODEL"))).await?)?;
    let address = inputs.get("READINGS");
    let table = fetch(address, "/readings").await?;
    let mut stations: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for line in table.lines().skip(1) {
        let mut fields = line.split(',').skip(1);
        let (Some(station), Some(value)) = (fields.next(), fields.next()) else {
            return Err(DemoError::Answer(address.to_owned()));
        };
        let value: u64 = value.parse().map_err(|_| DemoError::Answer(address.to_owned()))?;
        let entry = stations.entry(station).or_default();
        *entry = (entry.0 + value, entry.1 + 1);
    }
    let line = |(station, (sum, count)): (&str, (u64, u64))| {
        let mean = sum / count;
        let word = if mean > model.limit { "over the limit" } else { "fine" };
        format!("{station}: {mean} ({word})\n")
    };
    Ok(stations.into_iter().map(line).collect())
}

async fn routes(State(inputs): State<Inputs>) -> Result<Html<String>, DemoError> {
    let timetable = read(Path::new(inputs.get("TIMETABLE"))).await?;
    let forecast = fetch(inputs.get("FORECAST"), "/forecast").await?;
    Ok(Html(format!(
        "<h1>Routes</h1><pre>{}</pre><h2>Forecast</h2><pre>{}</pre>",
        escape(&timetable),
        escape(&forecast)
    )))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

async fn read(path: &Path) -> Result<String, DemoError> {
    let failed = |source| DemoError::Read(path.to_owned(), source);
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).await.map_err(failed)?;
    Ok(text)
}

/// A GET over loopback; enough HTTP for the example's own services.
async fn fetch(address: &str, path: &str) -> Result<String, DemoError> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.take(MAX_BYTES).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(answer) => answer.map_err(|source| DemoError::Reach(address.to_owned(), source))?,
        Err(late) => return Err(DemoError::Reach(address.to_owned(), late.into())),
    };
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(DemoError::Answer(address.to_owned())),
    }
}
