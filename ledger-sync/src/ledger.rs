//! What this crate needs of a ledger: sending transactions, asking the chaincode, and following blocks.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use prost::Message;
use protos::MAX_GRPC_MESSAGE_BYTES;
use protos::common::{Block, Status as DeliverStatus};
use protos::gateway::ErrorDetail;
use protos::peer::TxValidationCode;
use state::ids::Channel;
use state::time::Timestamp;
use thiserror::Error;
use tonic::Code;

use crate::limits;
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

/// Where in a transaction's way a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Asking the chaincode.
    Evaluate,
    /// Collecting endorsements.
    Endorse,
    /// Handing the transaction to the orderer.
    Submit,
    /// Waiting for its commit.
    CommitStatus,
    /// Streaming blocks.
    Blocks,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stage::Evaluate => "asking the chaincode",
            Stage::Endorse => "collecting endorsements",
            Stage::Submit => "handing the transaction to the orderer",
            Stage::CommitStatus => "waiting for the commit",
            Stage::Blocks => "streaming blocks",
        })
    }
}

/// What one node behind the gateway said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFault {
    /// The node.
    pub address: String,
    /// Its organisation.
    pub msp_id: String,
    /// Its words.
    pub message: String,
}

/// A call that failed, with everything that the other end said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where in the transaction's way.
    pub stage: Stage,
    /// The endpoint that was called.
    pub endpoint: String,
    /// The gRPC code.
    pub code: Code,
    /// The message.
    pub message: String,
    /// What the nodes behind the endpoint said.
    pub nodes: Vec<NodeFault>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} failed ({:?}): {}", self.stage, self.endpoint, self.code, self.message)?;
        for node in &self.nodes {
            write!(f, "; {} of {}: {}", node.address, node.msp_id, node.message)?;
        }
        match self.advice() {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// What an orderer says for good, whatever the code of the gateway that repeats it.
const REFUSED: [&str; 3] = ["status=FORBIDDEN", "status=BAD_REQUEST", "status=REQUEST_ENTITY_TOO_LARGE"];
/// What a peer says to somebody who is no member, or whose key it doesn't know. Some of these come with a code that looks as
/// if trying again would help.
const PERMANENT: [&str; 6] = [
    "creator org unknown",
    "creator is malformed",
    "access denied",
    "could not get last config for channel",
    "client identity expired",
    "incorrect timestamp",
];
/// What a peer says while its chaincode is starting or others are away.
const PASSING: [&str; 2] = [
    "no combination of peers can be derived",
    "failed to collect enough transaction endorsements",
];

/// What to do about what peers say. The first that fits is told.
const ADVICE: [(&str, &str); 16] = [
    (
        "invalid peer certificate: certificate expired",
        "the peer's TLS certificate is past its end, or this machine's clock is wrong",
    ),
    (
        "invalid peer certificate: certificate not valid for name",
        "name the host in the peer's TLS certificate as server_name",
    ),
    (
        "invalid peer certificate",
        "the authority in tls_ca does not vouch for this peer's TLS certificate",
    ),
    (
        "creator org unknown",
        "the channel does not know this member: check ledger.msp_id and ledger.msp, and whether the channel's configuration has the member",
    ),
    (
        "expired",
        "a certificate is past its end: enrol again, and replace it in the folder that ledger.msp names",
    ),
    (
        "incorrect timestamp",
        "this machine's clock and the peer's are too far apart: set both by the network's time",
    ),
    (
        "access denied",
        "the channel does not take this member's signature: check that the certificate in ledger.msp is of this member, is not revoked, \
         and has the role that the channel's policies ask for",
    ),
    (
        "could not get last config",
        "the peer has no such channel: it has not joined it, or this member is not part of it",
    ),
    (
        "could not launch chaincode",
        "the peer does not reach its chaincode server: start it, and check the address in its package",
    ),
    (
        "chaincode registration failed",
        "the chaincode server answered under another package id than the one that is installed on the peer",
    ),
    (
        "proposalresponsepayloads do not match",
        "the endorsing peers came to different results: one is behind, or runs another version of the chaincode",
    ),
    (
        "no orderers could",
        "the peer reaches no orderer that takes transactions; what was not ordered is sent again",
    ),
    (
        "certificaterequired",
        "the peer asks for a TLS client certificate: name one as ledger.client_certificate and ledger.client_key",
    ),
    // A refused handshake is seen as whatever the connection's end happens to cut off.
    ("connection closed", CLOSED),
    ("broken pipe", CLOSED),
    ("connection reset", CLOSED),
];

/// What to do about a connection that was closed before it was of use.
const CLOSED: &str = "the peer closed the connection; where it asks for a TLS client certificate, name one as ledger.client_certificate and \
     ledger.client_key";

impl Fault {
    /// Reads a gRPC status with its details.
    pub fn from_status(stage: Stage, endpoint: &str, status: &tonic::Status) -> Self {
        let mut message = status.message().to_owned();
        let mut source = std::error::Error::source(status);
        while let Some(cause) = source {
            // Layers of the transport say the same thing after each other.
            let said = cause.to_string();
            if !message.contains(&said) {
                message.push_str(": ");
                message.push_str(&said);
            }
            source = cause.source();
        }
        let details = protos::google::rpc::Status::decode(status.details()).unwrap_or_default().details;
        let nodes = details
            .iter()
            .filter(|any| any.type_url == protos::ERROR_DETAIL_TYPE_URL)
            .take(limits::DETAILS)
            .filter_map(|any| ErrorDetail::decode(any.value.as_slice()).ok())
            .map(|detail| NodeFault {
                address: limits::quoted(&detail.address),
                msp_id: limits::quoted(&detail.msp_id),
                message: limits::quoted(&detail.message),
            })
            .collect();
        Self {
            stage,
            endpoint: endpoint.to_owned(),
            code: status.code(),
            message: limits::quoted(&message),
            nodes,
        }
    }

    /// Makes the fault of a call that was given up after its time.
    pub fn deadline(stage: Stage, endpoint: &str, after: std::time::Duration) -> Self {
        Self {
            stage,
            endpoint: endpoint.to_owned(),
            code: Code::DeadlineExceeded,
            message: format!("no answer within {} s", after.as_secs()),
            nodes: Vec::new(),
        }
    }

    /// Tells whether the call was given up because no answer came in time.
    pub fn is_late(&self) -> bool {
        self.code == Code::DeadlineExceeded
    }

    /// Tells whether the endpoint itself could not be reached: what its nodes say comes with their names, or is known.
    pub fn is_unreached(&self) -> bool {
        self.code == Code::Unavailable && self.nodes.is_empty() && self.advice().is_none()
    }

    fn says(&self, what: &str) -> bool {
        self.message.contains(what) || self.nodes.iter().any(|node| node.message.contains(what))
    }

    /// Tells whether an answer was larger than any that Fabric's nodes send.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self.code, Code::OutOfRange | Code::ResourceExhausted) && self.says("message length too large")
    }

    /// Tells what to do about it, where the other end's words don't.
    fn advice(&self) -> Option<&'static str> {
        let mut said = self.message.to_lowercase();
        for node in &self.nodes {
            said.push('\n');
            said.push_str(&node.message.to_lowercase());
        }
        ADVICE.iter().find(|(text, _)| said.contains(text)).map(|(_, advice)| *advice)
    }

    /// Tells whether the same call may succeed later.
    pub fn transient(&self) -> bool {
        if self.is_too_large() || PERMANENT.iter().chain(&REFUSED).any(|text| self.says(text)) {
            return false;
        }
        if PASSING.iter().any(|text| self.says(text)) {
            return true;
        }
        matches!(
            self.code,
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Internal
                | Code::Unknown
        )
    }

    /// Finds the chaincode's own refusal in what was said: its status and its message.
    pub fn refusal(&self) -> Option<(i32, String)> {
        self.nodes
            .iter()
            .map(|node| node.message.as_str())
            .chain([self.message.as_str()])
            .find_map(|text| {
                let (_, rest) = text.split_once("chaincode response ")?;
                let (status, message) = rest.split_once(", ")?;
                Some((status.parse().ok()?, message.to_owned()))
            })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: Code, message: &str) -> Fault {
        Fault::from_status(Stage::Endorse, "https://peer", &tonic::Status::new(code, message))
    }

    #[test]
    fn what_looks_transient_and_is_not() {
        assert!(fault(Code::Unavailable, "connection refused").transient());
        assert!(fault(Code::Aborted, "could not launch chaincode: connection refused").transient());
        assert!(fault(Code::FailedPrecondition, "no combination of peers can be derived which satisfy").transient());
        assert!(!fault(Code::FailedPrecondition, "something else").transient());
        assert!(!fault(Code::Unavailable, "could not get last config for channel ch").transient());
        assert!(!fault(Code::Aborted, "creator org unknown, creator is malformed").transient());
        assert!(!fault(Code::PermissionDenied, "").transient());
    }

    #[test]
    fn the_chaincodes_own_words_are_found() {
        let detail = ErrorDetail {
            address: "peer0:7051".into(),
            msp_id: "CityMSP".into(),
            message: "chaincode response 409, resource x exists already".into(),
        };
        let any = protos::prost_types::Any {
            type_url: protos::ERROR_DETAIL_TYPE_URL.into(),
            value: detail.encode_to_vec(),
        };
        let details = protos::google::rpc::Status {
            code: 10,
            message: "failed".into(),
            details: vec![any],
        };
        let status = tonic::Status::with_details(Code::Aborted, "failed to endorse", details.encode_to_vec().into());
        let fault = Fault::from_status(Stage::Endorse, "https://peer", &status);
        assert_eq!(fault.refusal(), Some((409, "resource x exists already".into())));
        assert!(fault.to_string().contains("peer0:7051 of CityMSP"), "{fault}");
        assert_eq!(super::tests::fault(Code::Aborted, "other").refusal(), None);
    }
}
