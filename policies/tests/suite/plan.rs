//! What stops a whole pass.

use std::collections::{BTreeMap, BTreeSet};

use policies::{LocalPolicy, check};
use serde_json::json;
use state::canonical::Digest;
use state::event::Position;
use state::inventory::{Entry, EntryState, Inventory};
use state::plan::{Action, Base, Plan, Step};
use state::resource::Resource;

fn resource(name: &str, owner: &str) -> Resource {
    serde_json::from_value(json!({ "name": name, "kind": "machine/file", "owner": owner })).unwrap()
}

fn protected(name: &str) -> Resource {
    Resource {
        protect: true,
        ..resource(name, "acme")
    }
}

fn step(action: Action, resource: Resource) -> Step {
    Step {
        action,
        ordered: resource.digest().unwrap(),
        resource,
        external: None,
        why: Vec::new(),
        tx: None,
        changes: Vec::new(),
        after: BTreeSet::new(),
    }
}

fn plan(steps: Vec<Step>) -> Plan {
    let base = Base {
        channel: "air".parse().unwrap(),
        member: "acme".parse().unwrap(),
        desired: "0".repeat(40),
        reported: None,
        actual: None,
        position: Position { block: 1, tx: 0 },
    };
    let steps = steps.into_iter().map(|step| (step.resource.name.clone(), step)).collect();
    Plan::new(base, steps, BTreeMap::new(), Vec::new(), BTreeMap::new()).unwrap()
}

fn inventory(resources: &[Resource]) -> Inventory {
    let mut inventory = Inventory::default();
    for resource in resources {
        let entry = Entry {
            state: EntryState::Applied,
            resource: resource.clone(),
            ordered: Digest::of(b"order"),
            external: format!("/srv/{}", resource.name),
            outputs: Default::default(),
            failed: None,
        };
        inventory.record(entry).unwrap();
    }
    inventory
}

fn denied(plan: &Plan, inventory: &Inventory, policy: &LocalPolicy) -> Vec<String> {
    check(plan, inventory, policy).iter().map(ToString::to_string).collect()
}

#[test]
fn a_plan_may_not_delete_more_than_was_allowed() {
    let steps = |deletions: usize| {
        let mut steps: Vec<Step> = (0..deletions)
            .map(|i| {
                let action = if i % 2 == 0 { Action::Delete } else { Action::Replace };
                step(action, resource(&format!("r{i}"), "acme"))
            })
            .collect();
        steps.extend((0..50).map(|i| step(Action::Create, resource(&format!("c{i}"), "acme"))));
        steps.extend((0..50).map(|i| step(Action::Forget, resource(&format!("f{i}"), "acme"))));
        plan(steps)
    };
    let policy = LocalPolicy::default();
    assert!(denied(&steps(10), &Inventory::default(), &policy).is_empty());
    assert_eq!(
        denied(&steps(11), &Inventory::default(), &policy),
        ["policy.max_deletions_per_pass: the plan deletes or replaces 11 resources, more than 10; raise the limit if that is meant"]
    );
    let none = LocalPolicy {
        max_deletions_per_pass: 0,
        ..LocalPolicy::default()
    };
    assert!(denied(&steps(0), &Inventory::default(), &none).is_empty());
    assert_eq!(denied(&steps(1), &Inventory::default(), &none).len(), 1);
}

#[test]
fn what_is_protected_goes_only_when_the_channel_released_it() {
    let policy = LocalPolicy::default();
    let recorded = inventory(&[protected("db")]);
    for action in [Action::Delete, Action::Replace] {
        let sentence =
            format!("resource.protect: resource db: it is protected, so the plan may not {action} it; amend it to protect: false first");
        // By the inventory, by the channel's last word, and by both.
        assert_eq!(
            denied(&plan(vec![step(action, resource("db", "acme"))]), &recorded, &policy),
            [sentence.as_str()]
        );
        assert_eq!(
            denied(&plan(vec![step(action, protected("db"))]), &Inventory::default(), &policy),
            [sentence.as_str()]
        );
        assert_eq!(
            denied(&plan(vec![step(action, protected("db"))]), &recorded, &policy),
            [sentence.as_str()]
        );
        // Amended and retired before the amendment was applied: a transaction stands behind it.
        let mut released = step(action, resource("db", "acme"));
        released.tx = Some(Position { block: 9, tx: 0 });
        assert!(denied(&plan(vec![released]), &recorded, &policy).is_empty());
        let mut kept = step(action, protected("db"));
        kept.tx = Some(Position { block: 9, tx: 0 });
        assert_eq!(denied(&plan(vec![kept]), &recorded, &policy), [sentence.as_str()]);
    }
    for action in [Action::Update, Action::Forget] {
        assert!(denied(&plan(vec![step(action, protected("db"))]), &recorded, &policy).is_empty());
    }
}

#[test]
fn a_step_stays_with_its_member_and_its_name() {
    let policy = LocalPolicy::default();
    let foreign = plan(vec![step(Action::Update, resource("x", "city"))]);
    assert_eq!(
        denied(&foreign, &Inventory::default(), &policy),
        ["plan.owner: resource x: acme may not update what belongs to city; only the owner's Charter touches it"]
    );
    let mut swapped = plan(vec![step(Action::Update, resource("x", "acme"))]);
    let step = swapped.steps.remove("x").unwrap();
    swapped.steps.insert("y".parse().unwrap(), step);
    assert_eq!(
        denied(&swapped, &Inventory::default(), &policy),
        ["plan.steps: resource y: the step is about x; make the plan anew with 'charter plan'"]
    );
}

#[test]
fn a_plan_of_yesterday_is_held_to_todays_policy() {
    let policy: LocalPolicy = toml::from_str("allow_kinds = ['cloud/*']").unwrap();
    for action in [Action::Create, Action::Update, Action::Replace, Action::Adopt] {
        assert_eq!(
            denied(&plan(vec![step(action, resource("x", "acme"))]), &Inventory::default(), &policy),
            ["policy.allow_kinds: resource x: machine/file is not allowed here, only cloud/*"]
        );
    }
    // What is no longer allowed may still go.
    for action in [Action::Delete, Action::Forget] {
        assert!(denied(&plan(vec![step(action, resource("x", "acme"))]), &Inventory::default(), &policy).is_empty());
    }
}
