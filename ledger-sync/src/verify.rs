//! Whether a block is what the channel's orderers made, and stands where it says.
//!
//! # What is trusted
//! - **The genesis block** names the channel's organisations. Its hash is the channel's identity: it is configured, or pinned on
//!   first use in the first commit of both references (`channel.json`), from where no peer can change it any more.
//! - **Each later block** has to be the next number, name the header hash of the one before, carry the data that its header
//!   commits to, and be signed by orderers as `Orderer/BlockValidation` demands. A configuration block that is signed in this
//!   way replaces the organisations for the blocks after it.
//! - **Each valid transaction** of any chaincode has to be for this channel; one of ours has to carry an id that its creator
//!   made, and the creator's signature.
//! - **The validation codes are the peer's word** here: no orderer signs them. [`crate::reexecute`] holds them to the state.

use std::num::NonZeroUsize;
use std::sync::Arc;

use msp::MspError;
use msp::channel::Membership;
use protos::block::{ChainError, check_link, header_hash};
use protos::common::{Block, HeaderType};
use protos::envelope::{self, UnpackError};
use protos::metadata::{self, MetadataError};
use state::canonical::Digest;
use state::errors::chain;
use state::ids::Channel;
use thiserror::Error;

use crate::decode::{self, Decoded};
use crate::reexecute::Recorded;

/// A block is not to be believed. Nothing of it was taken.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The block does not stand where it says.
    #[error("block {block} of channel {channel} does not fit its chain")]
    Chain {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// What is wrong.
        #[source]
        source: ChainError,
    },
    /// A block before it is missing.
    #[error("channel {channel}: block {found} arrived where block {expected} was expected")]
    Gap {
        /// The channel.
        channel: Channel,
        /// The number that is next.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// Another block than before has this number: the ledger was reset, or it shows two histories.
    #[error("channel {channel}: block {block} was {expected} and is {found} now: the ledger was reset or forked")]
    Fork {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// The header's hash as it was taken in.
        expected: Digest,
        /// The header's hash now.
        found: Digest,
    },
    /// The orderers' signatures are not enough.
    #[error("block {block} of channel {channel} is not signed by the channel's orderers")]
    Signatures {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// What is wrong.
        #[source]
        source: MspError,
    },
    /// A block's metadata can't be read.
    #[error("the metadata of block {block} of channel {channel} can't be used")]
    Metadata {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// What is wrong.
        #[source]
        source: MetadataError,
    },
    /// There is not one validation code for each transaction.
    #[error("block {block} of channel {channel} has {transactions} transactions and {codes} validation codes")]
    Codes {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// How many transactions.
        transactions: usize,
        /// How many codes.
        codes: usize,
    },
    /// A transaction that is called valid can't be read.
    #[error("transaction {block}/{tx} of channel {channel} is called valid and can't be read")]
    Transaction {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// The transaction's index.
        tx: u32,
        /// What is wrong.
        #[source]
        source: UnpackError,
    },
    /// A transaction of another channel.
    #[error("transaction {block}/{tx} of channel {channel} is of channel {found:?}")]
    Foreign {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// The transaction's index.
        tx: u32,
        /// The channel in its header, shortened.
        found: String,
    },
    /// A transaction's creator did not make it.
    #[error("transaction {block}/{tx} of channel {channel} was not made by its creator")]
    Creator {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// The transaction's index.
        tx: u32,
        /// What is wrong.
        #[source]
        source: MspError,
    },
    /// The first block, or a later configuration, can't be used.
    #[error("block {block} of channel {channel} is no usable configuration: {reason}")]
    Configuration {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// What is wrong.
        reason: String,
    },
}

/// A block that was verified, and what it says to Charter.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its number.
    pub number: u64,
    /// Its header's hash.
    pub hash: Digest,
    /// The events of our chaincode's valid transactions, in their order.
    pub decoded: Vec<Decoded>,
    /// What running its transactions again needs.
    pub recorded: Recorded,
}

/// One block of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockId {
    /// Its number.
    pub number: u64,
    /// Its header's hash.
    pub hash: Digest,
}

/// Verifies the blocks of one channel, one after the other.
#[derive(Debug)]
pub struct BlockVerifier {
    channel: Channel,
    genesis: Digest,
    membership: Arc<Membership>,
    /// The block that gave `membership`.
    configuration: BlockId,
    last: u64,
    hash: Digest,
}

impl BlockVerifier {
    /// Starts a channel with its first block. `pinned` is the hash that it has to have, where it is known.
    pub fn start(channel: Channel, genesis: &Block, pinned: Option<Digest>) -> Result<Self, VerifyError> {
        let hash = check_link(genesis, 0, None).map_err(|source| VerifyError::Chain {
            channel: channel.clone(),
            block: 0,
            source,
        })?;
        let found = Digest::from_bytes(hash);
        if let Some(expected) = pinned.filter(|pinned| *pinned != found) {
            return Err(VerifyError::Fork {
                channel,
                block: 0,
                expected,
                found,
            });
        }
        let membership = configuration(&channel, 0, genesis)?.ok_or_else(|| VerifyError::Configuration {
            channel: channel.clone(),
            block: 0,
            reason: "it is not a configuration".into(),
        })?;
        Ok(Self {
            channel,
            genesis: found,
            membership: Arc::new(membership),
            configuration: BlockId { number: 0, hash: found },
            last: 0,
            hash: found,
        })
    }

    /// Goes on after a block that was verified in an earlier run and has this hash, under the configuration that was in force
    /// then.
    ///
    /// Where the number of that configuration's block was lost, the orderers' word in the block itself is enough as long as it
    /// names the genesis block; otherwise (`None`) the channel has to be walked again from its start.
    pub fn resume(self, block: &Block, at: BlockId, source: Configuration<'_>) -> Result<Option<Self>, VerifyError> {
        let mut resumed = self;
        resumed.check_hash(block, at)?;
        match source {
            Configuration::Genesis => {}
            Configuration::Known { block, at } => {
                resumed.check_hash(block, at)?;
                let membership = configuration(&resumed.channel, at.number, block)?.ok_or_else(|| VerifyError::Configuration {
                    channel: resumed.channel.clone(),
                    block: at.number,
                    reason: "it is not a configuration".into(),
                })?;
                resumed.membership = Arc::new(membership);
                resumed.configuration = at;
            }
            Configuration::Named => {
                let named = metadata::last_config(block).map_err(|source| VerifyError::Metadata {
                    channel: resumed.channel.clone(),
                    block: at.number,
                    source,
                })?;
                if named != Some(0) || resumed.membership.verify_block(block).is_err() {
                    return Ok(None);
                }
            }
        }
        resumed.last = at.number;
        resumed.hash = at.hash;
        Ok(Some(resumed))
    }

    /// The genesis block's hash.
    pub fn genesis(&self) -> Digest {
        self.genesis
    }

    /// The block that gave the configuration in force.
    pub fn configuration(&self) -> BlockId {
        self.configuration
    }

    /// The last verified block.
    pub fn at(&self) -> BlockId {
        BlockId {
            number: self.last,
            hash: self.hash,
        }
    }

    /// The number of the last verified block.
    pub fn last(&self) -> u64 {
        self.last
    }

    fn check_hash(&self, block: &Block, at: BlockId) -> Result<(), VerifyError> {
        let BlockId { number, hash: expected } = at;
        let header = block.header.clone().unwrap_or_default();
        let found = Digest::from_bytes(header_hash(&header));
        if header.number != number || found != expected {
            return Err(VerifyError::Fork {
                channel: self.channel.clone(),
                block: number,
                expected,
                found,
            });
        }
        // Number and previous hash are covered by the header's hash; the data is not.
        let previous = (number > 0).then_some(header.previous_hash.as_slice());
        check_link(block, number, previous).map(drop).map_err(|source| VerifyError::Chain {
            channel: self.channel.clone(),
            block: number,
            source,
        })
    }

    /// Verifies the next block. A block that was verified already gives `None`.
    pub fn verify(&mut self, block: &Block) -> Result<Option<Verified>, VerifyError> {
        match self.link(block)? {
            Some(linked) => linked.check(&self.channel, block).map(Some),
            None => Ok(None),
        }
    }

    /// Verifies blocks in their order, with signatures on all cores. Gives those before the first that is not to be believed,
    /// and why that one isn't; after an error the verifier is of no more use.
    pub fn verify_all(&mut self, blocks: &[Block]) -> (Vec<Verified>, Option<VerifyError>) {
        let mut linked = Vec::with_capacity(blocks.len());
        let mut failed = None;
        for block in blocks {
            match self.link(block) {
                Ok(Some(link)) => linked.push((link, block)),
                Ok(None) => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let mut verified = Vec::with_capacity(linked.len());
        for result in self.check_all(&linked) {
            match result {
                Ok(block) => verified.push(block),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        (verified, failed)
    }

    fn check_all(&self, linked: &[(Linked, &Block)]) -> Vec<Result<Verified, VerifyError>> {
        let check = |(link, block): &(Linked, &Block)| link.check(&self.channel, block);
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        if linked.len() < 2 || cores < 2 {
            return linked.iter().map(check).collect();
        }
        let share = linked.len().div_ceil(cores);
        std::thread::scope(|scope| {
            let others: Vec<_> = linked
                .chunks(share)
                .skip(1)
                .map(|chunk| scope.spawn(move || chunk.iter().map(check).collect::<Vec<_>>()))
                .collect();
            let mut results: Vec<_> = linked.chunks(share).take(1).flatten().map(check).collect();
            for other in others {
                match other.join() {
                    Ok(more) => results.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            results
        })
    }

    /// Checks that the orderers signed a block under the configuration that is in force here.
    fn check_named(&self, number: u64, block: &Block) -> Result<(), VerifyError> {
        let named = metadata::last_config(block).map_err(|source| VerifyError::Metadata {
            channel: self.channel.clone(),
            block: number,
            source,
        })?;
        match named.filter(|named| *named != self.configuration.number) {
            None => Ok(()),
            Some(named) => Err(VerifyError::Configuration {
                channel: self.channel.clone(),
                block: number,
                reason: format!(
                    "its orderers go by the configuration in block {named}, and the last one that came is in block {}",
                    self.configuration.number
                ),
            }),
        }
    }

    /// Checks a block's place in the chain. Everything that needs the order of blocks is done here.
    fn link(&mut self, block: &Block) -> Result<Option<Linked>, VerifyError> {
        let number = block.header.as_ref().map_or(0, |header| header.number);
        let next = self.last.saturating_add(1);
        if number > next {
            return Err(VerifyError::Gap {
                channel: self.channel.clone(),
                expected: next,
                found: number,
            });
        }
        if number <= self.last && block.header.is_some() {
            if number == self.last {
                let hash = self.hash;
                self.check_hash(block, BlockId { number, hash })?;
            }
            return Ok(None);
        }
        let hash = check_link(block, next, Some(self.hash.as_bytes())).map_err(|source| VerifyError::Chain {
            channel: self.channel.clone(),
            block: next,
            source,
        })?;
        let hash = Digest::from_bytes(hash);
        let link = Linked {
            number,
            hash,
            membership: Arc::clone(&self.membership),
        };
        // A configuration is signed by those who order before it, and says of itself that it is in force from here on: its
        // validation code, which nobody signs, is not asked.
        if let Some(membership) = configuration(&self.channel, number, block)? {
            link.signatures(&self.channel, block)?;
            let (before, after) = (self.membership.config().sequence, membership.config().sequence);
            if after <= before {
                return Err(VerifyError::Configuration {
                    channel: self.channel.clone(),
                    block: number,
                    reason: format!("its sequence is {after}, and that of the configuration in force is {before}"),
                });
            }
            self.membership = Arc::new(membership);
            self.configuration = BlockId { number, hash };
        }
        self.check_named(number, block)?;
        self.last = number;
        self.hash = hash;
        Ok(Some(link))
    }
}

/// Where a resumed verifier learns the configuration in force.
#[derive(Clone, Copy, Debug)]
pub enum Configuration<'a> {
    /// It is that of the genesis block.
    Genesis,
    /// It is that of this block, whose hash was verified in an earlier run.
    Known {
        /// The block.
        block: &'a Block,
        /// Its number and hash.
        at: BlockId,
    },
    /// The block that the channel is resumed at has to name it.
    Named,
}

/// A block whose place in the chain is checked; its signatures are not yet.
#[derive(Debug)]
struct Linked {
    number: u64,
    hash: Digest,
    membership: Arc<Membership>,
}

impl Linked {
    fn signatures(&self, channel: &Channel, block: &Block) -> Result<(), VerifyError> {
        self.membership.verify_block(block).map_err(|source| VerifyError::Signatures {
            channel: channel.clone(),
            block: self.number,
            source,
        })
    }

    fn check(&self, channel: &Channel, block: &Block) -> Result<Verified, VerifyError> {
        self.signatures(channel, block)?;
        let (decoded, recorded) = decode::decode(&self.membership, channel, self.number, block)?;
        Ok(Verified {
            number: self.number,
            hash: self.hash,
            decoded,
            recorded,
        })
    }
}

/// Reads the configuration in a block, if it holds one. A configuration stands alone in its block.
fn configuration(channel: &Channel, number: u64, block: &Block) -> Result<Option<Membership>, VerifyError> {
    let [bytes] = block.data.as_ref().map(|data| data.data.as_slice()).unwrap_or_default() else {
        return Ok(None);
    };
    // What can't be read here is no configuration; it is judged where transactions are decoded.
    let Ok(opened) = envelope::decode_envelope(bytes).and_then(|envelope| envelope::open(&envelope)) else {
        return Ok(None);
    };
    if !opened.is(HeaderType::Config) {
        return Ok(None);
    }
    let bad = |reason: String| VerifyError::Configuration {
        channel: channel.clone(),
        block: number,
        reason,
    };
    if opened.channel.channel_id != channel.as_str() {
        return Err(VerifyError::Foreign {
            channel: channel.clone(),
            block: number,
            tx: 0,
            found: crate::limits::quoted(&opened.channel.channel_id),
        });
    }
    let config = envelope::config(&opened).map_err(|error| bad(chain(&error)))?;
    Membership::from_config(config).map(Some).map_err(|error| bad(chain(&error)))
}
