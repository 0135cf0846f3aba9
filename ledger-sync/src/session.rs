//! One run over a channel: where it goes on, and how a batch of blocks is verified and written.

use std::sync::Arc;

use futures::StreamExt;
use protos::common::Block;
use state::canonical::Digest;
use state::errors::chain;
use state::git::Store;
use state::ids::Channel;

use crate::branches::{BranchError, Materialiser, Resume, Standing};
use crate::follow::FollowError;
use crate::frozen;
use crate::ledger::{Ledger, StreamError};
use crate::limits;
use crate::reexecute::{Kept, Reexecution, ReexecutionError, Standing as Rerun};
use crate::verify::{BlockId, BlockVerifier, Configuration, Verified, VerifyError};

/// The verifier and the references of a channel, at one block.
pub(crate) struct Session {
    store: Store,
    channel: Channel,
    verifier: BlockVerifier,
    materialiser: Materialiser,
    /// The mirror that transactions are run again over; none where none are.
    mirror: Option<Kept>,
}

impl Session {
    /// Fetches the genesis block, loads the references and finds where to go on.
    pub(crate) async fn open(
        ledger: &dyn Ledger,
        store: &Store,
        channel: &Channel,
        pinned: Option<Digest>,
        reexecution: Reexecution,
    ) -> Result<Self, FollowError> {
        let genesis = fetch(ledger, channel, 0).await?;
        let verifier = BlockVerifier::start(channel.clone(), &genesis, pinned)?;
        let (place, name, pinned) = (store.clone(), channel.clone(), verifier.genesis());
        let (materialiser, mirror) = blocking(move || {
            let materialiser = Materialiser::load(&place, &name, pinned)?;
            let mirror = (reexecution == Reexecution::Enforced).then(|| Kept::open(&place, &name, pinned));
            Ok::<_, BranchError>((materialiser, mirror))
        })
        .await??;
        let verifier = match materialiser.resume() {
            Some(resume) => resumed(ledger, channel, verifier, &genesis, resume).await?,
            None => verifier,
        };
        let (verifier, mirror) = match mirror {
            Some(mirror) => {
                let (verifier, mirror) = together(ledger, channel, verifier, &genesis, mirror).await?;
                (verifier, Some(mirror))
            }
            None => (verifier, None),
        };
        Ok(Self {
            store: store.clone(),
            channel: channel.clone(),
            verifier,
            materialiser,
            mirror,
        })
    }

    /// What running transactions again has found; none where none are.
    pub(crate) fn rerun(&self) -> Option<Rerun> {
        self.mirror.as_ref().map(Kept::standing)
    }

    /// Writes what would otherwise have to be made again after a restart.
    pub(crate) fn close(&mut self) {
        let last = self.verifier.last();
        if let Some(mirror) = self.mirror.as_mut().filter(|mirror| mirror.at().number == last) {
            mirror.write(&self.store, self.verifier.configuration());
        }
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

    /// Verifies a batch, runs its transactions again, takes it, and makes it durable. What comes before a block that is not to be
    /// believed is kept.
    pub(crate) fn take(&mut self, blocks: &[Block]) -> Result<(), FollowError> {
        let (verified, failed) = self.verifier.verify_all(blocks);
        let mut refused = None;
        let materialiser = &mut self.materialiser;
        let mut next = |block: &Verified| {
            let taken = materialiser.take_block(block.number, block.hash, &block.decoded);
            let full = materialiser.size() > limits::UNWRITTEN_BYTES;
            refused = taken.and_then(|()| if full { materialiser.flush() } else { Ok(()) }).err();
            refused.is_none()
        };
        let rerun = match &mut self.mirror {
            Some(mirror) => mirror.take_all(&verified, next),
            None => {
                verified.iter().all(&mut next);
                Ok(())
            }
        };
        match refused {
            // These are said before anything of their block is taken, so what was taken is whole blocks.
            None | Some(BranchError::Newer { .. } | BranchError::Frozen { .. }) => self.materialiser.flush()?,
            Some(error) => return Err(error.into()),
        }
        // The verifier's configuration may come from a block that was not taken: a cursor with it would refuse the honest block there.
        if refused.is_none()
            && rerun.is_ok()
            && failed.is_none()
            && let Err(error) = self.materialiser.save(self.verifier.configuration())
        {
            // It only saves reading some blocks again.
            tracing::warn!(%error, "the soft cursor could not be written");
        }
        if let Some(error) = refused {
            return Err(error.into());
        }
        rerun.map_err(|error| self.differs(error, blocks))?;
        if let Some(mirror) = self.mirror.as_mut().filter(|_| failed.is_none()) {
            mirror.write_when_due(&self.store, self.verifier.configuration());
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Session {
    /// Keeps the block that differs, which is evidence that nobody may have any more when it is asked for.
    fn differs(&self, error: ReexecutionError, blocks: &[Block]) -> FollowError {
        let numbered = |block: &&Block| block.header.as_ref().map(|header| header.number) == error.block();
        let block = blocks.iter().find(numbered).filter(|_| error.freezes());
        let error = FollowError::from(error);
        if let Some(block) = block
            && let Err(error) = frozen::freeze(&self.store, &self.channel, &chain(&error), Some(block))
        {
            tracing::error!(channel = %self.channel, %error, "that the channel is frozen can't be recorded");
        }
        error
    }
}

/// Lets verifier and mirror go on from one block: the lower one, since what lies between has to be run again. A mirror that is
/// ahead, or of another history, is begun anew.
async fn together(
    ledger: &dyn Ledger,
    channel: &Channel,
    verifier: BlockVerifier,
    genesis: &Block,
    mirror: Kept,
) -> Result<(BlockVerifier, Kept), FollowError> {
    let (pinned, at) = (verifier.genesis(), mirror.at());
    if at == verifier.at() {
        return Ok((verifier, mirror));
    }
    let anew = || BlockVerifier::start(channel.clone(), genesis, Some(pinned));
    if 0 < at.number && at.number < verifier.last() {
        let resume = Resume {
            block: at.number,
            hash: at.hash,
            configuration: mirror.configuration(),
        };
        match resumed(ledger, channel, anew()?, genesis, resume).await {
            Ok(verifier) if verifier.at() == at => return Ok((verifier, mirror)),
            // The references stand in this history, so it is the mirror that doesn't.
            Ok(_) | Err(FollowError::Verify(VerifyError::Fork { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    if verifier.last() > 0 {
        tracing::info!(%channel, "the mirror of the state is made again: every transaction is run from the first block on");
    }
    Ok((anew()?, Kept::new(channel, pinned)))
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
