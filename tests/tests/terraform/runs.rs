//! What an engine is run for, what of its plans is shown, and what goes wrong.

use providers::{Applied, Deleted, Provider};
use rustix::fs::{FlockOperation, fcntl_lock};
use serde_json::{Value, json};
use state::observation::Observation;
use state::resource::Resource;

use crate::stage::{Stage, one, resource};
use tests::passes::{Acting, scope};

fn unknown(seen: Observation) -> String {
    match seen {
        Observation::Unknown { why } => why,
        other => panic!("{other:?}"),
    }
}

/// Things of the engine's own kind, by name and input.
fn things(all: &[(&str, Value)]) -> Value {
    let things: serde_json::Map<String, Value> = all
        .iter()
        .map(|(name, input)| ((*name).to_owned(), json!({ "input": input })))
        .collect();
    json!({ "configuration": { "resource": { "terraform_data": things } } })
}

#[test]
fn what_is_fresh_starts_nothing_and_what_is_planned_is_what_is_applied() {
    let Some(stage) = Stage::new(&json!({})) else { return };
    let small = one("net", &json!("small"));
    assert_eq!(stage.see(&small), Observation::Absent);
    assert_eq!(stage.runs(), Vec::<String>::new());
    let outputs = stage.make(&small);
    assert_eq!(serde_json::to_value(&outputs).unwrap(), json!({ "size": "small" }));
    assert_eq!(stage.runs(), ["init", "plan", "show", "apply", "output"]);
    // Seen just now: no process is started, however often it is looked at.
    for _ in 0..3 {
        assert!(stage.see(&small).in_sync());
    }
    assert_eq!(stage.runs(), Vec::<String>::new());
    // Another order is planned; what was shown is applied, and planned no second time.
    let large = one("net", &json!("${path.cwd} and %{ if true }"));
    assert_eq!(stage.drift(&large), ["/terraform_data.station/input"]);
    assert_eq!(stage.runs(), ["plan", "show"]);
    stage.apply(&large).unwrap();
    assert_eq!(stage.runs(), ["apply", "output"]);
    assert_eq!(
        stage.see(&large).outputs().map(|outputs| serde_json::to_value(outputs).unwrap()),
        Some(json!({ "size": "${path.cwd} and %{ if true }" })),
        "data stays data"
    );

    // Its state changes between plan and application: nothing is applied, and the next pass plans anew.
    assert!(!stage.see(&small).in_sync());
    stage.meddle(&small, |state| {
        state["resources"][0]["instances"][0]["attributes"]["input"]["value"] = json!("else");
    });
    assert!(matches!(stage.apply(&small), Ok(Applied::Pending { why, .. }) if why.contains("planned anew") || why.contains("plans anew")));
    stage.make(&small);

    // It is taken down, once and again.
    assert!(matches!(stage.delete(&small), Ok(Deleted::Gone)));
    assert!(!stage.workspace(&small).exists());
    assert!(matches!(stage.delete(&small), Ok(Deleted::Gone)));
    assert_eq!(stage.see(&small), Observation::Absent);
}

#[test]
fn what_would_be_destroyed_comes_first_and_is_held_where_it_is_protected() {
    let Some(stage) = Stage::new(&json!({})) else { return };
    stage.make(&resource(
        "net",
        &things(&[("a", json!(1)), ("b", json!("x")), ("c", json!({ "deep": ["old"] }))]),
    ));
    let mut changed = things(&[("b", json!("x")), ("c", json!({ "deep": ["new"] })), ("d", json!(4))]);
    changed["configuration"]["resource"]["terraform_data"]["b"]["triggers_replace"] = json!("now");
    let mut order = resource("net", &changed);
    assert_eq!(
        stage.drift(&order),
        [
            "/terraform_data.a",
            "/terraform_data.b",
            "/terraform_data.c/input/deep",
            "/terraform_data.d"
        ]
    );
    order.protect = true;
    match stage.see(&order) {
        Observation::Present { blocked: Some(why), .. } => {
            assert_eq!(why, "net is protected, and its plan destroys terraform_data.a, terraform_data.b");
        }
        other => panic!("{other:?}"),
    }
    // Nobody has shown that it destroys something: it is not done.
    std::fs::remove_file(stage.workspace(&order).join("saved.json")).unwrap();
    assert!(
        matches!(stage.apply(&order), Ok(Applied::Pending { why, .. }) if why.contains("its plan destroys terraform_data.a, terraform_data.b"))
    );
    order.protect = false;
    stage.make(&order);
    assert_eq!(stage.state(&order).unwrap()["resources"].as_array().unwrap().len(), 3);
}

#[test]
fn what_was_made_before_a_failure_is_known_and_named() {
    let Some(stage) = Stage::new(&json!({ "provisioners": true })) else {
        return;
    };
    let spec = |command: &str| {
        let mut spec = things(&[("first", json!(1)), ("second", json!(2))]);
        let second = &mut spec["configuration"]["resource"]["terraform_data"]["second"];
        second["depends_on"] = json!(["terraform_data.first"]);
        second["provisioner"] = json!({ "local-exec": { "command": command } });
        resource("half", &spec)
    };
    let refused = stage.apply(&spec("echo broken; exit 3")).unwrap_err();
    assert!(
        refused.contains("the engine's apply failed: terraform_data.second: local-exec provisioner error")
            && refused.contains("exit status 3"),
        "{refused}"
    );
    assert!(refused.ends_with("(done before that: terraform_data.first)"), "{refused}");
    // It goes on from there, and the first one stays what it is.
    let id = |state: &Value| state["resources"][0]["instances"][0]["attributes"]["id"].clone();
    let before = id(&stage.state(&spec("true")).unwrap());
    assert_eq!(stage.drift(&spec("true")), ["/terraform_data.second"]);
    stage.make(&spec("true"));
    assert_eq!(id(&stage.state(&spec("true")).unwrap()), before);
    // A configuration that is none is told by the engine's own words.
    let wrong = resource(
        "wrong",
        &json!({ "configuration": { "output": { "x": { "value": "${nothing.here}" } } } }),
    );
    let refused = stage.apply(&wrong).unwrap_err();
    assert!(
        refused.contains("the engine's plan failed") && refused.contains("nothing"),
        "{refused}"
    );
}

#[test]
fn a_secret_reaches_the_engine_and_nobody_else() {
    const CANARY: &str = "canary-5f2c";
    let Some(stage) = Stage::new(&json!({ "provisioners": true })) else {
        return;
    };
    let secrets = stage.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("token"), format!("{CANARY}\n")).unwrap();
    std::fs::set_permissions(secrets.join("token"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let order = |more: &str| {
        resource(
            "secret",
            &json!({
                "configuration": {
                    "resource": { "terraform_data": { "a": { "input": format!("${{var.token}}{more}") } } },
                    "output": { "told": { "value": "${terraform_data.a.output}", "sensitive": true }, "long": { "value": "${nonsensitive(length(var.token))}" } },
                },
                "variables": { "token": { "$secret": "token" } },
            }),
        )
    };
    let outputs = stage.make(&order(""));
    assert_eq!(serde_json::to_value(&outputs).unwrap(), json!({ "long": CANARY.len() }));
    let said = [
        format!("{:?}", stage.see(&order("more"))),
        format!("{:?}", stage.provider.render(&scope(), &order(""))),
        format!("{:?}", stage.apply(&order("more"))),
    ];
    for text in said {
        assert!(!text.contains(CANARY), "{text}");
    }
    // On the disk it is where the engine keeps its state, and nowhere else; what may hold it is its owner's only.
    let mut folders = vec![stage.path("work")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let holds = std::fs::read(&path)
                .unwrap()
                .windows(CANARY.len())
                .any(|part| part == CANARY.as_bytes());
            assert!(!holds || path.to_string_lossy().contains("terraform.tfstate"), "{}", path.display());
        }
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(stage.workspace(&order(""))).unwrap());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_can_not_be_seen_is_unknown() {
    let Some(mut stage) = Stage::new(&json!({})) else { return };
    let net = one("net", &json!("small"));
    stage.make(&net);
    let strict = json!({ "recheck_seconds": 0, "deadline_seconds": 1 });
    stage.renew(&strict);
    stage.tell("hang");
    assert_eq!(unknown(stage.see(&net)), "the plan was not done within 1 s, and was stopped");
    stage.renew(&json!({ "recheck_seconds": 0 }));
    stage.tell("forbid");
    assert_eq!(unknown(stage.see(&net)), "the engine's plan failed: Error: not allowed");
    stage.untell("forbid");
    assert!(stage.see(&net).in_sync());

    // Somebody else holds its lock.
    let state = stage.workspace(&net).join("terraform.tfstate");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&state).unwrap();
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let held = unknown(stage.see(&net));
    assert!(held.contains("Error acquiring the state lock"), "{held}");
    drop(file);
    assert!(stage.see(&net).in_sync());

    // Its state is gone: nothing is made a second time.
    let text = std::fs::read(&state).unwrap();
    std::fs::remove_file(&state).unwrap();
    let lost = unknown(stage.see(&net));
    assert!(
        lost.contains("its state is gone from") && lost.contains("put it back from a copy"),
        "{lost}"
    );
    assert!(stage.delete(&net).unwrap_err().contains("its state is gone"));
    std::fs::write(&state, text).unwrap();
    assert!(stage.see(&net).in_sync());

    // There is no engine.
    stage.renew(&json!({ "recheck_seconds": 0, "engine": "/nowhere/tofu" }));
    let missing = unknown(stage.see(&net));
    assert!(
        missing.contains("/nowhere/tofu can't be started: name tofu or terraform with terraform.engine"),
        "{missing}"
    );
}

#[test]
fn an_engine_that_is_left_goes_on_and_is_waited_for() {
    let Some(mut stage) = Stage::new(&json!({})) else { return };
    let net: Resource = one("net", &json!("small"));
    stage.tell("slow");
    let scope = scope();
    let work = stage.provider.apply(&scope, &net);
    // Charter dies while the engine applies.
    let since = std::time::Instant::now();
    let _ = stage.runtime.block_on(async {
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            tokio::select! {
                _ = work => panic!("it was to be left"),
                () = async {
                    while !std::fs::read_to_string(stage.path("runs")).unwrap_or_default().contains("apply") {
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    }
                } => {}
            }
        })
        .await
    });
    stage.renew(&json!({}));
    match stage.see(&net) {
        // It has no state yet.
        Observation::Pending { why, .. } => assert!(
            why.contains("the application of before still goes on"),
            "{why} after {:?}",
            since.elapsed()
        ),
        other => panic!("{other:?}"),
    }
    stage.make(&net);
    let applied = stage.runs().iter().filter(|run| *run == "apply").count();
    assert_eq!(applied, 1, "what was left has made it");
}
