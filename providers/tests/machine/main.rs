//! The machine provider against a real machine: files, directories, processes and signals.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod conforms;
mod crash;
mod files;
mod services;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use procfs::process::all_processes;
use providers::machine::{Command, Machine, MachineConfig};
use providers::{Applied, Deleted, Provider, ProviderError, Scope, Wanted};
use serde_json::{Value, json};
use state::ids::{Channel, MemberId};
use state::observation::Observation;
use state::resource::Resource;
use tempfile::TempDir;

/// A machine in a folder of its own. Its processes end with it.
struct Bench {
    home: TempDir,
    machine: Machine,
}

fn program(path: &str) -> Command {
    Command {
        program: path.into(),
        args: Vec::new(),
        env: None,
    }
}

fn config(home: &Path) -> MachineConfig {
    let listener = Command {
        program: std::env::current_exe().unwrap(),
        args: ["--ignored", "--exact", "listener"].map(str::to_owned).to_vec(),
        env: None,
    };
    MachineConfig {
        root: home.join("root"),
        secrets: Some(home.join("secrets")),
        commands: BTreeMap::from([
            ("sleep".to_owned(), program("/bin/sleep")),
            ("sh".to_owned(), program("/bin/sh")),
            ("test".to_owned(), program("/usr/bin/test")),
            (
                "quiet".to_owned(),
                Command {
                    env: Some(Default::default()),
                    ..program("/usr/bin/test")
                },
            ),
            ("listen".to_owned(), listener),
        ]),
    }
}

/// No test: what the services of the tests run to have a port that answers.
#[test]
#[ignore = "it is the server that tests start"]
fn listener() {
    let Some(port) = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()) else {
        return;
    };
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    for _ in listener.incoming() {}
}

impl Bench {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let machine = Machine::new(config(home.path())).unwrap();
        machine.init_root().unwrap();
        Self { home, machine }
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    fn record(&self, name: &str) -> PathBuf {
        self.root().join(".charter/ch-1/city").join(format!("{name}.json"))
    }

    fn read_record(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.record(name)).unwrap()).unwrap()
    }

    fn edit_record(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut record = self.read_record(name);
        edit(&mut record);
        std::fs::write(self.record(name), record.to_string()).unwrap();
    }

    async fn see(&self, resource: &Resource) -> Observation {
        let wanted = Wanted::of(resource);
        self.machine
            .observe(&scope(), &[wanted])
            .await
            .resources
            .remove(&resource.name)
            .unwrap()
    }

    async fn apply(&self, resource: &Resource) -> Result<Applied, ProviderError> {
        self.machine.apply(&scope(), resource).await
    }

    async fn delete(&self, resource: &Resource) -> Result<Deleted, ProviderError> {
        self.machine.delete(&scope(), &resource.kind, &resource.name, "").await
    }

    /// Passes until it is in sync.
    async fn settle(&self, resource: &Resource) -> Observation {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let seen = self.see(resource).await;
            if seen.in_sync() {
                return seen;
            }
            assert!(Instant::now() < end, "{seen:?}");
            if matches!(seen, Observation::Absent | Observation::Present { .. }) {
                let _ = self.apply(resource).await;
            }
            pause().await;
        }
    }

    /// Passes until it is gone.
    async fn vanish(&self, resource: &Resource) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.delete(resource).await.unwrap() != Deleted::Gone {
            assert!(Instant::now() < end);
            pause().await;
        }
    }

    /// The live processes that lead a session and carry this root's label.
    fn leaders(&self, name: &str) -> Vec<i32> {
        labelled(&self.root(), name)
            .into_iter()
            .filter(|(_, leads)| *leads)
            .map(|(pid, _)| pid)
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for (pid, _) in labelled(&self.root(), "") {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Live processes with a label of this root, whose owner ends with a resource's name.
fn labelled(root: &Path, name: &str) -> Vec<(i32, bool)> {
    let root = root.as_os_str();
    let mut found = Vec::new();
    for process in all_processes().unwrap().flatten() {
        let (Ok(stat), Ok(environ)) = (process.stat(), process.environ()) else {
            continue;
        };
        let get = |key: &str| environ.get(&std::ffi::OsString::from(key));
        let owner = get("CHARTER_OWNER").and_then(|owner| owner.to_str()).unwrap_or_default();
        let same = name.is_empty() || owner == format!("ch-1/city/{name}");
        if stat.state != 'Z' && get("CHARTER_ROOT").is_some_and(|value| value == root) && same {
            found.push((stat.pid, stat.session == stat.pid));
        }
    }
    found
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "it never came true");
        pause().await;
    }
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn scope() -> Scope {
    Scope::new(Channel::new("ch-1").unwrap(), MemberId::new("city").unwrap())
}

fn resource(kind: &str, name: &str, spec: Value) -> Resource {
    serde_json::from_value(json!({ "name": name, "kind": kind, "owner": "city", "spec": spec })).unwrap()
}

fn paths(seen: &Observation) -> Vec<&str> {
    match seen {
        Observation::Present { drift, .. } => drift.iter().map(|field| field.path.as_str()).collect(),
        other => panic!("{other:?}"),
    }
}
