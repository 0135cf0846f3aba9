//! Bad input: one clear error that names the file or the transaction and the clause, and nothing is changed outside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::{Ended, MEMBERS, World, documents, tree};

const CHANNEL: &str = "smart-city-1";

/// Everything that bad input must not change: what is ordered, what is on the ledger, what runs, what lies on the machines.
#[derive(Debug, PartialEq)]
struct Outside {
    blocks: BTreeMap<PathBuf, tree::Entry>,
    desired: Vec<BTreeMap<String, String>>,
    machines: Vec<BTreeMap<PathBuf, tree::Entry>>,
    services: Vec<tests::processes::Service>,
}

impl Outside {
    fn of(world: &World) -> Self {
        Self {
            blocks: tree::entries(&world.data().join("ledger/channels")),
            desired: MEMBERS.map(|member| world.store(member).heads("desired/")).into(),
            machines: MEMBERS.map(|member| tree::entries(&world.member(member).join("machine"))).into(),
            services: world.services(),
        }
    }
}

/// One clear error: one that starts with the program's name, with each of the words, and without a trace of a panic.
#[track_caller]
fn is_one_clear_error(said: Ended, words: &[&str]) {
    let said = said.exits(1).says(words);
    assert_eq!(said.stderr.matches("charter: ").count(), 1, "{said}");
    assert!(!said.stderr.contains("panicked") && said.stderr.len() < 4_000, "{said}");
    assert!(said.stdout.is_empty(), "{said}");
}

fn file_with(change: Value) -> Value {
    let mut file = documents::file("extra", "city", "x\n");
    if let (Value::Object(file), Value::Object(change)) = (&mut file, change) {
        file.extend(change);
    }
    file
}

#[test]
fn bad_documents_are_refused_by_their_clause() {
    let world = World::smart_city();
    let before = Outside::of(&world);
    let circle = |name: &str, on: &str| {
        let content = documents::reference(&format!("{on}.outputs.path"));
        json!({ "name": name, "kind": "machine/file", "owner": "city", "spec": { "content": content } })
    };
    let agreement = |change: (&str, &str)| {
        let text = std::fs::read_to_string(tests::world::smart_city().join("v1/agreement.yaml")).unwrap();
        let changed = text.replace(change.0, change.1);
        assert_ne!(changed, text);
        changed
    };
    let order = |resources: Vec<Value>| documents::order(resources).to_string();
    let deep = format!(
        "apiVersion: charter/v1\nkind: Order\nresources: {}{}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let cases: Vec<(&str, String, &[&str])> = vec![
        (
            "unknown field",
            order(vec![file_with(json!({ "colour": "red" }))]),
            &["/resources/0", "colour"],
        ),
        (
            "path in a name",
            order(vec![file_with(json!({ "name": "../extra" }))]),
            &["/resources/0/name", "../extra"],
        ),
        (
            "upper case",
            order(vec![file_with(json!({ "name": "Extra" }))]),
            &["/resources/0/name"],
        ),
        (
            "cycle",
            order(vec![circle("one", "two"), circle("two", "one")]),
            &[CHANNEL, "circle", "one, two"],
        ),
        ("self", order(vec![circle("one", "one")]), &[CHANNEL, "circle"]),
        (
            "dangling",
            order(vec![circle("one", "nowhere")]),
            &["resource one depends on nowhere, which does not exist"],
        ),
        (
            "not exported",
            order(vec![circle("one", "model")]),
            &["model.outputs.path", "does not export"],
        ),
        (
            "stranger",
            order(vec![file_with(json!({ "owner": "tram" }))]),
            &["resource extra", "owner tram is not a party"],
        ),
        (
            "twice",
            order(vec![file_with(json!({ "name": "readings" }))]),
            &["readings exists already", "amend"],
        ),
        ("empty", order(vec![]), &["/resources"]),
        (
            "large spec",
            order(vec![file_with(json!({ "spec": { "content": "x".repeat(500_000) } }))]),
            &["the limit is"],
        ),
        (
            "ten megabytes",
            order(vec![file_with(json!({ "spec": { "content": "x".repeat(10_000_000) } }))]),
            &["at most 1048576", "split"],
        ),
        ("nested", deep, &["is not valid YAML"]),
        ("share above 1", agreement(("\"0.70\"", "\"1.70\"")), &["/parties/1/beta"]),
        ("share of 1", agreement(("\"0.70\"", "\"1.0\"")), &["beta"]),
        ("share of 0", agreement(("\"0.70\"", "\"0.0\"")), &["share"]),
        ("negative share", agreement(("\"0.70\"", "\"-0.3\"")), &["/parties/1/beta"]),
        ("another agreement", agreement(("\"0.70\"", "\"0.71\"")), &["has another agreement"]),
        (
            "unknown version",
            order(vec![]).replace("charter/v1", "charter/v9"),
            &["charter/v9"],
        ),
        ("unknown kind", order(vec![]).replace("Order", "Wish"), &["Agreement, Order"]),
        ("not YAML", "{ apiVersion: [".to_owned(), &["is not valid YAML"]),
        (
            "amend nothing",
            documents::amendment(vec![file_with(json!({}))]).to_string(),
            &["extra does not exist"],
        ),
        (
            "retire nothing",
            documents::retirement(&["extra"]).to_string(),
            &["extra does not exist"],
        ),
    ];
    for (index, (what, text, words)) in cases.iter().enumerate() {
        let name = format!("bad-{index}.yaml");
        let file = world.file(&name, text);
        let said = world.charter(&["submit", &file, "--member", "city", "--channel", CHANNEL]);
        eprintln!("{what}");
        is_one_clear_error(said.clone().says(&[&name]), words);
    }
    let missing = world.root().join("missing.yaml").display().to_string();
    is_one_clear_error(
        world.charter(&["submit", &missing, "--member", "city", "--channel", CHANNEL]),
        &["missing.yaml", "No such file"],
    );
    assert_eq!(Outside::of(&world), before);
}

#[test]
fn what_only_the_machine_can_judge_is_denied_and_told_to_all() {
    let world = World::smart_city();
    let before = Outside::of(&world);
    let colour = file_with(json!({ "spec": { "content": "x", "colour": "red" } }));
    world.submit("city", CHANNEL, &documents::order(vec![colour])).exits(0).says(&[
        "extra does not fit 'charter schema machine/file', and city's Charter will refuse it: ",
        "'colour'",
    ]);
    let machines = |world: &World| Outside::of(world).machines;
    let said = world.charter(&["plan", "--member", "city", "--channel", CHANNEL, "--detailed-exitcode"]);
    said.exits(3).says(&["extra", "unknown field `colour`"]);
    world
        .charter(&["reconcile", "--member", "city", "--channel", CHANNEL])
        .exits(3)
        .says(&["extra", "unknown field `colour`"]);
    assert_eq!(machines(&world), before.machines);
    assert_eq!(world.services(), before.services);
    // The other member reads of it on the ledger.
    world.charter(&["reconcile", "--member", "breeze", "--channel", CHANNEL]).exits(0);
    let seen = world.status().resource("breeze", CHANNEL, "extra").and_then(|one| one.condition);
    assert_eq!(seen.as_deref(), Some("denied"));
}

#[test]
fn a_bad_configuration_is_refused_by_its_clause() {
    let world = World::smart_city();
    let before = Outside::of(&world);
    let good = std::fs::read_to_string(world.config("city")).unwrap();
    let path = world.config("city").display().to_string();
    let root = world.member("city").join("machine").display().to_string();
    let program = tests::world::binary().display().to_string();
    for (old, new, clause) in [
        ("interval_seconds = ", "interval_seconds = 99999 # ", "service.interval_seconds"),
        ("interval_seconds", "interval_minutes", "interval_minutes"),
        ("https://", "http://", "ledger.endpoint"),
        ("127.0.0.1:0", "0.0.0.0:0", "loopback"),
        ("member = \"city\"", "member = \"../city\"", "member"),
        ("member = \"city\"", "", "member"),
        (program.as_str(), "bin/smart-city", "not an absolute path"),
        (program.as_str(), &format!("{root}/smart-city"), "below the root"),
        ("identity/tls-ca.pem", "identity/nothing.pem", "nothing.pem"),
        ("identity/msp", "identity/nobody", "nobody"),
    ] {
        let bad = good.replace(old, new);
        assert_ne!(bad, good, "{clause}");
        std::fs::write(&path, bad).unwrap();
        for words in [&["serve"][..], &["plan"]] {
            let mut all = words.to_vec();
            all.extend(["--config", path.as_str()]);
            let said = world.charter(&all);
            is_one_clear_error(said, &[clause]);
        }
    }
    std::fs::remove_file(&path).unwrap();
    is_one_clear_error(world.charter(&["serve", "--config", &path]), &["charter.toml", "No such file"]);
    std::fs::write(&path, good).unwrap();
    assert_eq!(Outside::of(&world), before);
}

#[test]
fn usage_errors_exit_with_1_and_help_with_0() {
    let world = World::new();
    for words in [
        &["wish"][..],
        &["plan", "--nope"],
        &["diff", "one"],
        &["status", "-o", "xml"],
        &["status", "--member", "../x"],
        &["plan", "--channel", "A B"],
        &["up", "--once", "--config"],
        &[],
    ] {
        let said = world.charter(words);
        assert_eq!(said.code, Some(1), "{said}");
        assert!(said.stderr.contains("Usage") || said.stderr.contains("error:"), "{said}");
    }
    for words in [&["--help"][..], &["help", "plan"], &["serve", "--help"], &["version"]] {
        world.charter(words).exits(0);
    }
    // Without a data directory there is nothing to look at, and the error says how to get one.
    for words in [
        &["status"][..],
        &["plan"],
        &["drift"],
        &["history"],
        &["verify"],
        &["replay", "--compare"],
        &["pause"],
        &["graph"],
    ] {
        is_one_clear_error(world.charter(words), &["there are no members below", "charter up"]);
    }
    is_one_clear_error(world.charter(&["ledger", "serve"]), &["charter up"]);
    is_one_clear_error(world.charter(&["ledger", "serve", "--listen", "0.0.0.0:1"]), &["loopback"]);
    assert!(!world.data().exists(), "looking made a data directory");
}

#[test]
fn a_bad_example_starts_nothing() {
    let world = World::new();
    let example = world.root().join("example");
    for (path, entry) in tree::entries(&tests::world::smart_city()) {
        let target = example.join(path.strip_prefix(tests::world::smart_city()).unwrap());
        if entry.content.is_some() {
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(path, target).unwrap();
        }
    }
    let network = example.join("network.yaml");
    let good = std::fs::read_to_string(&network).unwrap();
    for (old, new, clause) in [
        ("kind: Network", "kind: Net", "kind: Network"),
        ("members: [city, breeze]", "members: [city, nobody]", "nobody"),
        ("submit: v1/city.yaml", "submit: ../city.yaml", "inside the example"),
        ("submit: v1/city.yaml", "submit: v1/nothing.yaml", "nothing.yaml"),
        ("channels:", "chanels:", "chanels"),
        ("msp: BreezeMSP", "msp: CityMSP", "stands twice"),
    ] {
        std::fs::write(&network, good.replacen(old, new, 1)).unwrap();
        let said = world.charter(&["up", "--once", &example.display().to_string()]);
        is_one_clear_error(said, &["nothing was started", clause]);
    }
    assert_eq!(world.services(), []);
    assert!(!world.data().exists());
}
