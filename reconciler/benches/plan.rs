//! A no-change plan: both references loaded from a git store, everything observed in memory, planned. And the same after a restart
//! with a short and a long history.
//!
//! `terraform` and `tofu` plan the same graph in the same run, in turns with Charter, where they are on the path. Every plan is made by
//! a new process; all figures are medians. A size can be named: `cargo bench -p reconciler --bench plan -- 10000`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "plan/graph.rs"]
mod graph;
#[path = "plan/peer.rs"]
mod peer;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "plan/world.rs"]
mod world;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graph::{Graph, Shape};
use peer::Peer;
use providers::Provider;
use providers::memory::Memory;
use providers::registry::Registry;
use reconciler::controller::{Controller, Pass, Settings};
use reconciler::executor::Bounds;
use reconciler::planner::Mode;
use reconciler::shutdown::Shutdown;
use serde_json::json;
use state::git::Store;
use support::{Chain, START, TestLedger, channel, city};
use world::World;

const MEASURE: &str = "--measure-store";
const RUNS: usize = 3;
/// Above this the peer takes minutes, and is left out.
const COMPARED: usize = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == MEASURE) {
        measure(Path::new(&arguments[at + 1]));
        return;
    }
    let only: Option<usize> = arguments.iter().find_map(|argument| argument.parse().ok());
    println!(
        "load of the machine: {}",
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    );
    for (shape, count) in [
        (Shape::Tree, 1_000),
        (Shape::Chain, 1_000),
        (Shape::Tree, 10_000),
        (Shape::Tree, 100_000),
    ] {
        if only.is_none_or(|only| only == count) {
            plan(Graph { shape, count });
        }
    }
    for history in [0, 2_000] {
        if only.is_none() {
            restart(history);
        }
    }
}

fn plan(graph: Graph) {
    let folder = tempfile::tempdir().unwrap();
    let applied = prepare(folder.path(), graph, 0);
    println!(
        "{graph}: applied, each intention and result durable: {:.2} s",
        applied.as_secs_f64()
    );
    let peers = if graph.count <= COMPARED { Peer::all(graph) } else { Vec::new() };
    let (mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); peers.len()]);
    for _ in 0..RUNS {
        ours.push(child(folder.path()));
        for (peer, theirs) in peers.iter().zip(&mut theirs) {
            theirs.push(peer.plan());
        }
    }
    let times = Times::median(&ours);
    println!("{graph}: no-change plan of a new process (load, observe, plan): {times}");
    if peers.is_empty() {
        println!("{graph}: not compared: too large, or neither terraform nor tofu is on the path");
    }
    for (peer, theirs) in peers.iter().zip(theirs) {
        let took = median(theirs.iter().map(|(took, _)| *took));
        let peak = median(theirs.iter().map(|(_, peak)| *peak as f64));
        println!(
            "{graph}: {} plan {took:.0} ms, peak {:.0} MiB: Charter is {:.0} times faster in 1/{:.1} of the memory",
            peer.version(),
            peak / 1024.0,
            took / times.cold,
            peak / times.peak
        );
    }
}

fn restart(history: usize) {
    let folder = tempfile::tempdir().unwrap();
    let graph = Graph {
        shape: Shape::Tree,
        count: 1_000,
    };
    prepare(folder.path(), graph, history);
    let times: Vec<Times> = (0..RUNS).map(|_| child(folder.path())).collect();
    println!(
        "restart with {graph} after {history} further transactions: {}",
        Times::median(&times)
    );
}

/// Makes a store in which everything is applied; tells how long applying took.
fn prepare(folder: &Path, graph: Graph, history: usize) -> Duration {
    let store = support::store(folder);
    let mut chain = Chain::new(Some(store.clone()));
    chain.order(graph.resources());
    for turn in 0..history {
        let leaf = support::resource(json!({ "name": graph.name(graph.count - 1), "spec": { "input": format!("turn {turn}") } }));
        chain.amend(vec![leaf]);
    }
    let charter = controller(store, chain, Arc::new(Memory::new()));
    runtime().block_on(async {
        let started = Instant::now();
        loop {
            let outcome = charter.reconcile_once(Pass::default(), &Shutdown::never()).await.unwrap();
            // Until the last report is on the ledger too: one on its way would be read, and is not part of what stands.
            if outcome.converged && outcome.plan.is_empty() && outcome.reported.is_none() && outcome.unsent.is_none() {
                return started.elapsed();
            }
        }
    })
}

fn controller(store: Store, chain: Chain, provider: Arc<dyn Provider>) -> Controller {
    Controller::new(Settings {
        member: city(),
        channel: channel(),
        store,
        registry: Arc::new(Registry::new(vec![provider]).unwrap()),
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

/// Times of one process, in milliseconds, and the peak of its resident memory, in KiB.
struct Times {
    cold: f64,
    warm: f64,
    peak: f64,
}

impl Times {
    fn median(all: &[Times]) -> Self {
        Self {
            cold: median(all.iter().map(|times| times.cold)),
            warm: median(all.iter().map(|times| times.warm)),
            peak: median(all.iter().map(|times| times.peak)),
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peak = self.peak / 1024.0;
        write!(f, "{:.1} ms, the next {:.1} ms; peak {peak:.0} MiB", self.cold, self.warm)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures in a process of its own, whose memory is its alone.
fn child(folder: &Path) -> Times {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg(MEASURE)
        .arg(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    Times {
        cold: numbers[0],
        warm: numbers[1],
        peak: numbers[2],
    }
}

fn measure(folder: &Path) {
    let open = || Store::open(&folder.join("store.git")).unwrap();
    // The world outside is not what is measured, though its memory is in the peak.
    let world = World::of(&open());
    let charter = controller(open(), Chain::new(None), Arc::new(world));
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
