//! The clauses of an agreement: each holds, and each refusal names it; and how a change is approved.

use serde_json::{Value, json};
use state::acts::approvals::{ProposalRecord, Settlement};

use crate::channel::{Actor, Channel, agreement, name};

struct Stage {
    city: Actor,
    acme: Actor,
    channel: Channel,
}

fn stage(clauses: &Value) -> Stage {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut agreement = agreement();
    agreement["clauses"] = clauses.clone();
    let channel = Channel::agreed_on(&agreement, &city, &acme);
    Stage { city, acme, channel }
}

fn file(name: &str, owner: &str) -> Value {
    json!({ "name": name, "kind": "machine/file", "owner": owner })
}

fn with(mut value: Value, key: &str, to: Value) -> Value {
    value[key] = to;
    value
}

fn order(resource: &Value) -> Value {
    json!({ "resources": [resource] })
}

fn names(name: &str) -> Value {
    json!({ "resources": [name] })
}

impl Stage {
    fn proposal(&self, id: &Value) -> &ProposalRecord {
        self.channel.desired.records().of(id["id"].as_str().unwrap()).unwrap()
    }

    /// Submits something that has to be approved, and gives the argument that names it.
    fn propose(&mut self, by: fn(&Stage) -> &Actor, function: &str, argument: &Value) -> Value {
        let done = {
            let actor = by(self).creator.clone();
            self.channel.commit(&actor, &crate::channel::args(function, argument))
        };
        assert_eq!(done.response.status, 200, "{}", done.response.message);
        let answer: Value = serde_json::from_slice(&done.response.payload).unwrap();
        json!({ "id": answer["proposal"].as_str().expect("it has to be approved") })
    }

    fn holds(&self) {
        assert_eq!(self.channel.found(), self.channel.expected());
    }
}

#[test]
fn who_may_order_what() {
    let stage = &mut stage(&json!({ "orders": [
        { "members": ["city"], "kinds": ["machine/file"] },
        { "members": ["acme"], "kinds": ["machine/*"], "owners": ["acme"] },
    ] }));
    stage.channel.accept(&stage.city, "order", &order(&file("a", "acme")));
    let found = stage.channel.refuse(&stage.acme, "order", &order(&file("b", "city")));
    assert_eq!(
        found,
        "403 the change is refused: clauses.orders: no clause lets acme order machine/file on the side of city (resource b)"
    );
    let service = with(file("c", "acme"), "kind", json!("machine/service"));
    let found = stage.channel.refuse(&stage.city, "order", &order(&service));
    assert!(
        found.contains("clauses.orders: no clause lets city order machine/service"),
        "{found}"
    );
    stage.channel.accept(&stage.acme, "order", &order(&service));
    // Amending and retiring are held to the same clause.
    let found = stage.channel.refuse(&stage.city, "retire", &names("c"));
    assert!(
        found.contains("may change it, not city") || found.contains("clauses.orders"),
        "{found}"
    );
    stage.channel.accept(&stage.acme, "retire", &names("c"));
    stage.holds();
}

#[test]
fn kinds_and_regions() {
    let stage = &mut stage(&json!({ "kinds": ["machine/file"], "regions": ["eu", "ch"] }));
    for (resource, answer) in [
        (
            file("a", "city"),
            "clauses.regions: resource a names no region; the agreement allows ch, eu",
        ),
        (
            with(file("a", "city"), "region", json!("us")),
            "clauses.regions: resource a is in us; the agreement allows ch, eu",
        ),
        (
            json!({ "name": "a", "kind": "machine/service", "owner": "city", "region": "eu" }),
            "clauses.kinds: resource a is machine/service; the agreement allows machine/file",
        ),
    ] {
        let found = stage.channel.refuse(&stage.city, "order", &order(&resource));
        assert_eq!(found, format!("403 the change is refused: {answer}"));
    }
    let resource = with(file("a", "city"), "region", json!("eu"));
    stage.channel.accept(&stage.city, "order", &order(&resource));
    let found = stage
        .channel
        .refuse(&stage.city, "amend", &order(&with(resource, "region", json!("us"))));
    assert!(found.contains("clauses.regions"), "{found}");
}

#[test]
fn quotas_count_what_is_in_force() {
    let stage = &mut stage(&json!({ "quotas": [
        { "owner": "acme", "memory_mib": 100, "count": 2 },
        { "cpu_millis": 1000 },
    ] }));
    let sized = |name: &str, owner: &str, memory: u64, cpu: u64| {
        with(file(name, owner), "size", json!({ "memory_mib": memory, "cpu_millis": cpu }))
    };
    for (resource, answer) in [
        (
            file("a", "city"),
            "403 the change is refused: clauses.quotas[1].cpu_millis: resource a has to state size.cpu_millis",
        ),
        (
            with(file("a", "acme"), "size", json!({ "cpu_millis": 1 })),
            "403 the change is refused: clauses.quotas[0].memory_mib: resource a has to state size.memory_mib",
        ),
        (
            sized("a", "acme", 101, 1),
            "403 the change is refused: clauses.quotas[0].memory_mib: the resources of acme may come to 100, this would make 101",
        ),
        (
            sized("a", "city", 0, 1001),
            "403 the change is refused: clauses.quotas[1].cpu_millis: all resources together may come to 1000, this would make 1001",
        ),
        (
            sized("a", "city", 10_000_000_001, 1),
            "400 the change is refused: resource a: size.memory_mib is 10000000001; the limit is 10000000000",
        ),
    ] {
        assert_eq!(stage.channel.refuse(&stage.city, "order", &order(&resource)), answer);
    }
    stage.channel.accept(&stage.city, "order", &order(&sized("a", "acme", 60, 500)));
    stage.channel.accept(&stage.city, "order", &order(&sized("b", "acme", 40, 100)));
    let third = order(&sized("c", "acme", 0, 0));
    assert!(
        stage
            .channel
            .refuse(&stage.city, "order", &third)
            .contains("clauses.quotas[0].count")
    );
    let more = order(&sized("b", "acme", 41, 100));
    assert!(stage.channel.refuse(&stage.city, "amend", &more).contains("this would make 101"));
    stage.channel.accept(&stage.city, "amend", &order(&sized("a", "acme", 59, 900)));
    stage.channel.accept(&stage.city, "amend", &more);
    stage.channel.accept(&stage.city, "retire", &names("a"));
    stage.channel.accept(&stage.city, "order", &third);
    stage.holds();
}

#[test]
fn a_change_waits_for_its_approvals() {
    let stage = &mut stage(&json!({ "approvals": [
        { "on": ["order", "amend", "retire"], "kinds": ["machine/file"], "need": 2 },
    ] }));
    let id = stage.propose(|stage| &stage.city, "order", &order(&file("a", "city")));
    assert!(stage.channel.desired.resources().is_empty(), "nothing is in force yet");
    let found = stage.channel.refuse(&stage.city, "approve", &id);
    assert!(found.contains("409") && found.contains("city has spoken on proposal"), "{found}");
    stage.channel.accept(&stage.acme, "approve", &id);
    let ordered = &stage.channel.desired.resources()[&name("a")];
    assert_eq!(ordered.ordered.by.as_str(), "city", "it is the proposer's order");
    assert_eq!(stage.proposal(&id).settled.as_ref().unwrap().how, Settlement::InForce);
    for function in ["approve", "reject", "retract"] {
        let found = stage.channel.refuse(&stage.acme, function, &id);
        assert!(found.starts_with("409") && found.contains("is in force already"), "{found}");
    }
    let id = stage.propose(
        |stage| &stage.city,
        "amend",
        &order(&with(file("a", "city"), "exports", json!(["path"]))),
    );
    stage.channel.accept(&stage.acme, "approve", &id);
    assert_eq!(stage.channel.desired.resources()[&name("a")].resource.exports.len(), 1);
    let id = stage.propose(|stage| &stage.city, "retire", &names("a"));
    stage.channel.accept(&stage.acme, "approve", &id);
    assert!(stage.channel.desired.resources().is_empty());
    stage.holds();
}

#[test]
fn a_proposal_can_be_rejected_or_taken_back() {
    let stage = &mut stage(&json!({ "approvals": [{ "on": ["order"], "kinds": ["*"], "need": 2 }] }));
    let id = stage.propose(|stage| &stage.city, "order", &order(&file("a", "city")));
    let found = stage.channel.refuse(&stage.acme, "retract", &id);
    assert!(found.starts_with("403") && found.contains("only city can withdraw it"), "{found}");
    stage.channel.accept(&stage.acme, "reject", &id);
    assert_eq!(stage.proposal(&id).settled.as_ref().unwrap().how, Settlement::Rejected);
    let id = stage.propose(|stage| &stage.city, "order", &order(&file("a", "city")));
    stage.channel.accept(&stage.city, "retract", &id);
    assert_eq!(stage.proposal(&id).settled.as_ref().unwrap().how, Settlement::Withdrawn);
    let missing = json!({ "id": format!("{:064x}", 99) });
    assert!(stage.channel.refuse(&stage.acme, "approve", &missing).starts_with("404"));
    stage.holds();
}

#[test]
fn what_no_longer_fits_is_refused_with_the_last_approval() {
    let stage = &mut stage(&json!({ "approvals": [{ "on": ["order"], "kinds": ["*"], "need": 2 }] }));
    let id = stage.propose(|stage| &stage.city, "order", &order(&file("a", "city")));
    let twin = stage.propose(|stage| &stage.city, "order", &order(&file("a", "acme")));
    stage.channel.accept(&stage.acme, "approve", &id);
    let found = stage.channel.refuse(&stage.acme, "approve", &twin);
    assert!(found.contains("resource a exists already"), "{found}");
    assert!(stage.proposal(&twin).settled.is_none(), "it stays open");
    stage.channel.accept(&stage.city, "retract", &twin);
    stage.holds();
}

#[test]
fn what_is_protected_goes_with_an_approval_of_its_own() {
    let stage = &mut stage(&json!({ "approvals": [
        { "on": ["destroy-protected"], "kinds": ["machine/file"], "need": 1, "from": ["acme"] },
    ] }));
    let protected = |name: &str, kind: &str| json!({ "name": name, "kind": kind, "owner": "city", "protect": true });
    stage.channel.accept(&stage.city, "order", &order(&protected("a", "machine/file")));
    stage
        .channel
        .accept(&stage.city, "order", &order(&protected("b", "machine/directory")));
    // Where no clause says who has to approve it, it stays protected.
    assert!(stage.channel.refuse(&stage.city, "retire", &names("b")).contains("is protected"));
    let id = stage.propose(|stage| &stage.city, "retire", &names("a"));
    // Taking the protection off is the same thing in two steps.
    let off = stage.propose(|stage| &stage.city, "amend", &order(&file("a", "city")));
    assert!(stage.channel.refuse(&stage.city, "approve", &id).contains("city is not asked"));
    stage.channel.accept(&stage.acme, "reject", &off);
    stage.channel.accept(&stage.acme, "approve", &id);
    assert!(!stage.channel.desired.resources().contains_key(&name("a")));
    stage.holds();
}

#[test]
fn clauses_that_make_no_sense_are_refused() {
    let (city, acme) = (Actor::new("CityMSP"), Actor::new("AcmeMSP"));
    let mut channel = Channel::new();
    channel.accept(&city, "register", &json!({ "member": "city", "role": "data-service-provider" }));
    channel.accept(&acme, "register", &json!({ "member": "acme", "role": "value-service-provider" }));
    for (clauses, answer) in [
        (json!({ "quotas": [{}] }), "clauses.quotas[0] limits nothing"),
        (
            json!({ "quotas": [{ "count": 1_000_000_000_000_001_u64 }] }),
            "clauses.quotas[0].count: 1000000000000001 is over",
        ),
        (
            json!({ "quotas": [{ "owner": "eve", "count": 1 }] }),
            "clauses.quotas[0] names eve, who is no party",
        ),
        (
            json!({ "approvals": [{ "on": ["order"], "kinds": ["*"], "need": 3 }] }),
            "clauses.approvals[0] needs 3 parties of 2",
        ),
        (
            json!({ "orders": [{ "members": [], "kinds": ["*"] }] }),
            "clauses.orders[0].members is empty",
        ),
        (json!({ "kinds": ["machine"] }), "names no kinds"),
    ] {
        let mut agreement = agreement();
        agreement["clauses"] = clauses;
        let found = channel.refuse(&city, "constitute", &agreement);
        assert!(found.starts_with("400") && found.contains(answer), "{found}");
    }
}
