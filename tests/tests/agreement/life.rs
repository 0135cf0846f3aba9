//! What becomes due by ledger time, and that nobody has to remember it: the members' services see to it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use state::time::Timestamp;
use tests::wait::until;
use tests::{World, documents, example};

const CHANNEL: &str = "smart-city-1";
/// How far the clocks of those who serve are ahead of those of the beginning, in seconds.
const LATER: i64 = 600;

fn moment(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Timestamp::clamped(i64::try_from(now).unwrap() + seconds).to_string()
}

/// Two members under an agreement with these dates and clauses, and what each has made of what it ordered.
fn agreed(effective: &Value, clauses: &Value) -> World {
    let mut kept = documents::file("kept", "city", "data\n");
    kept["on_retire"] = json!("retain");
    let order = documents::order(vec![
        kept,
        documents::file("gone", "city", "cache\n"),
        documents::file("model", "breeze", "model\n"),
    ]);
    let agreement = example::agreement(effective, clauses);
    example::of_one_channel(CHANNEL, &example::CITY_AND_BREEZE, &agreement, &[("city", &order)])
}

fn shows(world: &World, words: &[&str], found: &[&str]) {
    until(&format!("charter {} shows {found:?}", words.join(" ")), || {
        let said = world.charter(&[words, &["--channel", CHANNEL]].concat());
        let all = format!("{}{}", said.stdout, said.stderr);
        if found.iter().all(|part| all.contains(part)) {
            Ok(())
        } else {
            Err(said)
        }
    });
}

#[test]
fn an_agreement_expires_and_is_torn_down_without_anybody_remembering() {
    let world = agreed(&json!({ "from": "2026-01-01T00:00:00Z", "until": moment(300) }), &json!({}));
    world.give("CHARTER_CLOCK_OFFSET_SECONDS", LATER.to_string());
    let ledger = world.ledger();
    let services = ["city", "breeze"].map(|member| world.serve(member));
    shows(
        &world,
        &["destruction"],
        &["because its date had come", "0 of its resources are in force"],
    );
    until("everything has its end", || {
        let said = world.charter(&["destruction", "--channel", CHANNEL]);
        if said.code == Some(0) { Ok(()) } else { Err(said) }
    });
    shows(&world, &["destruction", "--member", "breeze"], &["kept", "destroyed"]);
    let machine = |member: &str, name: &str| world.member(member).join("machine").join(CHANNEL).join(name);
    assert!(machine("city", "kept").exists());
    assert!(!machine("city", "gone").exists() && !machine("breeze", "model").exists());
    let late = documents::order(vec![documents::file("late", "city", "x")]);
    world.submit("city", CHANNEL, &late).exits(1).says(&["the agreement holds from"]);
    for service in services {
        service.stop();
    }
    ledger.stop();
    world.charter(&["replay", "--compare"]).exits(0);
    world.store("breeze").is_sound();
}

#[test]
fn a_silent_members_part_is_closed_by_the_others_charter_where_the_agreement_says_so() {
    let clauses = json!({ "abandonment": { "grace_seconds": 180, "closing": "submitted" } });
    let world = agreed(&json!({ "from": "2026-01-01T00:00:00Z" }), &clauses);
    world.give("CHARTER_CLOCK_OFFSET_SECONDS", LATER.to_string());
    let ledger = world.ledger();
    let city = world.serve("city");
    shows(&world, &["silence", "--member", "city"], &["closed by city, epoch 2"]);
    let machine = |member: &str, name: &str| world.member(member).join("machine").join(CHANNEL).join(name);
    assert!(machine("breeze", "model").exists(), "nobody touches another's machine");
    // When it comes back it finds its part closed, lets go of what was retired, and orders nothing more.
    let breeze = world.serve("breeze");
    until("breeze has torn down what was its own", || {
        if machine("breeze", "model").exists() {
            Err("the model is there")
        } else {
            Ok(())
        }
    });
    let more = documents::order(vec![documents::file("more", "city", "x")]);
    world
        .submit("breeze", CHANNEL, &more)
        .exits(1)
        .says(&["the part of breeze is closed"]);
    world.submit("city", CHANNEL, &more).exits(0);
    until("the city goes on", || {
        if machine("city", "more").exists() {
            Ok(())
        } else {
            Err("not made yet")
        }
    });
    assert!(machine("city", "gone").exists(), "what doesn't depend on it stays");
    breeze.stop();
    city.stop();
    ledger.stop();
    let log = world.store("city").log(&format!("desired/{CHANNEL}"), "%s");
    assert!(log.iter().any(|line| line == "close the part of breeze: abandoned"), "{log:?}");
    world.charter(&["replay", "--compare"]).exits(0);
}
