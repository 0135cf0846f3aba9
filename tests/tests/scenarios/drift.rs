//! What changes by itself: seen without a touch, healed, and on record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use state::report::{StepOutcome, StepReport};
use tests::{World, http, processes, tree, until};

const MEMBERS: [&str; 3] = ["city", "breeze", "tram"];

fn refs(world: &World) -> BTreeMap<&'static str, BTreeMap<String, String>> {
    MEMBERS.map(|member| (member, world.store(member).refs())).into()
}

/// Kills the readings of channel 1 and edits their file, by hand.
fn disturb(world: &World) -> PathBuf {
    processes::kill(world.service("smart-city-1/city/readings").pid);
    let file = world.member("city").join("machine/smart-city-1/open-data/air-quality.csv");
    std::fs::write(&file, "hour,station,no2\n06,harbour,0\n").unwrap();
    until("the killed service is gone", || match world.services() {
        all if all.iter().any(|one| one.owner == "smart-city-1/city/readings") => Err("it is still there"),
        _ => Ok(()),
    });
    file
}

#[test]
fn drift_is_seen_and_nothing_is_written() {
    let world = World::smart_city();
    world.charter(&["drift"]).exits(0).says(&["0 of 12"]);
    let file = disturb(&world);
    let (before, heads) = (tree::entries(&world.data()), refs(&world));

    let drift = world.charter(&["drift"]).exits(2);
    drift.clone().says(&[
        "city smart-city-1/readings (machine/service)",
        "city smart-city-1/air-quality (machine/file)",
        "2 of 12",
    ]);
    let found = world.charter(&["drift", "-o", "json", "--channel", "smart-city-1"]).exits(2).json();
    let names: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["resource"].as_str())
        .collect();
    assert_eq!(names, ["air-quality", "readings"]);
    world.charter(&["drift", "--channel", "smart-city-2"]).exits(0);

    let plan = world.charter(&["plan", "--member", "city", "--channel", "smart-city-1"]).exits(0);
    plan.says(&["air-quality", "readings", "2 to "]);
    world.charter(&["plan", "--detailed-exitcode"]).exits(2);
    let plans = world
        .charter(&["plan", "-o", "json", "--member", "city", "--channel", "smart-city-1"])
        .exits(0)
        .json();
    let steps = plans[0]["steps"].as_object().unwrap();
    assert_eq!(steps.keys().collect::<Vec<_>>(), ["air-quality", "readings"]);
    world.charter(&["status"]).exits(0);

    assert_eq!(
        tree::changes(&before, &tree::entries(&world.data())),
        Vec::<PathBuf>::new(),
        "looking has written"
    );
    assert_eq!(refs(&world), heads);
    assert!(file.exists());
}

#[test]
fn drift_is_healed_and_reported() {
    let world = World::smart_city();
    let old = world.service("smart-city-1/city/readings");
    let address = world.status().address("city", "smart-city-1", "readings");
    let others: Vec<_> = world.services().into_iter().filter(|one| *one != old).collect();
    let ledger = world.ledger();
    let desired = world.store("city").head("desired/smart-city-1");
    let reports_before = world.store("city").reports("smart-city-1", "city").len();
    let file = disturb(&world);

    let city = world.serve("city");
    until("the readings answer again with what was ordered", || {
        match http::get(&address, "/readings") {
            Ok(answer) if answer.body.contains("08,harbour,44") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(std::fs::read_to_string(&file).unwrap().contains("08,harbour,44"));
    until("nothing differs any more", || match world.charter(&["drift"]) {
        drift if drift.code == Some(0) => Ok(()),
        drift => Err(drift),
    });
    let healed = world.service("smart-city-1/city/readings");
    assert_ne!(healed, old);
    let now: Vec<_> = world.services().into_iter().filter(|one| *one != healed).collect();
    assert_eq!(now, others, "a stranger was touched");

    // It is on record: in the member's own signed history, and in a report that all members have.
    let store = world.store("city");
    until("the record says that it was healed", || {
        let titles = store.log("actual/smart-city-1", "%s");
        if titles.iter().any(|title| title.contains("healed")) {
            Ok(())
        } else {
            Err(titles.join("; "))
        }
    });
    until("the channel has a report of both, as drift that was brought back", || {
        let reports = store.reports("smart-city-1", "city");
        let steps: Vec<&StepReport> = reports.iter().skip(reports_before).flat_map(|report| &report.steps).collect();
        assert!(
            steps.iter().all(|step| step.tx.is_none() && step.outcome != StepOutcome::Failed),
            "{steps:?}"
        );
        let names: BTreeSet<&str> = steps.iter().map(|step| step.resource.as_str()).collect();
        if names == ["air-quality", "readings"].into() {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    });
    assert_eq!(store.head("desired/smart-city-1"), desired, "drift is no order");
    city.stop();
    ledger.stop();
    store.is_sound();
    world.charter(&["verify"]).exits(0);
    world.charter(&["replay", "--compare"]).exits(0);
}

#[test]
fn what_could_not_be_observed_is_never_in_sync() {
    let world = World::smart_city();
    // A plain file where the machine's root was: nothing below it can be seen.
    let machine = world.member("tram").join("machine");
    std::fs::rename(&machine, world.member("tram").join("away")).unwrap();
    let services = world.services();
    let drift = world.charter(&["drift", "--member", "tram"]);
    assert!(matches!(drift.code, Some(2 | 7)), "{drift}");
    drift.says(&["timetable"]);
    let plan = world.charter(&["plan", "--member", "tram", "--detailed-exitcode"]);
    assert!(matches!(plan.code, Some(2 | 7)), "{plan}");
    std::fs::rename(world.member("tram").join("away"), &machine).unwrap();
    world.charter(&["drift", "--member", "tram"]).exits(0);
    assert_eq!(world.services(), services);
}
