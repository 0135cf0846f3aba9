//! Long-running processes.

use std::os::unix::fs::PermissionsExt;

use providers::Invalid;
use serde_json::json;
use state::errors::chain;
use state::ids::ResourceName;

use super::*;

fn sleeper(name: &str) -> Resource {
    resource("machine/service", name, json!({ "command": ["sleep", "600"] }))
}

#[tokio::test]
async fn what_the_member_did_not_name_never_runs() {
    let bench = Bench::new();
    for (spec, part) in [
        (json!({ "command": ["rm", "-rf", "/"] }), "[machine.commands.rm]"),
        (json!({ "command": ["/bin/sleep", "1"] }), "\"/bin/sleep\""),
        (
            json!({ "command": ["sleep", "1"], "ready": { "command": ["curl"] } }),
            "[machine.commands.curl]",
        ),
        (
            json!({ "command": ["sleep", "1"], "env": { "LD_PRELOAD": "/tmp/x.so" } }),
            "LD_PRELOAD",
        ),
        (
            json!({ "command": ["sleep", "1"], "env": { "CHARTER_OWNER": "ch-1/city/other" } }),
            "CHARTER_OWNER",
        ),
        (
            json!({ "command": ["sleep", "1"], "env": { "MODE": "x" }, "ready": { "command": ["quiet"] } }),
            "[machine.commands.quiet]",
        ),
    ] {
        let service = resource("machine/service", "evil", spec);
        let refused = bench.machine.validate(&service).unwrap_err();
        assert!(matches!(refused, Invalid::Denied { .. }), "{refused:?}");
        assert!(refused.to_string().contains(part), "{refused}");
        assert!(matches!(
            bench.apply(&service).await,
            Err(ProviderError::Invalid(Invalid::Denied { .. }))
        ));
    }
    assert!(bench.leaders("evil").is_empty());
    assert!(!bench.record("evil").exists());
}

#[tokio::test]
async fn a_killed_service_is_seen_and_started_again() {
    let bench = Bench::new();
    let service = sleeper("air");
    bench.settle(&service).await;
    let first = bench.leaders("air");
    kill(first[0]);
    until(|| bench.leaders("air").is_empty()).await;
    let seen = bench.see(&service).await;
    assert_eq!(paths(&seen), ["/state"]);
    assert!(format!("{seen:?}").contains("stopped"));
    bench.settle(&service).await;
    let second = bench.leaders("air");
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_service_has_a_session_an_own_environment_and_a_log() {
    let bench = Bench::new();
    let said = "echo out; echo err >&2; env | cut -d= -f1 | sort | tr '\\n' ' '; exec sleep 600";
    let service = resource(
        "machine/service",
        "air",
        json!({ "command": ["sh", "-c", said], "env": { "STATION": "north" }, "port": "auto" }),
    );
    let seen = bench.settle(&service).await;
    let outputs = seen.outputs().unwrap();
    let port = outputs["port"].as_u64().unwrap();
    assert_eq!(outputs["address"], json!(format!("127.0.0.1:{port}")));
    let log = PathBuf::from(outputs["log"].as_str().unwrap());
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    until(|| std::fs::read_to_string(&log).unwrap().contains("STATION")).await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("out\nerr\n"), "{text}");
    for variable in text.lines().nth(2).unwrap().split_whitespace() {
        let known = ["PATH", "PORT", "PWD", "STATION", "OLDPWD", "SHLVL", "_"];
        assert!(
            variable.starts_with("CHARTER_") || known.contains(&variable),
            "{variable} was passed on"
        );
    }
    assert_eq!(bench.leaders("air").len(), 1);
    bench.vanish(&service).await;
    assert!(!log.exists());
}

#[tokio::test]
async fn a_strangers_process_with_the_recorded_number_is_left_alone() {
    let bench = Bench::new();
    let service = sleeper("air");
    bench.settle(&service).await;
    kill(bench.leaders("air")[0]);
    until(|| bench.leaders("air").is_empty()).await;
    let mut stranger = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
    bench.edit_record("air", |record| record["thing"]["process"]["pid"] = json!(stranger.id()));
    assert_eq!(paths(&bench.see(&service).await), ["/state"]);
    bench.settle(&service).await;
    bench.vanish(&service).await;
    assert!(stranger.try_wait().unwrap().is_none());
    // Even one that agrees in its start time: without the label it is neither ours nor surely gone.
    bench.settle(&service).await;
    let ticks = procfs::process::Process::new(stranger.id().try_into().unwrap())
        .unwrap()
        .stat()
        .unwrap()
        .starttime;
    bench.edit_record("air", |record| {
        record["thing"]["process"] = json!({ "pid": stranger.id(), "ticks": ticks });
    });
    assert!(matches!(bench.see(&service).await, Observation::Unknown { .. }));
    assert!(bench.apply(&service).await.is_err() && bench.delete(&service).await.is_err());
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn one_that_ignores_the_gentle_word_is_killed_in_a_later_pass() {
    let bench = Bench::new();
    let stubborn = "trap '' TERM; while :; do sleep 1; done";
    let service = resource(
        "machine/service",
        "stubborn",
        json!({ "command": ["sh", "-c", stubborn], "stop_grace_seconds": 1 }),
    );
    bench.settle(&service).await;
    let pid = bench.leaders("stubborn")[0];
    // The shell has to be past its trap.
    until(|| labelled(&bench.root(), "stubborn").len() > 1).await;
    let started = Instant::now();
    assert!(matches!(bench.delete(&service).await.unwrap(), Deleted::Pending { .. }));
    assert!(started.elapsed() < Duration::from_millis(900), "deleting waited");
    // While it is going it is there, so that the next pass deletes again.
    let seen = bench.see(&service).await;
    assert!(matches!(&seen, Observation::Present { owned: true, .. }), "{seen:?}");
    assert_eq!(bench.leaders("stubborn"), [pid]);
    bench.vanish(&service).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(labelled(&bench.root(), "stubborn").is_empty());
    assert_eq!(bench.see(&service).await, Observation::Absent);
}

#[tokio::test]
async fn a_changed_field_restarts_it_and_is_named() {
    let bench = Bench::new();
    let service = |n: &str| {
        resource(
            "machine/service",
            "air",
            json!({ "command": ["sleep", "600"], "env": { "N": n, "M": "1" } }),
        )
    };
    bench.settle(&service("1")).await;
    let first = bench.leaders("air");
    let seen = bench.see(&service("2")).await;
    assert_eq!(paths(&seen), ["/env/N"]);
    assert_eq!(bench.leaders("air"), first);
    bench.settle(&service("2")).await;
    assert_eq!(bench.leaders("air").len(), 1);
    assert_ne!(bench.leaders("air"), first);
    // Another grace is no reason to restart.
    let second = bench.leaders("air");
    let mut graceful = service("2");
    graceful.spec =
        serde_json::from_value(json!({ "command": ["sleep", "600"], "env": { "N": "2", "M": "1" }, "stop_grace_seconds": 3 })).unwrap();
    assert!(bench.see(&graceful).await.in_sync());
    assert!(matches!(bench.apply(&graceful).await.unwrap(), Applied::Done { .. }));
    assert_eq!(bench.leaders("air"), second);
    assert_eq!(bench.read_record("air")["thing"]["grace"], json!(3));
}

#[tokio::test]
async fn readiness_is_waited_for_by_passes() {
    let bench = Bench::new();
    let by_port = resource(
        "machine/service",
        "listening",
        json!({ "command": ["listen"], "port": "auto", "ready": { "port": true } }),
    );
    bench.settle(&by_port).await;
    let mute = resource(
        "machine/service",
        "mute",
        json!({ "command": ["sleep", "600"], "port": "auto", "ready": { "port": true } }),
    );
    assert!(matches!(bench.apply(&mute).await.unwrap(), Applied::Pending { .. }));
    assert!(matches!(bench.see(&mute).await, Observation::Pending { why, .. } if why.contains("port")));
    let flag = bench.home.path().join("flag");
    let by_command = resource(
        "machine/service",
        "flagged",
        json!({ "command": ["sleep", "600"], "ready": { "command": ["test", "-e", flag] } }),
    );
    assert!(matches!(bench.apply(&by_command).await.unwrap(), Applied::Pending { .. }));
    assert!(matches!(bench.see(&by_command).await, Observation::Pending { .. }));
    std::fs::write(&flag, "").unwrap();
    assert!(bench.see(&by_command).await.in_sync());
}

#[tokio::test]
async fn a_port_is_kept_over_restarts_unless_a_stranger_took_it() {
    let bench = Bench::new();
    let service = resource(
        "machine/service",
        "listening",
        json!({ "command": ["listen"], "port": "auto", "ready": { "port": true } }),
    );
    let port = |seen: &Observation| u16::try_from(seen.outputs().unwrap()["port"].as_u64().unwrap()).unwrap();
    let first = port(&bench.settle(&service).await);
    kill(bench.leaders("listening")[0]);
    until(|| bench.leaders("listening").is_empty()).await;
    assert_eq!(port(&bench.settle(&service).await), first);
    kill(bench.leaders("listening")[0]);
    let mut stranger = None;
    until(|| {
        stranger = std::net::TcpListener::bind(("127.0.0.1", first)).ok();
        stranger.is_some()
    })
    .await;
    assert_ne!(port(&bench.settle(&service).await), first);
    // One that is ordered by number is not moved.
    let fixed = resource("machine/service", "fixed", json!({ "command": ["listen"], "port": first }));
    let error = chain(&bench.apply(&fixed).await.unwrap_err());
    assert!(error.contains(&format!("port {first} is taken")), "{error}");
    drop(stranger);
    bench.settle(&fixed).await;
}

#[tokio::test]
async fn two_services_never_share_a_port() {
    let bench = Bench::new();
    let service = |name: &str| resource("machine/service", name, json!({ "command": ["sleep", "600"], "port": "auto" }));
    let mut ports = std::collections::BTreeSet::new();
    for n in 0..8 {
        let seen = bench.settle(&service(&format!("s-{n}"))).await;
        assert!(ports.insert(seen.outputs().unwrap()["port"].as_u64().unwrap()));
    }
}

#[tokio::test]
async fn a_secret_reaches_the_process_and_nothing_else() {
    let bench = Bench::new();
    let secrets = bench.home.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let set = |text: &str| {
        std::fs::write(secrets.join("token"), text).unwrap();
        std::fs::set_permissions(secrets.join("token"), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    set("canary-4711\n");
    let got = bench.home.path().join("got");
    let command = format!("printf %s \"$TOKEN\" > {}.new; mv {0}.new {0}; exec sleep 600", got.display());
    let service = resource(
        "machine/service",
        "air",
        json!({ "command": ["sh", "-c", command], "env": { "TOKEN": { "$secret": "token" } } }),
    );
    bench.settle(&service).await;
    until(|| got.exists()).await;
    assert_eq!(std::fs::read_to_string(&got).unwrap(), "canary-4711");
    let record = std::fs::read_to_string(bench.record("air")).unwrap();
    assert!(!record.contains("4711"));
    assert_eq!(bench.record("air").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let script = bench.machine.render(&scope(), &service).unwrap();
    assert!(!String::from_utf8(script[0].bytes.clone()).unwrap().contains("4711"));
    std::fs::remove_file(&got).unwrap();
    set("canary-4712\n");
    let seen = bench.see(&service).await;
    assert_eq!(paths(&seen), ["/env/TOKEN"]);
    assert!(!format!("{seen:?}").contains("471"));
    bench.settle(&service).await;
    until(|| got.exists()).await;
    assert_eq!(std::fs::read_to_string(&got).unwrap(), "canary-4712");
    std::fs::remove_file(secrets.join("token")).unwrap();
    assert!(matches!(bench.see(&service).await, Observation::Unknown { .. }));
}

#[tokio::test]
async fn one_that_can_not_run_is_tried_less_and_less() {
    let bench = Bench::new();
    let service = resource(
        "machine/service",
        "broken",
        json!({ "command": ["sh", "-c", "echo no data >&2; exit 1"] }),
    );
    let mut refused = None;
    for _ in 0..200 {
        match bench.apply(&service).await {
            Ok(_) => pause().await,
            Err(error) => {
                refused = Some(chain(&error));
                break;
            }
        }
    }
    let refused = refused.unwrap();
    assert!(refused.contains("3 times") && refused.contains("broken.log"), "{refused}");
    let log = std::fs::read_to_string(bench.root().join(".charter/ch-1/city/broken.log")).unwrap();
    assert_eq!(log, "no data\nno data\nno data\n");
    assert_eq!(paths(&bench.see(&service).await), ["/state"]);
    bench.vanish(&service).await;
}

#[tokio::test]
async fn two_roots_do_not_know_each_other() {
    let (one, two) = (Bench::new(), Bench::new());
    let service = sleeper("air");
    one.settle(&service).await;
    assert_eq!(two.see(&service).await, Observation::Absent);
    two.settle(&service).await;
    two.vanish(&service).await;
    assert!(one.see(&service).await.in_sync());
}

#[tokio::test]
async fn the_children_of_a_service_go_with_it() {
    let bench = Bench::new();
    let service = resource(
        "machine/service",
        "family",
        json!({ "command": ["sh", "-c", "setsid sleep 600 & sleep 600 & wait"] }),
    );
    bench.settle(&service).await;
    until(|| labelled(&bench.root(), "family").len() >= 3).await;
    assert!(
        bench.see(&service).await.in_sync(),
        "a child with a session of its own is no second service"
    );
    bench.vanish(&service).await;
    assert!(labelled(&bench.root(), "family").is_empty());
}

#[tokio::test]
async fn an_orphan_without_a_record_is_found_by_its_label() {
    let bench = Bench::new();
    let service = sleeper("air");
    bench.settle(&service).await;
    std::fs::remove_file(bench.record("air")).unwrap();
    let observed = bench.machine.observe(&scope(), &[]).await;
    let names: Vec<&ResourceName> = observed.orphans.iter().map(|orphan| &orphan.name).collect();
    assert_eq!(names, [&service.name]);
    // Wanted after all: it is taken back without a restart.
    let pid = bench.leaders("air");
    assert_eq!(paths(&bench.see(&service).await), ["/record"]);
    bench.settle(&service).await;
    assert_eq!(bench.leaders("air"), pid);
}
