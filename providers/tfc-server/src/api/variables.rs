//! Variables of workspaces. What is sensitive is never given back.

use axum::body::Bytes;
use axum::extract::{Path, RawQuery};

use super::App;
use crate::answer::{Answer, Given, Query, Refusal, empty, made, one, page};
use crate::documents;
use crate::model::Variable;
use crate::store::{Store, Table, random};

/// The longest description.
const MAX_DESCRIPTION: usize = 512;
/// The most variables of a workspace.
const MOST: usize = 1_000;

fn found<'a>(store: &'a Store, workspace: &str, id: &str) -> Result<&'a Variable, Refusal> {
    let variable = store.variables.get(id).filter(|one| one.workspace == workspace);
    variable.ok_or_else(Refusal::absent)
}

/// Takes what is given, and checks it.
fn take(variable: &mut Variable, given: &Given) -> Result<(), Refusal> {
    for (name, field) in [
        ("key", &mut variable.key),
        ("value", &mut variable.value),
        ("description", &mut variable.description),
        ("category", &mut variable.category),
    ] {
        if let Some(text) = given.text(name) {
            text.clone_into(field);
        }
    }
    variable.hcl = given.is("hcl").unwrap_or(variable.hcl);
    variable.sensitive = given.is("sensitive").unwrap_or(variable.sensitive);
    if variable.description.len() > MAX_DESCRIPTION {
        return Err(Refusal::wrong(format!(
            "Description is too long (maximum is {MAX_DESCRIPTION} characters)"
        )));
    }
    variable.version = random(16);
    let named = |more: &[u8]| {
        let good = |b: u8| b.is_ascii_alphanumeric() || more.contains(&b);
        !variable.key.is_empty() && variable.key.bytes().all(good)
    };
    match variable.category.as_str() {
        "terraform" if named(b"-_") => Ok(()),
        "env" if named(b"-_.") => Ok(()),
        "terraform" | "env" => Err(Refusal::wrong(format!("Key {:?} is no name of a variable", variable.key))),
        other => Err(Refusal::wrong(format!("Category {other:?} is none of terraform and env"))),
    }
}

pub(crate) async fn list(app: App, Path(workspace): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let store = app.store();
    store.workspaces.get(&workspace).ok_or_else(Refusal::absent)?;
    let all = store.variables.all().filter(|one| one.workspace == workspace);
    page(&Query::new(query.as_deref()), all.map(documents::variable).collect())
}

pub(crate) async fn create(app: App, Path(workspace): Path<String>, body: Bytes) -> Answer {
    let given = Given::read(&body, "vars")?;
    let mut store = app.store();
    store.workspaces.get(&workspace).ok_or_else(Refusal::absent)?;
    let mut variable = Variable {
        id: Table::<Variable>::fresh(),
        workspace: workspace.clone(),
        key: String::new(),
        value: String::new(),
        description: String::new(),
        category: "terraform".to_owned(),
        hcl: false,
        sensitive: false,
        version: String::new(),
    };
    take(&mut variable, &given)?;
    let of: Vec<&Variable> = store.variables.all().filter(|one| one.workspace == workspace).collect();
    if of
        .iter()
        .any(|one| (&one.key, &one.category) == (&variable.key, &variable.category))
    {
        return Err(Refusal::wrong("Key has already been taken"));
    }
    if of.len() >= MOST {
        return Err(Refusal::wrong(format!("a workspace has at most {MOST} variables")));
    }
    let shown = documents::variable(&variable);
    store.variables.put(variable)?;
    made(shown)
}

pub(crate) async fn read(app: App, Path((workspace, id)): Path<(String, String)>) -> Answer {
    one(documents::variable(found(&app.store(), &workspace, &id)?))
}

pub(crate) async fn update(app: App, Path((workspace, id)): Path<(String, String)>, body: Bytes) -> Answer {
    let given = Given::read(&body, "vars")?;
    let mut store = app.store();
    let mut variable = found(&store, &workspace, &id)?.clone();
    if variable.sensitive && given.is("sensitive") == Some(false) {
        return Err(Refusal::wrong("Sensitive variables stay sensitive: make another one"));
    }
    take(&mut variable, &given)?;
    let shown = documents::variable(&variable);
    store.variables.put(variable)?;
    one(shown)
}

pub(crate) async fn delete(app: App, Path((workspace, id)): Path<(String, String)>) -> Answer {
    let mut store = app.store();
    found(&store, &workspace, &id)?;
    store.variables.remove(&id)?;
    empty()
}
