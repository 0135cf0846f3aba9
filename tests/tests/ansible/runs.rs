//! Looks, runs and faults, on one host and on three.

use std::path::Path;
use std::time::Duration;

use providers::{Applied, Deleted, Provider};
use serde_json::{Value, json};
use state::observation::Observation;
use state::resource::Resource;
use tests::passes::{Acting, scope};
use tests::wait::{until, until_within};

use crate::hosts::PASSWORD;
use crate::stage::{CANARY, Stage, secret};

/// A task that writes a file below `/srv`.
fn file(name: &str, content: &str) -> Value {
    json!({ "name": name, "copy": { "dest": format!("/srv/{name}"), "content": content } })
}

/// Why nobody knows how a resource stands.
#[track_caller]
fn unknown(seen: Observation) -> String {
    match seen {
        Observation::Unknown { why } => why,
        other => panic!("{other:?}"),
    }
}

/// What making a resource would change, and what of it nobody knows.
#[track_caller]
fn unmade(seen: Observation) -> Vec<(String, Option<Value>)> {
    match seen {
        Observation::Unmade { changes } => changes.into_iter().map(|one| (one.path, one.wanted)).collect(),
        other => panic!("{other:?}"),
    }
}

/// Whether a text stands in any file below a folder.
fn stands(folder: &Path, text: &str) -> Option<String> {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if let Some(found) = stands(&path, text) {
                return Some(found);
            }
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes())) {
            return Some(path.display().to_string());
        }
    }
    None
}

#[test]
fn a_playbook_runs_once_and_is_remembered() {
    let Some(mut stage) = Stage::new(&["web1"], &json!({})) else {
        return;
    };
    let tasks = json!([file("page", "{{ page }}"), { "set_stats": { "data": { "at": "{{ ansible_host }}", "other": 1 } } }]);
    let site = stage.playbook(
        "site",
        &tasks,
        &json!({ "variables": { "page": "{{ 7 * 7 }} \u{e9}\n: [#" }, "outputs": ["at"] }),
    );
    // What would change is told before it does.
    assert_eq!(
        unmade(stage.see(&site)),
        [("/web1/page".to_owned(), Some(json!("{{ 7 * 7 }} \u{e9}\n: [#")))]
    );
    let outputs = stage.make(&site);
    assert_eq!(stage.hosts[0].text("page").unwrap(), "{{ 7 * 7 }} \u{e9}\n: [#");
    assert_eq!(outputs.get("at"), Some(&json!(stage.hosts[0].address.to_string())));
    assert_eq!(outputs.get("other"), None);
    assert_eq!(stage.runs(), ["check", "run"]);
    // What is fresh needs no process, in this Charter and in the next.
    assert!(stage.see(&site).in_sync());
    stage.renew();
    assert!(stage.see(&site).in_sync());
    assert!(matches!(stage.apply(&site), Ok(Applied::Done { .. })));
    assert_eq!(stage.runs(), Vec::<String>::new());
    // A value that is another one is work, and is shown before and after.
    let other = stage.playbook("site", &tasks, &json!({ "variables": { "page": "two" }, "outputs": ["at"] }));
    match stage.see(&other) {
        Observation::Present { drift, owned: true, .. } => {
            let [one] = &drift[..] else { panic!("{drift:?}") };
            assert_eq!(
                (&one.found, &one.wanted),
                (&Some(json!("{{ 7 * 7 }} \u{e9}\n: [#")), &Some(json!("two")))
            );
        }
        other => panic!("{other:?}"),
    }
    stage.make(&other);
    assert_eq!(stage.runs(), ["check", "run"]);
    // Without a retiring play it is let go of, and the hosts stay as they are.
    assert!(stage.provider.undoes(&other).unwrap_err().contains("no retiring play"));
    assert!(matches!(stage.delete(&other), Ok(Deleted::Gone)));
    assert!(stage.hosts[0].text("page").is_some() && !stage.work(&other).exists());
}

#[test]
fn nobody_knows_is_a_third_value() {
    let Some(stage) = Stage::new(&["web1"], &json!({ "recheck_seconds": 0 })) else {
        return;
    };
    let tasks = json!([
        file("same", "same"),
        { "name": "migrate", "shell": "date >> /srv/migrated" },
        { "name": "once", "command": { "cmd": "touch /srv/once", "creates": "/srv/once" } },
        { "name": "never", "command": "false", "when": "false" },
        { "name": "hidden", "shell": "echo x > /srv/hidden", "no_log": true },
        { "name": "real", "command": "touch /srv/real", "check_mode": false },
    ]);
    let site = stage.playbook("site", &tasks, &json!({}));
    let seen = unmade(stage.see(&site));
    let said = |path: &str| {
        let one = seen
            .iter()
            .find(|(found, _)| found == path)
            .unwrap_or_else(|| panic!("no {path} in {seen:?}"));
        one.1.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert_eq!(said("/web1/same"), "same");
    assert_eq!(said("/web1/once"), "changed");
    assert!(said("/web1/migrate").starts_with("unknown: skipped in check mode: Command would have run"));
    assert_eq!(said("/web1/hidden"), "unknown: no_log hides whether it would run");
    assert!(said("/web1/real").contains("it would run for real in check mode"));
    // A look changes nothing.
    assert_eq!(std::fs::read_dir(stage.hosts[0].file("")).unwrap().count(), 1);
    assert!(matches!(stage.apply(&site), Ok(Applied::Done { .. })));
    assert!(stage.hosts[0].text("real").is_some() && stage.hosts[0].text("once").is_some());
    // These inputs ran: what is unknown now is nothing to do, and not in sync either.
    let why = unknown(stage.see(&site));
    assert!(
        why.contains("/web1/migrate, /web1/hidden, /web1/real would change something"),
        "{why}"
    );
    assert!(why.contains("name them in unknown"), "{why}");
    let named = stage.playbook("site", &tasks, &json!({ "unknown": ["migrate", "hidden", "real"] }));
    assert!(stage.see(&named).in_sync());
    // What is known counts beside them.
    std::fs::write(stage.hosts[0].file("same"), "other").unwrap();
    assert_eq!(tests::passes::paths(stage.see(&named)), ["/web1/same"]);
}

#[test]
fn one_host_of_three_that_is_away_is_unknown_and_the_others_are_made() {
    let Some(mut stage) = Stage::new(&["web1", "web2", "web3"], &json!({ "recheck_seconds": 0 })) else {
        return;
    };
    let tasks = json!([file("page", "{{ page }}")]);
    let site = |stage: &Stage, page: &str| stage.playbook("site", &tasks, &json!({ "variables": { "page": page } }));
    let one = site(&stage, "one");
    stage.make(&one);
    stage.hosts[1].stop();
    let why = unknown(stage.see(&one));
    assert!(why.contains("web2 can't be reached") && !why.contains("web1"), "{why}");
    let two = site(&stage, "two");
    assert_eq!(tests::passes::paths(stage.see(&two)), ["/web1/page", "/web3/page"]);
    let why = stage.apply(&two).unwrap_err();
    assert!(
        why.contains("web2 can't be reached") && why.contains("(done on web1, web3)"),
        "{why}"
    );
    let texts: Vec<_> = stage.hosts.iter().map(|host| host.text("page").unwrap()).collect();
    assert_eq!(texts, ["two", "one", "two"]);
    stage.hosts[1].serve();
    stage.make(&two);
    assert_eq!(stage.hosts[1].text("page").unwrap(), "two");
}

#[test]
fn a_host_key_that_changed_is_never_taken() {
    let Some(mut stage) = Stage::new(&["web1"], &json!({ "recheck_seconds": 0 })) else {
        return;
    };
    let mut spec = stage.playbook("site", &json!([file("page", "one")]), &json!({})).spec.to_value();
    spec["hosts"]["web1"].as_object_mut().unwrap().remove("host_key");
    let mut learnt = crate::stage::resource("site", &spec);
    let refused = stage.provider.validate(&learnt).unwrap_err().to_string();
    assert!(refused.contains("add host_keys to the resource's exports"), "{refused}");
    learnt.exports = ["host_keys".parse().unwrap()].into();
    // The first one that is seen counts from then on, and is told.
    let outputs = stage.make(&learnt);
    assert_eq!(outputs.get("host_keys").unwrap()["web1"], json!(stage.hosts[0].key()));
    let pinned = stage.playbook("pinned", &json!([file("pinned", "one")]), &json!({}));
    stage.make(&pinned);
    stage.hosts[0].stop();
    stage.hosts[0].new_key();
    stage.hosts[0].serve();
    for site in [&learnt, &pinned] {
        let why = unknown(stage.see(site));
        assert!(
            why.contains("web1 can't be reached") && why.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"),
            "{why}"
        );
    }
    stage.renew();
    unknown(stage.see(&learnt));
    // Whoever knows better says so in the order.
    let pinned = stage.playbook("pinned", &json!([file("pinned", "one")]), &json!({}));
    assert!(stage.see(&pinned).in_sync());
}

#[test]
fn a_play_that_fails_half_way_says_where() {
    let Some(stage) = Stage::new(&["web1", "web2"], &json!({})) else {
        return;
    };
    let tasks = json!([
        file("first", "x"),
        { "name": "breaks on one", "shell": "test ! -e /srv/broken || { echo disk is full >&2; exit 3; }", "changed_when": false },
        file("last", "x"),
    ]);
    let site = stage.playbook("site", &tasks, &json!({ "unknown": ["breaks on one"] }));
    std::fs::write(stage.hosts[1].file("broken"), "").unwrap();
    let why = stage.apply(&site).unwrap_err();
    assert!(
        why.contains("web2 at \"breaks on one\": non-zero return code disk is full (done on web1)"),
        "{why}"
    );
    assert!(stage.hosts[0].text("last").is_some() && stage.hosts[1].text("first").is_some() && stage.hosts[1].text("last").is_none());
    std::fs::remove_file(stage.hosts[1].file("broken")).unwrap();
    stage.make(&site);
    assert!(stage.hosts[1].text("last").is_some());
}

#[test]
fn what_is_killed_in_the_middle_is_run_again_and_what_outlives_charter_is_taken_in() {
    let Some(mut stage) = Stage::new(&["web1"], &json!({})) else {
        return;
    };
    let waits = json!({ "name": "waits", "shell": "echo x >> /srv/begun; while [ ! -e /srv/go ]; do sleep 0.1; done" });
    let site = stage.playbook("site", &json!([waits, file("done", "x")]), &json!({ "unknown": ["waits"] }));
    let leave = |stage: &Stage, times: usize| {
        stage.runtime.block_on(async {
            let scope = scope();
            let work = stage.provider.apply(&scope, &site);
            let begun = async {
                while stage.hosts[0].text("begun").unwrap_or_default().lines().count() < times {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            tokio::select! { done = work => panic!("{done:?}"), () = begun => {} }
        });
    };
    leave(&stage, 1);
    let told = stage.provider.going_on(&scope());
    assert_eq!(told[&site.name], "the run goes on: web1: waits (0 done)");
    // A process that dies takes everything with it that waited in it.
    let runtime = std::mem::replace(&mut stage.runtime, tokio::runtime::Runtime::new().unwrap());
    runtime.shutdown_background();
    stage.renew();
    match stage.see(&site) {
        Observation::Pending { why, .. } => assert!(why.contains("web1: waits"), "{why}"),
        other => panic!("{other:?}"),
    }
    until("nothing of it is left", || {
        match providers::detached::going_on(&stage.work(&site)) {
            Some(words) => {
                let (_, process) = words.split_once("(process ").unwrap();
                tests::processes::kill(process.trim_end_matches(')').parse().unwrap());
                Err(words)
            }
            None => Ok(()),
        }
    });
    assert!(!matches!(stage.see(&site), Observation::Pending { .. }));
    let why = stage.apply(&site).unwrap_err();
    assert!(why.contains("it was ended before it was done (web1: waits (0 done))"), "{why}");
    // What it was given is gone with it.
    assert_eq!(std::fs::read_dir(stage.work(&site).join("keys")).map_or(0, Iterator::count), 0);

    // Left alone, a run comes to its end, and is the one that counts.
    leave(&stage, 2);
    let runtime = std::mem::replace(&mut stage.runtime, tokio::runtime::Runtime::new().unwrap());
    runtime.shutdown_background();
    stage.renew();
    std::fs::write(stage.hosts[0].file("go"), "").unwrap();
    until("it is done", || match stage.see(&site) {
        seen if seen.in_sync() => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    assert_eq!(stage.hosts[0].text("begun").unwrap().lines().count(), 2);
    assert!(stage.hosts[0].text("done").is_some());
    // Who dies while he clears up, or before he begins, leaves secrets to the next look.
    let given = stage.work(&site).join("given");
    std::fs::create_dir(&given).unwrap();
    assert!(stage.see(&site).in_sync() && !given.exists());
}

#[test]
fn a_task_that_hangs_past_the_deadline_is_stopped() {
    let Some(stage) = Stage::new(&["web1"], &json!({ "deadline_seconds": 15 })) else {
        return;
    };
    let site = stage.playbook("site", &json!([{ "name": "hangs", "command": "sleep 4711" }]), &json!({}));
    let why = stage.apply(&site).unwrap_err();
    assert!(
        why.contains("was not done within 15 s, and was stopped") && why.contains("web1: hangs"),
        "{why}"
    );
    assert!(stage.work(&site).exists() && !stage.work(&site).join("given").exists());
    until("nothing of it is left", || {
        let left = procfs::process::all_processes().unwrap().flatten();
        let folder = stage.path("work").display().to_string();
        let ours = left
            .filter_map(|process| process.cmdline().ok())
            .filter(|words| words.iter().any(|word| word.contains(&folder)));
        match ours.collect::<Vec<_>>() {
            none if none.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
}

#[test]
fn a_hundred_megabytes_are_not_kept() {
    // Ansible itself takes a minute or two for them.
    let Some(stage) = Stage::new(&["web1"], &json!({ "deadline_seconds": 500 })) else {
        return;
    };
    let tasks = json!([{ "name": "much", "shell": "head -c 100000000 /dev/zero | tr '\\0' x" }, file("done", "x")]);
    let site = stage.playbook("site", &tasks, &json!({ "unknown": ["much"] }));
    let mut done = stage.apply(&site).map(drop);
    until_within(Duration::from_secs(500), "it is in sync", || {
        done.clone()?;
        match stage.see(&site) {
            seen if seen.in_sync() => Ok(()),
            Observation::Pending { why, .. } => Err(why),
            _ => {
                done = stage.apply(&site).map(drop);
                Err("it is run again".to_owned())
            }
        }
    });
    assert!(stage.hosts[0].text("done").is_some());
    let size: u64 = ["work/records/air.site.json", "work/work/air.site/ansible.cfg"]
        .map(|name| std::fs::metadata(stage.path(name)).unwrap().len())
        .iter()
        .sum();
    assert!(size < 100_000, "{size}");
}

#[test]
fn a_secret_stands_on_hosts_and_nowhere_else() {
    let Some(stage) = Stage::new(&["web1"], &json!({ "recheck_seconds": 0 })) else {
        return;
    };
    let secret = json!({ "token": { "$secret": "canary" } });
    let tasks = json!([
        file("token", "a {{ token }} b"),
        { "name": "quiet", "shell": "echo {{ token }} > /srv/quiet", "no_log": true },
        { "name": "loud", "command": "echo {{ token }}" },
        { "debug": { "msg": "{{ token }}" } },
    ]);
    let site = stage.playbook("site", &tasks, &json!({ "variables": secret, "unknown": ["quiet", "loud"] }));
    let before = stage.see(&site);
    let Observation::Unmade { changes } = &before else {
        panic!("{before:?}")
    };
    assert_eq!(changes[0].wanted, Some(json!("a <token> b")));
    let outputs = stage.make(&site);
    assert_eq!(stage.hosts[0].text("token").unwrap(), format!("a {CANARY} b"));
    assert_eq!(stage.hosts[0].text("quiet").unwrap().trim(), CANARY);
    let fails = stage.playbook(
        "fails",
        &json!([{ "name": "tells", "shell": "echo {{ token }} >&2; exit 1" }, { "fail": { "msg": "{{ token }}" } }]),
        &json!({ "variables": secret }),
    );
    let why = stage.apply(&fails).unwrap_err();
    assert!(why.contains("<token>"), "{why}");
    let scripts = stage.provider.render(&scope(), &site).unwrap();
    let said = format!("{before:?} {outputs:?} {why} {:?}", stage.see(&fails));
    let written: Vec<u8> = scripts.into_iter().flat_map(|script| script.bytes).collect();
    assert!(!said.contains(CANARY) && !String::from_utf8_lossy(&written).contains(CANARY));
    assert_eq!(stands(&stage.path("work"), CANARY), None);
    // Another text of the same secret is another run.
    stage.make(&site);
    crate::stage::secret(&stage.path(""), "canary", "another-4711");
    assert_eq!(tests::passes::paths(stage.see(&site)), ["/web1/token"]);
}

#[test]
fn what_runs_is_held_to_what_the_member_allows() {
    let Some(stage) = Stage::new(&["web1"], &json!({})) else { return };
    let tasks = json!([
        { "name": "hidden module", "user": { "name": "evil" }, "ignore_errors": true },
        { "name": "hidden lookup", "debug": { "msg": "{{ lookup(other, 'id') }}" }, "register": "a", "ignore_errors": true },
        { "name": "reach", "debug": { "msg": "{{ ''[dunder].mro() }}" }, "register": "b", "ignore_errors": true },
        { "name": "key", "debug": { "msg": "{{ lookup('file', 'keys/web1') }}" }, "register": "c", "ignore_errors": true },
        { "name": "passwd", "copy": { "src": "/etc/hostname", "dest": "/srv/stolen" }, "register": "d", "ignore_errors": true },
        { "name": "elsewhere", "command": "touch /srv/x", "delegate_to": "{{ place }}", "ignore_errors": true, "ignore_unreachable": true },
        { "name": "proxy", "set_fact": { "ansible_ssh_common_args": "-oProxyCommand='touch /tmp/charter-escaped'" } },
        { "meta": "reset_connection" },
        file("end", "{{ [a, b, c, d] | map(attribute='failed') | join(' ') }}"),
    ]);
    let variables = json!({
        "other": "pipe", "dunder": "__class__", "place": "localhost",
    });
    // What nobody takes for tasks before they are included.
    let files = json!({ "files/more.yml": stage.file("files/more.yml", &tasks.to_string()) });
    let include = json!([{ "include_tasks": "files/more.yml" }]);
    let site = stage.playbook("site", &include, &json!({ "variables": variables, "files": files }));
    let why = stage.apply(&site).unwrap_err();
    assert!(
        why.contains("web1 at \"hidden module\": user is none of ansible.modules in charter.toml"),
        "{why}"
    );
    assert_eq!(stage.hosts[0].text("end").as_deref(), Some("True True True True"), "{why}");
    assert!(stage.hosts[0].text("stolen").is_none() && stage.hosts[0].text("x").is_none());
    assert!(!Path::new("/srv/x").exists() && !Path::new("/tmp/charter-escaped").exists());
}

#[test]
fn a_host_is_reached_through_another_one() {
    let Some(stage) = Stage::new(&["gate", "web1"], &json!({ "recheck_seconds": 0 })) else {
        return;
    };
    let mut spec = stage.playbook("site", &json!([file("page", "one")]), &json!({})).spec.to_value();
    let mut gate = spec["hosts"].as_object_mut().unwrap().remove("gate").unwrap();
    gate.as_object_mut()
        .unwrap()
        .retain(|name, _| !matches!(name.as_str(), "groups" | "python"));
    spec["jumps"] = json!({ "gate": gate });
    spec["hosts"]["web1"]["jump"] = json!("gate");
    let site: Resource = crate::stage::resource("site", &spec);
    stage.make(&site);
    assert_eq!(stage.hosts[1].text("page").unwrap(), "one");
    // Without the one the other can't be reached.
    let mut stage = stage;
    stage.hosts[0].stop();
    assert!(unknown(stage.see(&site)).contains("web1 can't be reached"));
}

#[test]
fn who_logs_in_becomes_root_by_a_password() {
    let Some(stage) = Stage::new(&["web1"], &json!({})) else { return };
    secret(&stage.path(""), "right", PASSWORD);
    secret(&stage.path(""), "wrong", "another-4711");
    let site = |password: &str| {
        let mut task = file("page", "one");
        task["become"] = json!(true);
        task["become_method"] = json!("su");
        let mut spec = stage.playbook("site", &json!([task]), &json!({})).spec.to_value();
        spec["hosts"]["web1"]["become_password"] = json!({ "$secret": password });
        crate::stage::resource("site", &spec)
    };
    let why = stage.apply(&site("wrong")).unwrap_err();
    assert!(why.contains("Incorrect su password") && !why.contains("another-4711"), "{why}");
    assert!(stage.hosts[0].text("page").is_none());
    stage.make(&site("right"));
    let made = std::fs::metadata(stage.hosts[0].file("page")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 0, "root has made it");
}

#[test]
fn only_what_it_is_limited_to_is_configured() {
    let Some(stage) = Stage::new(&["web1", "web2"], &json!({})) else {
        return;
    };
    let mut tasks = json!([file("tagged", "x"), file("skipped", "x"), file("other", "x")]);
    tasks[0]["tags"] = json!(["page"]);
    tasks[1]["tags"] = json!(["page", "slow"]);
    let site = stage.playbook(
        "site",
        &tasks,
        &json!({ "limit": ["web2"], "tags": ["page"], "skip_tags": ["slow"] }),
    );
    stage.make(&site);
    let there = |host: usize| ["tagged", "skipped", "other"].map(|name| stage.hosts[host].text(name).is_some());
    assert_eq!((there(0), there(1)), ([false; 3], [true, false, false]));
}

#[test]
fn without_ansible_one_is_told_what_to_install() {
    let Some(mut stage) = Stage::new(&["web1"], &json!({ "playbook": "/nowhere/ansible-playbook" })) else {
        return;
    };
    let site = stage.playbook("site", &json!([file("page", "one")]), &json!({}));
    let why = unknown(stage.see(&site));
    assert!(
        why.contains("/nowhere/ansible-playbook can't be started: install Ansible (ansible-core 2.14 or newer)"),
        "{why}"
    );
    let old = stage.path("old");
    tests::command::script(&old, "echo 'ansible-playbook [core 2.13.9]'\n");
    stage.set(&json!({ "playbook": old }));
    assert!(unknown(stage.see(&site)).contains("ansible-core 2.13 is too old: install 2.14 or newer"));
}
