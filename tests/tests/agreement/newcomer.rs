//! A newcomer takes a party's place: its share, its voice, and all that it owned.

use serde_json::{Value, json};
use tests::wait::until;
use tests::{Ended, World, documents, example};

const CHANNEL: &str = "smart-city-1";

fn by(world: &World, member: &str, words: &[&str]) -> Ended {
    world.charter(&[words, &["--member", member, "--channel", CHANNEL]].concat())
}

#[test]
fn a_newcomer_takes_the_place_of_a_party() {
    let clauses = json!({
        "transfer": { "need": 2, "newcomers": true },
        "orders": [{ "members": ["city", "breeze"], "kinds": ["machine/*"] }],
    });
    let agreement = example::agreement(&json!({ "from": "2026-01-01T00:00:00Z" }), &clauses);
    let order = documents::order(vec![
        documents::file("model", "breeze", "model\n"),
        json!({
            "name": "where", "kind": "machine/file", "owner": "city", "spec": { "content": documents::reference("model.outputs.digest") },
        }),
    ]);
    let members = [("city", "CityMSP"), ("breeze", "BreezeMSP"), ("gale", "GaleMSP")];
    let world = example::of_one_channel(CHANNEL, &members, &agreement, &[("breeze", &order)]);
    let ledger = world.ledger();
    let services = ["city", "breeze", "gale"].map(|member| world.serve(member));
    let file = |member: &str| world.member(member).join("machine/smart-city-1/model");
    assert!(file("breeze").exists() && !file("gale").exists());

    by(&world, "breeze", &["transfer", "propose", "--place", "--to", "city"])
        .exits(1)
        .says(&["city is a party already"]);
    by(&world, "breeze", &["transfer", "propose", "--place", "--to", "gale"])
        .exits(0)
        .says(&["proposed to give the place of breeze to gale"]);
    let listed = by(&world, "city", &["transfer", "list", "-o", "json"]).exits(0).json();
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    by(&world, "city", &["transfer", "approve", &id]).exits(0);
    // It is not a party before it says yes.
    let more = documents::order(vec![documents::file("more", "gale", "more\n")]);
    assert_eq!(world.submit("gale", CHANNEL, &more).code, Some(1));
    by(&world, "gale", &["transfer", "accept", &id])
        .exits(0)
        .says(&["registered as value service provider", "the place of breeze to gale"]);

    until("gale has what was breeze's, and breeze has let go", || {
        let status = world.status();
        let found = (status.resource("gale", CHANNEL, "model"), file("gale").exists());
        match &found {
            (Some(model), true) if model.owner == "gale" && model.is_settled() => Ok(()),
            _ => Err(format!("{found:?}")),
        }
    });
    assert!(file("breeze").exists(), "nothing is destroyed");
    until("breeze says what became of it", || {
        let said = world.store("city").log("reported/smart-city-1", "%s%n%b").join("\n");
        let last = said
            .lines()
            .find(|line| line.contains("from breeze"))
            .unwrap_or_default()
            .to_owned();
        if said.contains("forget") { Ok(()) } else { Err(last) }
    });
    world.submit("gale", CHANNEL, &more).exits(0);
    world
        .submit("breeze", CHANNEL, &documents::retirement(&["where"]))
        .exits(1)
        .says(&["member breeze is not a party of the agreement"]);
    // What breeze ordered of others is gale's to change.
    world.submit("gale", CHANNEL, &documents::retirement(&["where"])).exits(0);
    let shares = by(&world, "city", &["shares", "split", "100", "-o", "json"]).exits(0).json();
    assert!(
        shares.to_string().contains("gale") && !shares.to_string().contains("breeze"),
        "{shares}"
    );
    until("everything has settled", || world.status().converged().map(drop));
    for service in services {
        service.stop();
    }
    ledger.stop();
    let agreement: Value = world.store("city").json("desired/smart-city-1", "agreement.json");
    assert_eq!(
        (&agreement["succeeded"][0]["from"], &agreement["succeeded"][0]["to"]),
        (&json!("breeze"), &json!("gale"))
    );
    world.charter(&["replay", "--compare"]).exits(0);
    world.charter(&["verify"]).exits(0);
}
