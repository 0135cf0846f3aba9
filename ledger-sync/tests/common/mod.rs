//! What the tests share: a channel of two members, and a story on it.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::sync::Arc;

use ledger_sync::testing::{Emit, MemoryNetwork, START};
use ledger_sync::{BlockVerifier, Ledger, Materialiser, Options, Reexecution};
use msp::Signer;
use serde_json::json;
use state::agreement::{Agreement, Role};
use state::canonical::{Digest, digest};
use state::event::{EventBody, Position};
use state::git::{CommitId, Store};
use state::ids::{Channel, MemberId, ResourceName};
use state::paths;
use state::report::{Condition, Report, ResourceStatus, whole};
use state::resource::Resource;
use state::time::Timestamp;

pub const CITY: &str = "CityMSP";
pub const ENERGY: &str = "EnergyMSP";

/// Waits for a future outside of any runtime.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// How a channel is followed whose events were made up, and no chaincode's.
pub fn options() -> Options {
    Options {
        reexecution: Reexecution::Off,
        ..Options::default()
    }
}

pub fn channel() -> Channel {
    Channel::new("smart-city-1").unwrap()
}

pub fn member(name: &str) -> MemberId {
    MemberId::new(name).unwrap()
}

pub fn network() -> Arc<MemoryNetwork> {
    MemoryNetwork::new(&channel(), &[CITY, ENERGY]).unwrap()
}

pub fn agreement() -> Agreement {
    serde_json::from_value(json!({
        "dao": "smart-city",
        "version": 1,
        "parties": [
            { "member": "city", "msp": CITY, "role": "data-service-provider" },
            { "member": "energy", "msp": ENERGY, "role": "value-service-provider", "beta": "0.80" },
        ],
        "effective": { "from": "2020-01-01T00:00:00Z" },
        "limits": { "resources": 100_000 },
    }))
    .unwrap()
}

pub fn resource(name: &str, owner: &str, after: &[&str]) -> Resource {
    serde_json::from_value(json!({
        "name": name, "kind": "machine/file", "owner": owner,
        "spec": { "path": format!("{name}.txt"), "content": "hello" },
        "depends_on": after,
    }))
    .unwrap()
}

pub fn registered(name: &str, msp: &str, role: Role) -> Emit {
    let body = EventBody::MemberRegistered {
        member: member(name),
        msp: msp.parse().unwrap(),
        role,
    };
    Emit::body(msp, member(name), body)
}

pub fn ordered(msp: &str, by: &str, resources: Vec<Resource>) -> Emit {
    Emit::body(msp, member(by), EventBody::ResourcesOrdered { resources })
}

pub fn retired(msp: &str, by: &str, names: &[&str]) -> Emit {
    let resources = names.iter().map(|name| ResourceName::new(*name).unwrap()).collect();
    Emit::body(msp, member(by), EventBody::ResourcesRetired { resources })
}

/// A report of one resource; `last` is the one before it.
pub fn report(by: &str, resource: &str, condition: Condition, last: Option<&(Report, Digest)>) -> Report {
    let status = ResourceStatus {
        kind: "machine/file".parse().unwrap(),
        condition,
        applied: None,
        exports: Default::default(),
        drift: Vec::new(),
        why: None,
    };
    let changes = [(ResourceName::new(resource).unwrap(), status)];
    Report {
        channel: channel(),
        member: member(by),
        sequence: last.map_or(1, |(report, _)| report.sequence + 1),
        previous: last.map(|(_, digest)| *digest),
        desired: Position { block: 3, tx: 0 },
        commit: "0".repeat(40),
        plan: digest(&"plan").unwrap(),
        observed_at: Timestamp::clamped(START),
        steps: Vec::new(),
        whole: whole(&changes.clone().into()).unwrap(),
        changes: changes.map(|(name, status)| (name, Some(status))).into(),
    }
}

pub fn reported(signer: &dyn Signer, report: &Report) -> (Emit, Digest) {
    let envelope = ledger_sync::reports::sign(report, signer).unwrap();
    let (_, digest) = envelope.report().unwrap();
    let body = EventBody::ReportSubmitted {
        sequence: report.sequence,
        digest,
        envelope,
        heartbeat: None,
    };
    (Emit::body(signer.msp_id(), report.member.clone(), body), digest)
}

/// Members, an agreement in force, through the chaincode.
pub async fn found(network: &Arc<MemoryNetwork>) {
    let (city, energy) = (network.ledger(CITY), network.ledger(ENERGY));
    let text = |value: serde_json::Value| vec![value.to_string().into_bytes()];
    let channel = network.channel();
    let register = |name: &str, role: &str| text(json!({ "member": name, "role": role }));
    city.submit(channel, "register", register("city", "data-service-provider"))
        .await
        .unwrap();
    energy
        .submit(channel, "register", register("energy", "value-service-provider"))
        .await
        .unwrap();
    let agreement = agreement();
    city.submit(channel, "constitute", vec![serde_json::to_vec(&agreement).unwrap()])
        .await
        .unwrap();
    let digest = agreement.digest().unwrap();
    energy.submit(channel, "accept", text(json!({ "digest": digest }))).await.unwrap();
}

/// A long story: orders, other chaincodes, reports of both members, quarantined events, several transactions in a block.
pub async fn story(network: &Arc<MemoryNetwork>) {
    found(network).await;
    let mut last = None;
    for round in 0..6 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        network
            .append(&[
                ordered(CITY, "city", vec![resource(&a, "city", &[]), resource(&b, "energy", &[&a])]),
                ordered(ENERGY, "energy", vec![resource(&format!("c{round}"), "energy", &[])]),
            ])
            .unwrap();
        network.append_other(CITY).unwrap();
        let condition = if round % 2 == 0 { Condition::Pending } else { Condition::InSync };
        let next = report("energy", "b0", condition, last.as_ref());
        let (emit, digest) = reported(network.signer(ENERGY).unwrap().as_ref(), &next);
        last = Some((next, digest));
        network.append(&[emit, retired(CITY, "city", &["nowhere"])]).unwrap();
        network.append(&[retired(ENERGY, "energy", &[&format!("c{round}")])]).unwrap();
        network
            .append(&[Emit::raw(ENERGY, "charter.report.submitted", b"{}".to_vec())])
            .unwrap();
        network.append_other(ENERGY).unwrap();
    }
}

/// A store in a directory that goes when it is dropped.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub store: Store,
}

pub fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::init(&directory.path().join("store.git")).unwrap();
    Place { directory, store }
}

pub fn heads(store: &Store) -> (Option<CommitId>, Option<CommitId>) {
    (
        store.head(&paths::desired_ref(&channel())).unwrap(),
        store.head(&paths::reported_ref(&channel())).unwrap(),
    )
}

/// The first line of every commit of a reference, newest first.
pub fn subjects(store: &Store, reference: &str) -> Vec<String> {
    let mut subjects = Vec::new();
    let mut next = store.head(reference).unwrap();
    while let Some(id) = next {
        let commit = store.commit(id).unwrap();
        subjects.push(commit.title().to_owned());
        next = commit.parents.first().copied();
    }
    subjects
}

/// Verifies and takes all blocks of a network, flushing after each block for which `flush` says so.
pub fn take_all(network: &MemoryNetwork, store: &Store, mut flush: impl FnMut(u64) -> bool) {
    let blocks = network.blocks();
    let mut verifier = BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    let mut materialiser = Materialiser::load(store, &channel(), verifier.genesis()).unwrap();
    for block in &blocks[1..] {
        let verified = verifier.verify(block).unwrap().unwrap();
        materialiser.take_block(verified.number, verified.hash, &verified.decoded).unwrap();
        if flush(verified.number) {
            materialiser.flush().unwrap();
        }
    }
    materialiser.flush().unwrap();
}
