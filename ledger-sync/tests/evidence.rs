//! The evidence of a channel is checked against what a member has of it.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::*;
use futures::StreamExt;
use ledger_sync::evidence::{Evidence, EvidenceError, check};
use ledger_sync::testing::{MemoryLedger, MemoryNetwork, Misbehaviour, Tamper};
use ledger_sync::{BlockStream, Committed, EvaluateError, Ledger, Reexecution, StreamError, SubmitError, VerifyError, catch_up};
use protos::common::BlockMetadataIndex;
use protos::peer::TxValidationCode;
use state::canonical::Digest;
use state::cursor::Cursor;
use state::errors::chain;
use state::ids::{Channel, TxId};
use state::paths;

/// Where both references stand once a store has taken in everything.
async fn cursors(network: &Arc<MemoryNetwork>) -> Vec<Cursor> {
    let place = place();
    let ledger = Arc::new(network.ledger(CITY));
    catch_up(ledger, place.store.clone(), channel(), options()).await.unwrap();
    let (desired, reported) = heads(&place.store);
    let read = |commit| place.store.read(commit, paths::CURSOR).unwrap().unwrap();
    [desired.unwrap(), reported.unwrap()]
        .into_iter()
        .map(|commit| serde_json::from_slice(&read(commit)).unwrap())
        .collect()
}

fn genesis(network: &MemoryNetwork) -> Digest {
    let blocks = network.blocks();
    Digest::from_bytes(protos::block::header_hash(blocks[0].header.as_ref().unwrap()))
}

async fn refused(network: &Arc<MemoryNetwork>, pinned: Option<Digest>, cursors: &[Cursor]) -> EvidenceError {
    check(&network.ledger(CITY), &channel(), pinned, cursors, Reexecution::Off)
        .await
        .unwrap_err()
}

#[tokio::test]
async fn the_chain_that_was_taken_in_stands_up() {
    let network = network();
    story(&network).await;
    let cursors = cursors(&network).await;
    let pinned = Some(genesis(&network));
    let found = check(&network.ledger(ENERGY), &channel(), pinned, &cursors, Reexecution::Off)
        .await
        .unwrap();
    let wanted = Evidence {
        blocks: network.blocks().len() as u64,
        events: found.events,
        quarantined: 6,
        reports: [(member("energy"), 6)].into(),
        keys: found.keys.clone(),
        rerun: None,
    };
    assert_eq!(found, wanted);
    // Each block counts once, however often it comes.
    network.misbehave(Misbehaviour {
        repeat: true,
        ..Misbehaviour::default()
    });
    assert_eq!(
        check(&network.ledger(ENERGY), &channel(), pinned, &cursors, Reexecution::Off)
            .await
            .unwrap(),
        wanted
    );
}

#[tokio::test]
async fn another_history_than_was_taken_in_is_refused() {
    let network = network();
    story(&network).await;
    let cursors = cursors(&network).await;
    let pinned = genesis(&network);
    // A reference at a block that isn't there any more, and then at another one.
    let last = cursors.iter().map(|cursor| cursor.position.block).max().unwrap();
    network.fork(last);
    let error = refused(&network, Some(pinned), &cursors).await;
    assert!(
        matches!(error, EvidenceError::Behind { height, needed, .. } if height == last && needed == last),
        "{error}"
    );
    network.append_other(CITY).unwrap();
    network.append_other(CITY).unwrap();
    let error = refused(&network, Some(pinned), &cursors).await;
    assert!(
        matches!(&error, EvidenceError::Verify(VerifyError::Fork { block, .. }) if *block == last),
        "{}",
        chain(&error)
    );
    // A whole new chain, good in itself.
    network.reset().unwrap();
    story(&network).await;
    check(&network.ledger(CITY), &channel(), None, &[], Reexecution::Off).await.unwrap();
    let error = refused(&network, Some(pinned), &[]).await;
    assert!(
        matches!(error, EvidenceError::Verify(VerifyError::Fork { block: 0, .. })),
        "{}",
        chain(&error)
    );
    let error = refused(&network, None, &cursors).await;
    assert!(
        matches!(error, EvidenceError::Verify(VerifyError::Fork { .. })),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_transaction_that_was_taken_in_has_to_be_valid_still() {
    let network = network();
    story(&network).await;
    let mut cursors = cursors(&network).await;
    let at = cursors[0].position;
    // The codes are the peer's word, and no hash covers them.
    let mut blocks = network.blocks();
    let metadata = blocks[usize::try_from(at.block).unwrap()].metadata.as_mut().unwrap();
    metadata.metadata[BlockMetadataIndex::TransactionsFilter as usize][at.tx as usize] = TxValidationCode::MvccReadConflict as u8;
    let lying = Sent {
        ledger: network.ledger(CITY),
        height: blocks.len() as u64,
        blocks,
    };
    let error = check(&lying, &channel(), None, &cursors, Reexecution::Off).await.unwrap_err();
    assert!(
        matches!(&error, EvidenceError::Gone { position, .. } if *position == at),
        "{}",
        chain(&error)
    );
    // Another transaction at that place.
    cursors[0].tx_id = TxId::new("0".repeat(64)).unwrap();
    let error = refused(&network, None, &cursors).await;
    assert!(
        matches!(&error, EvidenceError::Gone { position, .. } if *position == at),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn what_is_missing_or_altered_is_not_counted() {
    let network = network();
    story(&network).await;
    let blocks = network.blocks();
    let height = blocks.len() as u64;
    let short = |sent: u64| Sent {
        ledger: network.ledger(CITY),
        height,
        blocks: blocks[..usize::try_from(sent).unwrap()].to_vec(),
    };
    for sent in [0, 1, height - 1] {
        let error = check(&short(sent), &channel(), None, &[], Reexecution::Off).await.unwrap_err();
        assert!(
            matches!(error, EvidenceError::Short { verified, height: said, .. } if verified == sent && said == height),
            "{error}"
        );
    }
    network.tamper(height - 1, Tamper::Data).unwrap();
    let error = refused(&network, None, &[]).await;
    assert!(
        matches!(error, EvidenceError::Verify(VerifyError::Chain { .. })),
        "{}",
        chain(&error)
    );
}

/// A ledger that sends these blocks, ends there, and says a height.
struct Sent {
    ledger: MemoryLedger,
    height: u64,
    blocks: Vec<protos::common::Block>,
}

#[async_trait]
impl Ledger for Sent {
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        self.ledger.submit(channel, function, args).await
    }

    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        self.ledger.evaluate(channel, function, args).await
    }

    async fn blocks(&self, _: &Channel, _: u64) -> Result<BlockStream, StreamError> {
        Ok(futures::stream::iter(self.blocks.clone().into_iter().map(Ok)).boxed())
    }

    async fn height(&self, _: &Channel) -> Result<u64, StreamError> {
        Ok(self.height)
    }
}
