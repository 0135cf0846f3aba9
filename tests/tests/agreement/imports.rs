//! What a later version needs of an earlier one: passed on by a member of both, and never read across channels.

use serde_json::{Value, json};
use tests::wait::until;
use tests::{Ended, World, documents};

fn by(world: &World, member: &str, words: &[&str]) -> Ended {
    world.charter(&[words, &["--member", member, "--channel", "smart-city-2"]].concat())
}

#[test]
fn a_member_of_both_passes_on_what_the_other_channel_exports() {
    let world = World::smart_city();
    world.up().exits(0);
    let ledger = world.ledger();
    let members: Vec<_> = ["city", "breeze", "tram"].map(|member| world.serve(member)).into();
    // Who doesn't take part in the earlier version has nothing to pass on, and neither has anybody what isn't exported.
    by(&world, "tram", &["import", "add", "forecast", "--from", "smart-city-1"])
        .exits(1)
        .says(&["tram does not follow smart-city-1"]);
    by(&world, "city", &["import", "add", "model", "--from", "smart-city-1"])
        .exits(1)
        .says(&["it exports nothing"]);
    by(&world, "city", &["import", "add", "nothing", "--from", "smart-city-1"])
        .exits(1)
        .says(&["nothing is not ordered there"]);
    let order = documents::order(vec![json!({
        "name": "where", "kind": "machine/file", "owner": "tram", "spec": { "content": documents::reference("import-air.outputs.address") },
    })]);
    world
        .submit("tram", "smart-city-2", &order)
        .exits(1)
        .says(&["resource where depends on import-air, which does not exist"]);
    by(
        &world,
        "breeze",
        &["import", "add", "forecast", "--from", "smart-city-1", "--as", "import-air"],
    )
    .exits(0)
    .says(&["imported forecast of smart-city-1 as import-air"]);
    world.submit("tram", "smart-city-2", &order).exits(0);
    let address = world.status().address("breeze", "smart-city-1", "forecast");
    let file = world.member("tram").join("machine/smart-city-2/where");
    until("the tram knows where the forecast of version 1 is", || {
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        if found == address { Ok(()) } else { Err(found) }
    });
    by(&world, "city", &["import", "list"])
        .exits(0)
        .says(&["smart-city-1/forecast", "as it is reported there"]);
    by(&world, "tram", &["import", "list"])
        .exits(0)
        .says(&["the word of its member: that channel is not followed here"]);
    let graph = by(&world, "tram", &["graph", "-o", "json"]).exits(0).json();
    let node = |name: &str| {
        graph
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["resource"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        (node("import-air")["kind"].clone(), node("where")["needs"].clone()),
        (json!("import"), json!(["import-air"]))
    );
    by(&world, "breeze", &["import", "drop", "import-air"])
        .exits(1)
        .says(&["resource import-air is still needed by where"]);
    world.submit("tram", "smart-city-2", &documents::retirement(&["where"])).exits(0);
    by(&world, "breeze", &["import", "drop", "import-air"]).exits(0);
    by(&world, "tram", &["import", "list", "-o", "json"]).exits(0);
    until("nothing is imported any more", || {
        let listed = by(&world, "tram", &["import", "list", "-o", "json"]).json();
        if listed == Value::Array(Vec::new()) { Ok(()) } else { Err(listed) }
    });
    for member in members {
        member.stop();
    }
    ledger.stop();
    assert!(
        !world
            .store("tram")
            .heads("refs/heads")
            .keys()
            .any(|head| head.contains("smart-city-1"))
    );
    world.charter(&["replay", "--compare"]).exits(0);
    world.charter(&["verify"]).exits(0);
}
