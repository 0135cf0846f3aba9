//! A ledger whose operators lie: it is found out, nothing is torn down because of it, and a person decides what comes next.

use tests::{World, doctored, documents, http, until};

use super::ledger::telemetry;

const CHANNEL: &str = "smart-city-1";

#[test]
fn a_second_peer_confirms_or_is_missed() {
    let world = World::smart_city();
    world.set("city", "interval_seconds", "1");
    let ledger = world.ledger();
    let path = world.config("city");
    let alone = std::fs::read_to_string(&path).unwrap();
    world
        .charter(&["status"])
        .exits(0)
        .says(&["every transaction is run again", "one peer's word"]);
    // The same ledger under another name: for the second peer of a test it will do.
    let endpoint = alone
        .lines()
        .find_map(|line| line.strip_prefix("endpoint = "))
        .unwrap()
        .trim_matches('"');
    let second = endpoint.replace("127.0.0.1", "localhost");
    assert_ne!(endpoint, second);
    let witness = |endpoint: &str| std::fs::write(&path, format!("{alone}\n[ledger.witness]\nendpoint = \"{endpoint}\"\n")).unwrap();
    witness(endpoint);
    world
        .charter(&["status", "--member", "city"])
        .exits(1)
        .says(&["ledger.witness.endpoint", "twice"]);
    witness(&second);
    let mut city = world.serve("city");
    city.says("/healthz");
    until("the second peer has confirmed what there is", || {
        let standing = world.status();
        let said = standing.of("city", CHANNEL)["service"].clone();
        let block = said["testimony"]["confirmed"].as_u64();
        if block.is_some() && block == said["block"].as_u64() && said["testimony"]["waiting"] == 0 {
            Ok(())
        } else {
            Err(said)
        }
    });
    let confirms = format!("the second peer {second} confirms up to block");
    world.charter(&["status", "--member", "city"]).exits(0).says(&[&confirms]);
    world
        .charter(&["verify", "--member", "city", "--channel", CHANNEL])
        .exits(0)
        .says(&[&confirms, "a second peer confirms the validation codes"]);
    city.stop();
    // One that isn't there stops nobody, and is missed where everything has to be checked.
    witness("https://localhost:1");
    let mut city = world.serve("city");
    city.says("/healthz");
    let order = documents::order(vec![documents::file("alone", "breeze", "x\n")]);
    let block = documents::block(&world.submit("breeze", CHANNEL, &order).exits(0).stdout);
    until("what is ordered is taken in all the same", || {
        match world.status().of("city", CHANNEL)["block"].as_u64() {
            Some(taken) if taken >= block => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    world
        .charter(&["verify", "--member", "city", "--channel", CHANNEL])
        .exits(1)
        .says(&["has not confirmed every block", "blocks are on one peer's word", "it is away"]);
    city.stop();
    ledger.stop();
}

#[test]
fn an_invented_retirement_tears_nothing_down() {
    let world = World::smart_city();
    let services = world.services();
    world.set("city", "interval_seconds", "1");
    let blocks = world.data().join("ledger/channels").join(CHANNEL).join("blocks");
    let honest = std::fs::read(&blocks).unwrap();
    let number = doctored::retire(
        &world,
        &CHANNEL.parse().unwrap(),
        &"city".parse().unwrap(),
        "CityMSP",
        "air-quality",
    );
    let file = world.member("city").join("machine/smart-city-1/open-data/air-quality.csv");
    let healed = || {
        until("the edited file is as ordered again", || match std::fs::read_to_string(&file) {
            Ok(text) if text.contains("08,harbour,44") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };

    // The ledger itself sees nothing: every hash and signature is right.
    let ledger = world.ledger();
    let desired = world.store("city").heads(&format!("desired/{CHANNEL}"));
    for _ in 0..2 {
        // The second time after a restart.
        let mut city = world.serve("city");
        let health = telemetry(&city.says("/healthz"));
        let said = until("the channel is frozen, and says why", || match http::get(&health, "/healthz") {
            Ok(answer) if answer.status == 503 && answer.body.contains("smart-city-1 is frozen") => Ok(answer.body),
            other => Err(format!("{other:?}")),
        });
        assert!(
            said.contains(&format!("transaction {number}/0")) && said.contains("run again"),
            "{said}"
        );
        std::fs::write(&file, "nonsense\n").unwrap();
        healed();
        city.stop();
    }
    world.charter(&["status", "--member", "city"]).exits(1).says(&[
        "FROZEN",
        "a person has to look",
        "charter thaw --channel smart-city-1",
    ]);
    world
        .charter(&["verify", "--member", "city", "--channel", CHANNEL])
        .exits(1)
        .says(&["does not stand up to being run again"]);
    world
        .charter(&["reconcile", "--member", "city", "--channel", CHANNEL])
        .exits(1)
        .says(&["is frozen, nothing was applied"]);
    world.charter(&["thaw", "--member", "city"]).exits(1).says(&["by its name"]);
    assert_eq!(world.services(), services);
    assert_eq!(world.store("city").heads(&format!("desired/{CHANNEL}")), desired);
    let kept = world.member("city").join(format!("store.git/charter/{CHANNEL}.frozen.block"));
    assert!(kept.exists(), "the block that was not believed is evidence");

    // Who lied has been found, and the blocks are the honest ones again.
    ledger.stop();
    std::fs::write(&blocks, honest).unwrap();
    let ledger = world.ledger();
    let mut city = world.serve("city");
    let health = telemetry(&city.says("/healthz"));
    world
        .charter(&["thaw", "--member", "city", "--channel", CHANNEL])
        .exits(0)
        .says(&["was frozen", "follows it again"]);
    until("it is healthy", || match http::get(&health, "/healthz") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    world
        .charter(&["verify", "--member", "city", "--channel", CHANNEL])
        .exits(0)
        .says(&["RUN AGAIN", "one peer's word"]);
    world
        .charter(&["thaw", "--member", "city", "--channel", CHANNEL])
        .exits(0)
        .says(&["is not frozen"]);
    assert_eq!(world.services(), services);
    healed();
    city.stop();
    ledger.stop();
}
