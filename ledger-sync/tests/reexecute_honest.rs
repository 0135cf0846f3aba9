//! Honest chains always stand up to being run again: from any restart, and whatever became of the mirror.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use common::*;
use ledger_sync::reexecute::{Mirror, snapshot};
use ledger_sync::testing::{Effects, LyingPeer, MemoryNetwork};
use ledger_sync::{BlockVerifier, FollowError, Ledger, Options, Progress, catch_up};
use proptest::prelude::*;
use protos::kvrwset::{KvRead, KvWrite, KvrwSet, Version};
use protos::metadata;
use protos::peer::TxValidationCode as Code;
use serde_json::{Value, json};
use state::git::Store;

fn text(value: Value) -> Vec<Vec<u8>> {
    vec![value.to_string().into_bytes()]
}

fn orders(names: &[String], after: &[&str]) -> Vec<Vec<u8>> {
    let resources: Vec<_> = names.iter().map(|name| resource(name, "city", after)).collect();
    text(json!({ "resources": resources }))
}

/// Everything that an honest channel may hold: all functions, conflicts, ranges, reads, other chaincodes, the lifecycle, new orderers.
async fn full(network: &Arc<MemoryNetwork>) {
    found(network).await;
    let channel = channel();
    let (city, energy) = (network.ledger(CITY), network.ledger(ENERGY));
    let lifecycle = |version: Option<(u64, u64)>| KvRead {
        key: "namespaces/fields/charter/Sequence".into(),
        version: version.map(|(block_num, tx_num)| Version { block_num, tx_num }),
    };
    let defined = Effects {
        chaincode: "_lifecycle".into(),
        namespaces: vec![(
            "_lifecycle".into(),
            KvrwSet {
                writes: vec![KvWrite {
                    key: lifecycle(None).key,
                    is_delete: false,
                    value: b"1".to_vec(),
                }],
                ..KvrwSet::default()
            },
        )],
        ..Effects::default()
    };
    let at = network.commit(vec![network.draft_of(CITY, defined.clone()).unwrap()]).unwrap();
    let mut last = None;
    for round in 0..4u64 {
        let name = |letter: char| format!("{letter}{round}");
        city.submit(&channel, "order", orders(&[name('a'), name('b')], &[])).await.unwrap();
        city.submit(&channel, "order", orders(&[name('c')], &[&name('a')])).await.unwrap();
        // Two at once: one is a conflict.
        let one = network.draft(CITY, "order", &orders(&[name('d')], &[])).unwrap();
        let two = network.draft(ENERGY, "order", &orders(&[name('e')], &[])).unwrap();
        // As real peers do, with a read of the chaincode's definition.
        let mut three = network
            .draft(
                CITY,
                "amend",
                &text(json!({ "resources": [resource(&name('b'), "city", &[&name('a')])] })),
            )
            .unwrap();
        three.effects.namespaces.insert(
            0,
            (
                "_lifecycle".into(),
                KvrwSet {
                    reads: vec![lifecycle(Some((at, 0)))],
                    ..KvrwSet::default()
                },
            ),
        );
        assert_eq!(three.effects.response.status, 200);
        network.commit(vec![one, two, three]).unwrap();
        network.append_other(ENERGY).unwrap();
        let next = report("energy", &name('a'), state::report::Condition::InSync, last.as_ref());
        let envelope = ledger_sync::reports::sign(&next, network.signer(ENERGY).unwrap().as_ref()).unwrap();
        let (_, digest) = envelope.report().unwrap();
        energy
            .submit(&channel, "report", vec![serde_json::to_vec(&envelope).unwrap()])
            .await
            .unwrap();
        last = Some((next, digest));
        // With a range that is read: what depends on it.
        city.submit(&channel, "retire", text(json!({ "resources": [name('c')] })))
            .await
            .unwrap();
        let list = network.draft(ENERGY, "resources", &[]).unwrap();
        let head = network.draft(CITY, "head", &[b"energy".to_vec()]).unwrap();
        network.commit(vec![list, head]).unwrap();
        if round == 1 {
            network.rotate_orderer("NewOrdererMSP").unwrap();
        }
    }
    // The definition changes, and what read it before is a conflict for that reason alone.
    let mut late = network.draft(CITY, "order", &orders(&["late".into()], &[])).unwrap();
    late.effects.namespaces.push((
        "_lifecycle".into(),
        KvrwSet {
            reads: vec![lifecycle(Some((at, 0)))],
            ..KvrwSet::default()
        },
    ));
    late.code = Some(Code::MvccReadConflict);
    network.commit(vec![network.draft_of(CITY, defined).unwrap(), late]).unwrap();
    city.submit(&channel, "order", orders(&["last".into()], &[])).await.unwrap();
}

/// The chain, made once.
fn chain() -> &'static Arc<MemoryNetwork> {
    static CHAIN: OnceLock<Arc<MemoryNetwork>> = OnceLock::new();
    CHAIN.get_or_init(|| {
        std::thread::spawn(|| {
            let network = network();
            now(full(&network));
            network
        })
        .join()
        .unwrap()
    })
}

fn up_to(height: u64, store: &Store, options: Options) -> Result<Progress, FollowError> {
    let ledger = LyingPeer::new(Arc::new(chain().ledger(CITY)), |_| {}).up_to(height);
    now(catch_up(Arc::new(ledger), store.clone(), channel(), options))
}

fn mirror_file(store: &Store) -> PathBuf {
    store.path().join("charter/smart-city-1.mirror")
}

#[test]
fn the_chain_has_what_it_should() {
    let blocks = chain().blocks();
    let codes: Vec<u8> = blocks
        .iter()
        .flat_map(|block| metadata::validation_flags(block).unwrap().to_vec())
        .collect();
    assert!(codes.iter().filter(|code| **code == Code::MvccReadConflict as u8).count() >= 5);
    let place = place();
    let progress = up_to(u64::MAX, &place.store, Options::default()).unwrap();
    assert_eq!(progress.block, Some(blocks.len() as u64 - 1));
    let rerun = progress.rerun.unwrap();
    assert_eq!(
        (rerun.block, rerun.undecided, rerun.commit_hashes),
        (blocks.len() as u64 - 1, 0, true)
    );
    // The same commits as without.
    let other = common::place();
    let plain = up_to(u64::MAX, &other.store, options()).unwrap();
    assert_eq!(
        (plain.desired, plain.reported, plain.rerun),
        (progress.desired, progress.reported, None)
    );
}

#[test]
fn the_mirror_is_written_at_the_end_and_read_back() {
    let place = place();
    let progress = up_to(u64::MAX, &place.store, Options::default()).unwrap();
    let genesis = BlockVerifier::start(channel(), &chain().blocks()[0], None).unwrap().genesis();
    let (read, _) = snapshot::read(&place.store, &channel(), genesis).unwrap();
    assert_eq!(read.at().number, progress.block.unwrap());
    assert_eq!(read.standing(), progress.rerun.unwrap());
    let mut verifier = BlockVerifier::start(channel(), &chain().blocks()[0], None).unwrap();
    let mut made = Mirror::new(&channel(), genesis);
    let (verified, failed) = verifier.verify_all(&chain().blocks());
    assert!(failed.is_none());
    for block in &verified {
        made.take(block.number, block.hash, &block.recorded).unwrap();
    }
    assert_eq!(read, made);
    assert!(snapshot::read(&place.store, &channel(), state::canonical::Digest::of(b"other")).is_none());
}

/// What becomes of the mirror while nobody looks.
#[derive(Clone, Debug)]
enum Fate {
    Kept,
    Lost,
    Cut(prop::sample::Index),
    Flipped(prop::sample::Index),
    /// The mirror of an earlier moment comes back.
    Old,
    /// The soft cursor is lost, so the mirror is ahead of what is known to be taken.
    SoftLost,
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Kept),
        Just(Fate::Lost),
        any::<prop::sample::Index>().prop_map(Fate::Cut),
        any::<prop::sample::Index>().prop_map(Fate::Flipped),
        Just(Fate::Old),
        Just(Fate::SoftLost),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn honest_chains_stand_up_from_any_restart(
        stops in prop::collection::vec((any::<prop::sample::Index>(), fates()), 0..5),
        batch_blocks in 1usize..8,
    ) {
        let height = chain().blocks().len() as u64;
        let place = place();
        let options = Options { batch_blocks, ..Options::default() };
        let mut stops: Vec<(u64, Fate)> = stops.into_iter().map(|(at, fate)| (at.index(height as usize - 1) as u64 + 1, fate)).collect();
        stops.sort_by_key(|(at, _)| *at);
        let mut old = None;
        for (at, fate) in stops {
            let progress = up_to(at, &place.store, options.clone()).unwrap();
            prop_assert_eq!(progress.rerun.map(|rerun| rerun.block), Some(at - 1));
            let path = mirror_file(&place.store);
            let bytes = std::fs::read(&path).unwrap_or_default();
            match fate {
                Fate::Kept => {}
                Fate::Lost => drop(std::fs::remove_file(&path)),
                Fate::Cut(_) | Fate::Flipped(_) if bytes.is_empty() => {}
                Fate::Cut(to) => std::fs::write(&path, &bytes[..to.index(bytes.len())]).unwrap(),
                Fate::Flipped(at) => {
                    let mut bytes = bytes.clone();
                    let at = at.index(bytes.len());
                    bytes[at] ^= 0x40;
                    std::fs::write(&path, bytes).unwrap();
                }
                Fate::Old => if let Some(old) = &old { std::fs::write(&path, old).unwrap() },
                Fate::SoftLost => drop(std::fs::remove_file(place.store.path().join("charter/smart-city-1.json"))),
            }
            old = Some(bytes).filter(|bytes: &Vec<u8>| !bytes.is_empty()).or(old);
        }
        let end = up_to(u64::MAX, &place.store, options).unwrap();
        let fresh = common::place();
        let expected = up_to(u64::MAX, &fresh.store, Options::default()).unwrap();
        prop_assert_eq!((end.desired, end.reported, end.block), (expected.desired, expected.reported, expected.block));
        let (end, expected) = (end.rerun.unwrap(), expected.rerun.unwrap());
        prop_assert_eq!((end.block, end.transactions, end.undecided), (expected.block, expected.transactions, expected.undecided));
    }
}
