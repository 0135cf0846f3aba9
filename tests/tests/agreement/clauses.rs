//! The clauses of an agreement: an order that breaks one is refused by its name, and one that has to be approved waits for it.

use serde_json::{Value, json};
use tests::{Ended, World, documents, example};

const CHANNEL: &str = "smart-city-1";

/// Two members whose agreement says who approves services, where things live, and how much memory there may be.
fn agreed() -> World {
    let clauses = json!({
        "approvals": [{ "on": ["order"], "kinds": ["machine/directory"], "need": 2 }],
        "quotas": [{ "memory_mib": 100 }],
        "regions": ["eu"],
    });
    let agreement = example::agreement(&json!({ "from": "2026-01-01T00:00:00Z" }), &clauses);
    example::of_one_channel(CHANNEL, &example::CITY_AND_BREEZE, &agreement, &[])
}

fn resource(name: &str, kind: &str, region: &str, memory: u64) -> Value {
    json!({ "name": name, "kind": kind, "owner": "city", "region": region, "size": { "memory_mib": memory } })
}

fn order(world: &World, resource: &Value) -> String {
    world.file("order.yaml", &documents::order(vec![resource.clone()]).to_string())
}

fn type_in(world: &World, member: &str, words: &[&str]) -> Ended {
    world.charter(&[words, &["--member", member, "--channel", CHANNEL]].concat())
}

#[test]
fn a_clause_is_named_when_it_refuses_and_an_order_waits_for_its_approvals() {
    let world = agreed();
    let ledger = world.ledger();
    for (resource, clause) in [
        (resource("a", "machine/file", "us", 1), "clauses.regions: resource a is in us"),
        (
            resource("a", "machine/file", "eu", 101),
            "clauses.quotas[0].memory_mib: all resources together may come to 100, this would make 101",
        ),
    ] {
        let file = order(&world, &resource);
        type_in(&world, "city", &["plan", "-f", &file]).exits(1).says(&[clause]);
        type_in(&world, "city", &["submit", &file])
            .exits(1)
            .says(&["refused order (403)", clause]);
    }

    let file = order(&world, &resource("data", "machine/directory", "eu", 10));
    type_in(&world, "city", &["plan", "-f", &file])
        .exits(0)
        .says(&["it would wait for approvals first: clauses.approvals[0]", "1 to create"]);
    type_in(&world, "city", &["submit", &file])
        .exits(0)
        .says(&["proposed to order data: it waits for approvals"]);
    type_in(&world, "city", &["plan"]).exits(0).says(&["Nothing to do."]);
    let listed = type_in(&world, "city", &["approvals", "list", "-o", "json"]).exits(0).json();
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed[0]["standing"], json!([{ "clause": 0, "have": 1, "need": 2 }]));
    type_in(&world, "city", &["approvals", "approve", &id])
        .exits(1)
        .says(&["city has spoken on proposal"]);
    type_in(&world, "breeze", &["approvals", "approve", "zz"])
        .exits(1)
        .says(&["names no proposal"]);
    let short = &id[..8];
    type_in(&world, "breeze", &["approvals", "approve", short])
        .exits(0)
        .says(&["approved proposal", "order data", "it is in force"]);
    type_in(&world, "breeze", &["approvals", "show", short])
        .exits(0)
        .says(&["proposed   by city", "approved   by breeze", "in force"]);
    type_in(&world, "breeze", &["approvals", "list"])
        .exits(0)
        .says(&["nothing waits for an approval"]);
    type_in(&world, "city", &["reconcile"]).exits(0).says(&["create data: done"]);
    // Anybody finds the proposer, the approval and the order in the history, and rebuilds the same commits.
    let subjects = world.store("city").log(&format!("desired/{CHANNEL}"), "%s");
    assert!(
        subjects[0].starts_with("proposal ") && subjects[0].ends_with("approved by breeze: in force"),
        "{subjects:?}"
    );
    assert_eq!(subjects[1], "propose to order resource data");
    world.charter(&["replay", "--compare"]).exits(0);
    world.charter(&["verify"]).exits(0);
    ledger.stop();
}
