//! Channels that nobody has named: a Charter finds those that its peer has joined.

use tests::{World, until};

/// Changes a member's configuration so that it names these channels and finds those.
fn name_and_find(world: &World, member: &str, channels: &str, discover: Option<&str>) {
    let path = world.config(member);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("channels = [").unwrap();
    let (_, after) = rest.split_once("]\n").unwrap();
    let after = match after.split_once('\n') {
        Some((line, after)) if line.starts_with("discover = ") => after,
        _ => after,
    };
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
        // What the tram's store knew of channels is lost: it was found, once. The others' stores had theirs.
        let found = serving.stderr().matches("found smart-city-").count();
        assert_eq!(found, usize::from(member == "tram"), "{}", serving.stderr());
        serving.stop();
    }
    ledger.stop();
    // The commands know what was found, also while no ledger answers.
    world.charter(&["history", "--member", "tram"]).exits(0).says(&["smart-city"]);
    // So does drift.
    let drift = world.charter(&["drift", "--member", "tram"]);
    assert!(!drift.stderr.contains("0 of 0"), "{drift}");
    // A member that has not found any says so, and claims nothing of what was checked.
    name_and_find(&world, "tram", "[]", Some("[\"farm-*\"]"));
    let none = world.charter(&["status", "--member", "tram"]).exits(0);
    let none = none.says(&["tram: no channel was found yet", "charter channel join"]);
    assert!(none.stdout.is_empty() && !none.stderr.contains("trust:"), "{none}");
    for words in [
        &["verify"][..],
        &["plan"],
        &["drift"],
        &["pause"],
        &["reconcile"],
        &["replay", "--compare"],
    ] {
        let none = world.charter(&[words, &["--member", "tram"]].concat()).exits(1);
        let none = none.says(&["no channel was found yet"]);
        assert!(!none.stderr.contains("good:"), "{none}");
    }
    // What its store has can be looked at by its name.
    world
        .charter(&["status", "--member", "tram", "--channel", "smart-city-2"])
        .exits(0)
        .says(&["smart-city-2:"]);
    // A channel that nothing can be found of is no success.
    world.set("city", "discover", "[]");
    world
        .charter(&["status", "--member", "city"])
        .exits(1)
        .says(&["ledger.channels and ledger.discover are empty"]);
}
