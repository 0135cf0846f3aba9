//! The planner's decisions, one by one, as a user reads them.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;

use providers::Orphan;
use reconciler::planner::render::{Style, render};
use reconciler::planner::{Input, Known, Mode, plan, recorded, sequence, wanted};
use serde_json::{Value, json};
use state::desired::{File, Loader};
use state::event::Position;
use state::ids::ResourceName;
use state::inventory::{Entry, EntryState, Inventory};
use state::observation::{FieldDrift, Observation};
use state::paths;
use state::plan::{Action, Base, Plan};
use state::report::Condition;
use state::resource::{OnRetire, Outputs};
use support::{Chain, channel, city, kind, name, resource, traffic};

struct Scene {
    chain: Chain,
    inventory: Inventory,
    observed: BTreeMap<ResourceName, Observation>,
    orphans: Vec<Orphan>,
    forbidden: BTreeMap<ResourceName, String>,
    mode: Mode,
}

impl Scene {
    fn new(resources: Vec<Value>) -> Self {
        let mut chain = Chain::new(None);
        chain.order(resources.into_iter().map(resource).collect());
        Self {
            chain,
            inventory: Inventory::default(),
            observed: BTreeMap::new(),
            orphans: Vec::new(),
            forbidden: BTreeMap::new(),
            mode: Mode::Normal,
        }
    }

    /// Everything of the city was applied as ordered, and is there.
    fn applied(mut self) -> Self {
        let names: Vec<ResourceName> = self.chain.desired.resources().keys().cloned().collect();
        for _ in 0..names.len() {
            for of in &names {
                self.apply(of.as_str());
            }
        }
        self
    }

    fn apply(&mut self, of: &str) {
        let city = city();
        let order = &self.chain.desired.resources()[of].resource;
        let known = Known {
            member: &city,
            desired: &self.chain.desired,
            inventory: &self.inventory,
            reported: &self.chain.reported,
            observed: None,
            fresh: None,
        };
        if order.owner != city {
            return;
        }
        let Ok(spec) = known.resolve(&order.spec) else { return };
        let outputs: Outputs = serde_json::from_value(json!({ "id": of })).unwrap();
        let entry = Entry {
            state: EntryState::Applied,
            resource: recorded(order, spec),
            ordered: order.digest().unwrap(),
            external: format!("x/{of}"),
            outputs: outputs.clone(),
            failed: None,
        };
        self.inventory.record(entry).unwrap();
        self.see(
            of,
            json!({ "is": "present", "external": format!("x/{of}"), "owned": true, "outputs": outputs }),
        );
    }

    fn edit(&mut self, of: &str, change: impl Fn(Entry) -> Entry) {
        let entry = change(self.inventory.get(&name(of)).unwrap().clone());
        self.inventory.record(entry).unwrap();
    }

    fn see(&mut self, of: &str, observation: Value) -> &mut Self {
        self.observed.insert(name(of), serde_json::from_value(observation).unwrap());
        self
    }

    fn drift(&mut self, of: &str, replace: Option<&str>) {
        let Some(Observation::Present { drift, replace: why, .. }) = self.observed.get_mut(of) else {
            panic!("{of} is not there");
        };
        drift.push(FieldDrift {
            path: "/size".into(),
            wanted: Some(json!(2)),
            found: Some(json!(1)),
        });
        *why = replace.map(str::to_owned);
    }

    fn plan(&self) -> Plan {
        plan(Input {
            base: Base {
                channel: channel(),
                member: city(),
                desired: "d".repeat(40),
                reported: None,
                actual: None,
                position: Position {
                    block: self.chain.block,
                    tx: 0,
                },
            },
            mode: self.mode,
            desired: &self.chain.desired,
            reported: &self.chain.reported,
            inventory: &self.inventory,
            observed: &self.observed,
            orphans: &self.orphans,
            forbidden: &self.forbidden,
            invalid: &BTreeMap::new(),
            lasting: &BTreeMap::new(),
        })
        .unwrap()
    }

    fn text(&self) -> String {
        render(&self.plan(), Style::Plain)
    }

    fn condition(&self, of: &str) -> Condition {
        self.plan().statuses[of].condition
    }

    fn action(&self, of: &str) -> Option<Action> {
        self.plan().steps.get(of).map(|step| step.action)
    }
}

fn absent() -> Value {
    json!({ "is": "absent" })
}

fn db_and_web() -> Vec<Value> {
    vec![
        json!({ "name": "db", "spec": { "size": 2, "key": { "$secret": "token" } }, "exports": ["id"] }),
        json!({ "name": "web", "spec": { "db": { "$ref": "db.outputs.id" } } }),
    ]
}

#[test]
fn what_is_new_is_created_in_its_order() {
    let mut scene = Scene::new(db_and_web());
    scene.see("db", absent()).see("web", absent());
    insta::assert_snapshot!(scene.text(), @r#"
      + memory/object db: create
          ordered by city in block 5, transaction 0
            /key   = (secret token)
            /size  = 2

      + memory/object web: create
          ordered by city in block 5, transaction 0
          after db
            /db  = (known after apply)

    Plan: 2 to create, 0 to change, 0 to delete.
    "#);
    assert_eq!(scene.condition("db"), Condition::Pending);
}

#[test]
fn what_has_converged_needs_nothing() {
    let scene = Scene::new(db_and_web()).applied();
    insta::assert_snapshot!(scene.text(), @"Nothing to do.");
    let plan = scene.plan();
    assert!(plan.statuses.values().all(|status| status.condition == Condition::InSync));
    assert_eq!(plan.statuses["db"].exports.len(), 1);
    assert!(plan.statuses["web"].exports.is_empty(), "only exported outputs enter reports");
}

#[test]
fn an_amended_order_and_a_drift_are_told_apart() {
    let mut scene = Scene::new(db_and_web()).applied();
    scene.chain.amend(vec![resource(
        json!({ "name": "web", "spec": { "db": { "$ref": "db.outputs.id" }, "port": 80 } }),
    )]);
    scene.drift("db", None);
    insta::assert_snapshot!(scene.text(), @r#"
      ~ memory/object db: update
          it drifted in /size
            /size  1 → 2

      ~ memory/object web: update
          amended by city in block 6, transaction 0
          after db
            /port  (none) → 80

    Plan: 0 to create, 2 to change, 0 to delete.
    "#);
    assert_eq!(scene.condition("db"), Condition::Drifted);
    assert_eq!(scene.condition("web"), Condition::Pending);
    assert_eq!(scene.plan().statuses["db"].drift, ["/size"]);
}

#[test]
fn every_field_of_an_amendment_is_told() {
    let mut scene = Scene::new(vec![
        json!({ "name": "cache" }),
        json!({ "name": "db" }),
        json!({ "name": "queue" }),
        json!({ "name": "web", "spec": { "db": { "$ref": "db.outputs.id" } }, "depends_on": ["cache"] }),
    ])
    .applied();
    scene.chain.amend(vec![resource(json!({
        "name": "web", "spec": { "cache": { "$ref": "cache.outputs.id" } }, "depends_on": ["queue"],
        "exports": ["id"], "on_retire": "retain", "on_drift": "report", "protect": true, "adopt": true,
    }))]);
    insta::assert_snapshot!(scene.text(), @r#"
      ~ memory/object web: update
          amended by city in block 6, transaction 0
            /db         "db" → (none)
            /cache      (none) → "cache"
            on_retire   "delete" → "retain"
            on_drift    "heal" → "report"
            protect     false → true
            adopt       false → true
            depends_on  ["db"] → ["queue"]
            exports     [] → ["id"]

    Plan: 0 to create, 1 to change, 0 to delete.
    "#);
    // What it only refers to anew is told once, as the field that refers.
    scene.chain.amend(vec![resource(json!({
        "name": "web", "spec": { "cache": { "$ref": "cache.outputs.id" }, "db": { "$ref": "db.outputs.id" } },
    }))]);
    let paths: Vec<String> = scene.plan().steps["web"].changes.iter().map(|change| change.path.clone()).collect();
    assert_eq!(paths, ["/cache"]);
}

#[test]
fn drift_is_only_reported_where_the_order_says_so() {
    let mut scene = Scene::new(vec![json!({ "name": "db", "on_drift": "report" })]).applied();
    scene.drift("db", None);
    insta::assert_snapshot!(scene.text(), @r#"
    Findings:
      drift memory/object db: it drifted in /size; by its order that is only reported

    Nothing to do. 1 drifted.
    "#);
    assert_eq!(scene.condition("db"), Condition::Drifted);
    // An interrupted change is not drift: it is finished.
    scene.edit("db", |entry| Entry {
        state: EntryState::Intended,
        ..entry
    });
    assert_eq!(scene.action("db"), Some(Action::Update));
}

#[test]
fn a_replaced_resource_takes_those_that_refer_to_it_along() {
    let mut scene = Scene::new(db_and_web()).applied();
    scene.drift("db", Some("the size of a disk can't shrink"));
    insta::assert_snapshot!(scene.text(), @r#"
    -/+ memory/object db: replace
          it drifted in /size
          the size of a disk can't shrink
            /size  1 → 2

      ~ memory/object web: update
          it refers to db, made anew
          after db
            /db  "db" → (known after apply)

    Plan: 1 to create, 1 to change, 1 to delete.
    "#);
}

#[test]
fn what_is_protected_or_kept_is_never_replaced() {
    for word in [
        json!({ "name": "db", "protect": true }),
        json!({ "name": "db", "on_retire": "retain" }),
    ] {
        let mut scene = Scene::new(vec![word]).applied();
        scene.drift("db", Some("it can't be changed"));
        let plan = scene.plan();
        assert!(plan.is_empty());
        assert_eq!(plan.statuses["db"].condition, Condition::Denied);
    }
}

#[test]
fn a_strangers_object_is_not_touched_without_a_word_in_the_order() {
    let stranger = json!({ "is": "present", "external": "x/db", "owned": false });
    let mut scene = Scene::new(vec![json!({ "name": "db" })]);
    scene.see("db", stranger.clone());
    insta::assert_snapshot!(scene.text(), @r#"
    Findings:
      denied memory/object db: x/db exists and is not Charter's: remove it, or amend the resource with adopt: true

    Nothing to do. 1 denied.
    "#);
    let mut scene = Scene::new(vec![json!({ "name": "db", "adopt": true })]);
    scene.see("db", stranger);
    insta::assert_snapshot!(scene.text(), @r#"
      > memory/object db: adopt
          it is there, is not Charter's, and the order says adopt
          ordered by city in block 5, transaction 0
            owner label  (none) → "city"

    Plan: 0 to create, 0 to change, 0 to delete, 1 to adopt.
    "#);
}

#[test]
fn a_lost_store_finds_its_own_by_the_owner_label() {
    let mut scene = Scene::new(vec![json!({ "name": "db" })]);
    scene.see("db", json!({ "is": "present", "external": "x/db", "owned": true }));
    let plan = scene.plan();
    assert_eq!(plan.steps["db"].action, Action::Adopt);
    assert!(plan.steps["db"].changes.is_empty(), "nothing changes outside");
}

#[test]
fn others_are_waited_for_until_they_report() {
    let mut scene = Scene::new(vec![
        json!({ "name": "feed", "owner": "traffic", "exports": ["id"] }),
        json!({ "name": "web", "spec": { "feed": { "$ref": "feed.outputs.id" } } }),
        json!({ "name": "edge", "depends_on": ["web"] }),
    ]);
    scene.see("web", absent()).see("edge", absent());
    insta::assert_snapshot!(scene.text(), @r#"
    Waiting:
      … edge
          for web: waiting
      … web
          for feed: not reported by traffic yet

    Nothing to do. 2 waiting.
    "#);
    assert_eq!(scene.condition("web"), Condition::Waiting);
    assert!(!scene.plan().statuses.contains_key("feed"), "a member reports only its own");
    scene.chain.report_of(&traffic(), "feed", Condition::Drifted, json!({ "id": "f" }));
    assert!(scene.plan().waits["web"].on["feed"].contains("reported drifted by traffic"));
    scene.chain.report_of(&traffic(), "feed", Condition::InSync, json!({ "id": "f" }));
    assert_eq!(scene.plan().steps.len(), 2);
    assert_eq!(scene.plan().steps["web"].changes[0].to, Some(json!("f")));
    // In sync with an order of before is not in sync.
    scene.chain.event(
        &traffic(),
        state::event::EventBody::ResourcesAmended {
            resources: vec![resource(
                json!({ "name": "feed", "owner": "traffic", "exports": ["id"], "spec": { "n": 1 } }),
            )],
        },
    );
    assert!(scene.plan().waits["web"].on["feed"].contains("before it was amended"));
}

#[test]
fn an_unreachable_member_stops_nothing_that_is_there() {
    let mut scene = Scene::new(vec![
        json!({ "name": "feed", "owner": "traffic", "exports": ["id"] }),
        json!({ "name": "web", "spec": { "feed": { "$ref": "feed.outputs.id" } } }),
    ]);
    scene.chain.report_of(&traffic(), "feed", Condition::InSync, json!({ "id": "f" }));
    scene.apply("web");
    scene.chain.report_of(&traffic(), "feed", Condition::Unknown, json!({}));
    assert!(scene.plan().is_empty());
    assert_eq!(scene.condition("web"), Condition::InSync);
    let city = city();
    let all = wanted(&scene.chain.desired, &scene.inventory, &scene.chain.reported, &city).unwrap();
    let web = all.iter().find(|one| one.name.as_str() == "web").unwrap();
    assert_eq!(web.resource.as_ref().unwrap().spec.to_value(), json!({ "feed": "f" }));
}

#[test]
fn what_cannot_be_seen_is_neither_gone_nor_in_sync() {
    let mut scene = Scene::new(db_and_web()).applied();
    scene.see("db", json!({ "is": "unknown", "why": "no permission" }));
    scene.see("web", absent());
    insta::assert_snapshot!(scene.text(), @r#"
    Waiting:
      … web
          for db: unknown

    Findings:
      unknown memory/object db: it could not be observed: no permission

    Nothing to do. 1 waiting. 1 not observed.
    "#);
    assert_eq!(scene.condition("db"), Condition::Unknown);
}

#[test]
fn what_is_pending_is_left_alone() {
    let mut scene = Scene::new(db_and_web()).applied();
    scene.see("db", json!({ "is": "pending", "external": "x/db", "why": "its port is closed" }));
    scene.see("web", absent());
    let plan = scene.plan();
    assert!(plan.is_empty());
    assert_eq!(plan.statuses["db"].condition, Condition::Pending);
    assert_eq!(plan.waits["web"].on["db"], "pending");
}

#[test]
fn retired_resources_go_in_reverse_order() {
    let mut scene = Scene::new(db_and_web()).applied();
    scene.chain.retire(&["db", "web"]);
    insta::assert_snapshot!(scene.text(), @r#"
      - memory/object web: delete
          retired by city in block 6, transaction 0

      - memory/object db: delete
          retired by city in block 6, transaction 0
          after web

    Plan: 0 to create, 0 to change, 2 to delete.
    "#);
    assert_eq!(scene.condition("db"), Condition::Deleting);
    // The dependent can't be seen: what it depended on stays.
    scene.see("web", json!({ "is": "unknown", "why": "no permission" }));
    assert!(scene.plan().is_empty());
    assert!(scene.plan().waits["db"].on.contains_key("web"));
    // Their absence was seen.
    scene.see("db", absent()).see("web", absent());
    let plan = scene.plan();
    assert!(
        plan.steps
            .values()
            .all(|step| step.action == Action::Forget && step.external.is_none())
    );
    assert_eq!(plan.statuses["db"].condition, Condition::Deleted);
}

#[test]
fn what_lets_go_of_a_resource_does_so_before_it_is_deleted() {
    let mut scene = Scene::new(db_and_web()).applied();
    scene
        .chain
        .amend(vec![resource(json!({ "name": "web", "spec": { "db": "none" } }))]);
    scene.chain.retire(&["db"]);
    let plan = scene.plan();
    assert_eq!(plan.steps["web"].action, Action::Update);
    assert!(plan.steps["db"].after.contains("web"));
    let order: Vec<&str> = sequence(&plan).unwrap().into_iter().map(|name| name.as_str()).collect();
    assert_eq!(order, ["web", "db"]);
}

#[test]
fn what_is_kept_by_agreement_is_released() {
    let mut scene = Scene::new(vec![json!({ "name": "db", "on_retire": "retain" })]).applied();
    scene.chain.retire(&["db"]);
    let plan = scene.plan();
    assert_eq!(plan.steps["db"].action, Action::Forget);
    assert_eq!(plan.steps["db"].external.as_deref(), Some("x/db"));
    scene.see("db", json!({ "is": "present", "external": "x/db", "owned": false }));
    assert_eq!(scene.condition("db"), Condition::Retained);
    assert_eq!(scene.plan().steps["db"].external, None);
}

#[test]
fn an_orphan_goes_as_its_label_says() {
    let mut scene = Scene::new(vec![json!({ "name": "db" })]).applied();
    for (text, on_retire) in [("old", OnRetire::Delete), ("kept", OnRetire::Retain), ("db", OnRetire::Delete)] {
        scene.orphans.push(Orphan {
            name: name(text),
            kind: kind(),
            external: format!("x/{text}"),
            on_retire,
        });
    }
    assert_eq!(scene.action("old"), Some(Action::Delete));
    assert_eq!(scene.action("kept"), Some(Action::Forget));
    assert_eq!(scene.action("db"), None, "what is wanted is no orphan");
}

#[test]
fn protection_outlives_a_lost_store() {
    let mut scene = Scene::new(vec![json!({ "name": "db" }), json!({ "name": "old" })]);
    scene.chain.retire(&["db", "old"]);
    // The ledger refuses to retire what is protected; a store that says it was retired all the same deletes nothing either.
    let mut loader = Loader::new(channel());
    for (of, gone) in scene.chain.desired.retired() {
        let mut gone = gone.clone();
        gone.resource.protect = of.as_str() == "db";
        let bytes = serde_json::to_vec(&gone).unwrap();
        loader.take(File::read(&paths::resource("retired", &gone.resource.kind, of), &bytes).unwrap());
    }
    scene.chain.desired = loader.finish().unwrap();
    for text in ["db", "old"] {
        scene.orphans.push(Orphan {
            name: name(text),
            kind: kind(),
            external: format!("x/{text}"),
            on_retire: OnRetire::Delete,
        });
    }
    insta::assert_snapshot!(scene.text(), @r#"
      - memory/object old: delete
          it was found by its owner label, and nobody wants it any more
          retired by city in block 6, transaction 0

    Findings:
      denied memory/object db: retired by city in block 6, transaction 0, and it is protected: order it again and amend it with protect: false

    Plan: 0 to create, 0 to change, 1 to delete. 1 denied.
    "#);
    assert_eq!(scene.condition("db"), Condition::Denied);
    let denials = policies::check(&scene.plan(), &scene.inventory, &policies::LocalPolicy::default());
    assert!(denials.is_empty(), "{denials:?}");
}

#[test]
fn protection_outlives_an_order_that_vanished() {
    let mut scene = Scene::new(vec![json!({ "name": "db", "protect": true })]).applied();
    let mut entry = scene.inventory.get(&name("db")).unwrap().clone();
    entry.resource.name = name("lost");
    entry.external = "x/lost".into();
    scene.inventory.record(entry).unwrap();
    scene.see("lost", json!({ "is": "present", "external": "x/lost", "owned": true }));
    assert_eq!(scene.action("lost"), None);
    assert_eq!(scene.condition("lost"), Condition::Denied);
}

#[test]
fn a_name_ordered_anew_as_another_kind_makes_room_first() {
    let mut scene = Scene::new(vec![json!({ "name": "db" })]).applied();
    scene.chain.retire(&["db"]);
    scene.chain.order(vec![resource(json!({ "name": "db", "kind": "memory/other" }))]);
    let plan = scene.plan();
    assert_eq!(
        (plan.steps["db"].action, &plan.steps["db"].resource.kind),
        (Action::Delete, &kind())
    );
    assert_eq!(plan.statuses["db"].condition, Condition::Pending);
    scene.see("db", absent());
    assert_eq!(scene.action("db"), Some(Action::Forget));
    scene.inventory.forget(&name("db"));
    assert_eq!(scene.action("db"), Some(Action::Create));
}

#[test]
fn a_frozen_channel_heals_and_deletes_nothing() {
    let mut scene = Scene::new(db_and_web()).applied();
    scene.mode = Mode::Frozen;
    scene.chain.retire(&["web"]);
    scene.drift("db", None);
    scene.orphans.push(Orphan {
        name: name("old"),
        kind: kind(),
        external: "x/old".into(),
        on_retire: OnRetire::Delete,
    });
    let plan = scene.plan();
    assert_eq!(plan.steps.len(), 1);
    assert_eq!(plan.steps["db"].action, Action::Update);
    scene.drift("db", Some("it can't be changed"));
    assert!(scene.plan().is_empty());
}

#[test]
fn what_local_policy_forbids_has_no_step_and_is_reported() {
    let mut scene = Scene::new(db_and_web());
    scene.see("db", absent()).see("web", absent());
    scene.forbidden.insert(name("db"), "policy.regions: not here".into());
    insta::assert_snapshot!(scene.text(), @r#"
    Waiting:
      … web
          for db: denied

    Findings:
      denied memory/object db: policy.regions: not here

    Nothing to do. 1 waiting. 1 denied.
    "#);
    assert_eq!(scene.condition("db"), Condition::Denied);
}

#[test]
fn a_failed_try_is_told_and_does_not_change_the_plan() {
    let mut scene = Scene::new(db_and_web());
    scene.see("db", absent()).see("web", absent());
    let before = scene.plan().digest;
    let mut applied = Scene::new(db_and_web()).applied();
    applied.edit("db", |entry| Entry {
        state: EntryState::Intended,
        failed: Some("quota".into()),
        ..entry
    });
    scene.inventory.record(applied.inventory.get(&name("db")).unwrap().clone()).unwrap();
    let plan = scene.plan();
    assert_eq!(plan.statuses["db"].condition, Condition::Failed);
    assert_eq!(plan.statuses["db"].why.as_deref(), Some("quota"));
    assert_eq!(plan.steps["db"].action, Action::Create);
    assert_ne!(before, plan.digest, "the external name is known by now");
    scene.edit("db", |entry| Entry {
        failed: Some("another time".into()),
        ..entry
    });
    assert_eq!(scene.plan().digest, plan.digest);
}

#[test]
fn what_was_retired_is_reported_until_its_absence_is() {
    let mut scene = Scene::new(vec![json!({ "name": "db" })]).applied();
    scene.chain.report_of(&city(), "db", Condition::InSync, json!({}));
    scene.chain.retire(&["db"]);
    // The store was lost meanwhile: the object is still wanted to be seen, and still goes.
    scene.inventory = Inventory::default();
    let all = wanted(&scene.chain.desired, &scene.inventory, &scene.chain.reported, &city())
        .unwrap()
        .len();
    assert_eq!(all, 1);
    assert_eq!(scene.action("db"), Some(Action::Delete));
    scene.see("db", absent());
    assert!(scene.plan().is_empty());
    assert_eq!(scene.condition("db"), Condition::Deleted);
    scene.chain.report_of(&city(), "db", Condition::Deleted, json!({}));
    assert!(scene.plan().statuses.is_empty());
}
