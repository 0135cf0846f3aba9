//! Workspaces: what has a state, variables and runs.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::{App, User};
use crate::answer::{Answer, Given, Query, Refusal, document, empty, made, name, one, page};
use crate::documents;
use crate::model::{Lock, Workspace};
use crate::runner;
use crate::store::{Store, Table, now};

/// What is of a workspace itself, and is not taken from who asks.
const OWN: [&str; 8] = [
    "name",
    "created-at",
    "updated-at",
    "locked",
    "operations",
    "permissions",
    "actions",
    "resource-count",
];

fn found<'a>(store: &'a Store, id: &str) -> Result<&'a Workspace, Refusal> {
    store.workspaces.get(id).ok_or_else(Refusal::absent)
}

fn id_of(store: &Store, organization: &str, name: &str) -> Result<String, Refusal> {
    let workspace = store.workspace(organization, name).ok_or_else(Refusal::absent)?;
    Ok(workspace.id.clone())
}

/// How a workspace looks.
pub(crate) fn document_of(store: &Store, workspace: &Workspace) -> Value {
    documents::workspace(workspace, &store.variables_of(&workspace.id))
}

fn settings(given: &Given) -> Map<String, Value> {
    let all = given.attributes().iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    let mut all: Map<String, Value> = all.map(|(name, value)| (name.clone(), value.clone())).collect();
    // The older word for the mode of execution.
    if let (Some(operations), false) = (given.is("operations"), all.contains_key("execution-mode")) {
        all.insert("execution-mode".to_owned(), json!(if operations { "remote" } else { "local" }));
    }
    all
}

pub(crate) async fn list(app: App, Path(organization): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query.as_deref());
    let store = app.store();
    store.organizations.get(&organization).ok_or_else(Refusal::absent)?;
    let wanted = query.get("search[name]").unwrap_or_default();
    let mut all: Vec<&Workspace> = store
        .workspaces
        .all()
        .filter(|one| one.organization == organization && one.name.contains(wanted))
        .collect();
    let by = query.get("sort").unwrap_or("name");
    let begun = |one: &Workspace| {
        let run = one.current_run.as_ref().and_then(|run| store.runs.get(run));
        run.map(|run| run.created.clone())
    };
    match by.trim_start_matches('-') {
        "current-run.created-at" => all.sort_by_key(|one| begun(one)),
        "latest-change-at" => all.sort_by(|a, b| a.updated.cmp(&b.updated)),
        _ => all.sort_by(|a, b| a.name.cmp(&b.name)),
    }
    if by.starts_with('-') {
        all.reverse();
    }
    page(&query, all.into_iter().map(|one| document_of(&store, one)).collect())
}

pub(crate) async fn create(app: App, Path(organization): Path<String>, body: Bytes) -> Answer {
    let given = Given::read(&body, "workspaces")?;
    let name = name(given.text("name"))?;
    let mut store = app.store();
    store.organizations.get(&organization).ok_or_else(Refusal::absent)?;
    if store.workspace(&organization, name).is_some() {
        return Err(Refusal::wrong("Name has already been taken"));
    }
    let time = now();
    let workspace = Workspace {
        id: Table::<Workspace>::fresh(),
        organization,
        name: name.to_owned(),
        created: time.clone(),
        updated: time,
        settings: settings(&given),
        lock: None,
        current_run: None,
        state: None,
        configuration: None,
    };
    let shown = documents::workspace(&workspace, &[]);
    store.workspaces.put(workspace)?;
    made(shown)
}

/// A workspace, with the things that are asked for beside it.
fn shown(store: &Store, id: &str, query: Option<&str>) -> Answer {
    let query = Query::new(query);
    let workspace = found(store, id)?;
    let mut included = Vec::new();
    if query.includes("organization") {
        included.extend(store.organizations.get(&workspace.organization).map(documents::organization));
    }
    let run = workspace.current_run.as_ref().and_then(|run| store.runs.get(run));
    if query.includes("current_run") {
        included.extend(run.map(documents::run));
    }
    let mut answer = json!({ "data": document_of(store, workspace) });
    if query.includes("outputs") {
        let state = workspace.state.as_ref().and_then(|state| store.states.get(state));
        let outputs: Vec<Value> = state
            .into_iter()
            .flat_map(|state| &state.outputs)
            .map(documents::workspace_output)
            .collect();
        let related = outputs.iter().map(|one| json!({ "type": one["type"], "id": one["id"] }));
        answer["data"]["relationships"]["outputs"] = json!({ "data": related.collect::<Vec<_>>() });
        included.extend(outputs);
    }
    if !included.is_empty() {
        answer["included"] = Value::Array(included);
    }
    Ok(document(StatusCode::OK, &answer))
}

pub(crate) async fn read(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    shown(&app.store(), &id, query.as_deref())
}

pub(crate) async fn read_named(app: App, Path((organization, name)): Path<(String, String)>, RawQuery(query): RawQuery) -> Answer {
    let store = app.store();
    shown(&store, &id_of(&store, &organization, &name)?, query.as_deref())
}

fn change(store: &mut Store, id: &str, body: &Bytes) -> Answer {
    let given = Given::read(body, "workspaces")?;
    let mut workspace = found(store, id)?.clone();
    if let Some(new) = given.text("name").filter(|new| *new != workspace.name) {
        let new = name(Some(new))?;
        if store.workspace(&workspace.organization, new).is_some() {
            return Err(Refusal::wrong("Name has already been taken"));
        }
        new.clone_into(&mut workspace.name);
    }
    workspace.settings.extend(settings(&given));
    workspace.updated = now();
    let shown = document_of(store, &workspace);
    store.workspaces.put(workspace)?;
    one(shown)
}

pub(crate) async fn update(app: App, Path(id): Path<String>, body: Bytes) -> Answer {
    change(&mut app.store(), &id, &body)
}

pub(crate) async fn update_named(app: App, Path((organization, name)): Path<(String, String)>, body: Bytes) -> Answer {
    let mut store = app.store();
    let id = id_of(&store, &organization, &name)?;
    change(&mut store, &id, &body)
}

/// Removes a workspace, and ends what goes on in it.
fn removed(app: &App, id: &str) -> Answer {
    let mut store = app.store();
    found(&store, id)?;
    for run in store.runs_of(id) {
        runner::interrupt(app, &run.id, true);
    }
    let files = store.remove_workspace(id)?;
    drop(store);
    app.discard(&files);
    empty()
}

pub(crate) async fn delete(app: App, Path(id): Path<String>) -> Answer {
    removed(&app, &id)
}

pub(crate) async fn delete_named(app: App, Path((organization, name)): Path<(String, String)>) -> Answer {
    let id = id_of(&app.store(), &organization, &name)?;
    removed(&app, &id)
}

/// Removes a workspace that manages nothing.
async fn safely(app: &App, id: String) -> Answer {
    let key = {
        let store = app.store();
        let workspace = found(&store, &id)?;
        if workspace.lock.is_some() {
            return Err(Refusal::conflict("the workspace is locked"));
        }
        if store.runs_of(&id).iter().any(|run| run.status.works()) {
            return Err(Refusal::conflict("a run of the workspace goes on"));
        }
        let state = workspace.state.as_ref().and_then(|state| store.states.get(state));
        state.map(|state| state.key.clone())
    };
    if let Some(key) = key {
        let text = tokio::fs::read(app.path(&["states", &key])).await?;
        let state: Value = serde_json::from_slice(&text).unwrap_or_default();
        let managed = |one: &Value| one["mode"] == "managed";
        if state["resources"].as_array().is_some_and(|all| all.iter().any(managed)) {
            return Err(Refusal::conflict("the workspace still manages resources"));
        }
    }
    removed(app, &id)
}

pub(crate) async fn safe_delete_named(app: App, Path((organization, name)): Path<(String, String)>) -> Answer {
    let id = id_of(&app.store(), &organization, &name)?;
    safely(&app, id).await
}

pub(crate) async fn act(app: App, Extension(user): Extension<User>, Path((id, action)): Path<(String, String)>) -> Answer {
    if action == "safe-delete" {
        return safely(&app, id).await;
    }
    let mut store = app.store();
    let mut workspace = found(&store, &id)?.clone();
    let own = Lock::User(user.0);
    match (action.as_str(), &workspace.lock) {
        ("lock", None) => workspace.lock = Some(own),
        ("lock", Some(_)) => return Err(Refusal::conflict("Unable to lock workspace: it is locked already")),
        ("unlock" | "force-unlock", None) => return Err(Refusal::conflict("Unable to unlock workspace: it is not locked")),
        ("unlock" | "force-unlock", Some(Lock::Run(run))) => {
            return Err(Refusal::conflict(format!("Unable to unlock workspace: it is locked by Run {run}")));
        }
        ("unlock", Some(lock)) if *lock != own => {
            return Err(Refusal::conflict("Unable to unlock workspace: it is locked by somebody else"));
        }
        ("unlock" | "force-unlock", Some(_)) => workspace.lock = None,
        _ => return Ok(Refusal::absent().into_response()),
    }
    let shown = document_of(&store, &workspace);
    store.workspaces.put(workspace)?;
    drop(store);
    app.changed.notify_one();
    one(shown)
}
