//! The life of an order: looked at, submitted, amended, kept or taken away; plans that are kept, and plans that are too old.

use serde_json::json;
use state::report::{Condition, Report};
use tests::{Consortium, World, documents, http, processes, tree, until};

const CHANNEL: &str = "smart-city-1";

fn city(world: &World, words: &[&str]) -> tests::Ended {
    let mut all = words.to_vec();
    all.extend(["--member", "city", "--channel", CHANNEL]);
    world.charter(&all)
}

/// Waits until the other member has the city's signed word for how a resource ended.
#[track_caller]
fn is_reported(world: &World, name: &str, condition: Condition) {
    until(&format!("{name} is reported as {condition}"), || {
        let reports = world.store("breeze").reports(CHANNEL, "city");
        let said = |report: &Report| {
            report
                .changes
                .iter()
                .find(|(found, _)| found.as_str() == name)
                .and_then(|(_, status)| status.clone())
        };
        let last = reports.iter().rev().find_map(said);
        match last {
            Some(status) if status.condition == condition => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn an_order_is_previewed_made_amended_and_taken_away() {
    let world = World::smart_city();
    let all = Consortium::start(&world);
    let notes = |content: &str| documents::file("notes", "city", content);
    let data = documents::reference("notes.outputs.path");
    let order = documents::order(vec![notes("first\n"), documents::readings("notes-api", "city", &data)]);
    let first = world.status().of("city", CHANNEL)["block"].as_u64().unwrap();

    // What it would do is shown, and neither ledger, store nor machine have heard of it.
    let file = world.file("order.yaml", &order.to_string());
    let before = world.store("city").heads("desired/");
    let preview = city(&world, &["plan", "-f", &file]).exits(0);
    preview.says(&["notes", "notes-api", "2 to create"]);
    city(&world, &["plan", "-f", &file, "--detailed-exitcode"]).exits(2);
    assert_eq!(world.store("city").heads("desired/"), before);
    assert!(!world.member("city").join("machine/smart-city-1/notes").exists());

    let ordered = documents::block(&world.submit("city", CHANNEL, &order).exits(0).stdout);
    let address = world.converged_at(CHANNEL, ordered).address("breeze", CHANNEL, "notes-api");
    assert_eq!(http::get(&address, "/readings").unwrap().body, "first\n");
    let process = world.service("smart-city-1/city/notes-api");

    // The file changes; the service that reads it is not disturbed, for nothing that it was given is new.
    let amended = world
        .submit("city", CHANNEL, &documents::amendment(vec![notes("second\n")]))
        .exits(0);
    world.converged_at(CHANNEL, documents::block(&amended.stdout));
    assert_eq!(http::get(&address, "/readings").unwrap().body, "second\n");
    assert_eq!(world.service("smart-city-1/city/notes-api"), process);
    // The service changes: it is started anew, where it was.
    let mut service = documents::readings("notes-api", "city", &data);
    service["spec"]["env"]["LANGUAGE"] = json!("en");
    let changed = world.submit("city", CHANNEL, &documents::amendment(vec![service])).exits(0);
    let changed = documents::block(&changed.stdout);
    let status = world.converged_at(CHANNEL, changed);
    assert_eq!(status.address("breeze", CHANNEL, "notes-api"), address);
    assert_eq!(http::get(&address, "/readings").unwrap().body, "second\n");
    let again = world.service("smart-city-1/city/notes-api");
    assert_ne!(again.pid, process.pid);

    // Between any two moments, what was ordered can be compared; the graph shows who needs whom.
    let at = format!("{CHANNEL}@{first}");
    let diff = world.charter(&["diff", &at, CHANNEL]).exits(2);
    assert_eq!(diff.lines(), ["+ notes", "+ notes-api"]);
    let step = world
        .charter(&["diff", &format!("{CHANNEL}@{ordered}"), CHANNEL, "-o", "json"])
        .exits(2)
        .json();
    let paths: Vec<&str> = step.as_array().unwrap().iter().filter_map(|one| one["path"].as_str()).collect();
    assert_eq!(paths, ["/spec/content", "/spec/env/LANGUAGE"]);
    world.charter(&["diff", CHANNEL, CHANNEL]).exits(0);
    world.charter(&["diff", &at, &format!("{CHANNEL}@{}", ordered - 1)]).exits(0);
    world
        .charter(&["diff", CHANNEL, "nowhere"])
        .exits(1)
        .says(&["nowhere is not known here", "smart-city-1@7"]);
    let graph = world.charter(&["graph", "--channel", CHANNEL, "-o", "json"]).exits(0).json();
    let node = graph.as_array().unwrap().iter().find(|one| one["resource"] == "notes-api").unwrap();
    assert_eq!(node["needs"], json!(["notes"]));
    let dot = world.charter(&["graph", "--channel", CHANNEL]).exits(0);
    assert!(dot.stdout.starts_with("digraph") && dot.stdout.contains("notes-api"), "{dot}");

    // What others still need is not taken away; both together are.
    world
        .submit("city", CHANNEL, &documents::retirement(&["notes"]))
        .exits(1)
        .says(&["notes is still needed by notes-api"]);
    let retired = world
        .submit("city", CHANNEL, &documents::retirement(&["notes", "notes-api"]))
        .exits(0);
    world.converged_at(CHANNEL, documents::block(&retired.stdout));
    for name in ["notes", "notes-api"] {
        is_reported(&world, name, Condition::Deleted);
    }
    assert!(!world.member("city").join("machine/smart-city-1/notes").exists());
    assert!(!world.services().iter().any(|one| one.pid == again.pid));
    assert!(http::get(&address, "/readings").is_err());
    let history = world.charter(&["history", "notes", "--channel", CHANNEL]).exits(0);
    history.says(&["order 2 resources: notes, notes-api", "amend", "retire"]);
    all.stop();
    world.store("city").is_sound();
    world.charter(&["replay", "--compare"]).exits(0);
}

#[test]
fn what_is_protected_stays_and_what_is_retained_is_left_behind() {
    let world = World::smart_city();
    let all = Consortium::start(&world);
    let path = |name: &str| world.member("city").join("machine/smart-city-1").join(name);
    let mut vault = documents::file("vault", "city", "precious\n");
    vault["protect"] = json!(true);
    let mut archive = documents::file("archive", "city", "for later\n");
    archive["on_retire"] = json!("retain");
    let mut inside = archive.clone();
    inside["name"] = json!("inside");
    inside["spec"]["directory"] = documents::reference("open-data.outputs.path");
    let ordered = world
        .submit("city", CHANNEL, &documents::order(vec![vault.clone(), archive, inside]))
        .exits(0);
    world.converged_at(CHANNEL, documents::block(&ordered.stdout));

    world
        .submit("city", CHANNEL, &documents::retirement(&["vault"]))
        .exits(1)
        .says(&["vault is protected", "protect: false"]);
    assert!(path("vault").exists());
    // Whose it is not can't take it away.
    world
        .submit("breeze", CHANNEL, &documents::retirement(&["archive"]))
        .exits(1)
        .says(&["archive", "only its owner city"]);

    vault["protect"] = json!(false);
    let opened = world.submit("city", CHANNEL, &documents::amendment(vec![vault])).exits(0);
    world.converged_at(CHANNEL, documents::block(&opened.stdout));
    let retired = world
        .submit("city", CHANNEL, &documents::retirement(&["vault", "archive", "inside"]))
        .exits(0);
    world.converged_at(CHANNEL, documents::block(&retired.stdout));
    is_reported(&world, "vault", Condition::Deleted);
    is_reported(&world, "archive", Condition::Retained);
    is_reported(&world, "inside", Condition::Retained);
    assert!(!path("vault").exists());
    for kept in ["archive", "open-data/inside"] {
        assert_eq!(std::fs::read_to_string(path(kept)).unwrap(), "for later\n");
    }
    all.stop();
}

#[test]
fn a_kept_plan_is_done_once_and_refused_when_the_world_has_moved_on() {
    let world = World::smart_city();
    let file = world.member("city").join("machine/smart-city-1/open-data/air-quality.csv");
    let plan = world.root().join("plan.json").display().to_string();
    processes::kill(world.service("smart-city-1/city/readings").pid);
    until("the killed service is gone", || match city(&world, &["drift"]) {
        drift if drift.code == Some(2) => Ok(()),
        drift => Err(drift),
    });

    city(&world, &["plan", "--out", &plan])
        .exits(0)
        .says(&["readings", "charter apply"]);
    // By now something else differs too: what was looked at is not what would be done.
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "nonsense\n").unwrap();
    let before = world.services();
    city(&world, &["apply", &plan]).exits(1).says(&["look at it anew", "charter plan"]);
    assert_eq!((world.services(), std::fs::read(&file).unwrap()), (before, b"nonsense\n".to_vec()));
    std::fs::write(&file, &good).unwrap();

    // A plan that somebody wrote in is none.
    let text = std::fs::read_to_string(&plan).unwrap();
    let forged = world.file("forged.json", &text.replace("readings", "meanings"));
    city(&world, &["apply", &forged])
        .exits(1)
        .says(&["was changed after it was made", "--out"]);
    city(&world, &["apply", &world.file("junk.json", "{}")])
        .exits(1)
        .says(&["is not a plan"]);

    city(&world, &["plan", "--out", &plan]).exits(0);
    city(&world, &["apply", &plan]).exits(0).says(&["update readings: "]);
    world.service("smart-city-1/city/readings");
    until("nothing differs any more", || match city(&world, &["drift"]) {
        drift if drift.code == Some(0) => Ok(()),
        drift => Err(drift),
    });
    // It is not done a second time.
    city(&world, &["apply", &plan]).exits(1).says(&["look at it anew"]);
    world.store("city").is_sound();
}

#[test]
fn without_a_running_service_orders_are_carried_out_by_hand() {
    let world = World::smart_city();
    let path = world.member("city").join("machine/smart-city-1/notes");
    let order = documents::order(vec![documents::file("notes", "city", "by hand\n")]);
    world.submit("city", CHANNEL, &order).exits(0).says(&["ordered notes"]);
    assert!(!path.exists(), "submitting is not applying");
    city(&world, &["plan", "--detailed-exitcode"])
        .exits(2)
        .says(&["notes", "1 to create"]);
    city(&world, &["apply"]).exits(1).says(&["nobody is there to say yes"]);
    assert!(!path.exists());
    city(&world, &["apply", "--yes"]).exits(0).says(&["create notes: done"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "by hand\n");
    city(&world, &["plan", "--detailed-exitcode"]).exits(0);
    let made = tree::entries(&world.member("city").join("machine"));

    let again = documents::order(vec![documents::file("more", "city", "by a pass\n")]);
    world.submit("city", CHANNEL, &again).exits(0);
    city(&world, &["reconcile"]).exits(0).says(&["create more: done"]);
    assert_eq!(city(&world, &["reconcile"]).exits(0).stdout, "");
    let now = tree::entries(&world.member("city").join("machine"));
    let new = tree::changes(&made, &now).into_iter().filter(|path| path.is_file()).count();
    assert_eq!(new, 2, "the file and its record");

    // What is not allowed here is said, and has an exit code of its own.
    let wild = json!({ "name": "wild", "kind": "machine/service", "owner": "city", "spec": { "command": ["rm", "-rf", "/"] } });
    world.submit("city", CHANNEL, &documents::order(vec![wild])).exits(0);
    city(&world, &["plan", "--detailed-exitcode"])
        .exits(3)
        .says(&["wild", "[machine.commands.rm]"]);
    city(&world, &["reconcile"]).exits(3).says(&["wild", "[machine.commands.rm]"]);
}
