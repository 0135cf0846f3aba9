//! Hand-over: what another version carries, replaces or does without, with the same rules and approvals as every change.

use serde_json::{Value, json};
use state::acts::handovers::{Becomes, HandOverRecord};
use state::resource::OnRetire;

use crate::channel::{Actor, Channel, agreement, name};

fn file(name: &str, owner: &str, more: &Value) -> Value {
    let mut resource = json!({ "name": name, "kind": "machine/file", "owner": owner, "spec": { "content": name } });
    resource.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    resource
}

#[test]
fn what_is_handed_over_leaves_and_what_is_carried_is_kept() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut channel = Channel::agreed(&city, &acme);
    let all = [
        file("kept", "city", &json!({ "protect": true })),
        file("old", "city", &json!({})),
        file("gone", "city", &json!({})),
        file("theirs", "acme", &json!({ "depends_on": ["old"] })),
    ];
    channel.accept(&city, "order", &json!({ "resources": all }));
    for (argument, code, words) in [
        (json!({ "to": "air", "retired": ["gone"] }), "400", "this channel"),
        (json!({ "to": "dao-2", "retired": [] }), "400", "1 to 1000 resources"),
        (
            json!({ "to": "dao-2", "retired": ["gone"], "carried": { "gone": "x" } }),
            "400",
            "stands twice",
        ),
        (json!({ "to": "dao-2", "carried": { "nothing": "x" } }), "404", "nothing"),
        (
            json!({ "to": "dao-2", "replaced": { "old": "new" } }),
            "409",
            "still needed by theirs",
        ),
        (json!({ "to": "dao-2", "replaced": { "kept": "new" } }), "409", "is protected"),
        (
            json!({ "to": "dao-2", "carried": { "theirs": "x" } }),
            "403",
            "is of acme, not of city",
        ),
    ] {
        let found = channel.refuse(&city, "hand_over", &argument);
        assert!(found.starts_with(code) && found.contains(words), "{argument}: {found}");
    }
    channel.accept(&acme, "hand_over", &json!({ "to": "dao-2", "retired": ["theirs"] }));
    let said = json!({ "to": "dao-2", "carried": { "kept": "later" }, "replaced": { "old": "new" }, "retired": ["gone"] });
    channel.accept(&city, "hand_over", &said);
    assert!(channel.desired.resources().is_empty());
    let record = channel.desired.records().all::<HandOverRecord>().last().unwrap().clone();
    assert_eq!(record.hand_over.becomes(&name("kept")), Some(Becomes::Carried(&name("later"))));
    let tombstone = |of: &str| channel.desired.retired()[&name(of)].resource.on_retire;
    assert_eq!((tombstone("kept"), tombstone("old")), (OnRetire::Retain, OnRetire::Delete));
    assert_eq!(channel.found(), channel.expected());
}

#[test]
fn an_origin_is_its_owners_word_and_stays() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut channel = Channel::agreed(&city, &acme);
    let origin = json!({ "origin": { "channel": "older", "resource": "first" } });
    let order = json!({ "resources": [file("second", "city", &origin)] });
    let found = channel.refuse(&acme, "order", &order);
    assert!(found.starts_with("403") && found.contains("only its owner city"), "{found}");
    channel.accept(&city, "order", &order);
    let amended = json!({ "resources": [file("second", "city", &json!({}))] });
    let found = channel.refuse(&city, "amend", &amended);
    assert!(found.contains("origin can't be amended"), "{found}");
    let mut changed = file("second", "city", &origin);
    changed["spec"]["content"] = json!("other");
    channel.accept(&city, "amend", &json!({ "resources": [changed] }));
    assert_eq!(channel.found(), channel.expected());
}

#[test]
fn a_hand_over_waits_for_the_approvals_of_what_it_retires() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut agreement = agreement();
    agreement["clauses"] = json!({ "approvals": [{ "on": ["retire"], "kinds": ["machine/*"], "need": 2 }] });
    let mut channel = Channel::agreed_on(&agreement, &city, &acme);
    channel.accept(&city, "order", &json!({ "resources": [file("a", "city", &json!({}))] }));
    let said = json!({ "to": "dao-2", "carried": { "a": "a" } });
    let proposed = channel.accept(&city, "hand_over", &said);
    assert_eq!(channel.desired.resources().len(), 1);
    let answer: Value = serde_json::from_slice(&proposed.response.payload).unwrap();
    channel.accept(&acme, "approve", &json!({ "id": answer["proposal"] }));
    assert!(channel.desired.resources().is_empty());
    assert_eq!(channel.desired.records().all::<HandOverRecord>().count(), 1);
    assert_eq!(channel.found(), channel.expected());
}
