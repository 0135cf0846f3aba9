//! What is not the channel's own history is refused, by name.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use ledger_sync::testing::{Emit, MemoryNetwork, Tamper};
use ledger_sync::{BlockVerifier, VerifyError};
use protos::common::Block;
use protos::peer::TxValidationCode;
use state::canonical::Digest;
use state::errors::chain;
use state::ids::Channel;
use std::sync::Arc;

/// A chain of six blocks; every second one has several transactions.
fn six_blocks() -> Arc<MemoryNetwork> {
    let network = network();
    for round in 0..5 {
        let order = ordered(CITY, "city", vec![resource(&format!("r{round}"), "city", &[])]);
        let more = if round % 2 == 0 { vec![order.clone(), order] } else { vec![order] };
        network.append(&more).unwrap();
    }
    network
}

/// Verifies blocks one by one and all at once; both have to say the same.
fn refused(blocks: &[Block]) -> VerifyError {
    let start = || BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    let mut one = start();
    let mut taken = 0;
    let error = blocks[1..]
        .iter()
        .find_map(|block| match one.verify(block) {
            Ok(verified) => {
                taken += usize::from(verified.is_some());
                None
            }
            Err(error) => Some(error),
        })
        .expect("one block is not to be believed");
    let (verified, failed) = start().verify_all(&blocks[1..]);
    assert_eq!(verified.len(), taken);
    assert_eq!(chain(&failed.unwrap()), chain(&error));
    error
}

fn tampered(number: u64, how: Tamper) -> VerifyError {
    let network = six_blocks();
    network.tamper(number, how).unwrap();
    refused(&network.blocks())
}

#[test]
fn an_honest_chain_is_believed() {
    let blocks = six_blocks().blocks();
    let mut verifier = BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    let (verified, failed) = verifier.verify_all(&blocks);
    assert!(failed.is_none(), "{failed:?}");
    assert_eq!(verified.iter().map(|block| block.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(
        verified.iter().map(|block| block.decoded.len()).collect::<Vec<_>>(),
        [2, 1, 2, 1, 2]
    );
}

#[test]
fn changed_transactions_are_seen() {
    let error = tampered(3, Tamper::Data);
    assert!(matches!(error, VerifyError::Chain { block: 3, .. }), "{error}");
    assert!(chain(&error).contains("was altered"), "{}", chain(&error));
    // The orderer signed another header.
    let error = tampered(5, Tamper::DataAndHash);
    assert!(matches!(error, VerifyError::Signatures { block: 5, .. }), "{error}");
}

#[test]
fn another_predecessor_is_seen() {
    let error = tampered(2, Tamper::PreviousHash);
    assert!(matches!(error, VerifyError::Chain { block: 2, .. }), "{error}");
    assert!(chain(&error).contains("does not follow"), "{}", chain(&error));
}

#[test]
fn strangers_do_not_order() {
    for how in [Tamper::Signature, Tamper::NoSignature] {
        let error = tampered(4, how);
        assert!(matches!(error, VerifyError::Signatures { block: 4, .. }), "{error}");
    }
}

#[test]
fn a_gap_is_refused_and_the_next_block_is_still_taken() {
    let blocks = six_blocks().blocks();
    let mut verifier = BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    verifier.verify(&blocks[1]).unwrap().unwrap();
    let error = verifier.verify(&blocks[3]).unwrap_err();
    assert!(matches!(error, VerifyError::Gap { expected: 2, found: 3, .. }), "{error}");
    verifier.verify(&blocks[2]).unwrap().unwrap();
    assert!(verifier.verify(&blocks[1]).unwrap().is_none());
    assert!(verifier.verify(&blocks[2]).unwrap().is_none());
    verifier.verify(&blocks[3]).unwrap().unwrap();
}

#[test]
fn another_channels_blocks_are_refused() {
    let other = MemoryNetwork::new(&Channel::new("other").unwrap(), &[CITY, ENERGY]).unwrap();
    other.append_other(CITY).unwrap();
    let error = BlockVerifier::start(channel(), &other.blocks()[0], None).unwrap_err();
    assert!(
        matches!(&error, VerifyError::Foreign { block: 0, found, .. } if found == "other"),
        "{error}"
    );
    let mut blocks = six_blocks().blocks();
    blocks[2] = other.blocks()[1].clone();
    let error = refused(&blocks);
    assert!(
        matches!(
            error,
            VerifyError::Gap { .. } | VerifyError::Chain { .. } | VerifyError::Fork { .. }
        ),
        "{error}"
    );
    // Another channel's history with this one's numbers.
    blocks[1] = other.blocks()[1].clone();
    let error = refused(&blocks);
    assert!(matches!(error, VerifyError::Chain { block: 1, .. }), "{error}");
}

#[test]
fn a_pinned_genesis_is_the_only_one() {
    let blocks = six_blocks().blocks();
    let pinned = BlockVerifier::start(channel(), &blocks[0], None).unwrap().genesis();
    BlockVerifier::start(channel(), &blocks[0], Some(pinned)).unwrap();
    let error = BlockVerifier::start(channel(), &blocks[0], Some(Digest::of(b"other"))).unwrap_err();
    assert!(matches!(error, VerifyError::Fork { block: 0, .. }), "{error}");
    assert!(matches!(
        BlockVerifier::start(channel(), &blocks[1], None),
        Err(VerifyError::Chain { block: 0, .. })
    ));
}

/// Rewrites one transaction of the last block, with the orderer's help.
fn rewritten(change: impl FnOnce(&mut protos::common::Envelope)) -> Vec<Block> {
    use prost::Message;
    let network = six_blocks();
    let data = network.blocks()[5].data.clone().unwrap().data;
    let mut envelope = protos::common::Envelope::decode(data[0].as_slice()).unwrap();
    change(&mut envelope);
    network.append_data(vec![envelope.encode_to_vec()]).unwrap();
    network.blocks()
}

#[test]
fn the_creators_signature_is_checked_even_when_the_orderer_looks_away() {
    let error = refused(&rewritten(|envelope| envelope.signature[10] ^= 1));
    assert!(matches!(error, VerifyError::Creator { block: 6, tx: 0, .. }), "{error}");
    let error = refused(&rewritten(|envelope| envelope.payload.clear()));
    assert!(matches!(error, VerifyError::Transaction { block: 6, tx: 0, .. }), "{error}");
}

#[test]
fn a_new_orderer_is_believed_after_its_configuration_and_the_old_one_no_more() {
    let network = six_blocks();
    let rotated = network.rotate_orderer("NewOrdererMSP").unwrap();
    network
        .append(&[Emit::raw(CITY, "x", b"{}".to_vec()).with_code(TxValidationCode::MvccReadConflict)])
        .unwrap();
    let blocks = network.blocks();
    let start = || BlockVerifier::start(channel(), &blocks[0], None).unwrap();
    let mut verifier = start();
    let (verified, failed) = verifier.verify_all(&blocks);
    assert!(failed.is_none(), "{}", chain(&failed.unwrap()));
    assert_eq!(verified.len(), 7);
    let configuration = verifier.configuration();
    assert_eq!(configuration.number, rotated);
    // An earlier run's place, with what it knew.
    use ledger_sync::verify::{BlockId, Configuration};
    let id = |index: usize| BlockId {
        number: verified[index].number,
        hash: verified[index].hash,
    };
    let known = Configuration::Known {
        block: &blocks[6],
        at: configuration,
    };
    assert!(start().resume(&blocks[7], id(6), known).unwrap().is_some());
    // Without it the genesis block's orderers are not enough any more.
    assert!(start().resume(&blocks[7], id(6), Configuration::Named).unwrap().is_none());
    // Another block at that place is no place to go on.
    let error = start().resume(&blocks[6], id(6), Configuration::Named).unwrap_err();
    assert!(matches!(error, VerifyError::Fork { block: 7, .. }), "{error}");
    // Before the rotation they are.
    let resumed = start().resume(&blocks[3], id(2), Configuration::Named).unwrap();
    let (rest, failed) = resumed.unwrap().verify_all(&blocks[3..]);
    assert!(failed.is_none());
    assert_eq!(rest.len(), 4);
}
