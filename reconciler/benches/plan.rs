//! A no-change plan: both references loaded from a git store, everything observed in memory, planned. And the same after a restart
//! with a short and a long history.
//!
//! `terraform` or `tofu` plans the same graph in the same run where one is on the path.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use providers::memory::{Label, Memory, Object};
use providers::registry::Registry;
use reconciler::actual::Actual;
use reconciler::controller::{Controller, Pass, Settings};
use reconciler::executor::Bounds;
use reconciler::planner::Mode;
use reconciler::shutdown::Shutdown;
use serde_json::{Value, json};
use state::git::Store;
use support::{Chain, START, TestLedger, channel, city, kind, scope};

const MEASURE: &str = "--measure-store";
const RUNS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == MEASURE) {
        measure(Path::new(&arguments[at + 1]));
        return;
    }
    for count in [1_000, 10_000] {
        let folder = tempfile::tempdir().unwrap();
        let applied = prepare(folder.path(), count, 0);
        println!(
            "{count} resources: applied, each intention and result durable: {:.2} s",
            applied.as_secs_f64()
        );
        let ours = child(folder.path());
        println!("{count} resources: no-change plan of a new process (load, observe, plan): {ours}");
        compare(count, &ours);
    }
    for history in [0, 2_000] {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path(), 1_000, history);
        let ours = child(folder.path());
        println!("restart with 1000 resources after {history} further transactions: {ours}");
    }
}

/// Makes a store in which everything is applied; tells how long applying took.
fn prepare(folder: &Path, count: usize, history: usize) -> Duration {
    let store = support::store(folder);
    let mut chain = Chain::new(Some(store.clone()));
    chain.order(support::tree(count));
    for turn in 0..history {
        let leaf = support::resource(json!({ "name": format!("node-{:05}", count - 1), "spec": { "input": format!("turn {turn}") } }));
        chain.amend(vec![leaf]);
    }
    let memory = Arc::new(Memory::new());
    let charter = controller(store, chain, memory);
    runtime().block_on(async {
        let started = Instant::now();
        loop {
            let outcome = charter.reconcile_once(Pass::default(), &Shutdown::never()).await.unwrap();
            if outcome.converged && outcome.plan.is_empty() {
                return started.elapsed();
            }
        }
    })
}

fn controller(store: Store, chain: Chain, memory: Arc<Memory>) -> Controller {
    Controller::new(Settings {
        member: city(),
        channel: channel(),
        store,
        registry: Arc::new(Registry::new(vec![memory]).unwrap()),
        policy: policies::LocalPolicy::default(),
        signer: support::signer(),
        clock: Arc::new(|| state::time::Timestamp::clamped(START)),
        ledger: TestLedger::new(chain),
        paused: "/nonexistent".into(),
        bounds: Bounds::default(),
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Times of one process.
struct Times {
    cold: f64,
    warm: f64,
    peak: u64,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.1} ms, the next {:.1} ms; peak {} MiB",
            self.cold,
            self.warm,
            self.peak / 1024
        )
    }
}

/// Measures in processes of their own, whose memory is theirs alone; the medians.
fn child(folder: &Path) -> Times {
    let one = || -> [f64; 3] {
        let output = Command::new(std::env::current_exe().unwrap())
            .arg(MEASURE)
            .arg(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        [numbers[0], numbers[1], numbers[2]]
    };
    let all: Vec<[f64; 3]> = (0..RUNS).map(|_| one()).collect();
    let median = |of: usize| {
        let mut values: Vec<f64> = all.iter().map(|times| times[of]).collect();
        values.sort_by(f64::total_cmp);
        values[RUNS / 2]
    };
    Times {
        cold: median(0),
        warm: median(1),
        peak: median(2) as u64,
    }
}

fn measure(folder: &Path) {
    let store = Store::open(&folder.join("store.git")).unwrap();
    let memory = Arc::new(Memory::new());
    // The world outside: it is not what is measured, though its memory is in the peak.
    for (name, entry) in Actual::load(&store, &channel()).unwrap().inventory().entries() {
        let label = Label {
            scope: scope(),
            name: name.clone(),
            on_retire: entry.resource.on_retire,
        };
        let object = Object {
            kind: kind(),
            spec: entry.resource.spec.clone(),
            label: Some(label),
            pending: 0,
        };
        memory.put(&entry.external, object);
    }
    let charter = controller(store, Chain::new(None), memory);
    let look = Pass {
        mode: Mode::ObserveOnly,
        ..Pass::default()
    };
    let runtime = runtime();
    let mut times = Vec::new();
    for _ in 0..2 {
        let started = Instant::now();
        let outcome = runtime.block_on(charter.reconcile_once(look, &Shutdown::never())).unwrap();
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        assert!(outcome.plan.is_empty() && outcome.converged);
    }
    println!("{} {} {}", times[0], times[1], peak(Path::new("/proc/self/status")));
}

/// The peak of resident memory, in KiB.
fn peak(status: &Path) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn compare(count: usize, ours: &Times) {
    let Some(program) = ["terraform", "tofu"]
        .into_iter()
        .find(|program| Command::new(program).arg("version").output().is_ok())
    else {
        println!("{count} resources: not compared, neither terraform nor tofu is on the path");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    write_graph(folder.path(), count);
    let run = |arguments: &[&str]| {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .env("CHECKPOINT_DISABLE", "1")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let status = std::path::PathBuf::from(format!("/proc/{}/status", child.id()));
        let mut most = 0;
        loop {
            most = most.max(peak(&status));
            match child.try_wait().unwrap() {
                Some(exit) => return (exit.code(), most),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    };
    assert_eq!(run(&["init", "-input=false"]).0, Some(0), "{program} init");
    let started = Instant::now();
    let (code, most) = run(&["plan", "-input=false", "-lock=false", "-detailed-exitcode"]);
    let theirs = started.elapsed().as_secs_f64() * 1000.0;
    if code != Some(0) {
        println!("{count} resources: not compared, {program} plan ended with {code:?} instead of no change");
        return;
    }
    println!(
        "{count} resources: {program} plan {theirs:.0} ms, peak {} MiB: Charter is {:.0} times faster in 1/{:.1} of the memory",
        most / 1024,
        theirs / ours.cold,
        most as f64 / ours.peak as f64
    );
}

/// Writes the same tree as `terraform_data`, with the state in which it is applied.
fn write_graph(folder: &Path, count: usize) {
    let at = |index: usize| format!("node-{index:05}");
    let mut wanted = serde_json::Map::new();
    let mut applied: Vec<Value> = Vec::new();
    for index in 0..count {
        let children: Vec<String> = [2 * index + 1, 2 * index + 2]
            .into_iter()
            .filter(|child| *child < count)
            .map(|child| format!("terraform_data.{}", at(child)))
            .collect();
        wanted.insert(
            at(index),
            json!({ "input": format!("value {index}"), "depends_on": children.clone() }),
        );
        let value = json!({ "value": format!("value {index}"), "type": "string" });
        applied.push(json!({
            "mode": "managed",
            "type": "terraform_data",
            "name": at(index),
            "provider": "provider[\"terraform.io/builtin/terraform\"]",
            "instances": [{
                "schema_version": 0,
                "attributes": { "id": at(index), "input": value, "output": value, "triggers_replace": null },
                "dependencies": children,
            }],
        }));
    }
    let main = json!({ "resource": { "terraform_data": wanted } });
    let state = json!({
        "version": 4,
        "terraform_version": "1.5.0",
        "serial": 1,
        "lineage": "00000000-0000-0000-0000-000000000000",
        "outputs": {},
        "resources": applied,
        "check_results": null,
    });
    std::fs::write(folder.join("main.tf.json"), main.to_string()).unwrap();
    std::fs::write(folder.join("terraform.tfstate"), state.to_string()).unwrap();
}
