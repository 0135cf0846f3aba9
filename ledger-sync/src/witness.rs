//! A second peer as a witness of the first: every block has to have the same header, validation codes and commit hash on both.
//!
//! The codes are signed by nobody, so only another peer shows that one of them lies. A difference ends the stream with an error that
//! freezes the channel. The witness is waited for, but not for long: one that is away or behind stops nobody. What was taken on one
//! peer's word meanwhile is kept in mind and compared when the witness has it, and [`Testimony`] says how far it got.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use protos::block::header_hash;
use protos::common::Block;
use protos::metadata;
use serde::{Deserialize, Serialize};
use state::errors::chain;
use state::ids::Channel;
use tokio::time::Instant;

use crate::ledger::{BlockStream, Committed, EvaluateError, Ledger, Resolved, StreamError, SubmitError};
use crate::limits;

/// How far a witness has confirmed a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Testimony {
    /// The witness's endpoint.
    pub endpoint: String,
    /// The last block that is the same on both peers, in this run.
    pub confirmed: Option<u64>,
    /// How many blocks are taken on one peer's word until the witness has them.
    pub waiting: u64,
    /// Why the witness says nothing at present, if so.
    pub away: Option<String>,
}

/// What two peers show differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// The block itself.
    Header,
    /// The validation code of a transaction.
    Code {
        /// Its index.
        tx: usize,
        /// What the first peer says.
        first: &'static str,
        /// What the witness says.
        second: &'static str,
    },
    /// The commit hash: the state behind the block.
    CommitHash,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Contradiction::Header => f.write_str("another block"),
            Contradiction::Code { tx, first, second } => {
                write!(f, "another validation code of transaction {tx}: {first} and {second}")
            }
            Contradiction::CommitHash => f.write_str("another commit hash, which stands for the state"),
        }
    }
}

/// A ledger whose blocks are compared with those of a second peer.
pub struct Witnessed {
    first: Arc<dyn Ledger>,
    second: Arc<dyn Ledger>,
    patience: Duration,
    channels: Mutex<BTreeMap<Channel, Arc<Mutex<Compared>>>>,
}

impl Witnessed {
    /// Puts a witness beside a peer. Everything but the comparison goes to the first. The witness is waited for at most this long
    /// for each block, and not at all while it is known to be away or behind.
    pub fn new(first: Arc<dyn Ledger>, second: Arc<dyn Ledger>, patience: Duration) -> Self {
        Self {
            first,
            second,
            patience,
            channels: Mutex::new(BTreeMap::new()),
        }
    }

    fn compared(&self, channel: &Channel) -> Arc<Mutex<Compared>> {
        let mut channels = locked(&self.channels);
        Arc::clone(channels.entry(channel.clone()).or_default())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Ledger for Witnessed {
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        self.first.submit(channel, function, args).await
    }

    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        self.first.evaluate(channel, function, args).await
    }

    async fn blocks(&self, channel: &Channel, from: u64) -> Result<BlockStream, StreamError> {
        let comparison = Comparison {
            channel: channel.clone(),
            first: self.first.blocks(channel, from).await?,
            witness: Arc::clone(&self.second),
            second: None,
            again: Instant::now(),
            pause: limits::WITNESS_PAUSE,
            patience: self.patience,
            compared: self.compared(channel),
            held: None,
        };
        Ok(stream::unfold(Some(comparison), |comparison| async { comparison?.next().await }).boxed())
    }

    async fn height(&self, channel: &Channel) -> Result<u64, StreamError> {
        self.first.height(channel).await
    }

    async fn resolve(&self, channel: &Channel, function: Option<&str>) -> Result<Vec<Resolved>, SubmitError> {
        self.first.resolve(channel, function).await
    }

    fn avoid(&self, channel: &Channel, endpoint: &str) {
        self.first.avoid(channel, endpoint);
    }

    fn endpoint(&self, channel: &Channel) -> String {
        self.first.endpoint(channel)
    }

    fn testimony(&self, channel: &Channel) -> Option<Testimony> {
        let compared = self.compared(channel);
        let compared = locked(&compared);
        Some(Testimony {
            endpoint: self.second.endpoint(channel),
            confirmed: compared.confirmed,
            waiting: compared.waiting.len() as u64 + compared.dropped,
            away: compared.away.clone(),
        })
    }
}

/// What of a block has to be the same on both peers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Essence {
    number: u64,
    header: Option<[u8; 32]>,
    codes: Vec<u8>,
    commit_hash: Option<Vec<u8>>,
}

impl Essence {
    fn of(block: &Block) -> Self {
        Self {
            number: block.header.as_ref().map_or(0, |header| header.number),
            header: block.header.as_ref().map(header_hash),
            codes: metadata::validation_flags(block).map(<[u8]>::to_vec).unwrap_or_default(),
            commit_hash: metadata::commit_hash(block).ok().flatten(),
        }
    }

    fn contradiction(&self, second: &Self) -> Option<Contradiction> {
        if self.header != second.header {
            return Some(Contradiction::Header);
        }
        if self.codes != second.codes {
            let name = |codes: &[u8], tx: usize| codes.get(tx).map_or("none", |code| metadata::validation_code(*code).as_str_name());
            let most = self.codes.len().max(second.codes.len());
            let tx = (0..most).find(|tx| self.codes.get(*tx) != second.codes.get(*tx)).unwrap_or(0);
            return Some(Contradiction::Code {
                tx,
                first: name(&self.codes, tx),
                second: name(&second.codes, tx),
            });
        }
        // A peer that was brought up from an older version writes none.
        let both = self.commit_hash.as_ref().zip(second.commit_hash.as_ref());
        both.filter(|(first, second)| first != second).map(|_| Contradiction::CommitHash)
    }
}

/// How far a channel is compared, whichever connection it was on.
#[derive(Debug, Default)]
struct Compared {
    confirmed: Option<u64>,
    /// What the witness hasn't confirmed yet, in the order of the blocks.
    waiting: VecDeque<Essence>,
    /// How many were too many to be kept in mind.
    dropped: u64,
    away: Option<String>,
}

impl Compared {
    /// Keeps a block in mind until the witness has it.
    fn expect(&mut self, essence: Essence) {
        // A stream that is opened again begins with what came before.
        if self.waiting.back().is_some_and(|last| essence.number <= last.number) {
            return;
        }
        self.waiting.push_back(essence);
        if self.waiting.len() > limits::UNCONFIRMED {
            self.waiting.pop_front();
            self.dropped += 1;
        }
    }

    fn is_confirmed(&self, number: u64) -> bool {
        self.waiting.front().is_none_or(|first| first.number > number)
    }

    /// Compares a block of the witness. Fails with its number where it contradicts.
    fn hear(&mut self, second: &Essence) -> Result<(), Contradiction> {
        let Some(first) = self.waiting.front().filter(|first| first.number == second.number) else {
            return Ok(());
        };
        if let Some(contradiction) = first.contradiction(second) {
            return Err(contradiction);
        }
        self.confirmed = Some(second.number);
        self.waiting.pop_front();
        Ok(())
    }
}

/// Two streams of one channel's blocks.
struct Comparison {
    channel: Channel,
    first: BlockStream,
    witness: Arc<dyn Ledger>,
    second: Option<BlockStream>,
    /// When the witness is called again.
    again: Instant,
    pause: Duration,
    patience: Duration,
    compared: Arc<Mutex<Compared>>,
    /// A block of the first that waits to be compared.
    held: Option<Block>,
}

type Next = Option<(Result<Block, StreamError>, Option<Comparison>)>;

impl Comparison {
    async fn next(mut self) -> Next {
        loop {
            if let Some(block) = self.held.take() {
                let number = block.header.as_ref().map_or(0, |header| header.number);
                return match self.confirmed(number).await {
                    Ok(()) => Some((Ok(block), Some(self))),
                    Err(error) => Some((Err(error), None)),
                };
            }
            let waits = !locked(&self.compared).waiting.is_empty();
            let Self {
                channel,
                first,
                witness,
                second,
                again,
                pause,
                compared,
                held,
                ..
            } = &mut self;
            let other = hear(channel, witness, second, (again, pause), compared);
            let failed = tokio::select! {
                biased;
                block = first.next() => match block? {
                    Ok(block) => {
                        locked(compared).expect(Essence::of(&block));
                        *held = Some(block);
                        continue;
                    }
                    Err(error) => error,
                },
                heard = other, if waits => match heard {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            return Some((Err(failed), None));
        }
    }

    /// Waits until the witness has confirmed a block, as long as it is worth it.
    async fn confirmed(&mut self, number: u64) -> Result<(), StreamError> {
        let patience = {
            let compared = locked(&self.compared);
            // One that is away or behind is not waited for again at every block.
            let late = compared.away.is_some() || compared.waiting.len() > 1;
            if late { Duration::ZERO } else { self.patience }
        };
        let deadline = Instant::now() + patience;
        while !locked(&self.compared).is_confirmed(number) {
            let Self {
                channel,
                witness,
                second,
                again,
                pause,
                compared,
                ..
            } = self;
            let heard = hear(channel, witness, second, (again, pause), compared);
            match tokio::time::timeout_at(deadline, heard).await {
                Ok(heard) => heard?,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// Takes the witness's next block. It may be given up at any time.
async fn hear(
    channel: &Channel,
    witness: &Arc<dyn Ledger>,
    second: &mut Option<BlockStream>,
    (again, pause): (&mut Instant, &mut Duration),
    compared: &Mutex<Compared>,
) -> Result<(), StreamError> {
    let Some(wanted) = locked(compared).waiting.front().map(|first| first.number) else {
        return Ok(());
    };
    let heard = match second {
        Some(blocks) => blocks.next().await,
        None => {
            tokio::time::sleep_until(*again).await;
            match witness.blocks(channel, wanted).await {
                Ok(blocks) => {
                    *second = Some(blocks);
                    return Ok(());
                }
                Err(error) => Some(Err(error)),
            }
        }
    };
    let why = match heard {
        Some(Ok(block)) => {
            let essence = Essence::of(&block);
            let mut compared = locked(compared);
            if essence.number <= wanted {
                *pause = limits::WITNESS_PAUSE;
                compared.away = None;
                return compared.hear(&essence).map_err(|what| StreamError::Contradicted {
                    endpoint: witness.endpoint(channel),
                    channel: channel.clone(),
                    block: essence.number,
                    what,
                });
            }
            format!("it sent block {} where block {wanted} was asked for", essence.number)
        }
        Some(Err(error)) => chain(&error),
        None => "its stream ended".into(),
    };
    tracing::warn!(%channel, witness = witness.endpoint(channel), why, "the second peer confirms nothing; it is called again");
    *second = None;
    *again = Instant::now() + crate::follow::jittered(*pause);
    *pause = (*pause * 2).min(limits::WITNESS_LONGEST_PAUSE);
    locked(compared).away = Some(limits::quoted(&why));
    Ok(())
}
