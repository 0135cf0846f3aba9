//! The market: what members offer, which of them are DAOs, what they say of each other when they are done, and what that is good for.

use serde_json::{Value, json};
use tests::{Ended, World, until, world};

/// The document of version 1, between the city and breeze.
fn agreement(version: u32, parties: &[(&str, &str, Option<&str>)], clauses: Option<Value>) -> Value {
    let role = |beta: &Option<&str>| match beta {
        None => "data-service-provider",
        Some(_) => "value-service-provider",
    };
    let parties = parties.iter().map(|(member, msp, beta)| {
        let mut party = json!({ "member": member, "msp": msp, "role": role(beta) });
        if let Some(beta) = beta {
            party["beta"] = json!(beta);
        }
        party
    });
    let mut document = json!({
        "apiVersion": "charter/v1", "kind": "Agreement", "dao": "air-quality", "version": version,
        "parties": parties.collect::<Vec<_>>(), "effective": { "from": "2026-01-01T00:00:00Z" },
    });
    if let Some(clauses) = clauses {
        document["clauses"] = clauses;
    }
    document
}

/// Four organisations, a market that all share, a channel of two, and one of three on which nothing was said.
fn consortium() -> World {
    let world = World::new();
    let folder = world.root().join("example");
    std::fs::create_dir_all(folder.join("market")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    for offer in ["market/readings.yaml", "market/forecast.yaml"] {
        write(offer, &std::fs::read_to_string(world::smart_city().join(offer)).unwrap());
    }
    let two = agreement(1, &[("city", "CityMSP", None), ("breeze", "BreezeMSP", Some("0.70"))], None);
    write("agreement.yaml", &two.to_string());
    write(
        "order.yaml",
        &tests::documents::order(vec![tests::documents::file("notes", "breeze", "first\n")]).to_string(),
    );
    let network = json!({
        "apiVersion": "charter/v1", "kind": "Network",
        "members": [
            { "name": "city", "msp": "CityMSP" }, { "name": "breeze", "msp": "BreezeMSP" },
            { "name": "tram", "msp": "TramMSP" }, { "name": "air", "msp": "AirMSP" },
        ],
        "channels": [
            { "name": "market", "members": ["city", "breeze", "tram", "air"], "transactions": [
                { "by": "city", "submit": "market/readings.yaml" },
                { "by": "breeze", "submit": "market/forecast.yaml" },
            ] },
            { "name": "air-1", "members": ["city", "breeze"], "transactions": [
                { "by": "city", "submit": "agreement.yaml" },
                { "by": "breeze", "submit": "agreement.yaml" },
                { "by": "breeze", "submit": "order.yaml" },
            ] },
            { "name": "air-2", "members": ["city", "breeze", "tram"], "transactions": [] },
        ],
    });
    write("network.yaml", &network.to_string());
    world
        .charter(&["up", "--once", &folder.display().to_string()])
        .exits(0)
        .says(&["published offer air-readings", "published offer air-forecast"]);
    world
}

fn by(world: &World, member: &str, words: &[&str]) -> Ended {
    world.charter(&[words, &["--member", member]].concat())
}

/// The names of the offers that a list has.
#[track_caller]
fn listed(world: &World, words: &[&str]) -> Vec<String> {
    let list = world.charter(&[&["offers", "list", "-o", "json"], words].concat()).exits(0).json();
    let id = |one: &Value| one["offer"]["id"].as_str().unwrap().to_owned();
    list["offers"].as_array().unwrap().iter().map(id).collect()
}

#[test]
fn offers_are_found_published_amended_and_withdrawn() {
    let world = consortium();
    assert_eq!(listed(&world, &[]), ["air-forecast", "air-readings"]);
    for (words, found) in [
        (&["--kind", "data-set"][..], &["air-readings"][..]),
        (&["--provider", "breeze"], &["air-forecast"]),
        (&["--keyword", "air-quality", "--keyword", "sensors"], &["air-readings"]),
        (&["--region", "us"], &[]),
        (&["--min-beta", "0.71"], &[]),
        (&["--min-beta", "0.7", "--max-beta", "0.7"], &["air-forecast", "air-readings"]),
        (&["--limit", "1"], &["air-forecast"]),
        (&["--limit", "1", "--after", "air-forecast"], &["air-readings"]),
    ] {
        assert_eq!(listed(&world, words), found, "{words:?}");
    }
    let first = world.charter(&["offers", "list", "--limit", "1"]).exits(0);
    first.says(&["air-forecast", "value-service", "0.7", "there are more: --after air-forecast"]);

    // The tram, which has said nothing yet, is registered by what it offers.
    let offer = |beta: &str| {
        json!({ "apiVersion": "charter/v1", "kind": "Offer", "offer": {
            "id": "clean-routes", "kind": "value-service", "title": "Routes around bad air", "terms": { "beta": beta },
        } })
    };
    let file = world.file("routes.yaml", &offer("0.85").to_string());
    by(&world, "tram", &["offers", "publish", "-f", &file])
        .exits(0)
        .says(&["registered as value service provider", "published offer clean-routes"]);
    by(&world, "tram", &["offers", "publish", "-f", &file])
        .exits(1)
        .says(&["offer clean-routes exists already"]);
    let changed = world.file("changed.yaml", &offer("0.9").to_string());
    by(&world, "tram", &["offers", "amend", "-f", &changed]).exits(0);
    by(&world, "tram", &["offers", "show", "clean-routes"]).exits(0).says(&[
        "clean-routes, revision 2",
        "0.9",
        "Routes around bad air",
        "no reports",
    ]);
    // It is nobody else's to change, and nobody offers what it doesn't bring.
    by(&world, "breeze", &["offers", "withdraw", "clean-routes"])
        .exits(1)
        .says(&["offer clean-routes is of tram, not of breeze"]);
    let mut data = offer("0.5");
    data["offer"]["kind"] = json!("data-set");
    let data = world.file("data.yaml", &data.to_string());
    by(&world, "tram", &["offers", "amend", "-f", &data])
        .exits(1)
        .says(&["a data-set is offered by a data service provider"]);
    by(&world, "tram", &["offers", "withdraw", "clean-routes"]).exits(0);
    assert_eq!(listed(&world, &["--member", "tram"]), ["air-forecast", "air-readings"]);
    assert_eq!(listed(&world, &["--member", "tram", "--all"]).len(), 3);
    by(&world, "tram", &["offers", "show", "clean-routes"])
        .exits(0)
        .says(&["withdrawn"]);

    // What doesn't fit is named by its clause before anything is sent.
    let mut wrong = offer("0.5");
    wrong["offer"]["terms"]["price"] = json!(1);
    let wrong = world.file("wrong.yaml", &wrong.to_string());
    by(&world, "tram", &["offers", "publish", "-f", &wrong])
        .exits(1)
        .says(&["nothing was submitted", "docs/schemas/offer.json", "price"]);
    world.store("tram").is_sound();
    world.charter(&["replay", "--compare"]).exits(0);
}

#[test]
fn who_is_done_with_an_agreement_is_rated_and_the_next_one_can_demand_it() {
    let world = consortium();
    let ledger = world.ledger();
    let members: Vec<_> = ["city", "breeze", "tram", "air"].map(|member| world.serve(member)).into();
    a_dao_takes_part(&world);
    they_part_and_rate(&world);
    the_next_agreement_demands(&world);

    for member in members {
        member.stop();
    }
    ledger.stop();
    for member in ["city", "breeze", "tram", "air"] {
        world.store(member).is_sound();
    }
    world.charter(&["replay", "--compare"]).exits(0);
}

/// The digest of the agreement of the city and breeze, as their channel's commits name it.
fn digest(world: &World) -> String {
    let log = world.store("city").log("desired/air-1", "%(trailers:key=Agreement,valueonly)");
    log.iter().find(|line| line.starts_with("sha256:")).unwrap().trim().to_owned()
}

/// Waits until a member's store shows something.
#[track_caller]
fn shows(world: &World, member: &str, words: &[&str], text: &str) {
    until(&format!("{member} sees {text:?}"), || {
        let said = by(world, member, words);
        if said.stdout.contains(text) { Ok(()) } else { Err(said) }
    });
}

/// The DAO of the city and breeze is a member itself, once both have said so.
fn a_dao_takes_part(world: &World) {
    by(world, "tram", &["members", "register", "--role", "value-service-provider"]).exits(0);
    by(world, "air", &["members", "register", "--role", "value-service-provider"])
        .exits(0)
        .says(&["registered as value service provider"]);
    let claim = [
        "members",
        "represent",
        "air-quality",
        "--dao-version",
        "1",
        "--of",
        "city,breeze",
        "--agreement",
    ];
    let claim = |digest: &str| by(world, "air", &[&claim[..], &[digest]].concat());
    // Who knows the agreement doesn't stand for another one.
    claim(&format!("sha256:{:064}", 0)).exits(0);
    by(world, "city", &["members", "vouch", "air", "air-1"])
        .exits(1)
        .says(&["member air says to be air-quality v1 with other members or another agreement"]);
    claim(&digest(world)).exits(0).says(&["said to be air-quality v1"]);
    by(world, "city", &["members", "vouch", "air", "air-1"])
        .exits(0)
        .says(&["stood for air: it is air-quality v1"]);
    shows(
        world,
        "tram",
        &["members"],
        "air-quality v1: 1 of 2 stand for it, which does not count yet",
    );
    by(world, "breeze", &["members", "vouch", "air", "air-1"]).exits(0);
    shows(world, "tram", &["members"], "air-quality v1: 2 of 2 stand for it\n");
    let accounts = by(world, "tram", &["members", "-o", "json"]).exits(0).json();
    let air = accounts.as_array().unwrap().iter().find(|one| one["member"] == "air").unwrap();
    assert_eq!((&air["msp"], &air["dao"]["counts"]), (&json!("AirMSP"), &json!(true)));
    // The tram is in no channel of it.
    by(world, "tram", &["members", "vouch", "air", "air-1"]).exits(1);
}

/// The city and breeze say on the market that they agreed, and that they are done; then they rate each other.
fn they_part_and_rate(world: &World) {
    by(world, "city", &["agreed", "confirm", "air-1"])
        .exits(0)
        .says(&["confirmed air-quality v1"]);
    by(world, "city", &["agreed", "confirm", "air-1"])
        .exits(0)
        .says(&["nothing to say"]);
    by(world, "city", &["agreed", "conclude", "air-1"])
        .exits(1)
        .says(&["air-quality v1 was not confirmed yet by breeze"]);
    by(world, "breeze", &["agreed", "confirm", "air-1"]).exits(0);
    by(world, "city", &["agreed", "conclude", "air-1"]).exits(0);
    by(world, "city", &["rate", "breeze", "air-1", "--stars", "4"])
        .exits(1)
        .says(&["air-quality v1 is not finished: 1 of its parties have concluded it, 2 are needed"]);
    by(world, "breeze", &["agreed", "conclude", "air-1"]).exits(0);
    shows(world, "tram", &["agreed", "list"], "finished");

    by(world, "city", &["rate", "breeze", "air-1", "--stars", "4", "--text", "Never late"])
        .exits(0)
        .says(&["rated breeze: 4 of 5 stars"]);
    by(world, "city", &["rate", "breeze", "air-1", "--stars", "1"])
        .exits(1)
        .says(&["city has rated breeze for this agreement already"]);
    by(world, "tram", &["rate", "breeze", &digest(world), "--stars", "1"])
        .exits(1)
        .says(&["member tram was not a party of air-quality v1"]);
    by(world, "breeze", &["rate", "city", "air-1", "--stars", "5"]).exits(0);

    // Everybody on the market sees the opinions; the facts are of those who follow the channel.
    shows(world, "tram", &["reputation", "breeze"], "Never late");
    by(world, "tram", &["reputation", "breeze"])
        .exits(0)
        .says(&["4.0 (4/1)", "no reports"]);
    let known = by(world, "city", &["reputation", "breeze", "-o", "json"]).exits(0).json();
    assert_eq!(known[0]["score"], json!({ "ratings": 1, "stars": 4, "raters": 1 }));
    let conduct = &known[0]["conduct"]["air-1"];
    assert!(conduct["reports"].as_u64().unwrap() >= 1, "{known}");
    assert_eq!((&conduct["late"], &conduct["pending"]), (&json!(0), &json!(0)), "{known}");
    shows(world, "city", &["offers", "list"], "4.0 (4/1)");
    by(world, "city", &["offers", "show", "air-forecast"])
        .exits(0)
        .says(&["4.0 (4/1)", "0 late"]);

    // Drift that is brought back is in breeze's reports, and so in what is known of it.
    std::fs::write(world.member("breeze").join("machine/air-1/notes"), "nonsense\n").unwrap();
    until("healed drift is counted", || {
        let known = by(world, "city", &["reputation", "breeze", "-o", "json"]).json();
        let healed = known[0]["conduct"]["air-1"]["healed"].as_u64();
        if healed == Some(1) { Ok(()) } else { Err(format!("{healed:?}")) }
    });
}

/// Version 2 demands a reputation, which the tram holds the others to.
fn the_next_agreement_demands(world: &World) {
    let parties = [
        ("city", "CityMSP", None),
        ("breeze", "BreezeMSP", Some("0.70")),
        ("tram", "TramMSP", Some("0.85")),
    ];
    let demand = |ratings: u32, tenths: u32| {
        let clauses = json!({ "reputation": { "min_ratings": ratings, "min_tenths": tenths } });
        world.file("next.yaml", &agreement(2, &parties, Some(clauses)).to_string())
    };
    let submit = |member: &str, words: &[&str]| by(world, member, &[&["submit", "--channel", "air-2"], words].concat());
    submit("tram", &[&demand(1, 41)]).exits(1).says(&[
        "air-quality v2 was not accepted",
        "clauses.reputation.min_tenths: the mean of breeze is 4/1 stars, 4.1 are needed",
        "--despite-reputation",
    ]);
    submit("tram", &[&demand(2, 10)]).exits(1).says(&[
        "clauses.reputation.min_ratings: city has 1 ratings, 2 are needed",
        "clauses.reputation.min_ratings: breeze has 1 ratings, 2 are needed",
    ]);
    let met = demand(1, 40);
    submit("tram", &[&met]).exits(0).says(&["registered as value service provider"]);
    // The tram was never rated, and the city and breeze would not accept it for that.
    submit("city", &[&met])
        .exits(1)
        .says(&["clauses.reputation.min_ratings: tram has 0 ratings, 1 are needed"]);
    submit("city", &["--despite-reputation", &met])
        .exits(0)
        .says(&["is accepted in spite of", "waiting for breeze to register"]);
    submit("breeze", &["--despite-reputation", &met]).exits(0);
    for member in ["city", "tram"] {
        submit(member, &["--despite-reputation", &met]).exits(0);
    }
    shows(world, "tram", &["status", "--channel", "air-2"], "air-quality v2, in force");
    // A market that is not followed says nothing, and so the clause can't be met.
    submit("tram", &["--market", "bazaar", &met])
        .exits(1)
        .says(&["clauses.reputation can't be checked, since tram does not follow bazaar"]);
}
