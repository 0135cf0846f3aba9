//! Organizations: who workspaces belong to.

use std::io;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery};
use serde_json::{Map, Value, json};

use super::App;
use crate::answer::{self, Answer, Given, Query, Refusal, document, empty, made, name, one, page};
use crate::documents;
use crate::model::{Organization, Status};
use crate::store::{Store, Table, now, random};

/// What is of an organization itself, and is not taken from who asks.
const OWN: [&str; 4] = ["name", "external-id", "created-at", "permissions"];

fn fresh(name: &str, settings: Map<String, Value>) -> Organization {
    Organization {
        name: name.to_owned(),
        external_id: Table::<Organization>::fresh(),
        created: now(),
        settings,
    }
}

fn settings(given: &Given) -> Map<String, Value> {
    let all = given.attributes().iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    all.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Makes one, if it is not there.
pub(crate) fn ensure(store: &mut Store, name: &str) -> io::Result<()> {
    if let Err(refusal) = answer::name(Some(name)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?}: {}", refusal.words()),
        ));
    }
    match store.organizations.get(name) {
        Some(_) => Ok(()),
        None => store.organizations.put(fresh(name, Map::new())),
    }
}

fn found<'a>(store: &'a Store, name: &str) -> Result<&'a Organization, Refusal> {
    store.organizations.get(name).ok_or_else(Refusal::absent)
}

pub(crate) async fn list(app: App, RawQuery(query): RawQuery) -> Answer {
    let query = Query::new(query.as_deref());
    let store = app.store();
    let email = |one: &Organization| one.settings.get("email").and_then(Value::as_str).unwrap_or_default().to_owned();
    let all = store.organizations.all().filter(|one| {
        let any = query
            .get("q")
            .is_none_or(|text| one.name.contains(text) || email(one).contains(text));
        let named = query.get("q[name]").is_none_or(|text| one.name.contains(text));
        any && named && query.get("q[email]").is_none_or(|text| email(one).contains(text))
    });
    page(&query, all.map(documents::organization).collect())
}

pub(crate) async fn create(app: App, body: Bytes) -> Answer {
    let given = Given::read(&body, "organizations")?;
    let name = name(given.text("name"))?;
    let mut store = app.store();
    if store.organizations.get(name).is_some() {
        return Err(Refusal::wrong("Name has already been taken"));
    }
    let organization = fresh(name, settings(&given));
    let shown = documents::organization(&organization);
    store.organizations.put(organization)?;
    made(shown)
}

pub(crate) async fn read(app: App, Path(name): Path<String>) -> Answer {
    one(documents::organization(found(&app.store(), &name)?))
}

pub(crate) async fn update(app: App, Path(old): Path<String>, body: Bytes) -> Answer {
    let given = Given::read(&body, "organizations")?;
    let mut store = app.store();
    let mut organization = found(&store, &old)?.clone();
    organization.settings.extend(settings(&given));
    if let Some(new) = given.text("name").filter(|new| *new != old) {
        let new = name(Some(new))?;
        if store.organizations.get(new).is_some() {
            return Err(Refusal::wrong("Name has already been taken"));
        }
        organization.name = new.to_owned();
        let workspaces = store.workspaces_of(&old);
        store.organizations.put(organization.clone())?;
        for id in workspaces {
            store.workspaces.change(&id, |one| new.clone_into(&mut one.organization))?;
        }
        store.organizations.remove(&old)?;
    } else {
        store.organizations.put(organization.clone())?;
    }
    one(documents::organization(&organization))
}

pub(crate) async fn delete(app: App, Path(name): Path<String>) -> Answer {
    let mut store = app.store();
    found(&store, &name)?;
    let of = store.workspaces_of(&name);
    let mut files = Vec::new();
    for id in of {
        files.extend(store.remove_workspace(&id)?);
    }
    store.organizations.remove(&name)?;
    drop(store);
    app.discard(&files);
    empty()
}

pub(crate) async fn entitlements(app: App, Path(name): Path<String>) -> Answer {
    one(documents::entitlements(found(&app.store(), &name)?))
}

/// The runs that wait for an engine, or have one.
pub(crate) async fn queue(app: App, Path(name): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let store = app.store();
    found(&store, &name)?;
    let of = |id: &str| store.workspaces.get(id).is_some_and(|one| one.organization == name);
    let mut runs: Vec<_> = store.runs.all().filter(|run| run.status.works() && of(&run.workspace)).collect();
    runs.sort_by_key(|run| run.number);
    page(&Query::new(query.as_deref()), runs.into_iter().map(documents::run).collect())
}

pub(crate) async fn capacity(app: App, Path(name): Path<String>) -> Answer {
    let store = app.store();
    found(&store, &name)?;
    let of = |id: &str| store.workspaces.get(id).is_some_and(|one| one.organization == name);
    let count = |is: fn(Status) -> bool| store.runs.all().filter(|run| is(run.status) && of(&run.workspace)).count();
    let attributes = json!({
        "pending": count(|status| status == Status::Pending), "running": count(|status| matches!(status, Status::Planning | Status::Applying)),
    });
    let capacity = json!({ "id": format!("cap-{}", random(8)), "type": "organization-capacity", "attributes": attributes });
    Ok(document(axum::http::StatusCode::OK, &json!({ "data": capacity })))
}
