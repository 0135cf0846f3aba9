//! What is uploaded and downloaded by addresses that only who was given them knows.

use std::io::{Read, Seek, SeekFrom};

use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use providers::records::replace;

use super::App;
use crate::answer::{Answer, Query, Refusal};
use crate::runner;

/// The most of a log that is given at once, in bytes.
const MAX_LOG: usize = 64 * 1024;

fn octets(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}

pub(crate) async fn upload_configuration(app: App, Path(key): Path<String>, body: Bytes) -> Answer {
    let id = {
        let store = app.store();
        let pending = store.configurations.all().find(|one| one.key == key && one.status == "pending");
        pending.ok_or_else(Refusal::absent)?.id.clone()
    };
    let folder = app.path(&["configurations"]);
    std::fs::create_dir_all(&folder)?;
    replace(&folder.join(&key), &body)?;
    super::configurations::uploaded(&app, &id)?;
    Ok(StatusCode::OK.into_response())
}

/// A part of a log.
pub(crate) async fn log(app: App, Path((key, phase)): Path<(String, String)>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query.as_deref());
    let path = {
        let store = app.store();
        let run = store.runs.all().find(|run| run.key == key).ok_or_else(Refusal::absent)?;
        let files = runner::files(&app, run);
        match phase.as_str() {
            "plan" => files.plan_log,
            "apply" => files.apply_log,
            _ => return Err(Refusal::absent()),
        }
    };
    let limit = query.number("limit").unwrap_or(MAX_LOG).min(MAX_LOG);
    let offset = query.number("offset").unwrap_or(0);
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        file.seek(SeekFrom::Start(offset as u64))?;
        file.take(limit as u64).read_to_end(&mut bytes)?;
    }
    Ok(octets(bytes))
}

pub(crate) async fn plan(app: App, Path(key): Path<String>) -> Answer {
    let path = {
        let store = app.store();
        let run = store.runs.all().find(|run| run.key == key).ok_or_else(Refusal::absent)?;
        runner::files(&app, run).plan_json
    };
    let bytes = tokio::fs::read(path).await.map_err(|_| Refusal::absent())?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

pub(crate) async fn state(app: App, Path(key): Path<String>) -> Answer {
    if !app.store().states.all().any(|state| state.key == key && state.uploaded) {
        return Err(Refusal::absent());
    }
    Ok(octets(tokio::fs::read(app.path(&["states", &key])).await?))
}

pub(crate) async fn upload_state(app: App, Path(key): Path<String>, body: Bytes) -> Answer {
    let id = {
        let store = app.store();
        let announced = store.states.all().find(|state| state.key == key);
        announced.ok_or_else(Refusal::absent)?.id.clone()
    };
    super::states::uploaded(&app, &id, &body)?;
    Ok(StatusCode::OK.into_response())
}

/// Takes what the server has no use for.
pub(crate) async fn ignore(app: App, Path(key): Path<String>) -> Answer {
    match app.store().states.all().any(|state| state.key == key) {
        true => Ok(StatusCode::OK.into_response()),
        false => Err(Refusal::absent()),
    }
}
