//! States of workspaces, each in a version that never changes.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use providers::records::replace;

use super::{App, Base, User};
use crate::Shared;
use crate::answer::{Answer, Given, Query, Refusal, document, made, one, page};
use crate::documents;
use crate::model::{Lock, Output, StateVersion};
use crate::store::{Store, Table, now, random};

fn found<'a>(store: &'a Store, id: &str) -> Result<&'a StateVersion, Refusal> {
    store.states.get(id).ok_or_else(Refusal::absent)
}

/// What the server reads of a state.
pub(crate) struct Read {
    pub(crate) serial: u64,
    pub(crate) lineage: String,
    terraform_version: String,
    outputs: Vec<Output>,
}

/// Reads a state's text.
pub(crate) fn read_state(text: &[u8]) -> Result<Read, String> {
    let state: Value = serde_json::from_slice(text).map_err(|error| format!("the state is no JSON: {error}"))?;
    let serial = state["serial"].as_u64().ok_or("the state has no serial")?;
    let word = |name: &str| state[name].as_str().unwrap_or_default().to_owned();
    let outputs = state["outputs"].as_object().into_iter().flatten();
    let outputs = outputs.map(|(name, output)| Output {
        id: format!("wsout-{}", random(16)),
        name: name.clone(),
        sensitive: output["sensitive"] == true,
        kind: output["type"].clone(),
        value: output["value"].clone(),
    });
    Ok(Read {
        serial,
        lineage: word("lineage"),
        terraform_version: word("terraform_version"),
        outputs: outputs.collect(),
    })
}

/// Keeps a state as a new version, which is its workspace's from now on.
pub(crate) fn keep(shared: &Shared, workspace: &str, run: Option<&str>, text: &[u8]) -> Result<StateVersion, Refusal> {
    let read = read_state(text).map_err(Refusal::wrong)?;
    let key = random(48);
    let folder = shared.path(&["states"]);
    std::fs::create_dir_all(&folder)?;
    replace(&folder.join(&key), text)?;
    let mut store = shared.store();
    let number = store.number();
    let state = StateVersion {
        id: Table::<StateVersion>::fresh(),
        workspace: workspace.to_owned(),
        created: now(),
        serial: read.serial,
        lineage: read.lineage,
        size: text.len(),
        terraform_version: read.terraform_version,
        run: run.map(str::to_owned),
        uploaded: true,
        outputs: read.outputs,
        key,
        number,
    };
    store.states.put(state.clone())?;
    let id = state.id.clone();
    store.workspaces.change(workspace, |one| {
        one.state = Some(id);
        one.updated = now();
    })?;
    Ok(state)
}

/// Holds a new state to the one that is there.
fn follows(store: &Store, workspace: &str, serial: u64, lineage: &str, force: bool) -> Result<(), Refusal> {
    let newest = store.states_of(workspace).into_iter().find(|state| state.uploaded);
    let Some(newest) = newest.filter(|_| !force) else { return Ok(()) };
    if !newest.lineage.is_empty() && !lineage.is_empty() && newest.lineage != lineage {
        return Err(Refusal::conflict("the state's lineage is another one than the workspace's"));
    }
    if serial < newest.serial {
        return Err(Refusal::conflict(format!(
            "the state's serial {serial} is older than the workspace's, {}",
            newest.serial
        )));
    }
    Ok(())
}

pub(crate) async fn create(
    app: App,
    Extension(base): Extension<Base>,
    Extension(user): Extension<User>,
    Path(workspace): Path<String>,
    body: Bytes,
) -> Answer {
    let given = Given::read(&body, "state-versions")?;
    let serial = given
        .number("serial")
        .ok_or_else(|| Refusal::wrong("a state version has a serial"))?;
    let lineage = given.text("lineage").unwrap_or_default();
    {
        let store = app.store();
        let locked = store.workspaces.get(&workspace).ok_or_else(Refusal::absent)?.lock.clone();
        if locked != Some(Lock::User(user.0)) {
            return Err(Refusal::conflict("the workspace has to be locked by who writes its state"));
        }
        follows(&store, &workspace, serial, lineage, given.is("force") == Some(true))?;
    }
    let Some(text) = given.text("state").filter(|text| !text.is_empty()) else {
        // Its text comes by an upload.
        let mut store = app.store();
        let state = StateVersion {
            id: Table::<StateVersion>::fresh(),
            workspace,
            created: now(),
            serial,
            lineage: lineage.to_owned(),
            size: 0,
            terraform_version: String::new(),
            run: given.related("run").map(str::to_owned),
            uploaded: false,
            outputs: Vec::new(),
            key: random(48),
            number: store.number(),
        };
        let shown = documents::state(&state, &base.0);
        store.states.put(state)?;
        return made(shown);
    };
    let text = BASE64_STANDARD.decode(text).map_err(|_| Refusal::wrong("the state is no base64"))?;
    let state = keep(&app, &workspace, given.related("run"), &text)?;
    // What was announced is what counts, as everywhere.
    let lineage = lineage.to_owned();
    let state = StateVersion { serial, lineage, ..state };
    app.store().states.put(state.clone())?;
    made(documents::state(&state, &base.0))
}

/// Takes the text of a state version that was announced without it.
pub(crate) fn uploaded(shared: &Shared, id: &str, text: &[u8]) -> Result<(), Refusal> {
    let read = read_state(text).map_err(Refusal::wrong)?;
    let mut store = shared.store();
    let state = found(&store, id)?.clone();
    if state.uploaded {
        return Err(Refusal::conflict("the state is there already"));
    }
    let folder = shared.path(&["states"]);
    std::fs::create_dir_all(&folder)?;
    replace(&folder.join(&state.key), text)?;
    store.states.change(id, |state| {
        state.uploaded = true;
        state.size = text.len();
        state.terraform_version = read.terraform_version;
        state.outputs = read.outputs;
    })?;
    let id = id.to_owned();
    store.workspaces.change(&state.workspace, |one| {
        one.state = Some(id);
        one.updated = now();
    })?;
    Ok(())
}

pub(crate) async fn list(app: App, Extension(base): Extension<Base>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query.as_deref());
    let store = app.store();
    let organization = query.get("filter[organization][name]").unwrap_or_default();
    let name = query.get("filter[workspace][name]").unwrap_or_default();
    let workspace = store.workspace(organization, name).ok_or_else(Refusal::absent)?;
    let states = store.states_of(&workspace.id);
    page(&query, states.into_iter().map(|state| documents::state(state, &base.0)).collect())
}

fn shown(store: &Store, id: &str, query: Option<&str>, base: &Base) -> Answer {
    let state = found(store, id)?;
    let query = Query::new(query);
    let mut answer = json!({ "data": documents::state(state, &base.0) });
    let mut included = Vec::new();
    if query.includes("outputs") {
        included.extend(state.outputs.iter().map(|output| documents::output(output, true)));
    }
    if query.includes("run") {
        let run = state.run.as_ref().and_then(|run| store.runs.get(run));
        included.extend(run.map(documents::run));
    }
    if !included.is_empty() {
        answer["included"] = Value::Array(included);
    }
    Ok(document(StatusCode::OK, &answer))
}

pub(crate) async fn read(app: App, Extension(base): Extension<Base>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    shown(&app.store(), &id, query.as_deref(), &base)
}

fn current_of(store: &Store, workspace: &str) -> Result<String, Refusal> {
    let workspace = store.workspaces.get(workspace).ok_or_else(Refusal::absent)?;
    workspace.state.clone().ok_or_else(Refusal::absent)
}

pub(crate) async fn current(app: App, Extension(base): Extension<Base>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let store = app.store();
    shown(&store, &current_of(&store, &id)?, query.as_deref(), &base)
}

fn outputs_of(store: &Store, id: &str, query: Option<&str>, veiled: bool) -> Answer {
    let state = found(store, id)?;
    let all = state.outputs.iter().map(|output| documents::output(output, veiled));
    page(&Query::new(query), all.collect())
}

pub(crate) async fn outputs(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    outputs_of(&app.store(), &id, query.as_deref(), false)
}

pub(crate) async fn current_outputs(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let store = app.store();
    outputs_of(&store, &current_of(&store, &id)?, query.as_deref(), true)
}

pub(crate) async fn output(app: App, Path(id): Path<String>) -> Answer {
    let store = app.store();
    let output = store.states.all().flat_map(|state| &state.outputs).find(|output| output.id == id);
    one(documents::output(output.ok_or_else(Refusal::absent)?, false))
}
