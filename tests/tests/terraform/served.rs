//! What a server, and others on it, do to a workspace: each ends converged or with words that say why, never with two runs or two sets of
//! things.

use providers::{Applied, Deleted, Provider};
use serde_json::{Value, json};
use state::event::Position;
use state::observation::Observation;
use state::resource::Resource;
use tests::passes::{Acting, scope};
use tests::relay::Fault;
use tests::wait::until;

use crate::hosted::Hosted;
use crate::stage::{one, resource};

#[track_caller]
fn pending(seen: Observation) -> String {
    match seen {
        Observation::Pending { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unknown(seen: Observation) -> String {
    match seen {
        Observation::Unknown { why } => why,
        other => panic!("{other:?}"),
    }
}

/// The input of the one thing that there is.
fn input(stage: &Hosted, resource: &Resource) -> Value {
    let state = stage.runtime.block_on(stage.state(resource)).unwrap();
    let things = state["resources"].as_array().unwrap();
    assert_eq!(things.len(), 1, "{state}");
    things[0]["instances"][0]["attributes"]["input"]["value"].clone()
}

fn tiny(state: &mut Value) {
    state["resources"][0]["instances"][0]["attributes"]["input"]["value"] = json!("tiny");
}

fn statuses(stage: &Hosted, resource: &Resource) -> Vec<String> {
    let runs = stage.runs(resource);
    runs.iter()
        .map(|run| run["attributes"]["status"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_fresh_is_one_request_and_what_was_shown_is_what_is_applied() {
    let Some(stage) = Hosted::new(&json!({})) else { return };
    let small = one("net", &json!("small"));
    assert_eq!(stage.see(&small), Observation::Absent);
    let outputs = stage.make(&small);
    assert_eq!(serde_json::to_value(&outputs).unwrap(), json!({ "size": "small" }));
    assert_eq!(statuses(&stage, &small), ["applied"]);
    stage.relay.seen();
    for _ in 0..3 {
        assert!(stage.see(&small).in_sync());
    }
    let seen = stage.relay.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.iter().all(|one| one.starts_with("GET ")), "{seen:?}");

    // A plan is kept on the server, and is the one that is applied, with a word on why.
    let large = one("net", &json!("${path.cwd} and %{ if true }"));
    assert_eq!(stage.drift(&large), ["/terraform_data.station/input"]);
    let kept = stage.run_that_is(&large, "planned_and_saved");
    assert_eq!(stage.drift(&large), ["/terraform_data.station/input"]);
    assert_eq!(statuses(&stage, &large), ["planned_and_saved", "applied"], "it was planned once");
    let order = Position { block: 12, tx: 3 };
    let scope = scope();
    let work = stage.provider.apply_ordered(&scope, &large, order);
    stage.runtime.block_on(work).unwrap();
    assert_eq!(stage.run_that_is(&large, "applied"), kept);
    assert_eq!(input(&stage, &large), json!("${path.cwd} and %{ if true }"), "data stays data");
    let path = format!("/runs/{kept}/comments");
    let comments = stage.runtime.block_on(stage.did("GET", &path, &Value::Null));
    let comment = comments["data"][0]["attributes"]["body"].as_str().unwrap();
    assert!(comment.starts_with("Charter: air/net, plan "), "{comment}");
    assert!(comment.ends_with(", as transaction 12/3 of channel air has ordered"), "{comment}");

    // Another order while a plan is kept: that one is put aside.
    let other = one("net", &json!("other"));
    stage.see(&other);
    let again = one("net", &json!("again"));
    stage.make(&again);
    assert_eq!(statuses(&stage, &again), ["applied", "discarded", "applied", "applied"]);

    // What is destroyed comes first, and is held where it is protected.
    let none = json!({ "configuration": { "resource": { "terraform_data": { "other": { "input": 1 } } } } });
    let mut none = resource("net", &none);
    none.protect = true;
    match stage.see(&none) {
        Observation::Present { drift, blocked, .. } => {
            let paths: Vec<&str> = drift.iter().map(|field| field.path.as_str()).collect();
            assert_eq!(paths, ["/terraform_data.station", "/terraform_data.other"]);
            assert_eq!(blocked.unwrap(), "net is protected, and its plan destroys terraform_data.station");
        }
        other => panic!("{other:?}"),
    }
    until("it is gone", || match stage.delete(&again) {
        Ok(Deleted::Gone) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(stage.runtime.block_on(stage.workspace(&again)).is_none());
}

#[test]
fn what_the_server_has_looked_at_itself_needs_no_run() {
    let Some(mut stage) = Hosted::new(&json!({ "recheck_seconds": 3600 })) else {
        return;
    };
    let small = one("net", &json!("small"));
    stage.make(&small);
    // What was seen was seen long ago.
    let aged = |stage: &mut Hosted| {
        let path = stage.path("work/records/air.net.json");
        let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["checked"] = json!(1_000);
        std::fs::write(&path, record.to_string()).unwrap();
        stage.renew(&json!({ "recheck_seconds": 3600 }));
    };
    let said = |drifted: bool, at: &str| {
        let attributes = json!({ "drifted": drifted, "succeeded": true, "created-at": at });
        Fault::Reply(json!({ "data": { "id": "asmtres-1", "attributes": attributes } }).to_string())
    };
    let (old, new) = ("2001-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z");
    for (said, runs) in [(said(false, new), 1), (said(true, new), 2), (said(false, old), 3)] {
        aged(&mut stage);
        stage.relay.spoil(1, "GET", "/current-assessment-result", said);
        assert!(stage.see(&small).in_sync());
        assert_eq!(stage.relay.relent(), 0);
        assert_eq!(stage.runs(&small).len(), runs);
    }
}

#[test]
fn others_runs_and_locks_are_waited_for() {
    let Some(stage) = Hosted::new(&json!({})) else { return };
    let small = one("net", &json!("small"));
    stage.make(&small);
    // Somebody's run waits for somebody's word.
    let theirs = stage.foreign_run(&small, json!({ "is-destroy": true, "message": "spring cleaning" }));
    stage.run_that_is(&small, "planned");
    let why = pending(stage.see(&small));
    assert!(
        why.contains(&format!("the run {theirs}, which is not Charter's, is planned")),
        "{why}"
    );
    let large = one("net", &json!("large"));
    let why = pending(stage.see(&large));
    assert!(why.contains(&theirs), "{why}");
    // They go ahead, and what they have taken away is made anew.
    let path = format!("/runs/{theirs}/actions/apply");
    stage.runtime.block_on(stage.did("POST", &path, &json!({})));
    until("their run is applied", || match stage.runtime.block_on(stage.count(&small)) {
        0 => Ok(()),
        count => Err(count),
    });
    stage.make(&small);
    assert_eq!(input(&stage, &small), "small");

    // Somebody holds its lock.
    let id = stage.runtime.block_on(stage.id(&small));
    let lock = format!("/workspaces/{id}/actions/lock");
    stage.runtime.block_on(stage.did("POST", &lock, &json!({ "reason": "mine" })));
    assert!(stage.see(&small).in_sync(), "what is as ordered needs nobody's lock");
    assert_eq!(stage.drift(&large), ["/terraform_data.station/input"]);
    match stage.apply(&large) {
        Ok(Applied::Pending { why, .. }) => assert!(why.contains("is locked by user-admin"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(input(&stage, &small), "small");
    let unlock = format!("/workspaces/{id}/actions/unlock");
    stage.runtime.block_on(stage.did("POST", &unlock, &json!({})));
    stage.make(&large);
    assert_eq!(input(&stage, &large), "large");
}

#[test]
fn a_plan_that_is_not_what_was_shown_any_more_is_not_applied() {
    let Some(stage) = Hosted::new(&json!({})) else { return };
    let (small, large) = (one("net", &json!("small")), one("net", &json!("large")));
    stage.make(&small);
    assert_eq!(stage.drift(&large), ["/terraform_data.station/input"]);
    stage.runtime.block_on(stage.meddle(&large, tiny));
    match stage.apply(&large) {
        Ok(Applied::Pending { why, .. }) => assert!(why.contains("plans anew"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(input(&stage, &large), "tiny", "nothing was applied");
    stage.make(&large);
    assert_eq!(input(&stage, &large), "large");
    // Somebody says no to a plan of Charter's.
    let again = one("net", &json!("again"));
    stage.see(&again);
    let run = stage.run_that_is(&again, "planned_and_saved");
    let path = format!("/runs/{run}/actions/discard");
    stage.runtime.block_on(stage.did("POST", &path, &json!({})));
    stage.make(&again);
    assert_eq!(input(&stage, &again), "again");
}

#[test]
fn a_run_that_fails_half_way_names_what_it_made() {
    let Some(stage) = Hosted::new(&json!({ "provisioners": true })) else {
        return;
    };
    let spec = |command: &str| {
        let second = json!({
            "input": 2, "depends_on": ["terraform_data.first"], "provisioner": { "local-exec": { "command": command } },
        });
        let things = json!({ "first": { "input": 1 }, "second": second });
        resource("half", &json!({ "configuration": { "resource": { "terraform_data": things } } }))
    };
    let refused = stage.apply(&spec("echo broken; exit 3")).unwrap_err();
    assert!(
        refused.contains("the engine's apply failed: Error: local-exec provisioner error") && refused.contains("exit status 3"),
        "{refused}"
    );
    assert!(refused.contains("(done before that: terraform_data.first)"), "{refused}");
    assert!(refused.contains("/app/acme/workspaces/air_half/runs/run-"), "{refused}");
    assert_eq!(stage.drift(&spec("true")), ["/terraform_data.second"]);
    stage.make(&spec("true"));
    // A log that nobody gives: what is known is told, and where to look.
    let wrong = |size: u32| {
        let output = json!({ "x": { "value": format!("${{nothing.here{size}}}") } });
        resource("half", &json!({ "configuration": { "output": output } }))
    };
    stage.relay.spoil(5, "GET", "/blobs/logs/", Fault::Hang);
    let why = unknown(stage.see(&wrong(1)));
    assert!(
        why.contains("the engine's plan failed: its log says nothing that can be read: http://"),
        "{why}"
    );
    stage.relay.relent();
    let why = unknown(stage.see(&wrong(2)));
    assert!(
        why.contains("the engine's plan failed: Error: Reference to undeclared resource"),
        "{why}"
    );
}

#[test]
fn a_server_that_is_busy_broken_or_cut_off_makes_nothing_twice() {
    let Some(mut stage) = Hosted::new(&json!({})) else { return };
    // Each request on the way, one after the other, is refused, answered with an error, and cut off after it was heard.
    let faults = [
        Fault::Refuse(429, vec![("x-ratelimit-reset", "0.05")]),
        Fault::Refuse(500, Vec::new()),
        Fault::Cut,
    ];
    let steps = [
        ("POST", "/api/v2/organizations/acme/workspaces"),
        ("POST", "/configuration-versions"),
        ("PUT", "/blobs/configurations/"),
        ("POST", "/api/v2/runs"),
        ("GET", "/api/v2/runs/"),
        ("GET", "/json-output"),
        ("GET", "/blobs/plans/"),
        ("POST", "/actions/apply"),
        ("GET", "/current-state-version"),
    ];
    for (number, (fault, (method, path))) in faults.iter().flat_map(|fault| steps.map(|step| (fault, step))).enumerate() {
        let made = one(&format!("net-{number}"), &json!("small"));
        stage.relay.spoil(1, method, path, fault.clone());
        // A Charter that dies after the first pass, whatever came of it, and another one.
        let _ = stage.apply(&made);
        stage.renew(&json!({}));
        stage.make(&made);
        assert_eq!(stage.relay.relent(), 0, "{method} {path} was not asked");
        let runs = statuses(&stage, &made);
        let applied = runs.iter().filter(|status| *status == "applied").count();
        assert_eq!((applied, runs.len()), (1, 1), "{fault:?} {method} {path}: {runs:?}");
        assert_eq!(input(&stage, &made), "small");
    }
}

#[test]
fn a_server_that_can_not_be_asked_leaves_everything_unknown() {
    let Some(stage) = Hosted::new(&json!({})) else { return };
    let small = one("net", &json!("small"));
    stage.make(&small);
    for (fault, words) in [
        (Fault::Refuse(500, Vec::new()), "refuses the workspace (500"),
        (Fault::Refuse(403, Vec::new()), "refuses the workspace (403"),
        (
            Fault::Refuse(404, Vec::new()),
            "does not show the workspace (404): it is gone, or the token may not see it",
        ),
        (
            Fault::Refuse(429, vec![("x-ratelimit-reset", "600")]),
            "takes no more requests for now (429)",
        ),
        (Fault::Hang, "does not answer (it takes too long"),
        (Fault::Answer("{".into()), "answers what can't be read"),
        (
            Fault::Answer(json!({ "data": { "id": "../../x" } }).to_string()),
            "it has no identity",
        ),
    ] {
        stage.relay.spoil(9, "GET", "/api/v2/workspaces/", fault);
        let why = unknown(stage.see(&small));
        assert!(why.contains(words), "{why}");
        stage.relay.relent();
        assert!(stage.see(&small).in_sync());
    }
    // A token that is none any more, until there is another one.
    stage.secret("tfc", "old");
    let why = unknown(stage.see(&small));
    assert!(
        why.contains("does not take the token (401): put one that is valid into the secret tfc"),
        "{why}"
    );
    stage.secret("tfc", stage.token());
    assert!(stage.see(&small).in_sync());
    assert_eq!(statuses(&stage, &small), ["applied"]);
}

#[test]
fn what_nobody_knows_yet_is_not_final() {
    let Some(stage) = Hosted::new(&json!({})) else { return };
    let (small, large) = (one("net", &json!("small")), one("net", &json!("large")));
    stage.make(&small);
    // A plan that can't be confirmed yet, whatever its status says.
    let dull = Fault::Rewrite("\"is-confirmable\":true".into(), "\"is-confirmable\":false".into());
    stage.relay.spoil(1_000, "GET", "/api/v2/runs/", dull);
    let why = pending(stage.see(&large));
    assert!(why.contains("the run run-") && why.contains(" is planned_and_saved"), "{why}");
    stage.relay.relent();
    // A status that only a newer server knows: the run goes on, and nothing else is begun.
    assert_eq!(stage.drift(&large), ["/terraform_data.station/input"]);
    stage.relay.spoil(1, "POST", "/actions/apply", Fault::Cut);
    stage.apply(&large).unwrap_err();
    until("the run is applied", || match statuses(&stage, &large) {
        all if all == ["applied", "applied"] => Ok(()),
        all => Err(format!("{all:?}")),
    });
    let new = Fault::Rewrite("\"status\":\"applied\"".into(), "\"status\":\"pondering\"".into());
    stage.relay.spoil(1_000, "GET", "/api/v2/runs/", new);
    for _ in 0..2 {
        let why = pending(stage.see(&large));
        assert!(why.ends_with(" is pondering"), "{why}");
    }
    stage.relay.relent();
    assert!(stage.see(&large).in_sync());
    assert_eq!(statuses(&stage, &large), ["applied", "applied"]);
}

#[test]
fn plans_are_bounded_and_held_to_what_the_member_gives() {
    let Some(stage) = Hosted::new(&json!({})) else { return };
    let small = one("net", &json!("small"));
    stage.make(&small);
    let large = one("net", &json!("large"));
    let long = format!("{{\"planned_values\":\"{}\"}}", "x".repeat(50 * 1024 * 1024));
    stage.relay.spoil(1, "GET", "/blobs/plans/", Fault::Answer(long));
    let why = unknown(stage.see(&large));
    assert!(why.contains("the plan: it is longer than 33554432 bytes"), "{why}");
    // A module that takes another provider than the member gives: its plan is put aside, where nobody can confirm it any more.
    let stranger = Fault::Rewrite("terraform.io/builtin/terraform".into(), "registry.terraform.io/evil/cloud".into());
    stage.relay.spoil(1, "GET", "/blobs/plans/", stranger);
    let why = unknown(stage.see(&large));
    assert!(
        why.contains("the provider registry.terraform.io/evil/cloud, which a module needs, is none of terraform.providers"),
        "{why}"
    );
    assert_eq!(statuses(&stage, &large)[0], "discarded");
    stage.make(&large);
}

#[test]
fn a_secret_is_a_sensitive_variable_and_stays_there() {
    const CANARY: &str = "canary-93ab";
    let more = json!({ "environment": { "CLOUD_KEY": "key" } });
    let Some(stage) = Hosted::new(&more) else { return };
    stage.secret("token", CANARY);
    stage.secret("key", "cloud-key-1");
    let order = |more: &str| {
        let configuration = json!({
            "resource": { "terraform_data": { "a": { "input": format!("${{var.token}}{more}") } } },
            "output": {
                "told": { "value": "${terraform_data.a.output}", "sensitive": true },
                "long": { "value": "${nonsensitive(length(var.token))}" },
            },
        });
        let variables = json!({ "token": { "$secret": "token" } });
        resource("secret", &json!({ "configuration": configuration, "variables": variables }))
    };
    let outputs = stage.make(&order(""));
    assert_eq!(serde_json::to_value(&outputs).unwrap(), json!({ "long": CANARY.len() }));
    let id = stage.runtime.block_on(stage.id(&order("")));
    let variables = stage
        .runtime
        .block_on(stage.did("GET", &format!("/workspaces/{id}/vars"), &Value::Null));
    let mut told: Vec<String> = variables["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let attributes = &one["attributes"];
            format!(
                "{} {} {} {}",
                attributes["category"], attributes["key"], attributes["sensitive"], attributes["value"]
            )
        })
        .collect();
    told.sort();
    assert_eq!(told, ["\"env\" \"CLOUD_KEY\" true null", "\"terraform\" \"token\" true null"]);
    let said = [
        format!("{:?}", stage.see(&order("more"))),
        format!("{:?}", stage.provider.render(&scope(), &order(""))),
        format!("{:?}", stage.apply(&order("more"))),
        format!("{:?}", stage.relay.seen()),
    ];
    for text in said {
        assert!(!text.contains(CANARY) && !text.contains(stage.token()), "{text}");
    }
    for entry in std::fs::read_dir(stage.path("work/records")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(CANARY), "{text}");
    }
    // Another text of it reaches the workspace.
    stage.secret("token", "much-longer-canary");
    let outputs = stage.make(&order("more still"));
    assert_eq!(serde_json::to_value(&outputs).unwrap(), json!({ "long": 18 }));
}
