//! The same blocks give the same history, however they arrive.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use ledger_sync::branches::BranchError;
use ledger_sync::testing::{Emit, MemoryNetwork};
use ledger_sync::{BlockVerifier, Decoded, Materialiser};
use proptest::prelude::*;
use state::event::{EventBody, SCHEMA_VERSION};
use state::git::{self, Store};
use state::paths;
use std::sync::{Arc, OnceLock};

/// A schema version that this Charter does not know.
const NEWER: u64 = SCHEMA_VERSION as u64 + 1;

fn told() -> &'static Arc<MemoryNetwork> {
    static TOLD: OnceLock<Arc<MemoryNetwork>> = OnceLock::new();
    TOLD.get_or_init(|| {
        let network = network();
        now(story(&network));
        network
    })
}

fn expected() -> &'static (Option<git::CommitId>, Option<git::CommitId>) {
    static EXPECTED: OnceLock<(Option<git::CommitId>, Option<git::CommitId>)> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let place = place();
        take_all(told(), &place.store, |_| false);
        heads(&place.store)
    })
}

/// Goes on where the store says, up to and with block `until`. `flush` are the blocks after which to write.
fn go_on(store: &Store, until: u64, flush: &[bool]) -> Materialiser {
    let blocks = told().blocks();
    let verifier = BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    let mut materialiser = Materialiser::load(store, &channel(), verifier.genesis()).unwrap();
    let from = materialiser.resume().map_or(1, |resume| resume.block + 1);
    let mut walk = verifier;
    for block in &blocks[1..=usize::try_from(until).unwrap()] {
        let verified = walk.verify(block).unwrap().unwrap();
        if verified.number < from {
            continue;
        }
        materialiser.take_block(verified.number, verified.hash, &verified.decoded).unwrap();
        if flush[usize::try_from(verified.number).unwrap() % flush.len()] {
            materialiser.flush().unwrap();
            materialiser.save(walk.configuration()).unwrap();
        }
    }
    materialiser
}

/// Moves a reference back, as a crash between the two references leaves it.
fn move_back(store: &Store, reference: &str, steps: usize) {
    let mut head = store.head(reference).unwrap();
    for _ in 0..steps {
        head = head.and_then(|id| store.commit(id).unwrap().parents.first().copied());
    }
    let repository = store.path();
    let file = repository.join(reference);
    match head {
        Some(id) => std::fs::write(file, format!("{id}\n")).unwrap(),
        None => drop(std::fs::remove_file(file)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_batches_and_any_restart_give_the_same_commits(
        flush in prop::collection::vec(any::<bool>(), 1..9),
        stop in 1u64..40,
        written in any::<bool>(),
        back in 0usize..4,
        lose_soft in any::<bool>(),
    ) {
        let place = place();
        let last = told().blocks().len() as u64 - 1;
        let mut first = go_on(&place.store, stop.min(last), &flush);
        if written {
            first.flush().unwrap();
        }
        drop(first);
        // `desired` moves first: `reported` may be left behind, by any number of commits that stood in one pack.
        move_back(&place.store, &paths::reported_ref(&channel()), back);
        if lose_soft {
            drop(std::fs::remove_file(place.store.path().join("charter/smart-city-1.json")));
        }
        go_on(&place.store, last, &flush).flush().unwrap();
        prop_assert_eq!(&heads(&place.store), expected());
    }

    #[test]
    fn repeated_blocks_change_nothing(picks in prop::collection::vec(0usize..40, 0..60)) {
        let blocks = told().blocks();
        let place = place();
        let mut verifier = BlockVerifier::start(channel(), &blocks[0], None).unwrap();
        let genesis = verifier.genesis();
        let all: Vec<_> = blocks[1..].iter().map(|block| verifier.verify(block).unwrap().unwrap()).collect();
        let mut materialiser = Materialiser::load(&place.store, &channel(), genesis).unwrap();
        // Any order: what is early is refused, what is late is passed over.
        for pick in picks {
            let block = &all[pick % all.len()];
            match materialiser.take_block(block.number, block.hash, &block.decoded) {
                Ok(()) | Err(BranchError::Gap { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        for block in &all {
            materialiser.take_block(block.number, block.hash, &block.decoded).unwrap();
        }
        materialiser.flush().unwrap();
        prop_assert_eq!(&heads(&place.store), expected());
    }
}

#[test]
fn the_history_reads_well() {
    let place = place();
    take_all(told(), &place.store, |_| false);
    let mut desired = subjects(&place.store, &paths::desired_ref(&channel()));
    desired.reverse();
    insta::assert_snapshot!(desired[..9].join("\n"), @r"
    register city as data service provider
    register energy as value service provider
    agreement smart-city v1 constituted by city
    agreement smart-city v1 accepted by energy: in force
    order 2 resources: a0, b0
    order resource c0
    quarantine a transaction of CityMSP
    retire resource c0
    order 2 resources: a1, b1
    ");
    let mut reported = subjects(&place.store, &paths::reported_ref(&channel()));
    reported.reverse();
    insta::assert_snapshot!(reported[..4].join("\n"), @r"
    report 1 from energy: 1 pending
    quarantine a transaction of EnergyMSP
    report 2 from energy: 1 in sync
    quarantine a transaction of EnergyMSP
    ");
}

#[test]
fn a_commit_names_its_transaction() {
    let place = place();
    take_all(told(), &place.store, |_| false);
    let mut id = place.store.head(&paths::desired_ref(&channel())).unwrap();
    let order = loop {
        let commit = place.store.commit(id.unwrap()).unwrap();
        if commit.title().starts_with("order 2") {
            break commit;
        }
        id = commit.parents.first().copied();
    };
    assert_eq!((order.author.name.as_str(), order.author.email.as_str()), ("city", "city@CityMSP"));
    assert_eq!(order.committer.name, "Charter");
    assert_eq!(order.author.seconds, order.committer.seconds);
    assert_eq!(order.trailer("Ledger-Channel"), Some("smart-city-1"));
    assert_eq!(order.trailer("Event"), Some("charter.resources.ordered"));
    assert_eq!(order.trailer("Member"), Some("city"));
    assert_eq!(order.trailer("Agreement"), Some(agreement().digest().unwrap().to_string().as_str()));
    let block: usize = order.trailer("Ledger-Block").unwrap().parse().unwrap();
    let data = told().blocks()[block].data.clone().unwrap().data;
    let signed = protos::envelope::decode_envelope(&data[0]).unwrap();
    let header = protos::envelope::open(&signed).unwrap().channel;
    assert_eq!(order.trailer("Ledger-Tx"), Some(header.tx_id.as_str()));
    assert_eq!(order.author.seconds, header.timestamp.unwrap().seconds);
    insta::assert_snapshot!(order.message.split("Ledger-Tx").next().unwrap(), @r"
    order 2 resources: a5, b5

    - a5 (machine/file), owner city
    - b5 (machine/file), owner energy

    Ledger-Channel: smart-city-1
    Ledger-Block: 35
    ");
}

#[test]
fn git_finds_nothing_wrong() {
    let place = place();
    take_all(told(), &place.store, |number| number % 3 == 0);
    let output = std::process::Command::new("git")
        .args(["fsck", "--strict", "--no-dangling"])
        .current_dir(place.store.path())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("error") && !said.contains("warning"), "{said}");
}

fn after_foundation(more: &[Emit]) -> (Arc<MemoryNetwork>, Place) {
    let network = network();
    now(found(&network));
    network.append(more).unwrap();
    let place = place();
    (network, place)
}

fn quarantined(store: &Store, reference: &str) -> Vec<(String, String)> {
    let head = store.head(reference).unwrap().unwrap();
    let mut found = Vec::new();
    store
        .read_all::<git::GitError>(head, "quarantine", |path, bytes| {
            let entry: ledger_sync::Quarantine = serde_json::from_slice(bytes).unwrap();
            found.push((path.to_owned(), entry.reason));
            Ok(())
        })
        .unwrap();
    found
}

#[test]
fn bad_events_are_kept_for_the_record() {
    let good = || ordered(CITY, "city", vec![resource("x", "city", &[])]);
    let signer = network();
    let far = report("energy", "b", state::report::Condition::InSync, None);
    let far = state::report::Report { sequence: 7, ..far };
    let (far, _) = reported(signer.signer(ENERGY).unwrap().as_ref(), &far);
    let (network, place) = after_foundation(&[
        Emit::raw(CITY, "charter.resources.ordered", b"not json".to_vec()),
        Emit::raw(CITY, "evil\n\nMember: city\n", b"{}".to_vec()),
        good().altered(|event| event["data"]["surprise"] = true.into()),
        good().altered(|event| event["source"] = "urn:charter:other".into()),
        good().altered(|event| event["time"] = "2020-01-01T00:00:00Z".into()),
        good().altered(|event| event["member"] = "energy".into()),
        good().altered(|event| event["type"] = "charter.resources.amended".into()),
        good().altered(|event| event["data"]["resources"][0]["owner"] = "stranger".into()),
        good().altered(|event| event["data"]["resources"][0]["name"] = "../x".into()),
        good().with_code(protos::peer::TxValidationCode::MvccReadConflict),
        good().of_chaincode("basic"),
        far,
        good(),
    ]);
    take_all(&network, &place.store, |_| true);
    let reasons: Vec<String> = quarantined(&place.store, &paths::desired_ref(&channel()))
        .into_iter()
        .map(|(path, reason)| format!("{path} {reason}"))
        .collect();
    insta::assert_snapshot!(reasons.join("\n"), @r"
    quarantine/0000000005-00000.json the event is malformed
    quarantine/0000000005-00001.json the event is malformed
    quarantine/0000000005-00002.json the event is malformed
    quarantine/0000000005-00003.json the event's source is not this channel
    quarantine/0000000005-00004.json the event's time is not that of its transaction
    quarantine/0000000005-00005.json the member is not bound to the MSP that signed the transaction
    quarantine/0000000005-00006.json the event's name is not its type
    quarantine/0000000005-00007.json the owner of a resource is not a party of the agreement
    quarantine/0000000005-00008.json the event is malformed
    ");
    let reasons = quarantined(&place.store, &paths::reported_ref(&channel()));
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[0].1, "the report does not follow the member's last one");
    let subjects = subjects(&place.store, &paths::desired_ref(&channel()));
    assert_eq!(subjects[0], "order resource x");
    assert!(subjects.iter().all(|subject| !subject.contains("evil")));
}

#[test]
fn a_newer_event_stops_the_channel_and_keeps_what_came_before() {
    let newer = ordered(CITY, "city", vec![resource("y", "city", &[])]).altered(|event| event["schemaversion"] = NEWER.into());
    let (network, place) = after_foundation(&[ordered(CITY, "city", vec![resource("x", "city", &[])])]);
    // A block is taken whole or not at all.
    network
        .append(&[ordered(CITY, "city", vec![resource("z", "city", &[])]), newer])
        .unwrap();
    let blocks = network.blocks();
    let mut verifier = BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    let mut materialiser = Materialiser::load(&place.store, &channel(), verifier.genesis()).unwrap();
    let mut stopped = None;
    for block in &blocks[1..] {
        let verified = verifier.verify(block).unwrap().unwrap();
        if let Err(error) = materialiser.take_block(verified.number, verified.hash, &verified.decoded) {
            stopped = Some(error);
        }
    }
    let stopped = stopped.unwrap();
    assert!(matches!(stopped, BranchError::Newer { found: NEWER, .. }), "{stopped}");
    assert!(stopped.to_string().contains("upgrade Charter"), "{stopped}");
    materialiser.flush().unwrap();
    assert_eq!(subjects(&place.store, &paths::desired_ref(&channel()))[0], "order resource x");
}

#[test]
fn another_history_freezes_the_channel() {
    let (network, place) = after_foundation(&[ordered(CITY, "city", vec![resource("x", "city", &[])])]);
    take_all(&network, &place.store, |_| true);
    let before = heads(&place.store);
    let last = network.blocks().len() as u64 - 1;
    network.fork(last);
    network.append(&[ordered(CITY, "city", vec![resource("z", "city", &[])])]).unwrap();
    let blocks = network.blocks();
    let mut verifier = BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    let mut materialiser = Materialiser::load(&place.store, &channel(), verifier.genesis()).unwrap();
    let forked: Vec<_> = blocks[1..].iter().map(|block| verifier.verify(block).unwrap().unwrap()).collect();
    let forked = forked.last().unwrap();
    let error = materialiser.take_block(forked.number, forked.hash, &forked.decoded).unwrap_err();
    assert!(matches!(error, BranchError::Frozen { block, .. } if block == last), "{error}");
    assert_eq!(heads(&place.store), before);
    // Another genesis block is noticed before anything is read.
    network.reset().unwrap();
    let reset = BlockVerifier::start(channel(), &network.blocks()[0], None).unwrap();
    let error = Materialiser::load(&place.store, &channel(), reset.genesis()).err().unwrap();
    assert!(matches!(error, BranchError::Frozen { block: 0, .. }), "{error}");
}

#[test]
fn events_know_who_signed_them() {
    let (network, _place) = after_foundation(&[ordered(ENERGY, "energy", vec![resource("x", "energy", &[])])]);
    let blocks = network.blocks();
    let mut verifier = BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    let (verified, failed) = verifier.verify_all(&blocks);
    assert!(failed.is_none());
    let last = verified.last().unwrap();
    let [Decoded::Event { event, schema: 1 }] = last.decoded.as_slice() else {
        panic!("{:?}", last.decoded)
    };
    assert_eq!((event.msp.as_str(), event.source.by.as_str()), (ENERGY, "energy"));
    assert!(matches!(event.body, EventBody::ResourcesOrdered { .. }));
}
