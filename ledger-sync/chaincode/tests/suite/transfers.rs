//! Transfer of rights: who gives what to whom, and who has to agree.

use serde_json::{Value, json};

use crate::channel::{Actor, name, resource};
use crate::life::{Town, town};

fn ready() -> Town {
    let mut town = town(&json!({
        "transfer": { "need": 2 },
        "quotas": [{ "owner": "bolt", "count": 2 }],
        "abandonment": { "grace_seconds": 2700 },
    }));
    let resources = [
        resource("model", "acme", &[]),
        resource("forecast", "acme", &["model"]),
        resource("own", "city", &[]),
    ];
    town.channel.accept(&town.acme, "order", &json!({ "resources": resources }));
    town
}

fn propose(town: &mut Town) -> Value {
    let argument = json!({ "to": "bolt", "resources": ["model", "forecast"] });
    let done = town.channel.accept(&town.acme, "transfer", &argument);
    let answer: Value = serde_json::from_slice(&done.response.payload).unwrap();
    json!({ "id": answer["tx"] })
}

#[test]
fn rights_go_over_when_the_taker_accepts_and_enough_approve() {
    let town = &mut ready();
    let id = propose(town);
    assert!(
        town.channel
            .refuse(&town.acme, "approve_transfer", &id)
            .contains("acme has said so of transfer")
    );
    assert!(
        town.channel
            .refuse(&town.city, "accept_transfer", &id)
            .contains("only bolt can accept it")
    );
    town.channel.accept(&town.bolt, "accept_transfer", &id);
    assert_eq!(town.channel.desired.resources()[&name("model")].resource.owner.as_str(), "acme");
    assert!(town.channel.refuse(&town.bolt, "accept_transfer", &id).contains("bolt has said so"));
    town.channel.accept(&town.city, "approve_transfer", &id);
    let model = &town.channel.desired.resources()[&name("model")];
    assert_eq!((model.resource.owner.as_str(), model.orderer().as_str()), ("bolt", "bolt"));
    assert_eq!(model.ordered.by.as_str(), "acme", "who ordered it stays on the record");
    for (actor, function) in [(&town.city, "approve_transfer"), (&town.acme, "cancel_transfer")] {
        assert!(town.channel.refuse(actor, function, &id).contains("is settled already"));
    }
    // The giver has no rights in it any more, although it ordered it; the taker has.
    let amended = json!({ "resources": [{ "name": "model", "kind": "machine/file", "owner": "bolt", "exports": ["path"] }] });
    assert!(
        town.channel
            .refuse(&town.acme, "amend", &amended)
            .contains("may change it, not acme")
    );
    town.channel.accept(&town.bolt, "amend", &amended);
    // Quotas count it on the taker's side.
    let more = json!({ "resources": [resource("more", "bolt", &[])] });
    let third = json!({ "to": "bolt", "resources": ["own"] });
    assert!(
        town.channel
            .refuse(&town.city, "transfer", &third)
            .contains("clauses.quotas[0].count")
    );
    assert!(town.channel.refuse(&town.city, "order", &more).contains("clauses.quotas[0].count"));
    town.channel
        .accept(&town.bolt, "retire", &json!({ "resources": ["model", "forecast"] }));
    assert_eq!(town.channel.found(), town.channel.expected());
}

#[test]
fn what_can_not_be_transferred() {
    let town = &mut ready();
    for (argument, answer) in [
        (
            json!({ "to": "acme", "resources": ["model"] }),
            "409 the change is refused: acme owns it already",
        ),
        (
            json!({ "to": "eve", "resources": ["model"] }),
            "403 the change is refused: member eve is not a party",
        ),
        (
            json!({ "to": "bolt", "resources": ["own"] }),
            "403 the change is refused: resource own is of city, not of acme",
        ),
        (
            json!({ "to": "bolt", "resources": ["none"] }),
            "404 the change is refused: resource none does not exist",
        ),
        (
            json!({ "to": "bolt", "resources": [] }),
            "400 the change is refused: a transaction changes 1 to",
        ),
    ] {
        let found = town.channel.refuse(&town.acme, "transfer", &argument);
        assert!(found.starts_with(answer), "{found}");
    }
    let missing = json!({ "id": format!("{:064x}", 999) });
    assert!(town.channel.refuse(&town.city, "approve_transfer", &missing).starts_with("404"));
    let mut without = self::town(&json!({ "regions": ["eu"] }));
    let found = without
        .channel
        .refuse(&without.city, "transfer", &json!({ "to": "acme", "resources": ["x"] }));
    assert!(
        found.starts_with("400") && found.contains("clauses.transfer: the agreement has none"),
        "{found}"
    );
}

#[test]
fn what_breaks_a_clause_on_the_takers_side_is_not_transferred() {
    let mut town = town(&json!({
        "transfer": { "need": 1 },
        "orders": [{ "members": ["acme"], "kinds": ["*"] }, { "members": ["bolt"], "kinds": ["machine/directory"] }],
        "quotas": [{ "owner": "city", "memory_mib": 10 }],
    }));
    town.channel
        .accept(&town.acme, "order", &json!({ "resources": [resource("model", "acme", &[])] }));
    for (to, answer) in [
        (
            "bolt",
            "403 the change is refused: clauses.orders: no clause lets bolt order machine/file on the side of bolt",
        ),
        ("city", "403 the change is refused: clauses.orders: no clause lets city order"),
    ] {
        let found = town
            .channel
            .refuse(&town.acme, "transfer", &json!({ "to": to, "resources": ["model"] }));
        assert!(found.starts_with(answer), "{found}");
    }
}

#[test]
fn what_would_cross_members_without_being_exported_is_not_transferred() {
    let mut town = town(&json!({ "transfer": { "need": 1 } }));
    let refers = |name: &str, on: &str| json!({ "name": name, "kind": "machine/file", "owner": "acme", "spec": { "content": { "$ref": format!("{on}.outputs.path") } } });
    let resources = [resource("model", "acme", &[]), refers("forecast", "model")];
    town.channel.accept(&town.acme, "order", &json!({ "resources": resources }));
    for one in ["model", "forecast"] {
        let found = town
            .channel
            .refuse(&town.acme, "transfer", &json!({ "to": "bolt", "resources": [one] }));
        assert!(
            found.starts_with("409") && found.contains("resource forecast refers to model.outputs.path of another member"),
            "{found}"
        );
    }
    town.channel
        .accept(&town.acme, "transfer", &json!({ "to": "bolt", "resources": ["model", "forecast"] }));
}

#[test]
fn it_can_be_called_off_and_is_asked_again_at_the_end() {
    let town = &mut ready();
    let id = propose(town);
    assert!(
        town.channel
            .refuse(&town.city, "cancel_transfer", &id)
            .contains("only acme, who gives, or bolt")
    );
    town.channel.accept(&town.bolt, "cancel_transfer", &id);
    assert!(
        town.channel
            .refuse(&town.bolt, "accept_transfer", &id)
            .contains("is settled already")
    );
    // What is gone meanwhile is not transferred.
    let id = propose(town);
    town.channel.accept(&town.bolt, "accept_transfer", &id);
    town.channel.accept(&town.acme, "retire", &json!({ "resources": ["forecast"] }));
    let found = town.channel.refuse(&town.city, "approve_transfer", &id);
    assert!(found.contains("resource forecast does not exist"), "{found}");
    assert_eq!(town.channel.found(), town.channel.expected());
}

/// A member that is registered and no party, and one that would give its place.
fn newcomer() -> (Town, Actor) {
    let mut town = town(&json!({
        "transfer": { "need": 2, "newcomers": true },
        "orders": [
            { "members": ["acme"], "kinds": ["*"] },
            { "members": ["city", "bolt"], "kinds": ["machine/file"], "owners": ["city", "bolt"] },
        ],
        "approvals": [{ "on": ["retire"], "kinds": ["*"], "need": 1, "from": ["acme"] }],
        "quotas": [{ "owner": "acme", "count": 3 }],
    }));
    let resources = [
        resource("model", "acme", &[]),
        resource("forecast", "acme", &["model"]),
        resource("theirs", "city", &[]),
    ];
    town.channel.accept(&town.acme, "order", &json!({ "resources": resources }));
    (town, Actor::new("EveMSP"))
}

#[test]
fn a_newcomer_takes_a_partys_place() {
    let (mut town, eve) = newcomer();
    let place = json!({ "to": "eve", "place": true });
    for (argument, words) in [
        (json!({ "to": "bolt", "place": true }), "bolt is a party already"),
        (json!({ "to": "eve", "place": true, "resources": ["model"] }), "name no resources"),
        (json!({ "to": "eve", "resources": ["model"] }), "member eve is not a party"),
    ] {
        let found = town.channel.refuse(&town.acme, "transfer", &argument);
        assert!(found.contains(words), "{found}");
    }
    let import = json!({ "name": "import-x", "from": { "channel": "older", "resource": "x" }, "outputs": { "port": 1 } });
    town.channel.accept(&town.acme, "import", &import);
    assert!(town.channel.refuse(&town.city, "import", &import).contains("was imported by acme"));
    let before = town.channel.desired.agreement().unwrap().digest;
    let done = town.channel.accept(&town.acme, "transfer", &place);
    let answer: Value = serde_json::from_slice(&done.response.payload).unwrap();
    let id = json!({ "id": answer["tx"] });
    let found = town.channel.refuse(&eve, "accept_transfer", &id);
    assert!(found.contains("EveMSP") || found.contains("not registered"), "{found}");
    let role = |role: &str| json!({ "member": "eve", "role": role });
    town.channel.accept(&eve, "register", &role("value-service-provider"));
    let found = town
        .channel
        .refuse(&eve, "order", &json!({ "resources": [resource("x", "eve", &[])] }));
    assert!(found.contains("member eve is not a party"), "{found}");
    let found = town
        .channel
        .refuse(&eve, "approve_transfer", &json!({ "id": format!("{:064x}", 99) }));
    assert!(found.contains("member eve is not a party"), "{found}");
    town.channel.accept(&eve, "accept_transfer", &id);
    assert!(town.channel.desired.in_force().unwrap().party(&"acme".parse().unwrap()).is_some());
    town.channel.accept(&town.city, "approve_transfer", &id);

    let record = town.channel.desired.agreement().unwrap();
    let (eves, acme) = ("eve".parse().unwrap(), "acme".parse().unwrap());
    assert_eq!(record.agreement.party(&eves).unwrap().msp.as_str(), "EveMSP");
    assert!(record.agreement.party(&acme).is_none() && record.digest == record.agreement.digest().unwrap());
    assert_eq!((record.succeeded.len(), record.succeeded[0].before), (1, before));
    for (resource, owner) in [("model", "eve"), ("forecast", "eve"), ("theirs", "city")] {
        let ordered = &town.channel.desired.resources()[&name(resource)];
        assert_eq!((ordered.resource.owner.as_str(), ordered.orderer().as_str()), (owner, "eve"));
        assert_eq!(ordered.ordered.by.as_str(), "acme", "who ordered it stays on the record");
    }
    // An import that it vouched for is anybody's to renew or drop.
    let import = json!({ "name": "import-x", "from": { "channel": "older", "resource": "x" }, "outputs": { "port": 2 } });
    town.channel.accept(&town.city, "import", &import);
    assert!(
        town.channel
            .refuse(&eve, "drop_import", &json!({ "name": "import-x" }))
            .contains("was imported by city")
    );
    town.channel.accept(&town.city, "drop_import", &json!({ "name": "import-x" }));
    // The one has all rights, where the clauses gave them to the other, who has none.
    let more = json!({ "resources": [resource("more", "eve", &[])] });
    assert!(
        town.channel
            .refuse(&town.acme, "order", &more)
            .contains("member acme is not a party")
    );
    town.channel.accept(&eve, "order", &more);
    let most = json!({ "resources": [resource("most", "eve", &[])] });
    assert!(
        town.channel
            .refuse(&eve, "order", &most)
            .contains("clauses.quotas[0].count: the resources of eve")
    );
    let retired = town.channel.accept(&eve, "retire", &json!({ "resources": ["theirs"] }));
    assert!(
        !String::from_utf8_lossy(&retired.response.payload).contains("proposal"),
        "its own approval is enough"
    );
    let clauses = town.channel.desired.in_force().unwrap().clauses.as_ref().unwrap();
    let all = town
        .channel
        .desired
        .resources()
        .values()
        .map(|ordered| (&ordered.resource, ordered.orderer()));
    assert!(state::rules::clauses::breaches(clauses, all).is_empty());
    assert_eq!(town.channel.found(), town.channel.expected());
}

#[test]
fn a_place_is_given_only_where_the_agreement_says_so_and_to_one_who_brings_the_same() {
    let mut town = ready();
    let place = json!({ "to": "eve", "place": true });
    let found = town.channel.refuse(&town.acme, "transfer", &place);
    assert!(found.contains("clauses.transfer.newcomers"), "{found}");
    let (mut town, eve) = newcomer();
    town.channel
        .accept(&eve, "register", &json!({ "member": "eve", "role": "data-service-provider" }));
    let done = town.channel.accept(&town.acme, "transfer", &place);
    let answer: Value = serde_json::from_slice(&done.response.payload).unwrap();
    let found = town.channel.refuse(&eve, "accept_transfer", &json!({ "id": answer["tx"] }));
    assert!(found.contains("eve takes the place of a value service provider"), "{found}");
    town.channel.accept(&eve, "cancel_transfer", &json!({ "id": answer["tx"] }));
}
