//! A ledger whose operators lie: it is found out, nothing is torn down because of it, and a person decides what comes next.

use tests::{World, doctored, http, until};

use super::ledger::telemetry;

const CHANNEL: &str = "smart-city-1";

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
