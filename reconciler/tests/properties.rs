//! What holds for every graph and every run of bad luck.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use providers::memory::{Fault, Memory};
use providers::registry::Registry;
use reconciler::controller::{Controller, Pass, Settings};
use reconciler::executor::Bounds;
use reconciler::planner::{Mode, sequence};
use reconciler::shutdown::Shutdown;
use serde_json::json;
use state::ids::ResourceName;
use state::plan::{Action, Plan};
use state::resource::Resource;
use support::{Chain, START, TestLedger, channel, city, name, resource};

/// Something that happens between two passes.
#[derive(Clone, Debug)]
enum Event {
    Amend(usize, u8),
    /// Retires one resource with everything that depends on it.
    Retire(usize),
    /// Somebody changes the real thing.
    Edit(usize),
    /// Somebody takes the real thing away.
    Take(usize),
    Fail(usize),
    LoseReply(usize),
    Pass,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..8usize, any::<u8>()).prop_map(|(at, value)| Event::Amend(at, value)),
        (0..8usize).prop_map(Event::Retire),
        (0..8usize).prop_map(Event::Edit),
        (0..8usize).prop_map(Event::Take),
        (0..8usize).prop_map(Event::Fail),
        (0..8usize).prop_map(Event::LoseReply),
        Just(Event::Pass),
        Just(Event::Restart),
    ]
}

/// For each resource the earlier ones that it depends on, and whether by reference.
fn graph() -> impl Strategy<Value = Vec<Vec<(usize, bool)>>> {
    proptest::collection::vec(proptest::collection::vec((0..8usize, any::<bool>()), 0..3), 1..8).prop_map(|nodes| {
        nodes
            .into_iter()
            .enumerate()
            .map(|(at, edges)| edges.into_iter().filter(|(on, _)| *on < at).collect())
            .collect()
    })
}

fn node(at: usize) -> String {
    format!("n{at}")
}

fn made(at: usize, edges: &[(usize, bool)], value: u8) -> Resource {
    let mut spec = json!({ "value": value });
    let mut depends_on = BTreeSet::new();
    for (on, by_reference) in edges {
        if *by_reference {
            spec[format!("ref{on}")] = json!({ "$ref": format!("{}.outputs.id", node(*on)) });
        } else {
            depends_on.insert(node(*on));
        }
    }
    // A field that can't be changed in place, so that some amendments replace.
    spec["fixed"] = json!(value % 3);
    resource(json!({ "name": node(at), "spec": spec, "depends_on": depends_on }))
}

/// The steps of a plan come in the order of their dependencies, and deletions in the reverse.
fn in_order(plan: &Plan, dependencies: &BTreeMap<ResourceName, BTreeSet<ResourceName>>) {
    let order = sequence(plan).unwrap();
    let place: BTreeMap<&ResourceName, usize> = order.into_iter().enumerate().map(|(at, name)| (name, at)).collect();
    for (name, step) in &plan.steps {
        for on in &dependencies[name] {
            let Some(other) = plan.steps.get(on) else { continue };
            let dependency_first = place[on] < place[name];
            match (step.action, other.action) {
                (Action::Delete, Action::Delete) => assert!(!dependency_first, "{name} goes before {on}"),
                (Action::Forget | Action::Delete, _) | (_, Action::Forget | Action::Delete) => {}
                _ => assert!(dependency_first, "{on} is ready before {name}"),
            }
        }
    }
}

struct Town {
    folder: tempfile::TempDir,
    store: state::git::Store,
    memory: Arc<Memory>,
    ledger: Arc<TestLedger>,
    signer: Arc<dyn msp::Signer>,
}

impl Town {
    fn charter(&self) -> Controller {
        Controller::new(Settings {
            member: city(),
            channel: channel(),
            store: self.store.clone(),
            registry: Arc::new(Registry::new(vec![self.memory.clone()]).unwrap()),
            policy: policies::LocalPolicy::default(),
            signer: self.signer.clone(),
            clock: Arc::new(|| state::time::Timestamp::clamped(START)),
            ledger: self.ledger.clone(),
            paused: self.folder.path().join("paused"),
            bounds: Bounds {
                at_once: 4,
                step: Duration::from_secs(5),
                observe: Duration::from_secs(5),
            },
        })
    }
}

async fn live(graph: Vec<Vec<(usize, bool)>>, events: Vec<Event>) {
    let folder = tempfile::tempdir().unwrap();
    let store = support::store(folder.path());
    let mut chain = Chain::new(Some(store.clone()));
    let resources: Vec<Resource> = graph.iter().enumerate().map(|(at, edges)| made(at, edges, 0)).collect();
    let dependencies: BTreeMap<ResourceName, BTreeSet<ResourceName>> =
        resources.iter().map(|one| (one.name.clone(), one.dependencies())).collect();
    chain.order(resources);
    let town = Town {
        folder,
        store,
        memory: Arc::new(Memory::new()),
        ledger: TestLedger::new(chain),
        signer: support::signer(),
    };
    let mut charter = town.charter();
    let look = Pass {
        mode: Mode::ObserveOnly,
        ..Pass::default()
    };
    for event in events {
        let external = |at: usize| format!("{}/{}", channel(), node(at));
        match event {
            Event::Amend(at, value) => {
                let mut chain = town.ledger.chain.lock().unwrap();
                if chain.desired.resources().contains_key(node(at).as_str()) {
                    chain.amend(vec![made(at, &graph[at], value)]);
                }
            }
            Event::Retire(at) => {
                let mut chain = town.ledger.chain.lock().unwrap();
                let mut going: Vec<ResourceName> = Vec::new();
                let mut open = vec![name(&node(at))];
                while let Some(next) = open.pop() {
                    if chain.desired.resources().contains_key(&next) && !going.contains(&next) {
                        open.extend(chain.desired.dependents(&next).cloned());
                        going.push(next);
                    }
                }
                if !going.is_empty() {
                    chain.retire(&going.iter().map(|name| name.as_str()).collect::<Vec<_>>());
                }
            }
            Event::Edit(at) => drop(town.memory.set(&external(at), "value", json!("edited"))),
            Event::Take(at) => drop(town.memory.take(&external(at))),
            Event::Fail(at) => town.memory.fail_next(&name(&node(at)), Fault::Refuse),
            Event::LoseReply(at) => town.memory.fail_next(&name(&node(at)), Fault::LoseReply),
            Event::Pass => {
                let first = charter.reconcile_once(look, &Shutdown::never()).await.unwrap().plan;
                let second = charter.reconcile_once(look, &Shutdown::never()).await.unwrap().plan;
                assert_eq!(first, second, "a plan is a function of what it is made from");
                in_order(&first, &dependencies);
                charter.reconcile_once(Pass::default(), &Shutdown::never()).await.unwrap();
            }
            Event::Restart => charter = town.charter(),
        }
    }
    let mut rounds = 0;
    loop {
        let outcome = charter.reconcile_once(Pass::default(), &Shutdown::never()).await.unwrap();
        in_order(&outcome.plan, &dependencies);
        if outcome.converged {
            break;
        }
        rounds += 1;
        assert!(rounds < 40, "no convergence: {:#?}", outcome.plan);
    }
    let outcome = charter.reconcile_once(Pass::default(), &Shutdown::never()).await.unwrap();
    assert!(outcome.plan.is_empty(), "what has converged needs nothing");
    let wanted: BTreeSet<String> = {
        let chain = town.ledger.chain.lock().unwrap();
        chain
            .desired
            .resources()
            .keys()
            .map(|name| format!("{}/{name}", channel()))
            .collect()
    };
    let there: BTreeSet<String> = town.memory.objects().into_keys().collect();
    assert_eq!(there, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_converges(graph in graph(), events in proptest::collection::vec(event(), 0..16)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(live(graph, events));
    }
}
