//! Events to durable commits: with every signature verified, from decoded events alone, and verification by itself.
//!
//! `cargo bench -p ledger-sync --bench materialise -- [--events N] [--resources N] [--per-block N] [--rounds N]`. Quote the ratios
//! of one run, never times across runs. The target is 5,000 verified and durable events a second on two cores.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is wrong")]

use std::sync::Arc;
use std::time::Instant;

use ledger_sync::reexecute::Reexecution;
use ledger_sync::testing::{Emit, MemoryNetwork};
use ledger_sync::verify::Verified;
use ledger_sync::{BlockVerifier, Ledger, Materialiser, Options, catch_up};
use protos::common::Block;
use serde_json::json;
use state::event::EventBody;
use state::git::Store;
use state::ids::{Channel, MemberId};
use state::resource::Resource;

struct Sizes {
    events: usize,
    resources: usize,
    per_block: usize,
    rounds: usize,
}

fn sizes() -> Sizes {
    let mut sizes = Sizes {
        events: 10_000,
        resources: 1_000,
        per_block: 10,
        rounds: 3,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let field = match arg.as_str() {
            "--events" => &mut sizes.events,
            "--resources" => &mut sizes.resources,
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
    let network = runtime.block_on(channel(&sizes));
    let blocks = network.blocks();
    let bytes: usize = blocks.iter().map(prost::Message::encoded_len).sum();
    println!(
        "{} events on {} resources in {} blocks ({} KiB), {} rounds, medians",
        sizes.events,
        sizes.resources,
        blocks.len(),
        bytes / 1024,
        sizes.rounds
    );
    let (mut whole, mut alone, mut verified) = (vec![], vec![], vec![]);
    for _ in 0..sizes.rounds {
        let (rate, decoded, genesis) = verification(&network, &blocks, sizes.events);
        verified.push(rate);
        alone.push(materialisation(network.channel(), &decoded, genesis, sizes.events));
        whole.push(runtime.block_on(everything(&network, sizes.events)));
    }
    let whole = median(whole);
    println!("blocks verified and decoded     {:>9.0} events/s", median(verified));
    println!("decoded events, durable         {:>9.0} events/s", median(alone));
    println!("blocks verified and durable     {whole:>9.0} events/s");
    println!(
        "  of the target                 {:>9.2}   (target 1: 5,000/s on two cores)",
        whole / 5_000.0
    );
}

/// A channel whose resources are ordered once, and then amended one at a time.
async fn channel(sizes: &Sizes) -> Arc<MemoryNetwork> {
    let channel = Channel::new("bench").unwrap();
    let network = MemoryNetwork::new(&channel, &["CityMSP", "EnergyMSP"]).unwrap();
    let (city, energy) = (network.ledger("CityMSP"), network.ledger("EnergyMSP"));
    let json = |value: serde_json::Value| vec![value.to_string().into_bytes()];
    let agreement = json!({
        "dao": "bench", "version": 1,
        "parties": [
            { "member": "city", "msp": "CityMSP", "role": "data-service-provider" },
            { "member": "energy", "msp": "EnergyMSP", "role": "value-service-provider", "beta": "0.80" },
        ],
        "effective": { "from": "2020-01-01T00:00:00Z" },
        "limits": { "resources": 100_000 },
    });
    let digest = serde_json::from_value::<state::agreement::Agreement>(agreement.clone())
        .unwrap()
        .digest()
        .unwrap();
    let role = |name: &str, role: &str| json(json!({ "member": name, "role": role }));
    city.submit(&channel, "register", role("city", "data-service-provider"))
        .await
        .unwrap();
    energy
        .submit(&channel, "register", role("energy", "value-service-provider"))
        .await
        .unwrap();
    city.submit(&channel, "constitute", json(agreement)).await.unwrap();
    energy.submit(&channel, "accept", json(json!({ "digest": digest }))).await.unwrap();
    let member = MemberId::new("city").unwrap();
    let emit = |body| Emit::body("CityMSP", member.clone(), body);
    let all: Vec<Resource> = (0..sizes.resources).map(|n| resource(n, 0)).collect();
    for some in all.chunks(500) {
        network
            .append(&[emit(EventBody::ResourcesOrdered { resources: some.to_vec() })])
            .unwrap();
    }
    let amendments: Vec<Emit> = (0..sizes.events)
        .map(|n| {
            // A stride that visits all in no order.
            let resources = vec![resource(n * 7919 % sizes.resources, n + 1)];
            emit(EventBody::ResourcesAmended { resources })
        })
        .collect();
    for block in amendments.chunks(sizes.per_block) {
        network.append(block).unwrap();
    }
    network
}

fn resource(n: usize, version: usize) -> Resource {
    let after = if n == 0 { vec![] } else { vec![format!("r{}", n / 2)] };
    serde_json::from_value(json!({
        "name": format!("r{n}"), "kind": "machine/file", "owner": if n.is_multiple_of(2) { "city" } else { "energy" },
        "spec": { "path": format!("etc/r{n}.conf"), "content": format!("version = {version}\n"), "mode": "0640" },
        "depends_on": after,
    }))
    .unwrap()
}

fn verification(network: &MemoryNetwork, blocks: &[Block], events: usize) -> (f64, Vec<Verified>, state::canonical::Digest) {
    let started = Instant::now();
    let mut verifier = BlockVerifier::start(network.channel().clone(), &blocks[0], None).unwrap();
    let (verified, failed) = verifier.verify_all(&blocks[1..]);
    assert!(failed.is_none());
    (events as f64 / started.elapsed().as_secs_f64(), verified, verifier.genesis())
}

fn materialisation(channel: &Channel, blocks: &[Verified], genesis: state::canonical::Digest, events: usize) -> f64 {
    let place = tempfile::tempdir().unwrap();
    let store = Store::init(&place.path().join("store.git")).unwrap();
    let started = Instant::now();
    let mut materialiser = Materialiser::load(&store, channel, genesis).unwrap();
    for block in blocks {
        materialiser.take_block(block.number, block.hash, &block.decoded).unwrap();
    }
    materialiser.flush().unwrap();
    events as f64 / started.elapsed().as_secs_f64()
}

async fn everything(network: &Arc<MemoryNetwork>, events: usize) -> f64 {
    let place = tempfile::tempdir().unwrap();
    let store = Store::init(&place.path().join("store.git")).unwrap();
    let started = Instant::now();
    let progress = catch_up(
        Arc::new(network.ledger("EnergyMSP")),
        store,
        network.channel().clone(),
        // No chaincode made these events.
        Options {
            reexecution: Reexecution::Off,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    assert!(progress.caught_up);
    events as f64 / started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
