//! Hand-over between versions: carried as it is, replaced, or retired, on both channels, without anything being built twice.

use serde_json::json;
use tests::processes::{Service, services};
use tests::wait::until;
use tests::{Ended, World, documents, http};

fn hand_over(world: &World, member: &str, words: &[&str]) -> Ended {
    let to = [
        "handover",
        "--from",
        "smart-city-1",
        "--channel",
        "smart-city-2",
        "--member",
        member,
    ];
    world.charter(&[&to, words].concat())
}

fn readings(world: &World) -> Vec<Service> {
    let mut all = services(&world.member("city"));
    all.retain(|service| service.owner == "smart-city-1/city/readings");
    all
}

/// Waits until a member's resource of a channel is reported so.
fn stands(world: &World, member: &str, channel: &str, name: &str, condition: &str) {
    until(&format!("{name} of {member} on {channel} is {condition}"), || {
        let status = world.status();
        match status.resource(member, channel, name) {
            Some(found) if found.condition.as_deref() == Some(condition) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
}

#[test]
fn a_later_version_carries_on_replaces_and_does_without() {
    let world = World::smart_city();
    world.up().exits(0);
    let ledger = world.ledger();
    let members: Vec<_> = ["city", "breeze", "tram"].map(|member| world.serve(member)).into();
    let before = readings(&world);
    assert_eq!(before.len(), 1);
    let address = world.status().address("city", "smart-city-1", "readings");

    // What others still need stays, and what is another's, isn't ready or isn't there is said before a word is on a ledger.
    let all = [
        "--carry",
        "open-data=air-data",
        "--carry",
        "air-quality",
        "--carry",
        "readings=air-readings",
    ];
    hand_over(&world, "city", &all)
        .exits(1)
        .says(&["smart-city-1 would refuse it", "resource readings is still needed by forecast"]);
    hand_over(&world, "city", &["--carry", "forecast=air-forecast"])
        .exits(1)
        .says(&["forecast needs model, which goes over with none of these words and is not on smart-city-2"]);
    hand_over(&world, "city", &["--retire", "forecast"])
        .exits(1)
        .says(&["resource forecast is of breeze, not of city"]);
    hand_over(&world, "breeze", &["--carry", "forecast"])
        .exits(1)
        .says(&["smart-city-2 has another resource forecast already"]);
    hand_over(&world, "breeze", &["--replace", "forecast=better"])
        .exits(1)
        .says(&["forecast can't be replaced by better yet: on smart-city-2 better is not ordered"]);
    hand_over(&world, "tram", &["--carry", "forecast"])
        .exits(1)
        .says(&["tram does not follow smart-city-1"]);
    // Nobody carries over what is another's.
    let stolen = json!({
        "name": "stolen", "kind": "machine/service", "owner": "city", "origin": { "channel": "smart-city-1", "resource": "readings" },
        "spec": { "command": ["smart-city", "readings"] },
    });
    world
        .submit("tram", "smart-city-2", &documents::order(vec![stolen]))
        .exits(1)
        .says(&["only its owner city can say that it carries it over"]);

    // Breeze has a forecast in version 2; the model of version 1 is carried, and its forecast goes.
    hand_over(&world, "breeze", &["--replace", "forecast=forecast", "--carry", "model=air-model"])
        .exits(0)
        .says(&[
            "ordered air-model",
            "handed over to smart-city-2: model carried as air-model, forecast replaced by forecast",
        ]);
    let shown = hand_over(&world, "city", &[&all[..], &["--dry-run", "-o", "json"]].concat())
        .exits(0)
        .json();
    assert_eq!(shown["resources"].as_array().unwrap().len(), 3, "{shown}");
    hand_over(&world, "city", &all)
        .exits(0)
        .says(&["handed over to smart-city-2", "readings carried as air-readings"]);
    for (member, name) in [("city", "air-readings"), ("city", "air-quality"), ("breeze", "air-model")] {
        stands(&world, member, "smart-city-2", name, "in-sync");
    }
    until("version 1 has let go of it", || {
        let status = world.status();
        let left: Vec<_> = ["city", "breeze"]
            .iter()
            .flat_map(|member| status.resources(member, "smart-city-1"))
            .filter(|one| !one.is_settled())
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    // The very same process serves the very same address.
    assert_eq!(readings(&world), before);
    assert_eq!(world.status().address("city", "smart-city-2", "air-readings"), address);
    assert!(http::get(&address, "/readings").is_ok());
    hand_over(&world, "city", &all)
        .exits(0)
        .says(&["nothing to say: it is handed over to smart-city-2"]);

    let fates = world
        .charter(&["destruction", "--channel", "smart-city-1", "-o", "json"])
        .exits(0)
        .json();
    let fate = |name: &str| {
        let all = fates.as_array().unwrap();
        all.iter().find(|one| one["resource"] == name).unwrap()["fate"].clone()
    };
    assert_eq!((fate("readings"), fate("forecast")), (json!("carried"), json!("destroyed")));

    // From then on it is version 2's: healed, amended, and taken down there.
    tests::processes::kill(before[0].pid);
    until("it runs again", || match readings(&world).as_slice() {
        [one] if *one != before[0] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    stands(&world, "city", "smart-city-2", "air-readings", "in-sync");
    world
        .submit(
            "city",
            "smart-city-2",
            &documents::retirement(&["air-readings", "air-quality", "air-data"]),
        )
        .exits(0);
    let folder = world.member("city").join("machine/smart-city-1/open-data");
    until("everything of it is gone", || {
        let left = (readings(&world).len(), folder.exists());
        if left == (0, false) { Ok(()) } else { Err(format!("{left:?}")) }
    });
    for member in members {
        member.stop();
    }
    ledger.stop();
    let log = world.store("tram").log("desired/smart-city-2", "%B").join("\n");
    assert!(log.contains("order 3 resources"), "{log}");
    let desired = world.store("city").log("desired/smart-city-1", "%B").join("\n");
    assert!(
        desired.contains("hand 3 resources over to smart-city-2") && desired.contains("- readings: carried, as air-readings"),
        "{desired}"
    );
    world.charter(&["replay", "--compare"]).exits(0);
    world.charter(&["verify"]).exits(0);
}
