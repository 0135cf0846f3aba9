//! `up` on the example: from an agreement to running services, and what can be proved of it afterwards.

use std::collections::{BTreeMap, BTreeSet};

use tests::{World, command, http, tree};

const CHANNELS: [(&str, &[&str]); 2] = [("smart-city-1", &["breeze", "city"]), ("smart-city-2", &["breeze", "city", "tram"])];

#[test]
fn an_agreement_becomes_running_services_that_answer() {
    let world = World::new();
    let up = world.up().exits(0);
    assert_eq!(up.lines().iter().filter(|line| line.contains("in sync")).count(), 12, "{up}");
    up.says(&[
        "one process whose operator holds every organisation's keys",
        "tram is refused smart-city-1",
    ]);

    let status = world.converged();
    for (channel, members) in CHANNELS {
        assert_eq!(status.followers(channel), members);
        for member in members {
            let reports = status.of(member, channel)["reports"].as_array().unwrap().clone();
            let by: BTreeSet<&str> = reports.iter().filter_map(|report| report["member"].as_str()).collect();
            assert_eq!(by, members.iter().copied().collect(), "{member} on {channel}");
        }
    }
    let answers = [
        ("city", "smart-city-1", "readings", "/readings", "08,harbour,44"),
        ("city", "smart-city-2", "readings", "/readings", "08,harbour,1890"),
        ("breeze", "smart-city-1", "forecast", "/forecast", "old-town: 42 (over the limit)"),
        ("breeze", "smart-city-2", "forecast", "/forecast", "harbour: 1120 (fine)"),
        ("tram", "smart-city-2", "routes", "/", "harbour: 1120 (fine)"),
    ];
    for (member, channel, name, path, words) in answers {
        let answer = http::get(&status.address(member, channel, name), path).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains(words), "{name} on {channel}: {}", answer.body);
    }
    assert_eq!(world.services().len(), answers.len());
}

#[test]
fn plain_git_tells_the_same_story_and_finds_it_signed() {
    let world = World::smart_city();
    for (channel, members) in CHANNELS {
        for member in members {
            let store = world.store(member);
            store.is_sound();
            let desired = format!("desired/{channel}");
            let trailers = "%(trailers:key=Ledger-Channel,valueonly,separator=%x2C) %(trailers:key=Ledger-Block,valueonly,separator=%x2C) \
                            %(trailers:key=Ledger-Tx,valueonly,separator=%x2C) %(trailers:key=Event,valueonly,separator=%x2C) \
                            %(trailers:key=Member,valueonly,separator=%x2C)";
            let commits = store.log(&desired, trailers);
            // Registered and agreed by each, then ordered by each.
            assert_eq!(commits.len(), members.len() * 3, "{commits:#?}");
            let mut blocks = Vec::new();
            for commit in &commits {
                let words: Vec<&str> = commit.split(' ').collect();
                assert!(
                    matches!(words.as_slice(), [on, _, tx, _, by] if *on == channel && tx.len() == 64 && members.contains(by)),
                    "{commit}"
                );
                blocks.push(words[1].parse::<u64>().unwrap());
            }
            assert!(blocks.is_sorted_by(|newer, older| newer > older), "{blocks:?}");

            let told = world
                .charter(&["history", "--channel", channel, "--member", member, "-o", "json"])
                .exits(0)
                .json();
            let told = told.get(channel).unwrap_or(&told).as_array().unwrap().clone();
            let titles: Vec<&str> = told.iter().filter_map(|entry| entry["what"].as_str()).collect();
            assert_eq!(titles, store.log(&desired, "%s"));

            let signatures = store.log(&format!("actual/{channel}"), "%G?");
            assert!(
                !signatures.is_empty() && signatures.iter().all(|found| found == "G"),
                "{member}: {signatures:?}"
            );
            store
                .git(&["log", "--show-signature", &format!("actual/{channel}")])
                .exits(0)
                .says(&["Good \"git\" signature"]);
        }
        let heads: BTreeSet<_> = members
            .iter()
            .map(|member| {
                let store = world.store(member);
                [
                    store.head(&format!("desired/{channel}")),
                    store.head(&format!("reported/{channel}")),
                ]
            })
            .collect();
        assert_eq!(heads.len(), 1, "members have other commits of {channel}: {heads:?}");
    }
    let clone = world.root().join("clone");
    let store = world.store("city");
    store.git(&["clone", "--quiet", ".", &clone.display().to_string()]).exits(0);
    let clone = world.repository(&clone);
    clone.is_sound();
    clone
        .git(&["show", "origin/desired/smart-city-1", "--stat"])
        .exits(0)
        .says(&["order 2 resources: model, forecast"]);

    world.charter(&["replay", "--compare"]).exits(0).says(&["identical"]);
    world.charter(&["verify"]).exits(0).says(&["good"]);
}

#[test]
fn who_joined_later_sees_nothing_of_what_was_before() {
    let world = World::smart_city();
    let tram = world.store("tram");
    let refs = tram.refs();
    assert!(
        !refs.is_empty() && refs.keys().all(|name| name.ends_with("smart-city-2")),
        "{refs:?}"
    );
    let canary = ["air-quality", "smart-city-1", "mean-of-hours\", \"limit\": 40"];
    let own = world.store("city").all_contents();
    let seen = tram.all_contents();
    for word in canary {
        // What can't be found in the city's store would prove nothing.
        let word = word.replace('"', "\\\"");
        assert!(own.contains(&word) || word.contains("limit"), "the city's store has no {word}");
        assert!(!seen.contains(&word), "tram's store holds {word}");
    }
    for (path, entry) in tree::entries(&world.member("tram")) {
        assert!(!path.to_string_lossy().contains("smart-city-1"), "{} {entry:?}", path.display());
    }

    // Asking for it by name doesn't help: the ledger refuses it.
    let ledger = world.ledger();
    let config = std::fs::read_to_string(world.config("tram")).unwrap();
    let asked = config
        .replace("\"smart-city-2\"", "\"smart-city-1\"")
        .replace("store.git", "other.git");
    assert_ne!(asked, config);
    let path = world.member("tram").join("asked.toml");
    std::fs::write(&path, asked).unwrap();
    world
        .charter(&["replay", "--config", &path.display().to_string()])
        .exits(1)
        .says(&["smart-city-1", "403"]);
    ledger.stop();
}

#[test]
fn a_second_up_changes_nothing() {
    let world = World::smart_city();
    let before = World::services(&world);
    let desired = |world: &World| -> BTreeMap<_, _> {
        ["city", "breeze", "tram"]
            .map(|one| (one, world.store(one).heads("desired/")))
            .into()
    };
    let ordered = desired(&world);
    let files = |world: &World| -> BTreeMap<_, _> {
        ["city", "breeze", "tram"]
            .into_iter()
            .flat_map(|one| tree::entries(&world.member(one).join("machine")))
            .filter(|(path, _)| path.extension().is_none_or(|end| end != "log"))
            .collect()
    };
    let made = files(&world);
    world.up().exits(0);
    assert_eq!(world.services(), before, "a service was started again");
    assert_eq!(desired(&world), ordered);
    assert_eq!(tree::changes(&made, &files(&world)), Vec::<std::path::PathBuf>::new());
    world.charter(&["plan", "--detailed-exitcode"]).exits(0).says(&["Nothing to do"]);
}

#[test]
fn down_asks_and_leaves_nothing() {
    let world = World::smart_city();
    let services = world.services();
    world.charter(&["down"]).exits(1).says(&["nobody is there to say yes", "--yes"]);
    assert_eq!(world.services(), services, "something went without a yes");
    world.charter(&["down", "--yes"]).exits(0).says(&["deleted 12 resources"]);
    assert_eq!(world.services(), []);
    assert!(!world.data().exists());

    // What `up` did not make is not `down`'s to delete.
    std::fs::create_dir(world.data()).unwrap();
    std::fs::write(world.data().join("precious"), "mine").unwrap();
    world
        .charter(&["down", "--yes"])
        .exits(1)
        .says(&["is not a data directory", "--data-dir"]);
    assert!(world.data().join("precious").exists());
}

#[test]
fn up_needs_no_checkout_and_ctrl_c_ends_it() {
    let world = World::new();
    let mut up = world.start(&["up"]);
    up.says("watching");
    let before = world.converged();
    assert_eq!(before.followers("smart-city-2").len(), 3);
    let services = world.services();
    up.signal(rustix::process::Signal::INT);
    assert_eq!(up.ended(), Some(0), "{}", up.stderr());
    assert_eq!(world.services(), services, "what runs goes on");
    world.store("city").is_sound();
    // The version says which binary this was.
    let version = command::run(world.command(&["version"]), tests::wait::DEADLINE).exits(0);
    assert!(version.stdout.starts_with("charter "), "{version}");
}
