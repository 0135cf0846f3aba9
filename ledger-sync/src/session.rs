//! One run over a channel: where it goes on, and how a batch of blocks is verified and written.

use std::sync::Arc;

use futures::StreamExt;
use protos::common::Block;
use state::canonical::Digest;
use state::git::Store;
use state::ids::Channel;

use crate::branches::{BranchError, Materialiser, Resume, Standing};
use crate::follow::FollowError;
use crate::ledger::{Ledger, StreamError};
use crate::limits;
use crate::verify::{BlockId, BlockVerifier, Configuration, VerifyError};

/// The verifier and the references of a channel, at one block.
pub(crate) struct Session {
    verifier: BlockVerifier,
    materialiser: Materialiser,
}

impl Session {
    /// Fetches the genesis block, loads the references and finds where to go on.
    pub(crate) async fn open(ledger: &dyn Ledger, store: &Store, channel: &Channel, pinned: Option<Digest>) -> Result<Self, FollowError> {
        let genesis = fetch(ledger, channel, 0).await?;
        let verifier = BlockVerifier::start(channel.clone(), &genesis, pinned)?;
        let (store, name, hash) = (store.clone(), channel.clone(), verifier.genesis());
        let materialiser = blocking(move || Materialiser::load(&store, &name, hash)).await??;
        let verifier = match materialiser.resume() {
            Some(resume) => resumed(ledger, channel, verifier, &genesis, resume).await?,
            None => verifier,
        };
        Ok(Self { verifier, materialiser })
    }

    /// The number of the next block.
    pub(crate) fn next(&self) -> u64 {
        self.verifier.last().saturating_add(1)
    }

    /// The last block that was verified: a stream starts there, so that another history is seen at once.
    pub(crate) fn last(&self) -> u64 {
        self.verifier.last()
    }

    pub(crate) fn standing(&self) -> Option<Standing> {
        self.materialiser.standing()
    }

    /// Verifies and takes a batch, and makes it durable. What comes before a block that is not to be believed is kept.
    pub(crate) fn take(&mut self, blocks: &[Block]) -> Result<(), FollowError> {
        let (verified, failed) = self.verifier.verify_all(blocks);
        let mut refused = None;
        for block in &verified {
            if let Err(error) = self.materialiser.take_block(block.number, block.hash, &block.decoded) {
                refused = Some(error);
                break;
            }
            if self.materialiser.size() > limits::UNWRITTEN_BYTES {
                self.materialiser.flush()?;
            }
        }
        match refused {
            // These are said before anything of their block is taken, so what was taken is whole blocks.
            None | Some(BranchError::Newer { .. } | BranchError::Frozen { .. }) => self.materialiser.flush()?,
            Some(error) => return Err(error.into()),
        }
        if let Err(error) = self.materialiser.save(self.verifier.configuration()) {
            // It only saves reading some blocks again.
            tracing::warn!(%error, "the soft cursor could not be written");
        }
        if let Some(error) = refused {
            return Err(error.into());
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

async fn resumed(
    ledger: &dyn Ledger,
    channel: &Channel,
    verifier: BlockVerifier,
    genesis: &Block,
    resume: Resume,
) -> Result<BlockVerifier, FollowError> {
    let pinned = verifier.genesis();
    let at = BlockId {
        number: resume.block,
        hash: resume.hash,
    };
    // Looked at first: a ledger that was reset or forked is noticed here, whatever it has after this block.
    let block = fetch(ledger, channel, at.number).await?;
    let resumed = match resume.configuration {
        Some(at_genesis) if at_genesis.number == 0 => verifier.resume(&block, at, Configuration::Genesis)?,
        Some(known) => {
            let configuration = fetch(ledger, channel, known.number).await?;
            let known = Configuration::Known {
                block: &configuration,
                at: known,
            };
            verifier.resume(&block, at, known)?
        }
        None => verifier.resume(&block, at, Configuration::Named)?,
    };
    match resumed {
        Some(verifier) => Ok(verifier),
        None => {
            tracing::info!(%channel, "the channel's configuration has changed since its start: every block is verified again");
            Ok(BlockVerifier::start(channel.clone(), genesis, Some(pinned))?)
        }
    }
}

/// Fetches one block.
pub(crate) async fn fetch(ledger: &dyn Ledger, channel: &Channel, number: u64) -> Result<Block, FollowError> {
    let gone = |what| StreamError::Ended {
        endpoint: "the ledger".into(),
        channel: channel.clone(),
        what,
    };
    // A ledger that was reset may be shorter; asking for what isn't there would wait for ever.
    let height = ledger.height(channel).await?;
    if number >= height {
        return Err(FollowError::Behind {
            channel: channel.clone(),
            height,
            needed: number,
        });
    }
    let mut blocks = ledger.blocks(channel, number).await?;
    let next = tokio::time::timeout(limits::FETCH, blocks.next()).await;
    let block = next
        .map_err(|_| gone("it sent no block in time"))?
        .ok_or_else(|| gone("it sent no block"))??;
    let found = block.header.as_ref().map_or(0, |header| header.number);
    if found != number {
        return Err(VerifyError::Gap {
            channel: channel.clone(),
            expected: number,
            found,
        }
        .into());
    }
    Ok(block)
}

/// Runs what blocks on disk or computes for long, away from the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FollowError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| FollowError::Panicked(Arc::new(error)))
}
