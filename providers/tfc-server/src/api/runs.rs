//! Runs: plans, and what is done of them.

use std::io;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::workspaces::document_of;
use super::{App, Base, User};
use crate::answer::{Answer, Given, Query, Refusal, document, made, one, page, page_with};
use crate::documents;
use crate::model::{Comment, Counts, Options, Phase, Run, Status};
use crate::runner;
use crate::store::{Store, Table, in_seconds, now, random};

/// How long an engine that was asked to stop may take before it may be ended, in seconds.
const FORCE_AFTER: u64 = 30;
/// The most of a comment or a message, in bytes.
const MAX_TEXT: usize = 64 * 1024;

fn found<'a>(store: &'a Store, id: &str) -> Result<&'a Run, Refusal> {
    store.runs.get(id).ok_or_else(Refusal::absent)
}

/// The run that a plan or an application is of.
fn of_phase<'a>(store: &'a Store, id: &str, phase: Phase) -> Result<&'a Run, Refusal> {
    let rest = id.strip_prefix(phase.prefix()).ok_or_else(Refusal::absent)?;
    found(store, &format!("run{rest}"))
}

pub(crate) async fn list(app: App, Path(workspace): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query.as_deref());
    let store = app.store();
    store.workspaces.get(&workspace).ok_or_else(Refusal::absent)?;
    let among = |name: &str, is: &str| query.get(name).is_none_or(|all| all.split(',').any(|one| one == is));
    let runs = store.runs_of(&workspace).into_iter().filter(|run| {
        // As everywhere, runs that only plan are in no list unless they are asked for.
        let listed = !run.plan_only() || query.get("filter[operation]").is_some();
        let user = query.get("search[user]").is_none_or(|name| run.by.as_deref() == Some(name));
        let fits = among("filter[status]", run.status.text()) && among("filter[operation]", operation(run));
        listed && user && fits && among("filter[source]", "tfe-api") && query.get("search[commit]").is_none()
    });
    let shown = runs.map(documents::run).collect();
    let included = match query.includes("workspace") {
        true => store.workspaces.get(&workspace).map(|one| document_of(&store, one)),
        false => None,
    };
    page_with(&query, shown, included.into_iter().collect())
}

/// What a run is for, in the API's words.
fn operation(run: &Run) -> &'static str {
    let options = &run.options;
    match (run.plan_only(), run.save_plan(), options.is_destroy, options.refresh_only) {
        (true, ..) => "plan_only",
        (_, true, ..) => "save_plan",
        (_, _, true, _) => "destroy",
        (_, _, _, true) => "refresh_only",
        _ if options.allow_empty_apply == Some(true) => "empty_apply",
        _ => "plan_and_apply",
    }
}

/// What has happened to a run.
pub(crate) async fn events(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let store = app.store();
    page(&Query::new(query.as_deref()), documents::run_events(found(&store, &id)?))
}

pub(crate) async fn nothing(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    found(&app.store(), &id)?;
    page(&Query::new(query.as_deref()), Vec::new())
}

/// Puts a run in the queue.
pub(crate) fn queue(store: &mut Store, workspace: &str, configuration: &str, options: Options, by: Option<&str>) -> io::Result<Run> {
    let auto_apply = {
        let settings = store.workspaces.get(workspace).map(|one| &one.settings);
        settings.and_then(|all| all.get("auto-apply")?.as_bool()).unwrap_or(false)
    };
    let options = Options {
        auto_apply: Some(options.auto_apply.unwrap_or(auto_apply)),
        ..options
    };
    let run = Run {
        id: Table::<Run>::fresh(),
        workspace: workspace.to_owned(),
        configuration: configuration.to_owned(),
        created: now(),
        status: Status::Pending,
        options,
        times: [("plan-queueable-at".to_owned(), now())].into(),
        base: None,
        has_changes: false,
        counts: Counts::default(),
        by: by.map(str::to_owned),
        confirmed_by: None,
        comments: Vec::new(),
        key: random(48),
        number: store.number(),
    };
    store.runs.put(run.clone())?;
    Ok(run)
}

pub(crate) async fn create(app: App, Extension(user): Extension<User>, body: Bytes) -> Answer {
    let given = Given::read(&body, "runs")?;
    let options: Options = serde_json::from_value(Value::Object(given.attributes().clone()))
        .map_err(|error| Refusal::wrong(format!("a run's attributes can't be read: {error}")))?;
    if options.message.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
        return Err(Refusal::wrong("its message is too long"));
    }
    let run = {
        let mut store = app.store();
        let workspace = given.related("workspace").unwrap_or_default();
        let workspace = store.workspaces.get(workspace).ok_or_else(Refusal::absent)?.clone();
        let configuration = match given.related("configuration-version") {
            Some(id) => Some(id.to_owned()),
            None => store.latest_configuration(&workspace.id),
        };
        let configuration = configuration.ok_or_else(|| Refusal::wrong("the workspace has no configuration yet: upload one"))?;
        let uploaded = store.configurations.get(&configuration).filter(|one| one.workspace == workspace.id);
        let uploaded = uploaded.ok_or_else(Refusal::absent)?;
        if uploaded.status != "uploaded" {
            return Err(Refusal::wrong(format!(
                "its configuration is {}, and not uploaded",
                uploaded.status
            )));
        }
        let plan_only = uploaded.speculative || options.plan_only == Some(true);
        let options = Options {
            plan_only: Some(plan_only),
            ..options
        };
        queue(&mut store, &workspace.id, &configuration, options, Some(&user.0))?
    };
    app.changed.notify_one();
    made(documents::run(&run))
}

pub(crate) async fn read(app: App, Extension(base): Extension<Base>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query.as_deref());
    let store = app.store();
    let run = found(&store, &id)?;
    let mut included = Vec::new();
    for (name, phase) in [("plan", Phase::Plan), ("apply", Phase::Apply)] {
        if query.includes(name) {
            included.push(documents::phase(run, phase, &base.0));
        }
    }
    if query.includes("workspace") {
        included.extend(store.workspaces.get(&run.workspace).map(|one| document_of(&store, one)));
    }
    if query.includes("created_by") {
        included.extend(run.by.as_deref().map(documents::user));
    }
    if query.includes("configuration_version") {
        let configuration = store.configurations.get(&run.configuration);
        included.extend(configuration.map(|one| documents::configuration(one, None)));
    }
    let mut answer = json!({ "data": documents::run(run) });
    if !included.is_empty() {
        answer["included"] = Value::Array(included);
    }
    Ok(document(StatusCode::OK, &answer))
}

pub(crate) async fn act(app: App, Extension(user): Extension<User>, Path((id, action)): Path<(String, String)>, body: Bytes) -> Answer {
    let comment = comment_of(&body)?;
    {
        let mut store = app.store();
        let run = found(&store, &id)?.clone();
        let status = run.status;
        let conflict = || Refusal::conflict(format!("transition not allowed: the run is {}", status.text()));
        match action.as_str() {
            "apply" if status.waits() => {
                if run.save_plan() && store.workspaces.get(&run.workspace).is_some_and(|one| one.state != run.base) {
                    runner::to(&mut store, &id, Status::Discarded)?;
                    return Err(Refusal::conflict("transition not allowed: the saved plan is stale"));
                }
                runner::to(&mut store, &id, Status::Confirmed)?;
                store.runs.change(&id, |run| run.confirmed_by = Some(user.0))?;
            }
            "discard" if status.waits() || status == Status::Pending => runner::to(&mut store, &id, Status::Discarded)?,
            "cancel" if status.works() => {
                let later = in_seconds(FORCE_AFTER);
                store.runs.change(&id, |run| {
                    run.times.insert("cancel-requested-at".to_owned(), now());
                    run.times.insert("force-cancel-available-at".to_owned(), later);
                })?;
                match status {
                    Status::Pending | Status::Confirmed => runner::to(&mut store, &id, Status::Canceled)?,
                    _ => runner::interrupt(&app, &id, false),
                }
            }
            "force-cancel" if documents::force_cancelable(&run) => {
                store.runs.change(&id, |run| {
                    run.times.insert("force-cancel-requested-at".to_owned(), now());
                })?;
                runner::interrupt(&app, &id, true);
            }
            "force-execute" if status == Status::Pending => {
                let before = store.workspaces.get(&run.workspace).and_then(|one| one.current_run.clone());
                let before = before.and_then(|id| store.runs.get(&id)).filter(|run| run.status.waits());
                let before = before.ok_or_else(conflict)?.id.clone();
                runner::to(&mut store, &before, Status::Discarded)?;
            }
            "apply" | "discard" | "cancel" | "force-cancel" | "force-execute" => return Err(conflict()),
            _ => return Err(Refusal::absent()),
        }
        if let Some(body) = comment {
            say(&mut store, &id, &body)?;
        }
    }
    app.changed.notify_one();
    Ok(StatusCode::ACCEPTED.into_response())
}

/// The comment that an action brings with it.
fn comment_of(body: &Bytes) -> Result<Option<String>, Refusal> {
    if body.is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_slice(body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("no JSON: {error}")))?;
    let text = value["comment"].as_str().or(value["data"]["attributes"]["comment"].as_str());
    match text.filter(|text| !text.is_empty()) {
        Some(text) if text.len() > MAX_TEXT => Err(Refusal::wrong("its comment is too long")),
        text => Ok(text.map(str::to_owned)),
    }
}

/// Keeps a comment on a run.
fn say(store: &mut Store, run: &str, body: &str) -> io::Result<Comment> {
    let comment = Comment {
        id: Table::<Comment>::fresh(),
        run: run.to_owned(),
        body: body.to_owned(),
        created: now(),
    };
    store.comments.put(comment.clone())?;
    let id = comment.id.clone();
    store.runs.change(run, |run| run.comments.push(id))?;
    Ok(comment)
}

pub(crate) async fn comments(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let store = app.store();
    found(&store, &id)?;
    let mut all: Vec<&Comment> = store.comments.all().filter(|one| one.run == id).collect();
    all.sort_by(|a, b| a.created.cmp(&b.created));
    page(&Query::new(query.as_deref()), all.into_iter().map(documents::comment).collect())
}

pub(crate) async fn comment(app: App, Path(id): Path<String>, body: Bytes) -> Answer {
    let given = Given::read(&body, "comments")?;
    let text = given.text("body").filter(|text| !text.is_empty() && text.len() <= MAX_TEXT);
    let text = text.ok_or_else(|| Refusal::wrong("a comment has a body"))?;
    let mut store = app.store();
    found(&store, &id)?;
    made(documents::comment(&say(&mut store, &id, text)?))
}

pub(crate) async fn read_comment(app: App, Path(id): Path<String>) -> Answer {
    let store = app.store();
    one(documents::comment(store.comments.get(&id).ok_or_else(Refusal::absent)?))
}

pub(crate) async fn plan(app: App, Extension(base): Extension<Base>, Path(id): Path<String>) -> Answer {
    one(documents::phase(of_phase(&app.store(), &id, Phase::Plan)?, Phase::Plan, &base.0))
}

pub(crate) async fn plan_of(app: App, Extension(base): Extension<Base>, Path(id): Path<String>) -> Answer {
    one(documents::phase(found(&app.store(), &id)?, Phase::Plan, &base.0))
}

pub(crate) async fn apply(app: App, Extension(base): Extension<Base>, Path(id): Path<String>) -> Answer {
    one(documents::phase(of_phase(&app.store(), &id, Phase::Apply)?, Phase::Apply, &base.0))
}

pub(crate) async fn apply_of(app: App, Extension(base): Extension<Base>, Path(id): Path<String>) -> Answer {
    one(documents::phase(found(&app.store(), &id)?, Phase::Apply, &base.0))
}

/// Where a plan's JSON is, when there is one.
pub(crate) async fn json_output(app: App, Extension(base): Extension<Base>, Path(id): Path<String>) -> Answer {
    let store = app.store();
    let run = of_phase(&store, &id, Phase::Plan)?;
    if !runner::files(&app, run).plan_json.exists() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let at = format!("{}{}/plans/{}", base.0, documents::BLOBS, run.key);
    Ok((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, at)]).into_response())
}
