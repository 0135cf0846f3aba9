//! Whole passes over a real git store, an in-memory provider and a ledger that is made up: what a member's Charter does, also when
//! it is killed at the worst moment.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ledger_sync::reports;
use providers::memory::{Fault, Label, Memory, Object};
use providers::registry::Registry;
use reconciler::actual::Actual;
use reconciler::controller::{Controller, Pass, PassError, PassOutcome, Settings};
use reconciler::executor::{Bounds, StepResult};
use reconciler::planner::Mode;
use reconciler::shutdown::{self, Shutdown};
use serde_json::{Value, json};
use state::event::EventBody;
use state::git::Store;
use state::inventory::EntryState;
use state::observation::Observation;
use state::paths;
use state::plan::Action;
use state::report::{Condition, StepOutcome, StepReport};
use state::resource::OnRetire;
use support::{Chain, START, TestLedger, channel, city, kind, name, resource, scope, traffic};

struct Town {
    folder: tempfile::TempDir,
    store: Store,
    memory: Arc<Memory>,
    ledger: Arc<TestLedger>,
    signer: Arc<dyn msp::Signer>,
    clock: Arc<AtomicI64>,
}

impl Town {
    fn new(resources: Vec<Value>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = support::store(folder.path());
        let mut chain = Chain::new(Some(store.clone()));
        if !resources.is_empty() {
            chain.order(resources.into_iter().map(resource).collect());
        }
        Self {
            folder,
            store,
            memory: Arc::new(Memory::new()),
            ledger: TestLedger::new(chain),
            signer: support::signer(),
            clock: Arc::new(AtomicI64::new(START)),
        }
    }

    /// A Charter that was just started.
    fn charter(&self) -> Controller {
        let clock = Arc::clone(&self.clock);
        Controller::new(Settings {
            member: city(),
            channel: channel(),
            store: self.store.clone(),
            registry: Arc::new(Registry::new(vec![self.memory.clone()]).unwrap()),
            policy: policies::LocalPolicy::default(),
            signer: self.signer.clone(),
            clock: Arc::new(move || state::time::Timestamp::clamped(clock.load(Ordering::SeqCst))),
            ledger: self.ledger.clone(),
            paused: self.folder.path().join("paused"),
            bounds: Bounds {
                at_once: 8,
                step: Duration::from_millis(200),
                observe: Duration::from_secs(5),
            },
        })
    }

    async fn pass(&self, charter: &Controller) -> PassOutcome {
        charter.reconcile_once(Pass::default(), &Shutdown::never()).await.unwrap()
    }

    /// Passes until nothing is left to do; tells how many.
    async fn converge(&self, charter: &Controller) -> usize {
        for round in 1..=20 {
            if self.pass(charter).await.converged {
                return round;
            }
        }
        panic!("no convergence after 20 passes");
    }

    fn actual(&self) -> Actual {
        Actual::load(&self.store, &channel()).unwrap()
    }

    fn commits(&self) -> Vec<String> {
        let Some(head) = self.store.head(&paths::actual_ref(&channel())).unwrap() else {
            return Vec::new();
        };
        let mut titles: Vec<String> = self
            .store
            .log(head, None, 100)
            .unwrap()
            .iter()
            .map(|commit| commit.title().to_owned())
            .collect();
        titles.reverse();
        titles
    }

    fn condition(&self, of: &str) -> Option<Condition> {
        self.ledger.statuses().get(of).map(|status| status.condition)
    }

    /// Every step that a report on the ledger tells of, oldest first.
    fn told(&self) -> Vec<StepReport> {
        let reports = self.ledger.submitted.lock().unwrap();
        reports.iter().flat_map(|envelope| envelope.report().unwrap().0.steps).collect()
    }

    fn chain(&self, change: impl FnOnce(&mut Chain)) {
        change(&mut self.ledger.chain.lock().unwrap());
    }
}

fn db_and_web() -> Vec<Value> {
    vec![
        json!({ "name": "db", "spec": { "size": 2 }, "exports": ["id"] }),
        json!({ "name": "web", "spec": { "db": { "$ref": "db.outputs.id" } } }),
    ]
}

#[tokio::test]
async fn an_order_becomes_running_infrastructure_and_a_report() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    let outcome = town.pass(&charter).await;
    assert!(outcome.converged);
    assert_eq!(outcome.reported, Some(1));
    let web = town.memory.objects()["smart-city-1/web"].clone();
    assert_eq!(web.spec.to_value(), json!({ "db": "smart-city-1/db" }));
    assert_eq!(town.condition("web"), Some(Condition::InSync));
    assert_eq!(
        town.commits(),
        ["intent: create db", "intent: create web", "pass: 2 created"],
        "what is about to be done is recorded before it is done"
    );
    let actual = town.actual();
    assert_eq!(actual.plan().unwrap(), Some(outcome.plan.digest));
    let head = actual.head().unwrap();
    let mut files = Vec::new();
    town.store
        .list::<state::git::GitError>(head, "", |path, _| {
            files.push(path.to_owned());
            Ok(())
        })
        .unwrap();
    for part in ["inventory/", "observations/", "plan.json", "outbox/1.dsse.json"] {
        assert!(files.iter().any(|file| file.starts_with(part)), "{part} in {files:?}");
    }
    assert!(
        files
            .iter()
            .any(|file| file.starts_with("scripts/memory/object/") && file.ends_with("/web/web.json"))
    );
    assert!(town.store.commit(head).unwrap().signature.is_some());
}

#[tokio::test]
async fn what_has_converged_is_left_alone() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.converge(&charter).await;
    // The next pass sees its report on the ledger, and has nothing to say.
    town.pass(&charter).await;
    let (commits, calls) = (town.commits().len(), town.memory.calls());
    for _ in 0..3 {
        let outcome = town.pass(&charter).await;
        assert!(outcome.converged && outcome.plan.is_empty());
        assert_eq!(outcome.reported, None);
    }
    assert_eq!(town.commits().len(), commits);
    let now = town.memory.calls();
    assert_eq!((now.apply, now.observe), (calls.apply, calls.observe + 3));
    // A started one is as quiet as a running one.
    town.pass(&town.charter()).await;
    assert_eq!(town.commits().len(), commits);
}

#[tokio::test]
async fn a_heartbeat_says_that_nothing_changed() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.converge(&charter).await;
    town.clock.fetch_add(899, Ordering::SeqCst);
    assert_eq!(town.pass(&charter).await.reported, None);
    town.clock.fetch_add(1, Ordering::SeqCst);
    assert_eq!(town.pass(&charter).await.reported, Some(2));
    let (report, _) = town.ledger.submitted.lock().unwrap()[1].report().unwrap();
    assert!(report.changes.is_empty());
}

#[tokio::test]
async fn drift_is_seen_without_writing_then_healed_and_told() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.converge(&charter).await;
    town.memory.set("smart-city-1/db", "size", json!(9));
    let commits = town.commits().len();
    let looked = charter.drift().await.unwrap();
    let db = looked.iter().find(|one| one.name == name("db")).unwrap();
    assert!(matches!(&db.observation, Observation::Present { drift, .. } if drift[0].path == "/size"));
    let seen = charter
        .reconcile_once(
            Pass {
                mode: Mode::ObserveOnly,
                ..Pass::default()
            },
            &Shutdown::never(),
        )
        .await
        .unwrap();
    assert_eq!(seen.plan.steps["db"].action, Action::Update);
    assert_eq!(town.commits().len(), commits, "looking writes nothing");
    let outcome = town.pass(&charter).await;
    assert!(outcome.converged);
    assert_eq!(town.memory.objects()["smart-city-1/db"].spec.to_value(), json!({ "size": 2 }));
    assert!(town.commits().contains(&"pass: 1 healed".to_owned()));
}

#[tokio::test]
async fn a_paused_channel_observes_and_reports_and_does_nothing() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    std::fs::write(town.folder.path().join("paused"), "").unwrap();
    let outcome = town.pass(&charter).await;
    assert_eq!((outcome.plan.steps.len(), outcome.executed.len()), (2, 0));
    assert_eq!(town.memory.calls().apply, 0);
    assert_eq!(town.condition("db"), Some(Condition::Pending));
    std::fs::remove_file(town.folder.path().join("paused")).unwrap();
    assert_eq!(town.converge(&charter).await, 1);
}

#[tokio::test]
async fn a_failure_stops_its_dependants_only_and_is_tried_again() {
    let mut resources = db_and_web();
    resources.push(json!({ "name": "alone" }));
    let town = Town::new(resources);
    let charter = town.charter();
    town.memory.fail_next(&name("db"), Fault::Refuse);
    let outcome = town.pass(&charter).await;
    assert!(matches!(&outcome.executed[&name("db")], StepResult::Failed { why } if why.contains("refused")));
    assert!(matches!(outcome.executed[&name("web")], StepResult::Skipped { .. }));
    assert_eq!(outcome.executed[&name("alone")], StepResult::Done);
    assert_eq!(town.condition("db"), Some(Condition::Failed));
    assert!(town.actual().inventory().get(&name("db")).unwrap().failed.is_some());
    assert_eq!(town.converge(&charter).await, 1);
    assert_eq!(town.actual().inventory().get(&name("db")).unwrap().failed, None);
}

#[tokio::test]
async fn an_amendment_that_takes_two_passes_is_finished_as_the_amendment() {
    let town = Town::new(vec![json!({ "name": "web", "spec": { "port": 1 }, "on_drift": "report" })]);
    let charter = town.charter();
    town.converge(&charter).await;
    town.chain(|chain| {
        chain.amend(vec![resource(
            json!({ "name": "web", "spec": { "port": 2 }, "on_drift": "report" }),
        )])
    });
    let amended = town.ledger.chain.lock().unwrap().desired.resources()["web"].last().position;
    town.memory.fail_next(&name("web"), Fault::StopFirst);
    let first = town.pass(&charter).await;
    assert!(matches!(first.executed[&name("web")], StepResult::Pending { .. }));
    let entry = town.actual().inventory().get(&name("web")).unwrap().clone();
    assert_eq!(
        (entry.state, entry.resource.spec.to_value()),
        (EntryState::Intended, json!({ "port": 2 }))
    );
    // Also a Charter that was started meanwhile goes on with it.
    let second = town.pass(&town.charter()).await;
    assert_eq!(
        (second.plan.steps["web"].action, second.plan.steps["web"].tx),
        (Action::Update, Some(amended))
    );
    assert!(second.converged);
    assert_eq!(town.memory.objects()["smart-city-1/web"].spec.to_value(), json!({ "port": 2 }));
    let told: Vec<_> = town.told().into_iter().filter(|step| step.tx == Some(amended)).collect();
    assert_eq!(
        told.iter().map(|step| step.outcome).collect::<Vec<_>>(),
        [StepOutcome::Begun, StepOutcome::Done]
    );
    assert!(town.told().iter().all(|step| step.tx.is_some()), "nothing is called healed");
}

#[tokio::test]
async fn healing_that_takes_two_passes_stays_healing() {
    let town = Town::new(vec![json!({ "name": "web", "spec": { "port": 1 } })]);
    let charter = town.charter();
    town.converge(&charter).await;
    town.memory.set("smart-city-1/web", "port", json!(9));
    town.memory.fail_next(&name("web"), Fault::StopFirst);
    town.pass(&charter).await;
    assert_eq!(town.condition("web"), Some(Condition::Drifted));
    let second = town.pass(&charter).await;
    assert_eq!(second.plan.steps["web"].tx, None);
    assert!(second.converged);
    let told: Vec<_> = town.told().into_iter().filter(|step| step.tx.is_none()).collect();
    assert_eq!(
        told.iter().map(|step| step.outcome).collect::<Vec<_>>(),
        [StepOutcome::Begun, StepOutcome::Done]
    );
}

#[tokio::test]
async fn what_is_only_not_ready_yet_is_waited_for_and_told_once() {
    let town = Town::new(vec![json!({ "name": "web" })]);
    let charter = town.charter();
    town.memory.slow(5);
    let first = town.pass(&charter).await;
    assert!(matches!(first.executed[&name("web")], StepResult::Pending { .. }));
    // The look after the deed was the first of five.
    for _ in 0..4 {
        let outcome = town.pass(&charter).await;
        assert!(outcome.plan.is_empty() && !outcome.converged);
        assert_eq!(outcome.statuses["web"].condition, Condition::Pending);
    }
    assert_eq!(town.ledger.submitted.lock().unwrap().len(), 1, "waiting is no news");
    assert_eq!(town.converge(&charter).await, 1);
    assert_eq!(town.memory.calls().apply, 1);
    assert_eq!(town.condition("web"), Some(Condition::InSync));
    assert_eq!(town.actual().inventory().get(&name("web")).unwrap().state, EntryState::Applied);
    for _ in 0..3 {
        town.pass(&charter).await;
    }
    assert_eq!(town.ledger.submitted.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_lost_answer_makes_nothing_twice() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.memory.fail_next(&name("db"), Fault::LoseReply);
    town.pass(&charter).await;
    town.converge(&charter).await;
    assert_eq!(town.memory.calls().created, 2);
}

#[tokio::test]
async fn killed_between_intent_and_deed_the_next_one_goes_on() {
    let town = Town::new(db_and_web());
    town.memory.fail_next(&name("web"), Fault::Hang);
    // Killed while `web` is being made: its intent is on disk, its deed isn't.
    let charter = town.charter();
    let killed = tokio::time::timeout(
        Duration::from_millis(120),
        charter.reconcile_once(Pass::default(), &Shutdown::never()),
    )
    .await;
    assert!(killed.is_err());
    drop(charter);
    let actual = town.actual();
    assert_eq!(actual.inventory().get(&name("web")).unwrap().state, EntryState::Intended);
    assert_eq!(actual.inventory().get(&name("db")).unwrap().state, EntryState::Applied);
    town.converge(&town.charter()).await;
    assert_eq!(town.memory.calls().created, 2);
    assert_eq!(town.actual().inventory().get(&name("web")).unwrap().state, EntryState::Applied);
}

#[tokio::test]
async fn what_was_healed_before_a_kill_is_told_after_it() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.converge(&charter).await;
    town.pass(&charter).await;
    town.memory.set("smart-city-1/db", "size", json!(9));
    town.memory.set("smart-city-1/web", "db", json!("elsewhere"));
    // Killed while `web` is being healed: `db` was healed in the wave before.
    town.memory.fail_next(&name("web"), Fault::Hang);
    let never = Shutdown::never();
    let pass = charter.reconcile_once(Pass::default(), &never);
    assert!(tokio::time::timeout(Duration::from_millis(120), pass).await.is_err());
    drop(charter);
    assert_eq!(town.memory.objects()["smart-city-1/db"].spec.to_value(), json!({ "size": 2 }));
    town.converge(&town.charter()).await;
    let told = town.told();
    let of = |of: &str| -> Vec<_> { told.iter().filter(|step| step.resource.as_str() == of).skip(1).collect() };
    assert_eq!(of("db").len(), 1, "told once");
    assert_eq!((of("db")[0].outcome, of("db")[0].tx), (StepOutcome::Done, None));
    assert_eq!(of("db")[0].fields, ["/size"]);
    assert_eq!(of("web").iter().map(|step| step.outcome).collect::<Vec<_>>(), [StepOutcome::Done]);
}

#[tokio::test]
async fn killed_between_deed_and_record_nothing_is_made_twice() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.converge(&charter).await;
    drop(charter);
    // What a kill right after the deed leaves: the object is there, the record says only that it was meant.
    let mut actual = town.actual();
    let entry = actual.inventory().get(&name("web")).unwrap().clone();
    actual
        .record(state::inventory::Entry {
            state: EntryState::Intended,
            outputs: Default::default(),
            ..entry
        })
        .unwrap();
    let city = city();
    let author = reconciler::actual::Author {
        member: &city,
        at: state::time::Timestamp::clamped(START),
        sign: None,
    };
    actual.commit(&author, "intent: create web".into()).await.unwrap();
    let outcome = town.pass(&town.charter()).await;
    assert!(outcome.converged && outcome.plan.is_empty());
    assert_eq!(town.memory.calls().created, 2);
    assert_eq!(town.actual().inventory().get(&name("web")).unwrap().state, EntryState::Applied);
}

#[tokio::test]
async fn a_lost_store_is_rebuilt_from_the_owner_labels() {
    let mut town = Town::new(db_and_web());
    town.converge(&town.charter()).await;
    let other = tempfile::tempdir().unwrap();
    let store = support::store(other.path());
    // The references that are functions of the ledger are there again; the member's own record is not.
    for reference in [paths::desired_ref(&channel()), paths::reported_ref(&channel())] {
        let head = town.store.head(&reference).unwrap().unwrap();
        let mut batch = store.batch(&reference).unwrap();
        town.store
            .read_all::<state::git::GitError>(head, "", |path, bytes| batch.put(path, bytes).map(drop))
            .unwrap();
        let person = town.store.commit(head).unwrap().author;
        batch.commit(&person, &person, "rebuilt", None).unwrap();
        state::git::finish(vec![batch]).unwrap();
    }
    town.store = store;
    let calls = town.memory.calls();
    let rounds = town.converge(&town.charter()).await;
    assert!(rounds <= 2, "{rounds}");
    let now = town.memory.calls();
    assert_eq!((now.created, now.changed, now.delete), (calls.created, calls.changed, calls.delete));
    assert_eq!(town.actual().inventory().entries().len(), 2);
}

#[tokio::test]
async fn retired_resources_go_are_seen_gone_and_are_told() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.converge(&charter).await;
    town.memory.slow_delete(1);
    town.chain(|chain| chain.retire(&["db", "web"]));
    let first = town.pass(&charter).await;
    assert!(matches!(first.executed[&name("web")], StepResult::Pending { .. }));
    assert!(matches!(first.executed[&name("db")], StepResult::Skipped { .. }));
    assert_eq!(town.condition("db"), Some(Condition::Deleting));
    town.memory.slow_delete(0);
    town.converge(&charter).await;
    assert!(town.memory.objects().is_empty());
    let told = |envelope: &state::report::Envelope| {
        let (report, _) = envelope.report().unwrap();
        matches!(report.changes.get("db"), Some(Some(status)) if status.condition == Condition::Deleted)
    };
    assert!(town.ledger.submitted.lock().unwrap().iter().any(told), "the absence is told once");
    assert!(town.actual().inventory().entries().is_empty());
    // By the next heartbeat at the latest they are off the list.
    town.clock.fetch_add(900, Ordering::SeqCst);
    town.pass(&charter).await;
    town.pass(&charter).await;
    assert_eq!(town.condition("db"), None);
}

#[tokio::test]
async fn a_resource_that_cannot_be_changed_is_replaced() {
    let town = Town::new(vec![json!({ "name": "db", "spec": { "fixed": 1 } })]);
    let charter = town.charter();
    town.converge(&charter).await;
    town.chain(|chain| chain.amend(vec![resource(json!({ "name": "db", "spec": { "fixed": 2 } }))]));
    let outcome = town.pass(&charter).await;
    assert_eq!(outcome.plan.steps["db"].action, Action::Replace);
    assert!(outcome.converged);
    assert_eq!(town.memory.objects()["smart-city-1/db"].spec.to_value(), json!({ "fixed": 2 }));
    assert_eq!((town.memory.calls().created, town.memory.calls().delete), (2, 1));
    let told: Vec<_> = town.told().iter().map(|step| (step.action, step.outcome)).collect();
    assert_eq!(
        told,
        [(Action::Create, StepOutcome::Done), (Action::Replace, StepOutcome::Done)],
        "deleting and making anew are one step"
    );
}

#[tokio::test]
async fn a_ledger_that_is_down_stops_no_infrastructure_and_gets_the_same_report_later() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.ledger.take_down();
    let outcome = town.pass(&charter).await;
    assert!(outcome.converged);
    assert!(outcome.unsent.is_some());
    let waiting = town.actual().outbox().unwrap().clone();
    // Restarted meanwhile, and with news: one report is under way at a time.
    drop(charter);
    town.memory.take("smart-city-1/web");
    let charter = town.charter();
    town.pass(&charter).await;
    assert_eq!(town.actual().outbox(), Some(&waiting));
    town.ledger.bring_up();
    assert_eq!(town.pass(&charter).await.reported, Some(1));
    assert_eq!(town.ledger.submitted.lock().unwrap()[0], waiting.envelope);
    // The news of meanwhile go in a report of their own; then all is told.
    for _ in 0..3 {
        town.pass(&charter).await;
    }
    assert!(town.actual().outbox().is_none());
    assert!(town.ledger.submitted.lock().unwrap().len() <= 2);
}

#[tokio::test]
async fn a_report_that_waits_is_signed_with_the_renewed_certificate() {
    let mut town = Town::new(db_and_web());
    town.ledger.take_down();
    town.pass(&town.charter()).await;
    let waiting = town.actual().outbox().unwrap().clone();
    town.signer = support::signer();
    let charter = town.charter();
    for _ in 0..2 {
        town.pass(&charter).await;
        let again = town.actual().outbox().unwrap().clone();
        assert_eq!((again.sequence, again.digest), (waiting.sequence, waiting.digest));
        reports::verify(&again.envelope, town.signer.certificate()).unwrap();
    }
    town.ledger.bring_up();
    assert_eq!(town.pass(&charter).await.reported, Some(1));
    reports::verify(&town.ledger.submitted.lock().unwrap()[0], town.signer.certificate()).unwrap();
}

#[tokio::test]
async fn another_members_resource_is_waited_for_across_passes() {
    let town = Town::new(vec![
        json!({ "name": "feed", "owner": "traffic", "exports": ["id"] }),
        json!({ "name": "web", "spec": { "feed": { "$ref": "feed.outputs.id" } } }),
    ]);
    let charter = town.charter();
    let outcome = town.pass(&charter).await;
    assert!(!outcome.converged);
    assert_eq!(town.condition("web"), Some(Condition::Waiting));
    assert_eq!(town.memory.calls().apply, 0);
    town.chain(|chain| chain.report_of(&traffic(), "feed", Condition::InSync, json!({ "id": "f" })));
    assert_eq!(town.converge(&charter).await, 1);
    assert_eq!(town.memory.objects()["smart-city-1/web"].spec.to_value(), json!({ "feed": "f" }));
}

#[tokio::test]
async fn stopping_finishes_what_runs_and_begins_nothing_new() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    let (trigger, shutdown) = shutdown::channel();
    trigger.stop();
    let outcome = charter.reconcile_once(Pass::default(), &shutdown).await.unwrap();
    assert!(outcome.executed.values().all(|result| matches!(result, StepResult::Skipped { .. })));
    assert_eq!(town.memory.calls().apply, 0);
}

#[tokio::test]
async fn an_approval_is_of_a_plans_content() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    let only = |approved| Pass {
        approved: Some(approved),
        ..Pass::default()
    };
    let look = Pass {
        mode: Mode::ObserveOnly,
        ..Pass::default()
    };
    let seen = charter.reconcile_once(look, &Shutdown::never()).await.unwrap().plan.digest;
    // Another transaction that changes nothing for this plan keeps the approval; one that does loses it.
    town.chain(|chain| chain.report_of(&traffic(), "nothing", Condition::InSync, json!({})));
    town.chain(|chain| {
        let resources = vec![resource(json!({ "name": "more" }))];
        chain.event(&city(), EventBody::ResourcesOrdered { resources });
    });
    let refused = charter.reconcile_once(only(seen), &Shutdown::never()).await;
    assert!(matches!(refused, Err(PassError::Changed { .. })));
    assert_eq!(town.memory.calls().apply, 0);
    let seen = charter.reconcile_once(look, &Shutdown::never()).await.unwrap().plan.digest;
    town.chain(|chain| chain.report_of(&traffic(), "nothing", Condition::Failed, json!({})));
    let outcome = charter.reconcile_once(only(seen), &Shutdown::never()).await.unwrap();
    assert!(outcome.converged);
}

#[tokio::test]
async fn a_policy_denial_writes_nothing_outside() {
    let town = Town::new(Vec::new());
    let stranded = |at: usize| Object {
        kind: kind(),
        spec: Default::default(),
        label: Some(Label {
            scope: scope(),
            name: name(&format!("old-{at}")),
            on_retire: OnRetire::Delete,
        }),
        pending: 0,
    };
    for at in 0..11 {
        town.memory.put(&format!("smart-city-1/old-{at}"), stranded(at));
    }
    let outcome = town.pass(&town.charter()).await;
    assert_eq!(outcome.denials.len(), 1);
    assert_eq!((outcome.executed.len(), town.memory.objects().len()), (0, 11));
    town.memory.take("smart-city-1/old-0");
    town.converge(&town.charter()).await;
    assert!(town.memory.objects().is_empty());
}

#[tokio::test]
async fn an_order_is_previewed_without_a_trace() {
    let town = Town::new(db_and_web());
    let charter = town.charter();
    town.converge(&charter).await;
    let commits = town.commits();
    let order = |value| EventBody::ResourcesOrdered {
        resources: vec![resource(value)],
    };
    let foreseen = charter.preview(order(json!({ "name": "cache", "depends_on": ["db"] }))).await;
    let plan = foreseen.unwrap().plan;
    assert_eq!(plan.steps.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["cache"]);
    let refused = charter.preview(order(json!({ "name": "cache", "depends_on": ["nowhere"] }))).await;
    assert!(matches!(refused, Err(PassError::Refused(_))));
    assert_eq!(town.commits(), commits);
}

#[tokio::test]
async fn two_charters_of_one_member_fence_each_other() {
    let town = Town::new(db_and_web());
    let mut stale = town.actual();
    town.converge(&town.charter()).await;
    stale.clear_outbox();
    stale
        .record(state::inventory::Entry {
            state: EntryState::Deleting,
            ..town.actual().inventory().get(&name("db")).unwrap().clone()
        })
        .unwrap();
    let city = city();
    let author = reconciler::actual::Author {
        member: &city,
        at: state::time::Timestamp::clamped(START),
        sign: None,
    };
    let refused = stale.commit(&author, "late".into()).await;
    assert!(matches!(refused, Err(reconciler::actual::ActualError::Moved { .. })));
}
