//! Channels that nobody has named: a Charter finds those that its peer has joined.

use tests::{World, until};

/// Changes a member's configuration so that it names these channels and finds those.
fn name_and_find(world: &World, member: &str, channels: &str, discover: Option<&str>) {
    let path = world.config(member);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("channels = [").unwrap();
    let (_, after) = rest.split_once("]\n").unwrap();
    let found = discover.map(|patterns| format!("discover = {patterns}\n")).unwrap_or_default();
    std::fs::write(&path, format!("{before}channels = {channels}\n{found}{after}")).unwrap();
}

/// The channels that a running Charter has taken in.
fn taken_in(world: &World, member: &str) -> Vec<String> {
    let text = std::fs::read_to_string(world.member(member).join("status.json")).unwrap_or_default();
    let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let channels = status["channels"].as_object().cloned().unwrap_or_default();
    let caught_up = channels.into_iter().filter(|(_, one)| one["caught_up"] == true);
    caught_up.map(|(name, _)| name).collect()
}

#[test]
fn a_charter_finds_its_channels_and_no_others() {
    let world = World::smart_city();
    let ledger = world.ledger();
    // The tram names no channel, the city a beginning, and breeze one of its two.
    name_and_find(&world, "tram", "[]", None);
    name_and_find(&world, "city", "[]", Some("[\"smart-city-*\"]"));
    name_and_find(&world, "breeze", "[\"smart-city-1\"]", Some("[\"farm-*\"]"));
    // What the tram knew of channels was in its store.
    std::fs::remove_dir_all(world.member("tram").join("store.git")).unwrap();
    for (member, expected) in [
        ("tram", vec!["smart-city-2"]),
        ("city", vec!["smart-city-1", "smart-city-2"]),
        ("breeze", vec!["smart-city-1"]),
    ] {
        let serving = world.serve(member);
        until(&format!("{member} has taken in {expected:?}"), || {
            let found = taken_in(&world, member);
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        });
        serving.stop();
    }
    ledger.stop();
    // The commands know what was found, also while no ledger answers.
    world.charter(&["history", "--member", "tram"]).exits(0).says(&["smart-city"]);
    // A channel that nothing can be found of is no success.
    world.set("city", "discover", "[]");
    world
        .charter(&["status", "--member", "city"])
        .exits(1)
        .says(&["ledger.channels and ledger.discover are empty"]);
}
