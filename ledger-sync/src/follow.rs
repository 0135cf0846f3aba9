//! Following one channel for ever: reconnecting, catching up in batches, taking live blocks at once, never skipping one.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, pin_mut};
use prost::Message;
use protos::common::Block;
use ring::rand::{SecureRandom, SystemRandom};
use state::canonical::Digest;
use state::errors::chain;
use state::git::{CommitId, Store};
use state::ids::Channel;
use thiserror::Error;
use tokio::sync::watch;

use crate::branches::BranchError;
use crate::frozen;
use crate::ledger::{BlockStream, Ledger, StreamError};
use crate::limits;
use crate::reexecute::{Reexecution, ReexecutionError, Standing as Rerun};
use crate::session::{Session, blocking};
use crate::soft;
use crate::verify::VerifyError;
use crate::witness::Testimony;

/// Following a channel ended.
#[derive(Debug, Error)]
pub enum FollowError {
    /// Blocks can't be had.
    #[error("the channel can't be followed")]
    Ledger(#[from] StreamError),
    /// A block is not to be believed: the channel takes nothing more, and deletes nothing.
    #[error("a block is not to be believed; the channel is frozen until somebody has found out why")]
    Verify(#[from] VerifyError),
    /// A block does not stand up to its transactions being run again.
    #[error("a block is not what the chaincode makes of it; the channel is frozen until somebody has found out why")]
    Reexecution(#[from] ReexecutionError),
    /// The channel was frozen before, and nobody has thawed it.
    #[error("channel {channel} is frozen until somebody has found out why: {reason}")]
    Frozen {
        /// The channel.
        channel: Channel,
        /// Why it was frozen.
        reason: String,
    },
    /// The store can't take blocks, or has taken other ones.
    #[error("the blocks can't be taken into the store")]
    Branch(#[from] BranchError),
    /// The ledger has fewer blocks than were taken in.
    #[error("the ledger has {height} blocks of channel {channel}, block {needed} was taken in before: it is behind, or was reset")]
    Behind {
        /// The channel.
        channel: Channel,
        /// How many blocks the ledger has.
        height: u64,
        /// The block that was asked for.
        needed: u64,
    },
    /// The work on a batch was ended by a defect of Charter.
    #[error("the work on a batch of blocks broke off; this is a defect of Charter, please report it")]
    Panicked(#[source] Arc<tokio::task::JoinError>),
}

impl FollowError {
    /// Tells whether it is likely to pass by itself soon.
    pub fn transient(&self) -> bool {
        match self {
            FollowError::Ledger(error) => error.transient(),
            FollowError::Verify(VerifyError::Gap { .. }) | FollowError::Behind { .. } => true,
            FollowError::Branch(error) => error.transient(),
            FollowError::Reexecution(error) => !error.freezes(),
            FollowError::Verify(_) | FollowError::Frozen { .. } | FollowError::Panicked(_) => false,
        }
    }

    /// Tells whether it freezes the channel: the ledger shows what can't be believed.
    pub fn freezes(&self) -> bool {
        match self {
            FollowError::Verify(VerifyError::Gap { .. }) => false,
            FollowError::Verify(_) | FollowError::Frozen { .. } | FollowError::Ledger(StreamError::Contradicted { .. }) => true,
            FollowError::Reexecution(error) => error.freezes(),
            FollowError::Branch(error) => matches!(error, BranchError::Frozen { .. }),
            _ => false,
        }
    }

    /// Tells whether following ends with it: the ledger shows what can't be believed, or what this binary is too old for.
    /// Everything else can be put right from outside while it runs: a clock, a membership, a peer that joins the channel.
    pub fn ends(&self) -> bool {
        self.freezes() || matches!(self, FollowError::Branch(BranchError::Newer { .. }))
    }
}

/// Where following a channel stands. Every change is also the signal to look at the channel again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last block that both references have taken in; none before the first.
    pub block: Option<u64>,
    /// Its header's hash.
    pub block_hash: Option<Digest>,
    /// How many blocks the ledger had when it was asked last.
    pub height: Option<u64>,
    /// The commit of `desired`.
    pub desired: Option<CommitId>,
    /// The commit of `reported`.
    pub reported: Option<CommitId>,
    /// The endpoint that blocks are read from.
    pub endpoint: Option<String>,
    /// What running the transactions again has found; none before the first block, and where none are.
    pub rerun: Option<Rerun>,
    /// How far a second peer has confirmed the blocks; none where there is no second peer.
    pub testimony: Option<Testimony>,
    /// Whether blocks can be had at present.
    pub connected: bool,
    /// Whether everything was taken in that the ledger had when it was asked last.
    pub caught_up: bool,
    /// What went wrong last; none while all is well.
    pub last_error: Option<String>,
    /// Why the channel takes no further events, if it doesn't.
    pub frozen: Option<String>,
}

impl Progress {
    /// How many blocks are not taken in yet, as far as is known.
    pub fn lag(&self) -> Option<u64> {
        Some(self.height?.saturating_sub(self.block.map_or(0, |block| block.saturating_add(1))))
    }

    fn took(&mut self, session: &Session, testimony: Option<Testimony>) {
        if let Some(standing) = session.standing() {
            self.block = Some(standing.block);
            self.block_hash = Some(standing.hash);
            self.desired = standing.desired;
            self.reported = standing.reported;
        }
        self.rerun = session.rerun();
        self.testimony = testimony;
        self.height = self.height.map(|height| height.max(session.next()));
        self.caught_up = self.height.is_some_and(|height| session.next() >= height);
    }
}

/// How a channel is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The hash of the channel's first block, where it is known; otherwise it is pinned on first use.
    pub genesis: Option<Digest>,
    /// The first pause before trying again; it doubles each time.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How often the ledger is asked for its height, to tell a hung stream from a quiet channel.
    pub probe: Duration,
    /// The most blocks of a batch.
    pub batch_blocks: usize,
    /// The size from which a batch takes no further block, in bytes.
    pub batch_bytes: usize,
    /// Whether transactions are run again.
    pub reexecution: Reexecution,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            genesis: None,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
            probe: Duration::from_secs(60),
            batch_blocks: limits::BATCH_BLOCKS,
            batch_bytes: limits::BATCH_BYTES,
            reexecution: Reexecution::Enforced,
        }
    }
}

/// Follows one channel into one store.
pub struct Follower {
    /// The ledger, as one member sees it.
    pub ledger: Arc<dyn Ledger>,
    /// The member's store.
    pub store: Store,
    /// The channel.
    pub channel: Channel,
    /// How.
    pub options: Options,
}

impl Follower {
    /// Follows until `shutdown` is done or an error [`ends`](FollowError::ends) it. All others are shown in `progress` and
    /// tried again for ever: soon when they are transient, else after the longest pause. A batch that is being written is
    /// finished first.
    pub async fn run(self, progress: watch::Sender<Progress>, shutdown: impl Future<Output = ()> + Send) -> Result<(), FollowError> {
        pin_mut!(shutdown);
        let stood = self.stand(&progress).await;
        if let Err(error @ FollowError::Frozen { .. }) = stood {
            return Err(error);
        }
        if let Err(error) = stood {
            // It is only shown earlier this way: the session reads it again.
            let said = limits::quoted(&chain(&error));
            progress.send_modify(|progress| progress.last_error = Some(said));
        }
        let mut pause = self.options.first_pause;
        let mut session = None;
        loop {
            let before = progress.borrow().block;
            let run = Run {
                follower: &self,
                progress: &progress,
                until: None,
            };
            let error = match run.once(&mut session, &mut shutdown).await {
                Ok(()) => {
                    progress.send_modify(|progress| progress.connected = false);
                    return close(session).await;
                }
                Err(error) => error,
            };
            let said = limits::quoted(&chain(&error));
            progress.send_modify(|progress| {
                progress.connected = false;
                progress.last_error = Some(said.clone());
                if error.freezes() {
                    progress.frozen = Some(said.clone());
                }
            });
            self.keep_frozen(&error, &said).await?;
            if error.ends() {
                tracing::error!(channel = %self.channel, error = said, "the channel is not followed any more");
                return Err(error);
            }
            if progress.borrow().block > before {
                pause = self.options.first_pause;
            }
            if !error.transient() {
                pause = self.options.longest_pause;
            }
            tracing::warn!(channel = %self.channel, error = said, pause = ?pause, "following is tried again");
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            // What comes after a lasting error is another one, and may pass at once.
            pause = if error.transient() {
                (pause * 2).min(self.options.longest_pause)
            } else {
                self.options.first_pause
            };
        }
    }
}

impl Follower {
    /// Shows where both references stood last, so that they count before the ledger has answered, and when it never does.
    async fn stand(&self, progress: &watch::Sender<Progress>) -> Result<(), FollowError> {
        let (store, channel) = (self.store.clone(), self.channel.clone());
        let (soft, frozen) = blocking(move || (soft::read(&store, &channel), frozen::read(&store, &channel))).await?;
        progress.send_modify(|progress| progress.frozen = frozen.as_ref().map(|frozen| frozen.reason.clone()));
        // Without it they may stand at different blocks, and only the ledger can tell.
        if let Some(soft) = soft {
            progress.send_modify(|progress| {
                progress.block = Some(soft.block);
                progress.block_hash = Some(soft.block_hash);
                progress.desired = soft.desired;
                progress.reported = soft.reported;
            });
        }
        match frozen {
            Some(frozen) => Err(FollowError::Frozen {
                channel: self.channel.clone(),
                reason: frozen.reason,
            }),
            None => Ok(()),
        }
    }

    /// Records what freezes the channel, so that it stays frozen until a person acts.
    async fn keep_frozen(&self, error: &FollowError, said: &str) -> Result<(), FollowError> {
        if !error.freezes() || matches!(error, FollowError::Frozen { .. }) {
            return Ok(());
        }
        let (store, channel, reason) = (self.store.clone(), self.channel.clone(), said.to_owned());
        if let Err(error) = blocking(move || frozen::freeze(&store, &channel, &reason, None)).await? {
            tracing::error!(channel = %self.channel, %error, "that the channel is frozen can't be recorded");
        }
        Ok(())
    }
}

/// Writes what a session keeps for the next start.
async fn close(session: Option<Session>) -> Result<(), FollowError> {
    match session {
        Some(mut session) => blocking(move || session.close()).await,
        None => Ok(()),
    }
}

/// Takes in everything that the ledger has now, once. Nothing is tried again.
pub async fn catch_up(ledger: Arc<dyn Ledger>, store: Store, channel: Channel, options: Options) -> Result<Progress, FollowError> {
    let (progress, _) = watch::channel(Progress::default());
    let height = ledger.height(&channel).await?;
    let follower = Follower {
        ledger,
        store,
        channel,
        options,
    };
    let run = Run {
        follower: &follower,
        progress: &progress,
        until: Some(height),
    };
    if let Err(error @ FollowError::Frozen { .. }) = follower.stand(&progress).await {
        return Err(error);
    }
    let mut session = None;
    if let Err(error) = run.once(&mut session, &mut futures::future::pending()).await {
        follower.keep_frozen(&error, &limits::quoted(&chain(&error))).await?;
        return Err(error);
    }
    close(session).await?;
    Ok(progress.borrow().clone())
}

/// One connection's worth of following.
struct Run<'a> {
    follower: &'a Follower,
    progress: &'a watch::Sender<Progress>,
    until: Option<u64>,
}

type Work = BoxFuture<'static, Result<(Session, Result<(), FollowError>), FollowError>>;

impl Run<'_> {
    /// Follows until the stream breaks, the goal is reached, or `shutdown` is done.
    async fn once(&self, kept: &mut Option<Session>, shutdown: &mut (impl Future<Output = ()> + Send + Unpin)) -> Result<(), FollowError> {
        let Follower {
            ledger,
            store,
            channel,
            options,
        } = self.follower;
        let endpoint = ledger.endpoint(channel);
        let opened = async {
            let session = match kept.take() {
                Some(session) => session,
                None => Session::open(ledger.as_ref(), store, channel, options.genesis, options.reexecution).await?,
            };
            let height = ledger.height(channel).await?;
            if height < session.next() {
                // A shorter ledger with the same first block may be catching up itself; with another one it was reset.
                return Err(FollowError::Behind {
                    channel: channel.clone(),
                    height,
                    needed: session.last(),
                });
            }
            let blocks = ledger.blocks(channel, session.last()).await?;
            Ok((session, height, blocks))
        };
        let (session, height, blocks) = tokio::select! {
            () = &mut *shutdown => return Ok(()),
            opened = opened => opened.inspect_err(|error: &FollowError| self.left(&endpoint, error))?,
        };
        self.progress.send_modify(|progress| {
            progress.connected = true;
            progress.endpoint = Some(endpoint.clone());
            progress.height = Some(height);
            progress.last_error = None;
            progress.took(&session, self.testimony());
        });
        let pumped = self.pump(session, blocks, kept, shutdown).await;
        pumped.inspect_err(|error| self.left(&endpoint, error))
    }

    /// Turns to the next peer after an error that another peer may not have. What freezes the channel stays to be looked at.
    fn left(&self, endpoint: &str, error: &FollowError) {
        let elsewhere = match error {
            FollowError::Ledger(StreamError::Sign(_) | StreamError::Contradicted { .. }) => false,
            FollowError::Ledger(_) | FollowError::Behind { .. } => true,
            error => matches!(error, FollowError::Verify(VerifyError::Gap { .. })),
        };
        if elsewhere {
            self.follower.ledger.avoid(&self.follower.channel, endpoint);
        }
    }

    /// Moves blocks from the stream into the store. While one batch is written the next is filled, so a batch is as small as
    /// the stream is quiet, and two at most are held.
    async fn pump(
        &self,
        session: Session,
        mut blocks: BlockStream,
        kept: &mut Option<Session>,
        shutdown: &mut (impl Future<Output = ()> + Send + Unpin),
    ) -> Result<(), FollowError> {
        let options = &self.follower.options;
        let mut next = session.next();
        let mut idle = Some(session);
        let mut work: Option<Work> = None;
        let mut batch = Filling::default();
        let mut broken: Option<FollowError> = None;
        let mut probe = Probe::new(self.follower);
        let mut stopping = false;
        loop {
            if work.is_none()
                && let Some(session) = idle.take()
            {
                next = session.next();
                if self.until.is_some_and(|until| next >= until) || stopping {
                    *kept = Some(session);
                    return Ok(());
                }
                if batch.blocks.is_empty() {
                    if let Some(error) = broken {
                        *kept = Some(session);
                        return Err(error);
                    }
                    idle = Some(session);
                } else {
                    work = Some(write(session, batch.take(), self.until));
                }
            }
            let room = broken.is_none() && !stopping && batch.room(options);
            tokio::select! {
                () = &mut *shutdown, if !stopping => stopping = true,
                written = async { match &mut work { Some(work) => work.await, None => std::future::pending().await } } => {
                    work = None;
                    let (session, taken) = written?;
                    self.progress.send_modify(|progress| progress.took(&session, self.testimony()));
                    // After an error the state in memory is not used again: it is loaded anew.
                    taken?;
                    idle = Some(session);
                }
                block = blocks.next(), if room => match block {
                    Some(Ok(block)) => { probe.heard = Heard::Blocks; batch.push(block) }
                    Some(Err(error)) => broken = Some(error.into()),
                    None => broken = Some(self.ended("the stream ended")),
                },
                height = &mut probe.asked, if work.is_none() && room => {
                    match height {
                        Ok(height) if height > next && probe.heard == Heard::Nothing => broken = Some(self.ended("it has newer blocks and sends none")),
                        // The last block that was taken is asked for once more, so something always comes.
                        Ok(_) if probe.heard == Heard::NothingYet => broken = Some(self.ended("it took the request and sends nothing")),
                        Ok(height) => {
                            self.progress.send_if_modified(|progress| {
                                let testimony = self.testimony();
                                let heard = testimony != progress.testimony;
                                progress.testimony = testimony;
                                progress.height.replace(height) != Some(height) || heard
                            });
                            probe.again(self.follower);
                        }
                        Err(error) => broken = Some(error.into()),
                    }
                }
            }
        }
    }

    fn testimony(&self) -> Option<Testimony> {
        self.follower.ledger.testimony(&self.follower.channel)
    }

    fn ended(&self, what: &'static str) -> FollowError {
        StreamError::Ended {
            endpoint: self.progress.borrow().endpoint.clone().unwrap_or_else(|| "the ledger".into()),
            channel: self.follower.channel.clone(),
            what,
        }
        .into()
    }
}

fn write(mut session: Session, mut blocks: Vec<Block>, until: Option<u64>) -> Work {
    if let Some(until) = until {
        blocks.retain(|block| block.header.as_ref().is_none_or(|header| header.number < until));
    }
    blocking(move || {
        let taken = session.take(&blocks);
        (session, taken)
    })
    .boxed()
}

/// A batch that is being filled.
#[derive(Default)]
struct Filling {
    blocks: Vec<Block>,
    bytes: usize,
}

impl Filling {
    fn room(&self, options: &Options) -> bool {
        self.blocks.len() < options.batch_blocks.max(1) && self.bytes < options.batch_bytes.max(1)
    }

    fn push(&mut self, block: Block) {
        self.bytes += block.encoded_len();
        self.blocks.push(block);
    }

    fn take(&mut self) -> Vec<Block> {
        self.bytes = 0;
        std::mem::take(&mut self.blocks)
    }
}

/// What came of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing since it was opened.
    NothingYet,
    /// Something since the last question.
    Blocks,
    /// Nothing since the last question.
    Nothing,
}

/// The question that tells a hung stream from a quiet channel.
struct Probe {
    /// The question for the height: asked when it is due, and answered at last.
    asked: BoxFuture<'static, Result<u64, StreamError>>,
    heard: Heard,
}

impl Probe {
    fn new(follower: &Follower) -> Self {
        Self {
            asked: ask(follower),
            heard: Heard::NothingYet,
        }
    }

    fn again(&mut self, follower: &Follower) {
        self.heard = Heard::Nothing;
        self.asked = ask(follower);
    }
}

fn ask(follower: &Follower) -> BoxFuture<'static, Result<u64, StreamError>> {
    let due = tokio::time::Instant::now() + jittered(follower.options.probe);
    let (ledger, channel) = (Arc::clone(&follower.ledger), follower.channel.clone());
    async move {
        tokio::time::sleep_until(due).await;
        ledger.height(&channel).await
    }
    .boxed()
}

/// Shortens a pause by up to a half, so that many followers don't come at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the whole pause is as good.
    if SystemRandom::new().fill(&mut byte).is_err() {
        return pause;
    }
    pause - pause / 2 * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_that_breaks_off_is_tried_again() {
        let work = tokio::spawn(std::future::pending::<()>());
        work.abort();
        let broken = FollowError::Panicked(Arc::new(work.await.expect_err("it was aborted")));
        assert!(!broken.ends() && !broken.transient() && !broken.freezes());
    }
}
