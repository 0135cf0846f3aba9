//! A ledger that is away, damaged or another one: nothing is torn down because of it.

use std::path::PathBuf;

use serde_json::json;
use tests::{World, documents, example, http, tree, until};

/// The address of `/healthz` and `/metrics`, from what `serve` says.
pub(crate) fn telemetry(said: &str) -> String {
    let after = said.split("http://").nth(1).expect("serve says where it answers");
    after.split('/').next().unwrap().to_owned()
}

fn air_quality(world: &World) -> PathBuf {
    world.member("city").join("machine/smart-city-1/open-data/air-quality.csv")
}

fn is_healed(world: &World) {
    until("the edited file is as ordered again", || {
        match std::fs::read_to_string(air_quality(world)) {
            Ok(text) if text.contains("08,harbour,44") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn while_the_ledger_is_away_drift_is_healed_and_nothing_torn_down() {
    let world = World::smart_city();
    let services = world.services();
    world.set("city", "interval_seconds", "1");
    let mut ledger = world.ledger();
    let mut city = world.serve("city");
    let health = telemetry(&city.says("/healthz"));
    until("it is healthy", || match http::get(&health, "/healthz") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });

    ledger.kill();
    until("the status says that the ledger is away", || {
        let said = world.charter(&["status"]);
        if said.stdout.contains("ledger") && !world.status().of("city", "smart-city-1")["service"]["ledger_error"].is_null() {
            Ok(())
        } else {
            Err(said)
        }
    });
    let answer = until("health says so too", || match http::get(&health, "/healthz") {
        Ok(answer) if answer.status == 503 => Ok(answer),
        other => Err(format!("{other:?}")),
    });
    assert!(answer.body.contains("smart-city-1 is not followed"), "{answer:?}");
    std::fs::write(air_quality(&world), "nonsense\n").unwrap();
    is_healed(&world);
    assert_eq!(world.services(), services);

    // A service that starts without its ledger keeps in order what it knows of, too.
    city.stop();
    let mut city = world.serve("city");
    let health = telemetry(&city.says("/healthz"));
    std::fs::write(air_quality(&world), "nonsense again\n").unwrap();
    is_healed(&world);
    assert_eq!(world.services(), services);

    let ledger = world.ledger();
    until("it follows again", || match http::get(&health, "/healthz") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    until("the status says so too", || {
        match &world.status().of("city", "smart-city-1")["service"]["ledger_error"] {
            serde_json::Value::Null => Ok(()),
            error => Err(error.to_string()),
        }
    });
    let order = documents::order(vec![documents::file("after", "city", "after the outage\n")]);
    let block = documents::block(&world.submit("city", "smart-city-1", &order).exits(0).stdout);
    until("an order after the outage is carried out", || {
        let standing = world.status();
        let taken = standing.of("city", "smart-city-1")["block"].as_u64();
        match standing.resource("city", "smart-city-1", "after") {
            Some(one) if one.is_settled() && taken >= Some(block) => Ok(()),
            other => Err(format!("{other:?} at {taken:?}")),
        }
    });
    city.stop();
    ledger.stop();
}

#[test]
fn a_damaged_block_file_is_refused_and_who_follows_goes_on() {
    let world = World::smart_city();
    let services = world.services();
    world.set("city", "interval_seconds", "1");
    let mut ledger = world.ledger();
    let mut city = world.serve("city");
    let health = telemetry(&city.says("/healthz"));
    ledger.kill();
    let blocks = world.data().join("ledger/channels/smart-city-1/blocks");
    let whole = std::fs::read(&blocks).unwrap();
    let damaged = {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        bytes
    };
    let foreign = std::fs::read(world.data().join("ledger/channels/smart-city-2/blocks")).unwrap();
    let desired = world.store("city").heads("desired/");
    for (bytes, clause) in [(damaged, "damaged"), (foreign, "smart-city-2")] {
        std::fs::write(&blocks, &bytes).unwrap();
        for words in [&["ledger", "serve"][..], &["up", "--once"], &["verify"], &["replay", "--compare"]] {
            world.charter(words).exits(1).says(&["smart-city-1/blocks", clause]);
        }
        assert_eq!(std::fs::read(&blocks).unwrap(), bytes, "what is damaged was written to");
        std::fs::write(air_quality(&world), "nonsense\n").unwrap();
        is_healed(&world);
        assert_eq!(http::get(&health, "/healthz").unwrap().status, 503);
    }
    assert_eq!(world.services(), services);
    assert_eq!(world.store("city").heads("desired/"), desired);

    std::fs::write(&blocks, whole).unwrap();
    let ledger = world.ledger();
    until("it follows again", || match http::get(&health, "/healthz") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    city.stop();
    ledger.stop();
}

#[test]
fn a_ledger_that_was_reset_freezes_the_channel_and_deletes_nothing() {
    let world = World::smart_city();
    let services = world.services();
    world.set("city", "interval_seconds", "1");
    // The same keys, other blocks: what an operator gets who starts again from nothing.
    let other = World::new();
    let (ours, theirs) = (world.data().join("ledger"), other.data().join("ledger"));
    copy(&ours, &theirs);
    std::fs::remove_dir_all(theirs.join("channels")).unwrap();
    other.up().exits(0);
    std::fs::remove_dir_all(ours.join("channels")).unwrap();
    copy(&theirs.join("channels"), &ours.join("channels"));

    let before = world.store("city").refs();
    let ledger = world.ledger();
    let mut city = world.serve("city");
    let health = telemetry(&city.says("/healthz"));
    let frozen = until("the channels are frozen", || {
        let answer = http::get(&health, "/healthz")?;
        let frozen = answer.body.lines().filter(|line| line.contains("is frozen")).count();
        if answer.status == 503 && frozen == 2 {
            Ok(answer.body)
        } else {
            Err(format!("{answer:?}"))
        }
    });
    assert!(frozen.contains("smart-city-1") && frozen.contains("smart-city-2"), "{frozen}");
    until("the status says so too, and is no good news", || {
        let said = world.charter(&["status"]);
        if said.code == Some(1) && said.stdout.contains("a person has to look") {
            Ok(())
        } else {
            Err(said)
        }
    });
    // What was verified last is kept in order, and nothing new is believed.
    std::fs::write(air_quality(&world), "nonsense\n").unwrap();
    is_healed(&world);
    assert_eq!(world.services(), services);
    let after = world.store("city").refs();
    for (name, commit) in before.iter().filter(|(name, _)| !name.contains("/actual/")) {
        assert_eq!(after.get(name), Some(commit), "{name}");
    }
    city.stop();
    world
        .charter(&["replay", "--compare", "--member", "city"])
        .exits(2)
        .says(&["DIFFERENT"]);
    ledger.stop();
}

#[test]
fn a_store_that_was_away_before_the_first_report_has_lost_nothing() {
    let agreement = example::agreement(&json!({ "from": "2026-01-01T00:00:00Z" }), &json!({}));
    let world = example::of_one_channel("smart-city-1", &example::CITY_AND_BREEZE, &agreement, &[]);
    let ledger = world.ledger();
    for member in ["city", "breeze"] {
        world.charter(&["reconcile", "--member", member]).exits(0);
    }
    let store = world.store("breeze");
    let (desired, reported) = ("refs/heads/desired/smart-city-1", "refs/heads/reported/smart-city-1");
    let before = store.refs();
    store.git(&["update-ref", "-d", reported]).exits(0);
    world
        .charter(&["replay", "--compare", "--member", "breeze"])
        .exits(0)
        .says(&["identical as far as it goes"]);
    let ended = world.charter(&["replay", "--member", "breeze"]).exits(0);
    assert!(!ended.stderr.contains("the old store"), "{ended}");
    assert_eq!(store.refs(), before);
    // Without what came first something is lost, and the store is made anew.
    store.git(&["update-ref", "-d", desired]).exits(0);
    world
        .charter(&["replay", "--compare", "--member", "breeze"])
        .exits(2)
        .says(&["missing"]);
    world.charter(&["replay", "--member", "breeze"]).exits(0).says(&["the old store"]);
    world.charter(&["replay", "--compare"]).exits(0);
    ledger.stop();
}

#[test]
fn a_member_whom_the_ledger_does_not_know_is_told_so_and_loses_nothing() {
    let world = World::smart_city();
    let services = world.services();
    world.set("city", "interval_seconds", "1");
    // The key of another consortium's city, which only calls itself the same.
    let other = World::smart_city();
    let msp = world.member("city").join("identity/msp");
    std::fs::remove_dir_all(&msp).unwrap();
    copy(&other.member("city").join("identity/msp"), &msp);

    let ledger = world.ledger();
    let order = documents::order(vec![documents::file("mine", "city", "x\n")]);
    world
        .submit("city", "smart-city-1", &order)
        .exits(1)
        .says(&["smart-city-1", "access denied"]);
    let mut city = world.serve("city");
    let health = telemetry(&city.says("/healthz"));
    let answer = until("it says who refuses it", || match http::get(&health, "/healthz") {
        Ok(answer) if answer.status == 503 && answer.body.contains("smart-city-2 is not followed") => Ok(answer.body),
        other => Err(format!("{other:?}")),
    });
    assert!(answer.contains("403") || answer.contains("denied"), "{answer}");
    std::fs::write(air_quality(&world), "nonsense\n").unwrap();
    is_healed(&world);
    assert_eq!(world.services(), services);
    city.stop();
    ledger.stop();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for path in tree::entries(from).into_keys() {
        let target = to.join(path.strip_prefix(from).unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
