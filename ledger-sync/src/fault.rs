//! A call to a peer that failed: what everybody behind it said, whether it may succeed later, and what to do about it.

use std::fmt;

use prost::Message;
use protos::gateway::ErrorDetail;
use tonic::Code;

use crate::limits;

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
const ADVICE: &[(&str, &str)] = &[
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
        "No metadata was found for chaincode",
        "this peer has not joined the channel, or no definition of the chaincode is committed there: see 'charter channel join', and check the \
         channel's name",
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
