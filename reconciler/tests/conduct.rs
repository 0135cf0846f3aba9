//! What members have done is counted from their reports in a store.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use ledger_sync::testing::{Emit, MemoryNetwork};
use ledger_sync::{Options, Reexecution, catch_up};
use reconciler::conduct;
use serde_json::json;
use state::canonical::Digest;
use state::event::EventBody;
use state::git::Store;
use state::ids::{Channel, MemberId};
use state::report::{Envelope, Report, whole};
use state::time::Timestamp;

fn channel() -> Channel {
    "air-1".parse().unwrap()
}

fn member(name: &str) -> MemberId {
    name.parse().unwrap()
}

/// A report that says how one resource stands, and what was done about it.
fn report(by: &str, before: Option<&(u64, Digest)>, condition: &str, healed: bool) -> Report {
    let status = json!({ "kind": "machine/file", "condition": condition });
    let statuses = serde_json::from_value(json!({ "notes": status })).unwrap();
    let step = json!({ "resource": "notes", "action": "update", "outcome": "done", "plan": Digest::of(b"plan") });
    serde_json::from_value(json!({
        "channel": "air-1", "member": by, "sequence": before.map_or(1, |(sequence, _)| sequence + 1),
        "previous": before.map(|(_, digest)| digest), "desired": { "block": 1, "tx": 0 }, "commit": "0".repeat(40),
        "plan": Digest::of(b"plan"), "observed_at": "2026-01-01T00:00:00Z",
        "steps": if healed { vec![step] } else { vec![] }, "changes": { "notes": status }, "whole": whole(&statuses).unwrap(),
    }))
    .unwrap()
}

/// A channel of two members; the city reports what is given.
fn network(conditions: &[(&str, bool)]) -> Arc<MemoryNetwork> {
    let network = MemoryNetwork::new(&channel(), &["CityMSP", "AcmeMSP"]).unwrap();
    for (name, msp, role) in [
        ("city", "CityMSP", state::agreement::Role::DataServiceProvider),
        ("acme", "AcmeMSP", state::agreement::Role::ValueServiceProvider),
    ] {
        let body = EventBody::MemberRegistered {
            member: member(name),
            msp: msp.parse().unwrap(),
            role,
        };
        network.append(&[Emit::body(msp, member(name), body)]).unwrap();
    }
    let mut before = None;
    for (condition, healed) in conditions {
        let report = report("city", before.as_ref(), condition, *healed);
        let payload = report.payload().unwrap();
        let digest = Digest::of(&payload);
        let body = EventBody::ReportSubmitted {
            sequence: report.sequence,
            digest,
            // Whoever reads a store has checked the signatures before.
            envelope: Envelope::new(&payload, "CityMSP:0".into(), b"signature"),
            heartbeat: None,
        };
        network.append(&[Emit::body("CityMSP", member("city"), body)]).unwrap();
        before = Some((report.sequence, digest));
    }
    network
}

async fn followed(network: &Arc<MemoryNetwork>, store: &Store) {
    let options = Options {
        reexecution: Reexecution::Off,
        ..Options::default()
    };
    catch_up(Arc::new(network.ledger("AcmeMSP")), store.clone(), channel(), options)
        .await
        .unwrap();
}

#[tokio::test]
async fn reports_tell_what_was_done() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::init(&place.path().join("store.git")).unwrap();
    let soon = Timestamp::clamped(0);
    assert!(
        conduct::of(&store, &channel(), soon).unwrap().is_empty(),
        "nobody has said anything"
    );
    let network = network(&[
        ("pending", false),
        ("in-sync", false),
        ("drifted", false),
        ("in-sync", true),
        ("failed", false),
    ]);
    followed(&network, &store).await;

    let found = conduct::of(&store, &channel(), soon).unwrap();
    // Who has not reported has done nothing that anybody could count.
    assert_eq!(found.keys().collect::<Vec<_>>(), [&member("city")]);
    let city = &found[&member("city")];
    assert_eq!(
        (city.reports, city.late, city.drifted, city.healed, city.pending, city.silent),
        (5, 0, 1, 1, 1, 0)
    );
    // Long after, silence is one of the facts.
    let last = city.last.unwrap();
    let later = Timestamp::clamped(last.seconds() + 86_400);
    let city = &conduct::of(&store, &channel(), later).unwrap()[&member("city")];
    assert_eq!(city.silent, 86_400);
}
