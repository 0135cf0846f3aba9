//! kill -9 of the reconcilers and of the ledger at any moment: nothing is lost, and nothing is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::seed::Seed;
use tests::{Consortium, MEMBERS, World, documents, http, until};

/// How often new orders come while processes are killed.
const ROUNDS: u64 = 10;
/// How often in each round.
const STRIKES: u64 = 3;

#[test]
fn killed_at_any_moment_everything_converges_and_exists_once() {
    let mut seed = Seed::new("killed_at_any_moment");
    let world = World::smart_city();
    let mut all = Consortium::start(&world);
    let address = std::fs::read_to_string(world.data().join("ledger/address")).unwrap();
    let mut ordered: BTreeMap<String, &str> = BTreeMap::new();
    for round in 0..ROUNDS {
        let member = MEMBERS[seed.below(3) as usize];
        let (file, service) = (format!("data-{round}"), format!("api-{round}"));
        let data = documents::reference(&format!("{file}.outputs.path"));
        let order = documents::order(vec![
            documents::file(&file, member, &format!("content of round {round}\n")),
            documents::readings(&service, member, &data),
        ]);
        let document = world.file(&format!("order-{round}.yaml"), &order.to_string());
        let words = ["submit", &document, "--member", member, "--channel", "smart-city-2"];
        let mut submit = world.start(&words);
        for _ in 0..STRIKES {
            // No moment is special, so none is waited for.
            std::thread::sleep(Duration::from_millis(seed.below(250)));
            let ledger = seed.below(3) == 0;
            let victims = seed.below(8);
            if ledger {
                all.ledger.kill();
            }
            for (index, member) in MEMBERS.iter().enumerate() {
                if victims & (1 << index) != 0 {
                    all.members.get_mut(member).unwrap().kill();
                }
            }
            std::thread::sleep(Duration::from_millis(seed.below(50)));
            if ledger {
                // A submission that found no ledger has opened it for itself.
                all.ledger = world.ledger_in_turn();
            }
            for (index, member) in MEMBERS.iter().enumerate() {
                if victims & (1 << index) != 0 {
                    all.members.insert(member, world.serve(member));
                }
            }
        }
        // Whether it was taken before the ledger died, only the ledger knows: it is said again, and taken once.
        if submit.ended() != Some(0) {
            until("the order is on the ledger", || {
                let said = world.charter(&words);
                if said.code == Some(0) || said.stderr.contains("exists already") {
                    Ok(())
                } else {
                    Err(said)
                }
            });
        }
        ordered.insert(file, member);
        ordered.insert(service, member);
    }
    assert_eq!(
        std::fs::read_to_string(world.data().join("ledger/address")).unwrap(),
        address,
        "the ledger has moved"
    );

    let started = Instant::now();
    until("every order is carried out", || {
        let status = world.status().converged()?;
        let seen = status.resources("city", "smart-city-2").len();
        if seen == 7 + ordered.len() {
            Ok(())
        } else {
            Err(format!("{seen} resources"))
        }
    });
    eprintln!("converged {} ms after the last kill", started.elapsed().as_millis());
    let status = world.status();
    for (name, member) in ordered.iter().filter(|(name, _)| name.starts_with("api")) {
        let round = name.trim_start_matches("api-");
        let answer = http::get(&status.address(member, "smart-city-2", name), "/readings").unwrap();
        assert_eq!(answer.body, format!("content of round {round}\n"));
    }
    check_everything_once(&world, &ordered);
    all.stop();

    for member in MEMBERS {
        let store = world.store(member);
        store.is_sound();
        for channel in world.status().channels(member) {
            assert!(store.report_chain(&channel, member) > 0);
        }
    }
    world.charter(&["replay", "--compare"]).exits(0);
    world.charter(&["verify"]).exits(0);
    world.charter(&["drift"]).exits(0);
}

/// Every ordered thing exists, once, and was made once.
fn check_everything_once(world: &World, ordered: &BTreeMap<String, &str>) {
    tests::once::made(world, ordered);
    for member in MEMBERS {
        let folder = world.member(member).join("machine/smart-city-2");
        let found: BTreeSet<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut expected: BTreeSet<String> = match member {
            "city" => ["open-data".to_owned()].into(),
            "breeze" => ["rider-model".to_owned()].into(),
            _ => ["timetable".to_owned()].into(),
        };
        let own = ordered.iter().filter(|(name, owner)| **owner == member && name.starts_with("data"));
        expected.extend(own.map(|(name, _)| name.clone()));
        assert_eq!(found, expected, "{member}");
    }
}

#[test]
fn a_lost_store_comes_back_from_the_ledger_and_the_labels() {
    let world = World::smart_city();
    let store = world.store("city");
    let (desired, services) = (store.heads("desired/"), world.services());
    let owned = |world: &World, channel: &str| world.status().of("city", channel)["owned"].clone();
    let before = [owned(&world, "smart-city-1"), owned(&world, "smart-city-2")];
    assert_eq!(before, [json!(3), json!(3)]);
    let made = tests::tree::entries(&world.member("city").join("machine/smart-city-1"));
    std::fs::remove_dir_all(store.path()).unwrap();

    let all = Consortium::start(&world);
    until("what is owned is known again", || {
        let now = [owned(&world, "smart-city-1"), owned(&world, "smart-city-2")];
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    });
    world.converged();
    assert_eq!(store.heads("desired/"), desired, "the same blocks gave other commits");
    assert_eq!(world.services(), services, "something was started again");
    assert_eq!(
        tests::tree::changes(&made, &tests::tree::entries(&world.member("city").join("machine/smart-city-1"))),
        Vec::<std::path::PathBuf>::new()
    );

    // It is owned again, and not only seen: an order to take it away is obeyed.
    let retired = world
        .submit(
            "city",
            "smart-city-1",
            &documents::order(vec![documents::file("later", "city", "x\n")]),
        )
        .exits(0);
    world.converged_at("smart-city-1", documents::block(&retired.stdout));
    all.stop();
    store.is_sound();
    for channel in ["smart-city-1", "smart-city-2"] {
        assert!(store.report_chain(channel, "city") > 0);
    }
    world.charter(&["replay", "--compare"]).exits(0);
    world.charter(&["down", "--yes"]).exits(0).says(&["deleted 13 resources"]);
    assert_eq!(world.services(), []);
}
