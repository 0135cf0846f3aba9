//! What this crate needs of a ledger: sending transactions, asking the chaincode, and following blocks.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::stream::BoxStream;
use protos::MAX_GRPC_MESSAGE_BYTES;
use protos::common::{Block, Status as DeliverStatus};
use protos::peer::TxValidationCode;
use state::ids::Channel;
use state::time::Timestamp;
use thiserror::Error;

pub use crate::fault::{Fault, NodeFault, Stage};
use crate::pending::PendingError;
use crate::proposal::NotProposed;
use crate::witness::{Contradiction, Testimony};

/// Full blocks in their order. The stream goes on for ever: it ends only with an error.
pub type BlockStream = BoxStream<'static, Result<Block, StreamError>>;

/// One member's connection to a ledger.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Sends a transaction of the chaincode and waits until it is committed and valid.
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError>;

    /// Asks the chaincode something; nothing is ordered or committed.
    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError>;

    /// Streams full blocks from a number on, and waits for those that are not there yet.
    async fn blocks(&self, channel: &Channel, from: u64) -> Result<BlockStream, StreamError>;

    /// Returns the number of blocks that the ledger has: the number of the next one.
    async fn height(&self, channel: &Channel) -> Result<u64, StreamError>;

    /// Finds out what became of the transactions of one function, or of all, that were sent without an answer, by this process or
    /// one before it.
    async fn resolve(&self, _channel: &Channel, _function: Option<&str>) -> Result<Vec<Resolved>, SubmitError> {
        Ok(Vec::new())
    }

    /// Returns the channels that this member's peers have joined; none where a ledger can't tell.
    async fn joined(&self) -> Result<BTreeSet<Channel>, EvaluateError> {
        Ok(BTreeSet::new())
    }

    /// Tells that what an endpoint gave of a channel was of no use: where there is another one, that is asked next.
    fn avoid(&self, _channel: &Channel, _endpoint: &str) {}

    /// Tells how far a second peer has confirmed a channel's blocks; none where there is no second peer.
    fn testimony(&self, _channel: &Channel) -> Option<Testimony> {
        None
    }

    /// Names the endpoint that a channel is read from at present.
    fn endpoint(&self, _channel: &Channel) -> String {
        "the ledger".into()
    }
}

/// What became of a transaction that was sent without an answer.
#[derive(Debug)]
pub struct Resolved {
    /// Its id.
    pub tx_id: String,
    /// The chaincode's function.
    pub function: String,
    /// Its block, or why it is not on the ledger or not known to be.
    pub outcome: Result<Committed, SubmitError>,
}

/// A transaction that was committed as valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its id.
    pub tx_id: String,
    /// The number of its block.
    pub block: u64,
    /// Its validation code: always valid.
    pub code: TxValidationCode,
}

/// A transaction was not committed, or it is not known whether it was.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The chaincode refused it. Nothing was written.
    #[error("the chaincode refused {function} ({status}): {message}")]
    Refused {
        /// The chaincode's function.
        function: String,
        /// The chaincode's status: 400 and above.
        status: i32,
        /// The chaincode's own words.
        message: String,
    },
    /// It was not endorsed. Nothing was written.
    #[error("the transaction was not endorsed")]
    Endorse(#[source] Fault),
    /// The orderer did not take it. Nothing is known to be written.
    #[error("transaction {tx_id} was not taken by the orderer")]
    Submit {
        /// The transaction.
        tx_id: String,
        /// What was said.
        #[source]
        source: Fault,
    },
    /// It was sent, and nothing is known of its outcome: look for its id in the blocks.
    #[error("the outcome of transaction {tx_id} is not known; it is kept, and asked for when the same is submitted again")]
    Unknown {
        /// The transaction.
        tx_id: String,
        /// What was said.
        #[source]
        source: Fault,
    },
    /// It was committed as invalid: it has no effect.
    #[error("transaction {tx_id} in block {block} is invalid: {}", code.as_str_name())]
    Invalid {
        /// The transaction.
        tx_id: String,
        /// Its block.
        block: u64,
        /// Why.
        code: TxValidationCode,
    },
    /// Others changed what it reads, every time that it was tried.
    #[error("others changed what {function} reads, {attempts} times in a row; try again when the channel is quieter")]
    Conflict {
        /// The chaincode's function.
        function: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// It could not be signed.
    #[error("the transaction could not be signed")]
    Sign(#[from] msp::MspError),
    /// It could not be kept before it was sent. Nothing was sent.
    #[error("the transaction was not sent")]
    Pending(#[from] PendingError),
    /// The gateway answered with something else than a transaction.
    #[error("{endpoint} answered without {what}")]
    Answer {
        /// The endpoint.
        endpoint: String,
        /// What is missing or wrong.
        what: &'static str,
    },
    /// The gateway answered with a transaction that was not proposed. Nothing was signed.
    #[error("{endpoint} answered with another transaction than was proposed; it was not signed: find out why before anything else")]
    Other {
        /// The endpoint.
        endpoint: String,
        /// In what it differs.
        #[source]
        source: NotProposed,
    },
}

impl SubmitError {
    /// Tells whether the same transaction may succeed later.
    pub fn transient(&self) -> bool {
        match self {
            SubmitError::Endorse(fault) => fault.transient(),
            SubmitError::Submit { source, .. } => source.transient(),
            SubmitError::Unknown { .. } | SubmitError::Conflict { .. } => true,
            SubmitError::Sign(error) => error.transient(),
            SubmitError::Refused { .. }
            | SubmitError::Invalid { .. }
            | SubmitError::Pending(_)
            | SubmitError::Answer { .. }
            | SubmitError::Other { .. } => false,
        }
    }
}

/// A question to the chaincode was not answered.
#[derive(Debug, Error)]
pub enum EvaluateError {
    /// The chaincode refused it.
    #[error("the chaincode refused {function} ({status}): {message}")]
    Refused {
        /// The chaincode's function.
        function: String,
        /// The chaincode's status: 400 and above.
        status: i32,
        /// The chaincode's own words.
        message: String,
    },
    /// The call failed.
    #[error("the chaincode could not be asked")]
    Call(#[source] Fault),
    /// It could not be signed.
    #[error("the question could not be signed")]
    Sign(#[from] msp::MspError),
}

impl EvaluateError {
    /// Tells whether the same question may be answered later.
    pub fn transient(&self) -> bool {
        match self {
            EvaluateError::Refused { .. } => false,
            EvaluateError::Call(fault) => fault.transient(),
            EvaluateError::Sign(error) => error.transient(),
        }
    }
}

/// Blocks can't be had.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The call failed, or the stream broke.
    #[error("the blocks of channel {channel} can't be had")]
    Call {
        /// The channel.
        channel: Channel,
        /// What was said.
        #[source]
        source: Fault,
    },
    /// The peer answered with a status instead of blocks.
    #[error("{endpoint} refused the blocks of channel {channel}: {} ({status})", meaning(*status))]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// The channel.
        channel: Channel,
        /// Fabric's status, for example 403.
        status: i32,
    },
    /// The peer did not accept the request: for the most part, because of this machine's clock.
    #[error(
        "{endpoint} did not accept the request for blocks of channel {channel}: this machine's clock says {at}, and it has to be right to 15 minutes (where it is, check the TLS client certificate)"
    )]
    NotAccepted {
        /// The endpoint.
        endpoint: String,
        /// The channel.
        channel: Channel,
        /// What this machine's clock says.
        at: Timestamp,
    },
    /// A block is larger than any that Fabric's nodes send.
    #[error(
        "{endpoint} sent a block of channel {channel} that is larger than the {} MiB that Fabric's nodes send; nothing of it was read: find out what stands there before anything else",
        MAX_GRPC_MESSAGE_BYTES / (1024 * 1024)
    )]
    TooLarge {
        /// The endpoint.
        endpoint: String,
        /// The channel.
        channel: Channel,
        /// What the transport said.
        #[source]
        source: Fault,
    },
    /// The stream ended or answered with something else than blocks.
    #[error("{endpoint} ended the blocks of channel {channel}: {what}")]
    Ended {
        /// The endpoint.
        endpoint: String,
        /// The channel.
        channel: Channel,
        /// What happened.
        what: &'static str,
    },
    /// The second peer shows something else: one of the two lies, or is broken.
    #[error("the second peer {endpoint} has block {block} of channel {channel} otherwise than the first: {what}")]
    Contradicted {
        /// The second peer's endpoint.
        endpoint: String,
        /// The channel.
        channel: Channel,
        /// The block's number.
        block: u64,
        /// What differs.
        what: Contradiction,
    },
    /// The request could not be signed.
    #[error("the request for blocks could not be signed")]
    Sign(#[from] msp::MspError),
}

fn meaning(status: i32) -> &'static str {
    match DeliverStatus::try_from(status) {
        Ok(DeliverStatus::Forbidden) => "this member may not read the channel",
        Ok(DeliverStatus::NotFound) => "there is no such channel or no such block",
        Ok(DeliverStatus::BadRequest) => "the request was not accepted; check this machine's clock",
        Ok(DeliverStatus::RequestEntityTooLarge) => "the request is too large",
        Ok(DeliverStatus::ServiceUnavailable) => "the service is not available",
        _ => "an error of the peer",
    }
}

impl StreamError {
    /// Tells whether the blocks may be had later.
    pub fn transient(&self) -> bool {
        match self {
            StreamError::Call { source, .. } => source.transient(),
            StreamError::Refused { status, .. } => *status >= 500,
            StreamError::Ended { .. } => true,
            StreamError::Sign(error) => error.transient(),
            StreamError::NotAccepted { .. } | StreamError::TooLarge { .. } | StreamError::Contradicted { .. } => false,
        }
    }
}
