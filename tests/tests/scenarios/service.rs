//! `serve` as a service manager knows it: signals, a configuration that changes, figures.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;
use tests::{World, documents, http, processes, until};

use crate::ledger::telemetry;

/// How many resources a pass has to make when it is interrupted.
const MANY: usize = 40;

fn many(owner: &str) -> Value {
    let mut all = vec![documents::file("shared", owner, "for all of them\n")];
    for index in 0..MANY {
        all.push(documents::file(&format!("file-{index}"), owner, &format!("file {index}\n")));
    }
    for index in 0..4 {
        all.push(documents::readings(
            &format!("api-{index}"),
            owner,
            &documents::reference("shared.outputs.path"),
        ));
    }
    documents::order(all)
}

#[test]
fn sigterm_in_the_middle_of_a_pass_leaves_nothing_half_done() {
    let world = World::smart_city();
    let ledger = world.ledger();
    let block = documents::block(&world.submit("city", "smart-city-1", &many("city")).exits(0).stdout);
    let before = world.services().len();
    let machine = world.member("city").join("machine/smart-city-1");
    // Stopped again and again as soon as something new is there: at least one of these is in the middle.
    for made in [1, 10, 25] {
        let city = world.serve("city");
        until("the pass is in the middle", || {
            let count = std::fs::read_dir(&machine).map_or(0, Iterator::count);
            if count > made { Ok(()) } else { Err(format!("{count} made")) }
        });
        city.stop();
        let store = world.store("city");
        store.is_sound();
        // What is there is known: nothing exists that the record does not own.
        let owned: BTreeSet<String> = {
            let tree = store
                .git(&["ls-tree", "-r", "--name-only", "actual/smart-city-1", "inventory/"])
                .exits(0);
            let name = |line: &str| line.rsplit('/').next().unwrap_or_default().trim_end_matches(".json").to_owned();
            tree.lines().into_iter().map(name).collect()
        };
        for entry in std::fs::read_dir(&machine).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(owned.contains(&name), "{name} is there, and not on record: {owned:?}");
        }
        for service in world.services().iter().filter(|one| one.owner.starts_with("smart-city-1/city/")) {
            let name = service.owner.rsplit('/').next().unwrap();
            assert!(owned.contains(name), "{name} runs, and is not on record: {owned:?}");
        }
    }
    let city = world.serve("city");
    until("the rest is done after the next start", || {
        let status = world.status();
        let taken = status.of("city", "smart-city-1")["block"].as_u64() >= Some(block);
        let own: Vec<_> = status
            .resources("city", "smart-city-1")
            .into_iter()
            .filter(|one| one.owner == "city")
            .collect();
        let left = own.iter().filter(|one| !one.is_settled()).count();
        if taken && left == 0 && own.len() == MANY + 8 {
            Ok(())
        } else {
            Err(format!("{left} of {} left", own.len()))
        }
    });
    city.stop();
    ledger.stop();
    assert_eq!(world.services().len(), before + 4);
    for index in 0..4 {
        let log = world
            .member("city")
            .join(format!("machine/.charter/smart-city-1/city/api-{index}.log"));
        let text = std::fs::read_to_string(log).unwrap();
        assert_eq!(text.matches("listening on").count(), 1, "api-{index} was started more than once");
    }
    world.charter(&["verify"]).exits(0);
}

#[test]
fn a_changed_configuration_is_taken_and_a_bad_one_is_refused() {
    let world = World::smart_city();
    let ledger = world.ledger();
    let mut city = world.serve("city");
    let pid = city.pid();
    let command = serde_json::json!({
        "name": "sleeper", "kind": "machine/service", "owner": "city", "spec": { "command": ["sleep", "100000"] },
    });
    world.submit("city", "smart-city-1", &documents::order(vec![command])).exits(0);
    until("a command that is not allowed is denied, and the denial reported", || {
        match world.status().resource("city", "smart-city-1", "sleeper") {
            Some(one) if one.condition.as_deref() == Some("denied") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(!world.services().iter().any(|one| one.owner.ends_with("/sleeper")));

    let good = std::fs::read_to_string(world.config("city")).unwrap();
    for (bad, clause) in [
        (good.replace("interval_seconds", "interval_minutes"), "interval_minutes"),
        (good.replace("127.0.0.1:0", "0.0.0.0:0"), "loopback"),
        ("member = ".to_owned(), "charter.toml"),
    ] {
        assert_ne!(bad, good);
        let before = city.said("the present configuration goes on");
        std::fs::write(world.config("city"), bad).unwrap();
        until("the bad configuration is refused", || {
            if city.said("the present configuration goes on") > before && city.stderr().contains(clause) {
                Ok(())
            } else {
                Err(city.stderr())
            }
        });
        assert!(city.runs());
    }
    // What it had it goes on with: nothing was started again, and words are heard.
    std::fs::write(world.config("city"), &good).unwrap();
    world
        .charter(&["reconcile", "--member", "city"])
        .exits(0)
        .says(&["asked the running service"]);
    assert_eq!(city.said("starting again"), 0);

    std::fs::write(
        world.config("city"),
        format!("{good}\n[machine.commands.sleep]\nprogram = \"/bin/sleep\"\n"),
    )
    .unwrap();
    city.says("starting again with it");
    until("the allowed command runs", || {
        match world.services().iter().any(|one| one.owner == "smart-city-1/city/sleeper") {
            true => Ok(()),
            false => Err(city.stderr()),
        }
    });
    assert!(city.runs() && city.pid() == pid, "the process is the same");
    until("and it is reported", || {
        match world.status().resource("city", "smart-city-1", "sleeper") {
            Some(one) if one.is_settled() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    city.stop();
    ledger.stop();
}

#[test]
fn figures_are_in_the_format_that_they_claim() {
    let world = World::smart_city();
    let ledger = world.ledger();
    let mut city = world.serve("city");
    let address = telemetry(&city.says("/healthz"));
    let figures = until("both channels have converged", || {
        let body = http::get(&address, "/metrics")?.body;
        let converged = body
            .lines()
            .filter(|line| line.starts_with("charter_converged{") && line.ends_with(" 1"))
            .count();
        if converged == 2 { Ok(body) } else { Err(body) }
    });
    assert_eq!(figures.lines().last(), Some("# EOF"));
    let mut described = BTreeSet::new();
    for line in figures.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            described.extend(rest.split(' ').nth(1).map(str::to_owned));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("charter_") && described.contains(name), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            assert!(labels.starts_with("{channel=\"smart-city-") && labels.ends_with("\"}"), "{line}");
        }
    }
    for (channel, blocks) in [("smart-city-1", "charter_block"), ("smart-city-2", "charter_block")] {
        assert!(figures.contains(&format!("{blocks}{{channel=\"{channel}\"}} ")), "{figures}");
    }
    assert_eq!(http::get(&address, "/nothing").unwrap().status, 404);
    city.stop();
    ledger.stop();
}

#[test]
fn two_charters_of_one_member_do_not_run_at_once() {
    let world = World::smart_city();
    let mut ledger = world.ledger();
    let mut city = world.serve("city");
    let config = world.config("city").display().to_string();
    world
        .charter(&["serve", "--config", &config])
        .exits(1)
        .says(&["another Charter of this member is at work", &city.pid().to_string()]);
    world
        .charter(&["apply", "--yes", "--member", "city"])
        .exits(1)
        .says(&["charter reconcile"]);
    world
        .charter(&["down", "--yes"])
        .exits(1)
        .says(&["nothing was deleted", "stop charter up or charter serve first"]);
    assert!(city.runs());
    // A killed one leaves no lock behind.
    city.kill();
    let mut city = world.serve("city");
    // One that is just ending is waited for.
    for one in [&ledger, &city] {
        one.signal(Signal::TERM);
    }
    world.charter(&["down", "--yes"]).exits(0).says(&["deleted 12 resources"]);
    until("both have ended", || match (city.runs(), ledger.runs()) {
        (false, false) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn paused_it_looks_and_reports_and_touches_nothing() {
    let world = World::smart_city();
    world.set("city", "interval_seconds", "1");
    let ledger = world.ledger();
    let city = world.serve("city");
    world.converged();
    let readings = world.service("smart-city-1/city/readings");
    world.charter(&["pause", "--member", "city", "--channel", "smart-city-1"]).exits(0);
    until(
        "the service is paused",
        || match world.status().of("city", "smart-city-1")["service"]["paused"].as_bool() {
            Some(true) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    processes::kill(readings.pid);
    until("the drift is reported all the same", || {
        match world.status().resource("city", "smart-city-1", "readings") {
            Some(one) if one.condition.as_deref() == Some("drifted") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(
        !world.services().iter().any(|one| one.owner == readings.owner),
        "a paused Charter started a service"
    );
    world.charter(&["status"]).exits(0).says(&["paused"]);

    world.charter(&["resume", "--member", "city"]).exits(0);
    until("it is healed after all", || {
        match world.services().iter().any(|one| one.owner == readings.owner) {
            true => Ok(()),
            false => Err("it does not run"),
        }
    });
    world.converged();
    city.stop();
    ledger.stop();
}
