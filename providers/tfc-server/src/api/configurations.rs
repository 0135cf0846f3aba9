//! Configurations of workspaces, each in a version that never changes.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::{App, Base};
use crate::answer::{Answer, Given, Query, Refusal, made, one, page};
use crate::documents;
use crate::model::{Configuration, Options};
use crate::store::{Table, now, random};

pub(crate) async fn list(app: App, Path(workspace): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let store = app.store();
    store.workspaces.get(&workspace).ok_or_else(Refusal::absent)?;
    let mut all: Vec<&Configuration> = store.configurations.all().filter(|one| one.workspace == workspace).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.number));
    let shown = all.into_iter().map(|one| documents::configuration(one, None));
    page(&Query::new(query.as_deref()), shown.collect())
}

pub(crate) async fn create(app: App, Extension(base): Extension<Base>, Path(workspace): Path<String>, body: Bytes) -> Answer {
    let given = Given::read(&body, "configuration-versions")?;
    let mut store = app.store();
    store.workspaces.get(&workspace).ok_or_else(Refusal::absent)?;
    let configuration = Configuration {
        id: Table::<Configuration>::fresh(),
        workspace,
        created: now(),
        status: "pending".to_owned(),
        error: None,
        auto_queue: given.is("auto-queue-runs").unwrap_or(true),
        speculative: given.is("speculative").unwrap_or(false),
        provisional: given.is("provisional").unwrap_or(false),
        key: random(48),
        number: store.number(),
    };
    if !configuration.speculative && !configuration.provisional {
        let id = configuration.id.clone();
        store
            .workspaces
            .change(&configuration.workspace, |one| one.configuration = Some(id))?;
    }
    let shown = documents::configuration(&configuration, Some(&base.0));
    store.configurations.put(configuration)?;
    made(shown)
}

pub(crate) async fn read(app: App, Path(id): Path<String>) -> Answer {
    let store = app.store();
    let configuration = store.configurations.get(&id).ok_or_else(Refusal::absent)?;
    one(documents::configuration(configuration, None))
}

pub(crate) async fn download(app: App, Path(id): Path<String>) -> Answer {
    let key = {
        let store = app.store();
        let uploaded = store.configurations.get(&id).filter(|one| one.status == "uploaded");
        uploaded.ok_or_else(Refusal::absent)?.key.clone()
    };
    let bytes = tokio::fs::read(app.path(&["configurations", &key])).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// Puts aside a configuration that no run may take any more.
pub(crate) async fn archive(app: App, Path(id): Path<String>) -> Answer {
    let mut store = app.store();
    let configuration = store.configurations.get(&id).ok_or_else(Refusal::absent)?;
    if configuration.status != "uploaded" {
        return Err(Refusal::conflict(
            "transition not allowed: only an uploaded configuration can be archived",
        ));
    }
    let current = store
        .workspaces
        .get(&configuration.workspace)
        .and_then(|one| one.configuration.clone());
    if current.as_ref() == Some(&id) {
        return Err(Refusal::conflict(
            "transition not allowed: configuration could not be archived because it is current",
        ));
    }
    let key = configuration.key.clone();
    store.configurations.change(&id, |one| one.status = "archived".to_owned())?;
    let _ = std::fs::remove_file(app.path(&["configurations", &key]));
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Says of a configuration that it has come; a run begins where that was asked for.
pub(crate) fn uploaded(app: &App, id: &str) -> Result<(), Refusal> {
    let mut store = app.store();
    let configuration = store.configurations.get(id).ok_or_else(Refusal::absent)?.clone();
    store.configurations.change(id, |one| one.status = "uploaded".to_owned())?;
    if !configuration.speculative && !configuration.provisional {
        let id = id.to_owned();
        store
            .workspaces
            .change(&configuration.workspace, |one| one.configuration = Some(id))?;
    }
    if configuration.auto_queue && !configuration.speculative && !configuration.provisional {
        super::runs::queue(&mut store, &configuration.workspace, id, Options::default(), None)?;
        drop(store);
        app.changed.notify_one();
    }
    Ok(())
}
