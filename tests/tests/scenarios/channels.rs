//! Which channel a command is about, and what it says when there is none, or nobody who answers for it.

use tests::{World, documents};

#[test]
fn a_channel_that_nobody_follows_is_an_error_and_never_a_success() {
    let world = World::smart_city();
    let commands: [&[&str]; 14] = [
        &["verify"],
        &["replay", "--compare"],
        &["thaw"],
        &["pause"],
        &["resume"],
        &["reconcile"],
        &["plan"],
        &["apply", "--yes"],
        &["drift"],
        &["status"],
        &["status", "-o", "json"],
        &["verify", "-o", "json"],
        &["graph"],
        &["history"],
    ];
    for words in commands {
        let said = world.charter(&[words, &["--channel", "smart-city-77"]].concat()).exits(1);
        let said = said.says(&["no member follows that channel", "--channel is one of smart-city-1, smart-city-2"]);
        assert!(said.stdout.is_empty() && !said.stderr.contains("good:"), "{said}");
        assert_eq!(said.stderr.matches("charter: ").count(), 1, "{said}");
        // One that others follow is none of the tram's.
        let said = world
            .charter(&[words, &["--member", "tram", "--channel", "smart-city-1"]].concat())
            .exits(1);
        said.says(&["no member follows that channel", "--channel is one of smart-city-2"]);
    }
    for member in ["city", "breeze", "tram"] {
        assert!(!world.member(member).join("control/paused/smart-city-77").exists(), "{member}");
    }
    // What changes a channel names the setting.
    let order = documents::order(vec![documents::file("extra", "tram", "x\n")]);
    let not_followed = "smart-city-1 is not followed: add it to channels or discover of [ledger] in charter.toml";
    world
        .submit("tram", "smart-city-1", &order)
        .exits(1)
        .says(&[not_followed, "--channel is one of smart-city-2"]);
    world
        .charter(&["submit", "--pending", "--member", "tram", "--channel", "smart-city-1"])
        .exits(1)
        .says(&[not_followed]);
    // One that is followed is worked on as before.
    for words in [&["verify"][..], &["pause"], &["resume"], &["drift"], &["plan"], &["status"]] {
        world.charter(&[words, &["--channel", "smart-city-2"]].concat()).exits(0);
    }
}

#[test]
fn a_peer_that_is_away_is_neither_a_success_nor_a_broken_ledger() {
    let world = World::smart_city();
    world.set("city", "endpoint", "\"https://localhost:1\"");
    let config = world.config("city").display().to_string();
    let said = world.charter(&["verify", "--config", &config]).exits(7);
    let said = said.says(&[
        "channel smart-city-1 of city could not be checked",
        "channel smart-city-2 of city could not be checked",
        "next: charter verify again, when the peer answers",
    ]);
    assert!(
        !said.stderr.contains("does not stand up") && !said.stderr.contains("good:"),
        "{said}"
    );
    let file = world.file(
        "order.yaml",
        &documents::order(vec![documents::file("extra", "city", "x\n")]).to_string(),
    );
    world
        .charter(&["submit", &file, "--config", &config, "--channel", "smart-city-1"])
        .exits(1)
        .says(&["next: nothing was sent; submit again when the peer answers"]);
}
