//! What Charter adds to Ansible's own time, and what a pass takes over playbooks that are fresh.
//!
//! `ANSIBLE` names an `ansible-playbook`. Everything runs on this machine itself, without SSH, so that nothing but the two is measured.

#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ansible::{Ansible, AnsibleConfig};
use providers::{Applied, Provider, Scope, Wanted};
use serde_json::{Value, json};
use state::resource::Resource;

const PLAYBOOKS: usize = 50;
const ROUNDS: usize = 7;

fn resource(name: &str, tasks: &Value, text: &str) -> Resource {
    let spec = json!({
        "hosts": { "here": { "connection": "local" } },
        "plays": [{ "hosts": "all", "gather_facts": false, "tasks": tasks }],
        "variables": { "text": text },
    });
    serde_json::from_value(json!({ "name": name, "kind": "ansible/playbook", "owner": "city", "spec": spec })).unwrap()
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// Runs the same plays by hand.
fn by_hand(program: &Path, folder: &Path, tasks: &Value, text: &str) -> Duration {
    let plays = json!([{ "hosts": "all", "gather_facts": false, "tasks": tasks }]);
    std::fs::write(folder.join("peer.yml"), plays.to_string()).unwrap();
    let started = Instant::now();
    let done = Command::new(program)
        .args([
            "-i",
            "here,",
            "-c",
            "local",
            "-e",
            "ansible_python_interpreter={{ansible_playbook_python}}",
            "--diff",
        ])
        .args(["-e", &json!({ "text": text }).to_string()])
        .arg("peer.yml")
        .current_dir(folder)
        .env("HOME", folder)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success());
    started.elapsed()
}

fn main() {
    let Ok(program) = std::env::var("ANSIBLE") else {
        eprintln!("missing: ANSIBLE, an ansible-playbook; nothing was measured");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "playbook": program, "folder": folder.path().join("work"), "local": true, "modules": ["copy"], "runs": 2,
    });
    let config: AnsibleConfig = serde_json::from_value(config).unwrap();
    let provider = Ansible::new(config);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scope = Scope::new("air".parse().unwrap(), "city".parse().unwrap());

    let tasks: Value = (0..4)
        .map(|index| json!({ "copy": { "dest": folder.path().join(format!("f{index}")), "content": "{{ text }}" } }))
        .collect();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        theirs.push(by_hand(Path::new(&program), folder.path(), &tasks, &format!("theirs {round}")));
        let one = resource("run", &tasks, &format!("ours {round}"));
        let started = Instant::now();
        let done = runtime.block_on(provider.apply(&scope, &one)).unwrap();
        assert!(matches!(done, Applied::Done { .. }), "{done:?}");
        // The first one asks for the version, too.
        if round > 0 {
            ours.push(started.elapsed());
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let added = ours.as_secs_f64() / theirs.as_secs_f64() - 1.0;
    println!(
        "a run of four tasks: {} ms, {} ms by hand: Charter adds {:.1} %",
        ours.as_millis(),
        theirs.as_millis(),
        added * 100.0
    );

    let debug = json!([{ "debug": { "msg": "{{ text }}" } }]);
    let all: Vec<Resource> = (0..PLAYBOOKS).map(|index| resource(&format!("p{index}"), &debug, "x")).collect();
    for one in &all {
        runtime.block_on(provider.apply(&scope, one)).unwrap();
    }
    let wanted: Vec<Wanted<'_>> = all.iter().map(Wanted::of).collect();
    let mut passes = Vec::new();
    for _ in 0..ROUNDS * 3 {
        let started = Instant::now();
        let seen = runtime.block_on(provider.observe(&scope, &wanted));
        passes.push(started.elapsed());
        assert!(seen.resources.len() == PLAYBOOKS && seen.resources.values().all(state::observation::Observation::in_sync));
    }
    let pass = median(passes);
    println!(
        "a pass over {PLAYBOOKS} playbooks that are fresh: {:.2} ms, no process",
        pass.as_secs_f64() * 1e3
    );
}
