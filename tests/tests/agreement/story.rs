//! The paper's story, played by the command that plays it: every step of `story.yaml` holds its command to what it has to say, and here
//! what is left on disk is held to what was told.

use std::path::Path;

use tests::{World, processes, world};

#[test]
fn the_story_is_told_to_its_end() {
    let world = World::new();
    let example = world::smart_city().display().to_string();
    let told = world.charter(&["up", "--story", "--once", &example]).exits(0);
    let told = told.says(&[
        "1. They meet on the market",
        "only the parties of a negotiation can read them",
        "channel smart-city-1 is opened for city, breeze",
        "channel smart-city-2 is opened for city, breeze, tram",
        "divided 1000000 of q4-2026",
        "closed the part of breeze",
        "closed by tram, epoch 2",
        "accepted transfer",
        "the agreement has ended",
        "rated breeze: 2 of 5 stars",
        "the story is told",
    ]);
    assert!(!told.stdout.contains('\u{1b}') && !told.stderr.contains('\u{1b}'), "{told}");

    // What was agreed to be kept is there, on the side of whom it belonged to; what was not is gone.
    let machine = |member: &str, path: &str| world.member(member).join("machine").join(path);
    for (member, path) in [
        ("city", "smart-city-2/open-data/ridership.csv"),
        ("breeze", "smart-city-2/rider-model"),
        ("tram", "smart-city-2/timetable"),
        ("city", "smart-city-1/open-data/air-quality.csv"),
    ] {
        assert!(machine(member, path).exists(), "{member} has lost {path}");
    }
    assert!(
        !machine("city", "smart-city-2/timetable").exists(),
        "what came with the transfer went with the end"
    );
    // Version 1 goes on: its two services run, and nobody's of version 2.
    let running = processes::services(&world.data());
    let of = |channel: &str| {
        running
            .iter()
            .filter(|service| service.owner.starts_with(&format!("{channel}/")))
            .count()
    };
    assert_eq!((of("smart-city-1"), of("smart-city-2")), (2, 0));

    // The tram has nothing of version 1, and nobody's store has a word of the terms that it didn't negotiate.
    let tram = world.store("tram");
    assert!(tram.heads("refs/heads").keys().all(|head| !head.contains("smart-city-1")));
    assert!(!tram.all_contents().contains("urn:smart-city:terms:1"));
    for member in ["city", "breeze", "tram"] {
        world.store(member).is_sound();
    }
    world.charter(&["up", "--once"]).exits(1).says(&["story"]);
    world.charter(&["down", "--yes"]).exits(0);
    assert!(!Path::new(&world.data()).exists());
}
