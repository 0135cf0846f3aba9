//! What is found when a block does not agree with the chaincode and the state before it.

use std::fmt;

use chaincode::memory::Version;
use protos::peer::TxValidationCode;
use state::canonical::Digest;
use state::ids::Channel;
use thiserror::Error;

use crate::limits;

/// A block does not agree with what the chaincode makes of it. The channel takes nothing more, and deletes nothing.
#[derive(Debug, Error)]
pub enum ReexecutionError {
    /// A transaction is not what the chaincode makes of its arguments, or has another validation code than it has to have.
    #[error("transaction {block}/{tx} ({tx_id}) of channel {channel} does not stand up to being run again")]
    Transaction {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// The transaction's index.
        tx: u32,
        /// Its id, shortened to plain characters.
        tx_id: String,
        /// What differs.
        #[source]
        source: Box<Difference>,
    },
    /// A block's commit hash is not that of its own codes and writes.
    #[error(
        "block {block} of channel {channel} carries commit hash {found}, and its codes and writes give {expected}: the peer's state is not the blocks'"
    )]
    CommitHash {
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// What codes and writes give.
        expected: Digest,
        /// What the block carries, shortened.
        found: String,
    },
    /// A block before it is missing.
    #[error("channel {channel}: block {found} can't be run again where block {expected} is next")]
    Gap {
        /// The channel.
        channel: Channel,
        /// The number that is next.
        expected: u64,
        /// The number that came.
        found: u64,
    },
}

impl ReexecutionError {
    /// The block that differs.
    pub fn block(&self) -> Option<u64> {
        match self {
            Self::Transaction { block, .. } | Self::CommitHash { block, .. } => Some(*block),
            Self::Gap { .. } => None,
        }
    }

    /// Tells whether it freezes the channel.
    pub fn freezes(&self) -> bool {
        !matches!(self, Self::Gap { .. })
    }
}

/// What differs, and the first key that does.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Difference {
    /// The chaincode refuses the call.
    #[error("it is called valid, and the chaincode refuses it ({status}: {message})")]
    Refused {
        /// The refusal's status.
        status: i32,
        /// The refusal's words, shortened.
        message: String,
    },
    /// The recorded answer is another one.
    #[error("it records another answer than the chaincode gives{version}")]
    Response {
        /// Which chaincode the endorsers ran.
        version: Ran,
    },
    /// The recorded event is another one.
    #[error("it records another event than the chaincode sets{version}")]
    Event {
        /// Which chaincode the endorsers ran.
        version: Ran,
    },
    /// The recorded write set is another one.
    #[error("it writes {key:?} otherwise than the chaincode does{version}")]
    Writes {
        /// The first key that differs, shortened.
        key: String,
        /// Which chaincode the endorsers ran.
        version: Ran,
    },
    /// The recorded read set is another one.
    #[error("it reads {key:?} otherwise than the chaincode does{version}")]
    Reads {
        /// The first key that differs, shortened.
        key: String,
        /// Which chaincode the endorsers ran.
        version: Ran,
    },
    /// It read what had changed meanwhile, and is called valid.
    #[error("it is called valid, and read {key:?} as of {recorded} where it stood at {present}: that is a conflict")]
    Conflict {
        /// The key, shortened.
        key: String,
        /// The version that it read.
        recorded: At,
        /// The version that there was.
        present: At,
    },
    /// A range that it read had changed meanwhile, and it is called valid.
    #[error("it is called valid, and the range from {start:?} that it read had changed: that is a conflict")]
    Phantom {
        /// The range's start, shortened.
        start: String,
    },
    /// Nothing is wrong with it, and it is called invalid.
    #[error("it is called {}, and nothing of that kind is wrong with it", .code.as_str_name())]
    CalledInvalid {
        /// Its validation code.
        code: TxValidationCode,
    },
    /// Too few of the members have endorsed it.
    #[error("it is called valid, and is endorsed by {signers} only, which {policy} does not allow")]
    Endorsements {
        /// Whose endorsements are good.
        signers: String,
        /// The policy that asks for more.
        policy: &'static str,
    },
    /// It was endorsed for another proposal or chaincode than its creator signed.
    #[error("it is called valid, and {0}")]
    Malformed(&'static str),
    /// It touches what no transaction of this chaincode touches.
    #[error("it is called valid, and touches {namespace:?}, where the chaincode has nothing to do")]
    Namespace {
        /// The namespace, shortened.
        namespace: String,
    },
    /// Another chaincode changed the agreement's state.
    #[error("it is a transaction of chaincode {chaincode:?} and changes the agreement's state at {key:?}, which nobody can run again")]
    Foreign {
        /// The chaincode, shortened.
        chaincode: String,
        /// The first key that it writes, shortened.
        key: String,
    },
}

/// The version of the chaincode that endorsers say they ran; Display gives a clause.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran(pub String);

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            "" => Ok(()),
            version => write!(f, " (its endorsers say that they ran version {version:?})"),
        }
    }
}

/// A version that is there or not; Display gives words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub Option<Version>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Version { block, tx }) => write!(f, "{block}/{tx}"),
            None => f.write_str("absent"),
        }
    }
}

/// A text of the ledger, as far as an error repeats it.
pub(super) fn shortened(text: &str) -> String {
    limits::quoted(text)
}
