//! Following a channel: hash chain, orderers' and creators' signatures verified, each transaction run again, and its commits durable.
//!
//! `cargo bench -p ledger-sync --bench follow -- [--blocks N] [--per-block N] [--rounds N]`. Quote the ratios of one run, never times
//! across runs. The target is 2,000 blocks of 10 transactions in 10 s on two cores, with memory that doesn't grow with the blocks.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is wrong")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger_sync::reexecute::Reexecution;
use ledger_sync::testing::MemoryNetwork;
use ledger_sync::{BlockVerifier, Ledger, Options, catch_up};
use protos::metadata;
use protos::peer::TxValidationCode;
use serde_json::json;
use state::git::Store;
use state::ids::Channel;

/// The target, for 2,000 blocks of 10 transactions.
const TARGET: Duration = Duration::from_secs(10);
const TARGET_TRANSACTIONS: f64 = 20_000.0;
/// How many resources the transactions amend in turn.
const RESOURCES: usize = 1_000;

struct Sizes {
    blocks: usize,
    per_block: usize,
    rounds: usize,
}

fn sizes() -> Sizes {
    let mut sizes = Sizes {
        blocks: 2_000,
        per_block: 10,
        rounds: 3,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let field = match arg.as_str() {
            "--blocks" => &mut sizes.blocks,
            "--per-block" => &mut sizes.per_block,
            "--rounds" => &mut sizes.rounds,
            // What cargo itself passes on.
            _ => continue,
        };
        *field = args.next().and_then(|value| value.parse().ok()).unwrap_or(*field).max(1);
    }
    sizes
}

fn main() {
    let sizes = sizes();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let network = runtime.block_on(founded());
    let few = (sizes.blocks / 4).max(1);
    grow(&network, 0..few, sizes.per_block);
    let at_a_quarter = runtime.block_on(memory(&network));
    grow(&network, few..sizes.blocks, sizes.per_block);
    let at_all = runtime.block_on(memory(&network));

    let transactions = (sizes.blocks * sizes.per_block) as f64;
    let bytes: usize = network.blocks().iter().map(prost::Message::encoded_len).sum();
    println!(
        "{} blocks of {} transactions ({} KiB), {} rounds, medians; the target is scaled to them",
        sizes.blocks,
        sizes.per_block,
        bytes / 1024,
        sizes.rounds
    );
    let target = TARGET.as_secs_f64() * transactions / TARGET_TRANSACTIONS;
    let mut lines = [
        ("verified alone", vec![]),
        ("followed, verified and durable", vec![]),
        ("  and run again", vec![]),
    ];
    for _ in 0..sizes.rounds {
        lines[0].1.push(verification(&network));
        lines[1].1.push(runtime.block_on(following(&network, Reexecution::Off)));
        lines[2].1.push(runtime.block_on(following(&network, Reexecution::Enforced)));
    }
    for (what, times) in lines {
        let took = median(times);
        println!("{what:<32} {:>7.2} s   {:>5.2} of the target", took, took / target);
    }
    println!("memory that following takes, at a quarter of the blocks and at all of them: {at_a_quarter} KiB, {at_all} KiB");
}

/// Two members, an agreement in force, and the resources.
async fn founded() -> Arc<MemoryNetwork> {
    let channel = Channel::new("bench").unwrap();
    let network = MemoryNetwork::new(&channel, &["CityMSP", "EnergyMSP"]).unwrap();
    let (city, energy) = (network.ledger("CityMSP"), network.ledger("EnergyMSP"));
    let text = |value: serde_json::Value| vec![value.to_string().into_bytes()];
    let agreement = json!({
        "dao": "bench", "version": 1,
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "energy", "msp": "EnergyMSP", "role": "value-service-provider", "beta": "0.80" },
        ],
        "effective": { "from": "2020-01-01T00:00:00Z" },
        "limits": { "resources": 100_000 },
    });
    let parsed: state::agreement::Agreement = serde_json::from_value(agreement.clone()).unwrap();
    let role = |name: &str, role: &str| text(json!({ "member": name, "role": role }));
    city.submit(&channel, "register", role("city", "data-service-provider"))
        .await
        .unwrap();
    energy
        .submit(&channel, "register", role("energy", "value-service-provider"))
        .await
        .unwrap();
    city.submit(&channel, "constitute", text(agreement)).await.unwrap();
    energy
        .submit(&channel, "accept", text(json!({ "digest": parsed.digest().unwrap() })))
        .await
        .unwrap();
    let all: Vec<serde_json::Value> = (0..RESOURCES).map(|n| resource(n, 0)).collect();
    for some in all.chunks(100) {
        city.submit(&channel, "order", text(json!({ "resources": some }))).await.unwrap();
    }
    network
}

fn resource(n: usize, version: usize) -> serde_json::Value {
    json!({
        "name": format!("r{n}"), "kind": "machine/file", "owner": if n.is_multiple_of(2) { "city" } else { "energy" },
        "spec": { "path": format!("etc/r{n}.conf"), "content": format!("version = {version}\n"), "mode": "0640" },
    })
}

/// Appends blocks of amendments, each of another resource.
fn grow(network: &MemoryNetwork, blocks: std::ops::Range<usize>, per_block: usize) {
    for block in blocks {
        let drafts = (0..per_block).map(|tx| {
            let n = block * per_block + tx;
            let resources = json!({ "resources": [resource(n % RESOURCES, n + 1)] });
            network.draft("CityMSP", "amend", &[resources.to_string().into_bytes()]).unwrap()
        });
        network.commit(drafts.collect()).unwrap();
    }
    for block in network.blocks() {
        let flags = metadata::validation_flags(&block).unwrap();
        assert!(flags.iter().all(|flag| *flag == TxValidationCode::Valid as u8));
    }
}

fn verification(network: &MemoryNetwork) -> f64 {
    let blocks = network.blocks();
    let started = Instant::now();
    let mut verifier = BlockVerifier::start(network.channel().clone(), &blocks[0], None).unwrap();
    for some in blocks[1..].chunks(ledger_sync::limits::BATCH_BLOCKS) {
        let (_, failed) = verifier.verify_all(some);
        assert!(failed.is_none());
    }
    started.elapsed().as_secs_f64()
}

async fn following(network: &Arc<MemoryNetwork>, reexecution: Reexecution) -> f64 {
    let place = tempfile::tempdir().unwrap();
    let store = Store::init(&place.path().join("store.git")).unwrap();
    let started = Instant::now();
    let options = Options {
        reexecution,
        ..Options::default()
    };
    let ledger = Arc::new(network.ledger("EnergyMSP"));
    let progress = catch_up(ledger, store, network.channel().clone(), options).await.unwrap();
    assert!(progress.caught_up);
    started.elapsed().as_secs_f64()
}

/// How much more memory the process had at its greatest while it followed, in KiB.
async fn memory(network: &Arc<MemoryNetwork>) -> u64 {
    // Where the kernel doesn't let a process forget its greatest size, the figure says so by not changing.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = from_status("VmRSS:");
    following(network, Reexecution::Enforced).await;
    from_status("VmHWM:").saturating_sub(before)
}

fn from_status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
