//! How each object looks to who asks for it.

use serde_json::{Map, Value, json};

use crate::answer::{maybe, to};
use crate::model::{Comment, Configuration, Counts, Lock, Organization, Output, Phase, Run, StateVersion, Status, Variable, Workspace};
use crate::store::now;

/// What the paths of uploads, downloads and logs begin with: these answer to who knows the key in them.
pub(crate) const BLOBS: &str = "/blobs";

fn all_true(names: &[&str]) -> Value {
    Value::Object(names.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect())
}

/// Attributes as they were given, where they were, over those of the server.
fn over(own: Value, given: &Map<String, Value>) -> Value {
    let mut all = own;
    if let Value::Object(all) = &mut all {
        for (name, value) in given {
            all.insert(name.clone(), value.clone());
        }
    }
    all
}

pub(crate) fn organization(one: &Organization) -> Value {
    let permissions = all_true(&[
        "can-create-workspace",
        "can-destroy",
        "can-traverse",
        "can-update",
        "can-update-api-token",
    ]);
    let own = json!({ "collaborator-auth-policy": "password", "cost-estimation-enabled": false, "default-execution-mode": "remote" });
    let mut attributes = over(own, &one.settings);
    attributes["name"] = json!(one.name);
    attributes["external-id"] = json!(one.external_id);
    attributes["created-at"] = json!(one.created);
    attributes["permissions"] = permissions;
    json!({ "id": one.name, "type": "organizations", "attributes": attributes })
}

pub(crate) fn entitlements(one: &Organization) -> Value {
    let attributes = json!({
        "operations": true, "state-storage": true, "agents": false, "audit-logging": false, "cost-estimation": false, "sentinel": false,
        "private-module-registry": false, "run-tasks": false, "sso": false, "teams": false, "vcs-integrations": false,
    });
    json!({ "id": one.external_id, "type": "entitlement-sets", "attributes": attributes })
}

/// A workspace, with the identities of its variables.
pub(crate) fn workspace(one: &Workspace, variables: &[&str]) -> Value {
    let permissions = all_true(&[
        "can-destroy",
        "can-force-delete",
        "can-force-unlock",
        "can-lock",
        "can-queue-apply",
        "can-queue-destroy",
        "can-queue-run",
        "can-read-settings",
        "can-read-state-versions",
        "can-read-variable",
        "can-unlock",
        "can-update",
        "can-update-variable",
    ]);
    let own = json!({
        "allow-destroy-plan": true, "auto-apply": false, "auto-apply-run-trigger": false, "assessments-enabled": false, "description": "",
        "execution-mode": "remote", "file-triggers-enabled": true, "global-remote-state": false, "queue-all-runs": false,
        "source": "tfe-api", "speculative-enabled": true, "structured-run-output-enabled": false, "terraform-version": "latest",
        "trigger-prefixes": [], "working-directory": "", "tag-names": [], "environment": "default",
    });
    let mut attributes = over(own, &one.settings);
    let operations = attributes["execution-mode"] != "local";
    for (name, value) in [
        ("name", json!(one.name)),
        ("created-at", json!(one.created)),
        ("updated-at", json!(one.updated)),
        ("locked", json!(one.lock.is_some())),
        ("operations", json!(operations)),
        ("permissions", permissions),
        ("actions", json!({ "is-destroyable": true })),
    ] {
        attributes[name] = value;
    }
    let locked_by = match &one.lock {
        None => json!({ "data": null }),
        Some(Lock::User(name)) => to("users", &user_id(name)),
        Some(Lock::Run(run)) => to("runs", run),
    };
    let relationships = json!({
        "organization": to("organizations", &one.organization),
        "current-run": maybe("runs", one.current_run.as_ref()),
        "current-state-version": maybe("state-versions", one.state.as_ref()),
        "current-configuration-version": maybe("configuration-versions", one.configuration.as_ref()),
        "locked-by": locked_by,
        "vars": { "data": variables.iter().map(|id| json!({ "type": "vars", "id": id })).collect::<Vec<_>>() },
    });
    json!({
        "id": one.id, "type": "workspaces", "attributes": attributes, "relationships": relationships,
        "links": { "self": format!("/api/v2/organizations/{}/workspaces/{}", one.organization, one.name) },
    })
}

/// The identity of the user that a token is of.
pub(crate) fn user_id(name: &str) -> String {
    format!("user-{name}")
}

pub(crate) fn user(name: &str) -> Value {
    let attributes = json!({ "username": name, "is-service-account": false, "email": "" });
    json!({ "id": user_id(name), "type": "users", "attributes": attributes })
}

pub(crate) fn variable(one: &Variable) -> Value {
    let value = if one.sensitive { Value::Null } else { json!(one.value) };
    let attributes = json!({
        "key": one.key, "value": value, "description": one.description, "category": one.category, "hcl": one.hcl,
        "sensitive": one.sensitive, "version-id": one.version,
    });
    let relationships = json!({ "configurable": to("workspaces", &one.workspace) });
    json!({ "id": one.id, "type": "vars", "attributes": attributes, "relationships": relationships })
}

/// A configuration. Where it is uploaded to is told once, to who has made it.
pub(crate) fn configuration(one: &Configuration, told: Option<&str>) -> Value {
    let upload = told.map(|base| format!("{base}{BLOBS}/configurations/{}", one.key));
    let attributes = json!({
        "auto-queue-runs": one.auto_queue, "speculative": one.speculative, "provisional": one.provisional, "source": "tfe-api",
        "status": one.status, "error": one.error, "error-message": one.error, "upload-url": upload, "status-timestamps": {},
    });
    json!({ "id": one.id, "type": "configuration-versions", "attributes": attributes })
}

pub(crate) fn run(one: &Run) -> Value {
    let (status, options) = (one.status, &one.options);
    let actions = json!({
        "is-cancelable": status.works(),
        "is-confirmable": status.waits(),
        "is-discardable": status.waits() || status == Status::Pending,
        "is-force-cancelable": force_cancelable(one),
    });
    let permissions = all_true(&[
        "can-apply",
        "can-cancel",
        "can-comment",
        "can-discard",
        "can-force-cancel",
        "can-force-execute",
    ]);
    let message = options.message.clone().unwrap_or_else(|| "Triggered via API".to_owned());
    let mut attributes = json!({
        "actions": actions, "permissions": permissions, "status": status.text(), "message": message, "source": "tfe-api",
        "created-at": one.created, "has-changes": one.has_changes, "status-timestamps": one.times, "trigger-reason": "manual",
        "auto-apply": options.auto_apply.unwrap_or(false), "plan-only": one.plan_only(), "save-plan": one.save_plan(),
        "is-destroy": options.is_destroy, "refresh": options.refresh.unwrap_or(true), "refresh-only": options.refresh_only,
        "allow-empty-apply": options.allow_empty_apply.unwrap_or(false), "target-addrs": options.target_addrs,
        "replace-addrs": options.replace_addrs, "terraform-version": options.terraform_version.as_deref().unwrap_or("latest"),
        "position-in-queue": 0,
    });
    if let Some(variables) = &options.variables {
        attributes["variables"] = json!(variables);
    }
    for name in ["canceled-at", "force-cancel-available-at"] {
        if let Some(time) = one.times.get(name) {
            attributes[name] = json!(time);
        }
    }
    let by = |name: &Option<String>| maybe("users", name.as_deref().map(user_id).as_ref());
    let all = |kind: &str, ids: &[String]| json!({ "data": ids.iter().map(|id| json!({ "type": kind, "id": id })).collect::<Vec<_>>() });
    let events: Vec<String> = events(one).into_iter().map(|(id, _, _)| id).collect();
    let relationships = json!({
        "workspace": to("workspaces", &one.workspace),
        "configuration-version": to("configuration-versions", &one.configuration),
        "plan": to("plans", &one.phase(Phase::Plan)),
        "apply": to("applies", &one.phase(Phase::Apply)),
        "created-by": by(&one.by), "confirmed-by": by(&one.confirmed_by), "comments": all("comments", &one.comments),
        "run-events": all("run-events", &events), "cost-estimate": { "data": null }, "policy-checks": { "data": [] },
        "task-stages": { "data": [] },
    });
    json!({ "id": one.id, "type": "runs", "attributes": attributes, "relationships": relationships })
}

/// Whether a run may be ended at once: it was asked to stop a while ago, and goes on.
pub(crate) fn force_cancelable(one: &Run) -> bool {
    let since = one.times.get("force-cancel-available-at");
    matches!(one.status, Status::Planning | Status::Applying) && since.is_some_and(|since| *since <= now())
}

/// What has happened to a run: identities, actions, and times.
fn events(one: &Run) -> Vec<(String, &str, &String)> {
    let mut all: Vec<(&String, &String)> = one.times.iter().map(|(name, time)| (time, name)).collect();
    all.sort();
    let of = all.into_iter().enumerate();
    of.map(|(number, (time, name))| {
        let id = format!("{}-{number}", one.id.replacen("run", "re", 1));
        (id, name.trim_end_matches("-at"), time)
    })
    .collect()
}

pub(crate) fn run_events(one: &Run) -> Vec<Value> {
    let shown = |(id, action, time): (String, &str, &String)| {
        let attributes = json!({ "action": action.replace('-', "_"), "created-at": time, "description": null });
        json!({ "id": id, "type": "run-events", "attributes": attributes })
    };
    events(one).into_iter().map(shown).collect()
}

/// How far a phase of a run is.
fn progress(one: &Run, phase: Phase) -> &'static str {
    let planned = one.times.contains_key("planned-at");
    let applying = one.times.contains_key("applying-at");
    let begun = match phase {
        Phase::Plan => one.times.contains_key("planning-at"),
        Phase::Apply => applying,
    };
    let through = match phase {
        Phase::Plan => planned,
        Phase::Apply => one.status == Status::Applied,
    };
    match (one.status, through, begun) {
        (_, true, _) => "finished",
        (Status::Errored, false, true) => "errored",
        (Status::Canceled | Status::ForceCanceled, false, true) => "canceled",
        (status, false, false) if status.is_final() => "unreachable",
        (_, false, true) => "running",
        (Status::Confirmed, false, false) => "queued",
        (_, false, false) => "pending",
    }
}

pub(crate) fn phase(one: &Run, phase: Phase, base: &str) -> Value {
    let (kind, name) = match phase {
        Phase::Plan => ("plans", "plan"),
        Phase::Apply => ("applies", "apply"),
    };
    let status = progress(one, phase);
    let shown = match phase {
        Phase::Plan => one.counts,
        Phase::Apply if status == "finished" => one.counts,
        Phase::Apply => Counts::default(),
    };
    let mut times = Map::new();
    for (given, from) in match phase {
        Phase::Plan => [
            ("queued-at", "plan-queueable-at"),
            ("started-at", "planning-at"),
            ("finished-at", "planned-at"),
        ],
        Phase::Apply => [
            ("queued-at", "confirmed-at"),
            ("started-at", "applying-at"),
            ("finished-at", "applied-at"),
        ],
    } {
        if let Some(time) = one.times.get(from) {
            times.insert(given.to_owned(), json!(time));
        }
    }
    let mut attributes = json!({
        "status": status, "log-read-url": format!("{base}{BLOBS}/logs/{}/{name}", one.key), "status-timestamps": times,
        "resource-additions": shown.additions, "resource-changes": shown.changes, "resource-destructions": shown.destructions,
        "resource-imports": 0,
    });
    if phase == Phase::Plan {
        attributes["has-changes"] = json!(one.has_changes);
    }
    let id = one.phase(phase);
    json!({
        "id": id, "type": kind, "attributes": attributes, "relationships": { "exports": { "data": [] } },
        "links": { "self": format!("/api/v2/{kind}/{id}"), "json-output": format!("/api/v2/plans/{id}/json-output") },
    })
}

pub(crate) fn state(one: &StateVersion, base: &str) -> Value {
    let at = format!("{base}{BLOBS}/states/{}", one.key);
    let (download, upload) = match one.uploaded {
        true => (json!(at), Value::Null),
        false => (Value::Null, json!(at)),
    };
    let attributes = json!({
        "created-at": one.created, "size": one.size, "serial": one.serial, "lineage": one.lineage, "state-version": 4,
        "terraform-version": one.terraform_version, "resources-processed": one.uploaded,
        "status": if one.uploaded { "finalized" } else { "pending" }, "hosted-state-download-url": download,
        "hosted-state-upload-url": upload, "hosted-json-state-upload-url": format!("{at}/json"),
        "hosted-json-state-download-url": format!("{at}/json"), "resources": [], "modules": {}, "providers": {},
    });
    let outputs: Vec<Value> = one
        .outputs
        .iter()
        .map(|output| json!({ "type": "state-version-outputs", "id": output.id }))
        .collect();
    let relationships = json!({
        "run": maybe("runs", one.run.as_ref()), "outputs": { "data": outputs }, "workspace": to("workspaces", &one.workspace),
    });
    json!({ "id": one.id, "type": "state-versions", "attributes": attributes, "relationships": relationships })
}

/// The type of an output, in a word.
fn simple(one: &Output) -> &str {
    match &one.kind {
        Value::String(text) => text,
        Value::Array(parts) if parts.first().is_some_and(|part| part == "object" || part == "map") => "map",
        Value::Array(_) => "array",
        _ => "string",
    }
}

/// An output of a workspace, beside it. What is sensitive has no value.
pub(crate) fn workspace_output(one: &Output) -> Value {
    let value = if one.sensitive { &Value::Null } else { &one.value };
    let attributes = json!({ "name": one.name, "sensitive": one.sensitive, "output-type": simple(one), "value": value });
    json!({ "id": one.id, "type": "workspace-outputs", "attributes": attributes })
}

/// An output of a state. Who may not read the state is not told what is sensitive.
pub(crate) fn output(one: &Output, veiled: bool) -> Value {
    let value = if one.sensitive && veiled { &Value::Null } else { &one.value };
    let simple = simple(one);
    let attributes = json!({
        "name": one.name, "sensitive": one.sensitive, "type": simple, "detailed-type": one.kind, "value": value,
    });
    json!({ "id": one.id, "type": "state-version-outputs", "attributes": attributes })
}

pub(crate) fn comment(one: &Comment) -> Value {
    let attributes = json!({ "body": one.body, "created-at": one.created });
    json!({ "id": one.id, "type": "comments", "attributes": attributes })
}
