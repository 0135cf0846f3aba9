//! Records the ledgers of `tests/ledgers/v1` or `v2` anew: `cargo run -p tests --example record-ledger v2`.
//!
//! A recording stands for what members have on disk. It is made once for each schema version, when that version is first released,
//! and never changed after.

use std::path::Path;

use ledger_sync::testing::{Emit, MemoryNetwork};
use ledger_sync::{Ledger, Options, Reexecution};
use protos::peer::TxValidationCode;
use serde_json::{Value, json};
use state::event::EventBody;
use state::git::Store;
use state::ids::Channel;
use state::report::Condition;
use tests::recording::{Recording, commits};
use tests::{Consortium, World, documents, processes, until};

const CHANNEL: &str = "smart-city-1";
const MSPS: [&str; 2] = ["CityMSP", "BreezeMSP"];

fn main() {
    let version = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let recordings = match version.as_str() {
        "v1" => vec![("life", channel(), life()), ("faults", channel(), runtime.block_on(faults()))],
        "v2" => story(),
        _ => panic!("which? v1 or v2"),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ledgers").join(version);
    std::fs::create_dir_all(&folder).expect("the recordings have a folder");
    for (name, channel, recording) in recordings {
        let path = folder.join(format!("{name}.blocks"));
        recording.write(&path);
        let scratch = tempfile::tempdir().expect("a temporary folder can be made");
        let store = Store::init(&scratch.path().join("store.git")).expect("a store can be made");
        // No chaincode made the transactions with faults.
        let reexecution = if name == "faults" {
            Reexecution::Off
        } else {
            Reexecution::Enforced
        };
        let options = Options {
            reexecution,
            ..Options::default()
        };
        runtime
            .block_on(recording.replay(&channel, &store, options))
            .expect("what was just recorded can be followed");
        std::fs::write(folder.join(format!("{name}.commits")), commits(&store, &channel)).expect("the commits can be written");
        println!("{}: {} blocks", path.display(), recording.height());
    }
}

fn channel() -> Channel {
    Channel::new(CHANNEL).expect("the name is one of a channel")
}

/// The life of a channel: an agreement, orders, an amendment, drift that is healed, a retirement, and the reports of all that.
fn life() -> Recording {
    let world = World::smart_city();
    let all = Consortium::start(&world);
    let say = |document: Value| {
        let said = world.submit("city", CHANNEL, &document).exits(0);
        world.converged_at(CHANNEL, documents::block(&said.stdout));
    };
    let notes = |text: &str| documents::file("notes", "city", text);
    say(documents::order(vec![
        notes("first\n"),
        documents::readings("notes-api", "city", &documents::reference("notes.outputs.path")),
    ]));
    say(documents::amendment(vec![notes("second\n")]));
    let reports = || world.store("city").reports(CHANNEL, "city").len();
    let before = reports();
    processes::kill(world.service("smart-city-1/city/notes-api").pid);
    world.charter(&["reconcile", "--member", "city"]).exits(0);
    until("healing is reported", || if reports() > before { Ok(()) } else { Err("not yet") });
    world.converged();
    say(documents::retirement(&["notes-api"]));
    until("absence is reported", || {
        let told = world.store("city").reports(CHANNEL, "city");
        let mut changes = told.iter().flat_map(|report| report.changes.values().flatten());
        if changes.any(|status| status.condition == Condition::Deleted) {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    all.stop();
    Recording::of_embedded(&world.data().join("ledger/channels").join(CHANNEL).join("blocks"))
}

/// The market and the second version of the example's story: every act that there is, but for a few.
fn story() -> Vec<(&'static str, Channel, Recording)> {
    let world = World::new();
    let example = tests::world::smart_city().display().to_string();
    world.charter(&["up", "--story", "--once", &example]).exits(0);
    let of = |name: &'static str| {
        let blocks = world.data().join("ledger/channels").join(name).join("blocks");
        (name, Channel::new(name).expect("a channel"), Recording::of_embedded(&blocks))
    };
    let recorded = vec![of("market"), of("smart-city-2")];
    world.charter(&["down", "--yes"]).exits(0);
    recorded
}

/// What a channel may hold beside good events: what is malformed, forged, refused, not ours, or invalid.
async fn faults() -> Recording {
    let network = MemoryNetwork::new(&channel(), &MSPS).expect("a network can be made in memory");
    found(&network).await;
    let resource = |name: &str| serde_json::from_value(documents::file(name, "city", "x\n")).expect("it is a resource");
    let good = |name: &str| {
        let resources = vec![resource(name)];
        Emit::body(
            MSPS[0],
            "city".parse().expect("a member's name"),
            EventBody::ResourcesOrdered { resources },
        )
    };
    let blocks: [Vec<Emit>; 5] = [
        vec![Emit::raw(MSPS[0], "charter.resources.ordered", b"not json".to_vec()), good("one")],
        vec![
            good("two").altered(|event| event["data"]["surprise"] = true.into()),
            good("two").altered(|event| event["source"] = "urn:charter:other".into()),
            good("two").altered(|event| event["member"] = "breeze".into()),
            good("two").altered(|event| event["time"] = "2020-01-01T00:00:00Z".into()),
            good("two").altered(|event| event["data"]["resources"][0]["name"] = "../x".into()),
            good("two").altered(|event| event["data"]["resources"][0]["owner"] = "stranger".into()),
        ],
        vec![
            good("two").with_code(TxValidationCode::MvccReadConflict),
            good("two").of_chaincode("basic"),
            good("two"),
            good("two"),
        ],
        vec![Emit::raw(MSPS[1], "charter.report.submitted", b"{}".to_vec())],
        vec![good("three")],
    ];
    for block in &blocks {
        network.append(block).expect("a block can be made");
    }
    // Another chaincode's block is none of ours, and the last one.
    network.append_other(MSPS[1]).expect("a block can be made");
    Recording::new(network.blocks())
}

/// Two members, and an agreement in force.
async fn found(network: &std::sync::Arc<MemoryNetwork>) {
    let text = std::fs::read_to_string(tests::world::smart_city().join("v1/agreement.yaml")).expect("the example has an agreement");
    let document = reconciler::document::Document::parse(Path::new("agreement.yaml"), &text).expect("the example is good");
    let reconciler::document::Document::Agreement(agreement) = document else {
        panic!("agreement.yaml is no agreement");
    };
    let digest = agreement.digest().expect("an agreement has a digest");
    let agreement = serde_json::to_vec(&agreement).expect("an agreement is JSON");
    let say = |msp: &str, function: &'static str, argument: Vec<u8>| {
        let ledger = network.ledger(msp);
        async move {
            let said = ledger.submit(&channel(), function, vec![argument]).await;
            said.expect("the foundation is good");
        }
    };
    let register = |member: &str, role: &str| json!({ "member": member, "role": role }).to_string().into_bytes();
    say(MSPS[0], "register", register("city", "data-service-provider")).await;
    say(MSPS[1], "register", register("breeze", "value-service-provider")).await;
    say(MSPS[0], "constitute", agreement).await;
    say(MSPS[1], "accept", json!({ "digest": digest }).to_string().into_bytes()).await;
}
