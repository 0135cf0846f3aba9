//! Runs: plans, and what is done of them.

use std::io;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::{App, Base};
use crate::answer::{Answer, Given, Query, Refusal, document, made, one, page};
use crate::documents;
use crate::model::{Comment, Counts, Options, Phase, Run, Status};
use crate::runner;
use crate::store::{Store, Table, now, random};

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
    let statuses: Vec<&str> = query.get("filter[status]").map(|all| all.split(',').collect()).unwrap_or_default();
    // As everywhere, runs that only plan are in no list unless they are asked for.
    let operations = query.get("filter[operation]").unwrap_or_default().to_owned();
    let runs = store.runs_of(&workspace).into_iter().filter(|run| {
        let status = statuses.is_empty() || statuses.contains(&run.status.text());
        status && (!run.plan_only() || operations.contains("plan_only"))
    });
    page(&query, runs.map(documents::run).collect())
}

pub(crate) async fn nothing(app: App, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    found(&app.store(), &id)?;
    page(&Query::new(query.as_deref()), Vec::new())
}

/// Puts a run in the queue.
pub(crate) fn queue(store: &mut Store, workspace: &str, configuration: &str, options: Options) -> io::Result<Run> {
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
        confirmed: false,
        key: random(48),
        number: store.number(),
    };
    store.runs.put(run.clone())?;
    Ok(run)
}

pub(crate) async fn create(app: App, body: Bytes) -> Answer {
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
            None => workspace.configuration,
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
        queue(&mut store, &workspace.id, &configuration, options)?
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
        included.extend(store.workspaces.get(&run.workspace).map(documents::workspace));
    }
    if query.includes("configuration_version") {
        let configuration = store.configurations.get(&run.configuration);
        included.extend(configuration.map(|one| documents::configuration(one, &base.0)));
    }
    let mut answer = json!({ "data": documents::run(run) });
    if !included.is_empty() {
        answer["included"] = Value::Array(included);
    }
    Ok(document(StatusCode::OK, &answer))
}

pub(crate) async fn act(app: App, Path((id, action)): Path<(String, String)>, body: Bytes) -> Answer {
    let comment = comment_of(&body)?;
    {
        let mut store = app.store();
        let run = found(&store, &id)?.clone();
        let (status, now) = (run.status, now());
        let conflict = || Refusal::conflict(format!("transition not allowed: the run is {}", status.text()));
        match action.as_str() {
            "apply" if status.waits() => {
                if run.save_plan() && store.workspaces.get(&run.workspace).is_some_and(|one| one.state != run.base) {
                    runner::to(&mut store, &id, Status::Discarded)?;
                    return Err(Refusal::conflict("transition not allowed: the saved plan is stale"));
                }
                runner::to(&mut store, &id, Status::Confirmed)?;
                store.runs.change(&id, |run| run.confirmed = true)?;
            }
            "discard" if status.waits() || status == Status::Pending => runner::to(&mut store, &id, Status::Discarded)?,
            "cancel" if status == Status::Pending => runner::to(&mut store, &id, Status::Canceled)?,
            "cancel" if status == Status::Confirmed => runner::to(&mut store, &id, Status::Canceled)?,
            "cancel" if status.works() => {
                store.runs.change(&id, |run| {
                    run.times.insert("cancel-requested-at".to_owned(), now);
                })?;
                runner::interrupt(&app, &id, false);
            }
            "force-cancel" if matches!(status, Status::Planning | Status::Applying) && run.times.contains_key("cancel-requested-at") => {
                store.runs.change(&id, |run| {
                    run.times.insert("force-cancel-requested-at".to_owned(), now);
                })?;
                runner::interrupt(&app, &id, true);
            }
            "apply" | "discard" | "cancel" | "force-cancel" | "force-execute" => return Err(conflict()),
            _ => return Err(Refusal::absent()),
        }
        if let Some(body) = comment {
            let comment = fresh_comment(&id, &body);
            store.comments.put(comment)?;
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

fn fresh_comment(run: &str, body: &str) -> Comment {
    Comment {
        id: Table::<Comment>::fresh(),
        run: run.to_owned(),
        body: body.to_owned(),
        created: now(),
    }
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
    let comment = fresh_comment(&id, text);
    let shown = documents::comment(&comment);
    store.comments.put(comment)?;
    made(shown)
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
