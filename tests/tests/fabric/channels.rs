//! From nothing to a running consortium with `charter channel create` and `join`, and Charters that find their channels by themselves.

use std::time::Duration;

use tests::fabric::{Binaries, Network};
use tests::{Ended, MEMBERS, World, command, until, until_within};

use crate::live::example::{self, FIRST, SECOND};

/// How long `create` and `join` may take: they run a dozen of Fabric's commands, one after the other.
const CHANNEL: Duration = Duration::from_secs(180);

#[track_caller]
fn channel(world: &World, member: &str, words: &[&str]) -> Ended {
    let mut all = vec!["channel"];
    all.extend(words);
    all.extend(["--member", member]);
    command::run(world.command(&all), CHANNEL)
}

/// The channels that a running Charter says it follows.
fn followed(world: &World, member: &str) -> Vec<String> {
    let text = std::fs::read_to_string(world.member(member).join("status.json")).unwrap_or_default();
    let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let channels = status["channels"].as_object().cloned().unwrap_or_default();
    channels
        .into_iter()
        .filter(|(_, one)| one["caught_up"] == true)
        .map(|(name, _)| name)
        .collect()
}

#[track_caller]
fn follows(world: &World, member: &str, expected: &[&str]) {
    until(&format!("{member} follows {expected:?}"), || {
        let found = followed(world, member);
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// The city makes the second channel, after the breeze, which administers no orderer, has made a block of its own for it. No peer joins
/// before an orderer serves the channel, or with another block than that one.
#[track_caller]
fn one_first_block_only(world: &World, network: &Network<'_>, document: &str) {
    let nobody = ["no orderer serves channel smart-city-2 yet", "osnadmin channel join"];
    channel(world, "breeze", &["join", document]).exits(1).says(&nobody);
    let stale = channel(world, "breeze", &["create", document]).exits(0);
    channel(world, "breeze", &["join", document]).exits(1).says(&nobody);
    let served = channel(world, "city", &["create", document]).exits(0);
    assert_ne!(stale.stdout, served.stdout);
    let block = network.channel_folder("breeze", SECOND.0).join("smart-city-2.block");
    let remove = format!("remove {}", block.display());
    for way in ["join", "create"] {
        channel(world, "breeze", &[way, document])
            .exits(1)
            .says(&["the orderers serve channel smart-city-2 with first block", &remove]);
    }
    let joined = network.peer("breeze", &["channel", "list"]).exits(0);
    assert!(!joined.stdout.contains(SECOND.0), "{joined}");
    // Without it, the one that is served is taken, and none is made.
    std::fs::remove_file(&block).unwrap();
    let taken = channel(world, "breeze", &["create", document]).exits(0);
    assert_eq!(taken.stdout, served.stdout);
    std::fs::remove_file(&block).unwrap();
}

/// Kills a member's `join` with -9 at its beginning, and after each of its steps.
#[track_caller]
fn killed_on_the_way(world: &World, member: &str, document: &str) {
    for steps in 0..5 {
        let mut join = world.start(&["channel", "join", document, "--member", member]);
        until(&format!("{steps} steps of the join are done"), || {
            let said = join.stderr();
            let done = said
                .lines()
                .filter(|line| line.starts_with("done ") || line.starts_with("already "))
                .count();
            if done >= steps || !join.runs() { Ok(()) } else { Err(said) }
        });
        join.kill();
    }
}

/// What is wrong on the tram's side is said with what to do about it, and nothing is done.
#[track_caller]
fn refused_with_advice(world: &World, network: &mut Network<'_>, document: &str) {
    let admin = network.organisation("tram").admin().display().to_string();
    let client = network.organisation("tram").client().display().to_string();
    world.set("tram", "admin_msp", &format!("{client:?}"));
    channel(world, "tram", &["join", document]).exits(1).says(&[
        "is not an admin under this MSP",
        "fabric.admin_msp has to be the folder of an identity with the role admin",
    ]);
    world.set("tram", "admin_msp", &format!("{admin:?}"));
    channel(world, "tram", &["join", document, "--fabric-bin", "/nowhere"])
        .exits(1)
        .says(&["is not there; looked in /nowhere", "--fabric-bin"]);
    network.kill_peer("tram");
    channel(world, "tram", &["join", document])
        .exits(1)
        .says(&["peer failed", "connection refused", "start the node"]);
    network.start_peer("tram");
    network.kill_orderer();
    channel(world, "city", &["create", document])
        .exits(1)
        .says(&["osnadmin failed", "connection refused", "start the node"]);
    network.start_orderer();
}

#[test]
fn from_nothing_to_a_running_consortium() {
    let world = World::new();
    let Some(binaries) = Binaries::find() else { return };
    let mut network = Network::start(&world, &binaries);
    for member in MEMBERS {
        network.settle(member, member == "city");
    }
    // Every Charter runs before there is a channel.
    let members = example::serve(&world);

    // Version 1: city and breeze. Nothing is run or written by a rehearsal.
    let document = network.channel_document("city", FIRST.0, &FIRST.1, None);
    let shown = channel(&world, "city", &["create", &document, "--dry-run"]).exits(0);
    shown.says(&[
        "configtxgen -configPath",
        "OutOf(1, 'CityMSP.peer', 'BreezeMSP.peer')",
        "osnadmin channel join",
    ]);
    assert!(!network.channel_folder("city", FIRST.0).exists());
    let created = channel(&world, "city", &["create", &document]).exits(0);
    let again = channel(&world, "city", &["create", &document])
        .exits(0)
        .says(&["already  first block", "already  orderer"]);
    assert_eq!(created.stdout, again.stdout);
    // With two members one approval is enough: the first commits.
    channel(&world, "city", &["join", &document]).exits(0).says(&["done     chaincode"]);
    let block = network.channel_folder("city", FIRST.0).join("smart-city-1.block");
    let handed_out = block.display().to_string();
    channel(&world, "breeze", &["join", &document, "--block", &handed_out])
        .exits(0)
        .says(&["done     approval", "already  chaincode"]);
    for member in FIRST.1 {
        follows(&world, member, &[FIRST.0]);
    }
    // VSP_2 is no party of version 1.
    channel(&world, "tram", &["join", &document])
        .exits(1)
        .says(&["tram is no member of smart-city-1"]);

    // Version 2: all three. The others have to approve, too.
    let document = network.channel_document("city", SECOND.0, &SECOND.1, None);
    one_first_block_only(&world, &network, &document);
    let waiting = channel(&world, "city", &["join", &document]).exits(2);
    let waiting = waiting.says(&[
        "waiting  chaincode",
        "still to approve: breeze, tram",
        "breeze (BreezeMSP), tram (TramMSP) runs",
        "--config FILE --block FILE",
    ]);
    // The package id is printed whole, to be copied.
    let (_, serving) = waiting.stderr.split_once("charter chaincode serve --id ").unwrap();
    let (id, _) = serving.split_once(" --address").unwrap();
    assert_eq!(id.split_once(':').unwrap().1.len(), 64, "{waiting}");
    assert!(!waiting.stderr.contains("PRIVATE"), "{waiting}");
    // Who has another document joins nothing.
    let other = network.channel_document("breeze", SECOND.0, &SECOND.1, Some(("timeout_ms: 200", "timeout_ms: 250")));
    channel(&world, "breeze", &["join", &other])
        .exits(1)
        .says(&["Channel/Orderer/BatchTimeout", "compare your channel document"]);
    killed_on_the_way(&world, "breeze", &document);
    let committed = channel(&world, "breeze", &["join", &document]).exits(0);
    committed.says(&["chaincode: version 1.0, sequence 1 is committed"]);
    refused_with_advice(&world, &mut network, &document);
    channel(&world, "tram", &["join", &document]).exits(0).says(&["already  chaincode"]);
    // A second time, there is nothing left to do for anybody.
    for member in MEMBERS {
        let again = channel(&world, member, &["join", &document]).exits(0);
        assert!(!again.stderr.contains("done     "), "{again}");
    }
    for (member, expected) in [
        ("city", vec![FIRST.0, SECOND.0]),
        ("breeze", vec![FIRST.0, SECOND.0]),
        ("tram", vec![SECOND.0]),
    ] {
        follows(&world, member, &expected);
    }

    // What they agree on and order on these channels becomes real.
    example::submit(&world);
    example::converged(&world, 0);
    let tram = world.store("tram");
    assert!(tram.refs().keys().all(|name| name.ends_with(SECOND.0)), "{:?}", tram.refs());
    for (_, member) in members {
        member.stop();
    }
    // A store that is lost comes back with the channels that the peer has joined.
    std::fs::remove_dir_all(world.member("tram").join("store.git")).unwrap();
    world
        .charter(&["replay", "--member", "tram"])
        .exits(0)
        .says(&["desired/smart-city-2", "rebuilt"]);
    // What was found once is known to the commands, and followed after a new start, also while no peer answers.
    for member in MEMBERS {
        network.kill_peer(member);
    }
    world.charter(&["status", "--member", "tram"]).says(&[SECOND.0]);
    let serving = world.serve("tram");
    until_within(Duration::from_secs(20), "the tram's Charter knows its channel", || {
        let text = std::fs::read_to_string(world.member("tram").join("status.json")).unwrap_or_default();
        if text.contains(SECOND.0) { Ok(()) } else { Err(text) }
    });
    serving.stop();
}
