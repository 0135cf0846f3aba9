//! A second peer shows what the first one says alone.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::*;
use ledger_sync::testing::{LyingPeer, MemoryLedger, MemoryNetwork};
use ledger_sync::{
    BlockStream, Committed, EvaluateError, FollowError, Follower, Ledger, Options, Progress, StreamError, SubmitError, Witnessed, catch_up,
    frozen,
};
use protos::common::{Block, BlockMetadataIndex, Metadata};
use protos::peer::TxValidationCode as Code;
use serde_json::json;
use state::errors::chain;
use state::ids::Channel;
use tokio::sync::{oneshot, watch};

const PATIENCE: Duration = Duration::from_secs(20);

async fn order(network: &Arc<MemoryNetwork>, name: &str) -> u64 {
    let argument = json!({ "resources": [resource(name, "city", &[])] }).to_string().into_bytes();
    let committed = network.ledger(CITY).submit(&channel(), "order", vec![argument]).await.unwrap();
    committed.block
}

fn witnessed(first: impl Ledger + 'static, second: impl Ledger + 'static, patience: Duration) -> Arc<Witnessed> {
    Arc::new(Witnessed::new(Arc::new(first), Arc::new(second), patience))
}

/// A peer that shows block `number` changed.
fn liar(network: &Arc<MemoryNetwork>, number: u64, lie: impl Fn(&mut Block) + Send + Sync + 'static) -> LyingPeer {
    LyingPeer::new(Arc::new(network.ledger(ENERGY)), move |block| {
        if block.header.as_ref().unwrap().number == number {
            lie(block);
        }
    })
}

fn slot(block: &mut Block, index: BlockMetadataIndex) -> &mut Vec<u8> {
    &mut block.metadata.as_mut().unwrap().metadata[index as usize]
}

#[tokio::test]
async fn two_honest_peers_confirm_each_other() {
    let network = network();
    found(&network).await;
    let last = order(&network, "x").await;
    let ledger = witnessed(network.ledger(CITY), network.ledger(ENERGY), PATIENCE);
    let place = place();
    let progress = catch_up(ledger.clone(), place.store.clone(), channel(), Options::default())
        .await
        .unwrap();
    assert_eq!(progress.block, Some(last));
    let testimony = progress.testimony.unwrap();
    assert_eq!((testimony.confirmed, testimony.waiting, testimony.away), (Some(last), 0, None));
    // The rest goes to the first.
    assert_eq!(ledger.height(&channel()).await.unwrap(), last + 1);
    assert!(ledger.evaluate(&channel(), "head", vec![b"city".to_vec()]).await.is_ok());
}

#[tokio::test]
async fn what_only_one_of_two_peers_says_freezes_before_it_is_taken() {
    let network = network();
    found(&network).await;
    let last = order(&network, "x").await;
    let other = network.equivocate(Vec::new()).unwrap();
    type Lie = Box<dyn Fn(&mut Block) + Send + Sync>;
    let lies: [(&str, Lie); 3] = [
        // What running again can't tell.
        (
            "validation code of transaction 0: DUPLICATE_TXID and VALID",
            Box::new(|block| {
                slot(block, BlockMetadataIndex::TransactionsFilter)[0] = Code::DuplicateTxid as u8;
                slot(block, BlockMetadataIndex::CommitHash).clear();
            }),
        ),
        ("another block", Box::new(move |block| *block = other.clone())),
        (
            "another commit hash",
            Box::new(|block| {
                let other = Metadata {
                    value: vec![7; 32],
                    signatures: Vec::new(),
                };
                *slot(block, BlockMetadataIndex::CommitHash) = prost::Message::encode_to_vec(&other);
            }),
        ),
    ];
    for (says, lie) in lies {
        let first = liar(&network, last, lie);
        let place = place();
        let before = catch_up(
            witnessed(first.clone().up_to(last), network.ledger(ENERGY), PATIENCE),
            place.store.clone(),
            channel(),
            Options::default(),
        )
        .await
        .unwrap();
        let ledger = witnessed(first, network.ledger(ENERGY), PATIENCE);
        let error = catch_up(ledger, place.store.clone(), channel(), Options::default())
            .await
            .unwrap_err();
        assert!(error.freezes() && error.ends() && !error.transient(), "{error}");
        assert!(
            matches!(&error, FollowError::Ledger(StreamError::Contradicted { block, .. }) if *block == last),
            "{error}"
        );
        assert!(chain(&error).contains(says), "{says}: {}", chain(&error));
        assert_eq!(heads(&place.store), (before.desired, before.reported));
        assert_eq!(frozen::read(&place.store, &channel()).unwrap().reason, chain(&error));
    }
}

/// A peer that has only so many blocks yet, and can't be reached before it has one.
#[derive(Clone)]
struct Late {
    inner: MemoryLedger,
    height: Arc<AtomicU64>,
}

#[async_trait]
impl Ledger for Late {
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        self.inner.submit(channel, function, args).await
    }

    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        self.inner.evaluate(channel, function, args).await
    }

    async fn blocks(&self, channel: &Channel, from: u64) -> Result<BlockStream, StreamError> {
        use futures::StreamExt;
        let height = self.height.load(Ordering::SeqCst);
        if height <= from {
            return Err(StreamError::Ended {
                endpoint: "late".into(),
                channel: channel.clone(),
                what: "it is not there yet",
            });
        }
        let blocks = self.inner.blocks(channel, from).await?;
        Ok(blocks.take(usize::try_from(height - from).unwrap()).boxed())
    }

    async fn height(&self, _channel: &Channel) -> Result<u64, StreamError> {
        Ok(self.height.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_second_peer_that_is_away_stops_nobody_and_is_heard_when_it_comes() {
    let network = network();
    found(&network).await;
    let last = order(&network, "x").await;
    let late = Late {
        inner: network.ledger(ENERGY),
        height: Arc::new(AtomicU64::new(0)),
    };
    let ledger = witnessed(network.ledger(CITY), late.clone(), Duration::from_millis(5));
    let place = place();
    let (sender, mut progress) = watch::channel(Progress::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let follower = Follower {
        ledger: ledger.clone(),
        store: place.store.clone(),
        channel: channel(),
        options: Options {
            probe: Duration::from_millis(50),
            ..Options::default()
        },
    };
    let task = tokio::spawn(follower.run(sender, async { drop(stopped.await) }));
    let mut until = async |what: &dyn Fn(&Progress) -> bool| {
        let waited = tokio::time::timeout(Duration::from_secs(30), progress.wait_for(|progress| what(progress))).await;
        waited.expect("the follower gets there").unwrap().clone()
    };
    let alone =
        until(&|progress| progress.block == Some(last) && progress.testimony.as_ref().is_some_and(|said| said.waiting == last + 1)).await;
    assert!(alone.testimony.unwrap().away.unwrap().contains("not there yet"));
    // It comes, and lags behind.
    late.height.store(3, Ordering::SeqCst);
    until(&|progress| progress.testimony.as_ref().is_some_and(|said| said.confirmed == Some(2))).await;
    late.height.store(u64::MAX / 2, Ordering::SeqCst);
    until(&|progress| {
        progress
            .testimony
            .as_ref()
            .is_some_and(|said| said.confirmed == Some(last) && said.waiting == 0)
    })
    .await;
    let next = order(&network, "y").await;
    until(&|progress| {
        progress
            .testimony
            .as_ref()
            .is_some_and(|said| said.confirmed == Some(next) && said.away.is_none())
    })
    .await;
    drop(stop);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_taken_on_one_peers_word_freezes_when_the_other_comes() {
    let network = network();
    found(&network).await;
    let last = order(&network, "x").await;
    let late = Late {
        inner: network.ledger(ENERGY),
        height: Arc::new(AtomicU64::new(0)),
    };
    let first = liar(&network, last, |block| {
        slot(block, BlockMetadataIndex::TransactionsFilter)[0] = Code::DuplicateTxid as u8;
        slot(block, BlockMetadataIndex::CommitHash).clear();
    });
    let ledger = witnessed(first, late.clone(), Duration::from_millis(5));
    let place = place();
    let (sender, mut progress) = watch::channel(Progress::default());
    let follower = Follower {
        ledger,
        store: place.store.clone(),
        channel: channel(),
        options: Options::default(),
    };
    let task = tokio::spawn(follower.run(sender, std::future::pending()));
    progress.wait_for(|progress| progress.block == Some(last)).await.unwrap();
    late.height.store(u64::MAX / 2, Ordering::SeqCst);
    let error = tokio::time::timeout(Duration::from_secs(30), task)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(
        error.freezes() && chain(&error).contains("DUPLICATE_TXID and VALID"),
        "{}",
        chain(&error)
    );
    assert!(progress.borrow().frozen.as_ref().unwrap().contains("second peer"));
}
