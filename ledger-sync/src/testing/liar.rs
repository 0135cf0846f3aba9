//! A peer that doesn't show what it has.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use protos::common::Block;
use state::ids::Channel;

use crate::ledger::{BlockStream, Committed, EvaluateError, Ledger, StreamError, SubmitError};

type Lie = dyn Fn(&mut Block) + Send + Sync;

/// A peer that changes each block before it sends it.
#[derive(Clone)]
pub struct LyingPeer {
    honest: Arc<dyn Ledger>,
    lie: Arc<Lie>,
    height: Option<u64>,
}

impl LyingPeer {
    /// Makes a liar of a peer.
    pub fn new(honest: Arc<dyn Ledger>, lie: impl Fn(&mut Block) + Send + Sync + 'static) -> Self {
        Self {
            honest,
            lie: Arc::new(lie),
            height: None,
        }
    }

    /// The same, of a peer that says to have so many blocks only.
    pub fn up_to(self, height: u64) -> Self {
        Self {
            height: Some(height),
            ..self
        }
    }
}

#[async_trait]
impl Ledger for LyingPeer {
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        self.honest.submit(channel, function, args).await
    }

    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        self.honest.evaluate(channel, function, args).await
    }

    async fn blocks(&self, channel: &Channel, from: u64) -> Result<BlockStream, StreamError> {
        let lie = Arc::clone(&self.lie);
        let blocks = self.honest.blocks(channel, from).await?;
        let told = blocks.map(move |block| {
            block.map(|mut block| {
                lie(&mut block);
                block
            })
        });
        Ok(told.boxed())
    }

    async fn height(&self, channel: &Channel) -> Result<u64, StreamError> {
        let height = self.honest.height(channel).await?;
        Ok(self.height.map_or(height, |most| height.min(most)))
    }
}
