//! Refusals as Fabric's gateway words them.

use msp::Identity;
use msp::channel::Membership;
use prost::Message;
use protos::gateway::ErrorDetail;
use protos::{ERROR_DETAIL_TYPE_URL, google, prost_types};
use std::sync::Arc;
use tonic::{Code, Status};

use crate::validation::claimed_msp_id;

/// The address that error details name: the one node that there is.
const ADDRESS: &str = "embedded-ledger";

/// Why a proposal was not endorsed or evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is not one that could ever be served.
    Malformed(String),
    /// The channel or the chaincode isn't there, or no endorsers satisfy the policy.
    Precondition(String),
    /// The endorsing peer did not accept the proposal.
    Denied(String),
    /// The chaincode said no.
    Chaincode {
        /// The chaincode's status.
        status: i32,
        /// The chaincode's message.
        message: String,
    },
    /// The ledger itself failed.
    Internal(String),
}

impl Refusal {
    /// Words the refusal of an Evaluate call.
    pub(crate) fn evaluating(self, msp_id: &str) -> Status {
        match self {
            Self::Denied(message) => {
                let text = format!("evaluate call to endorser returned error: {message}");
                detailed(Code::FailedPrecondition, &text, msp_id, &message)
            }
            Self::Chaincode { status, message } => {
                let message = format!("chaincode response {status}, {message}");
                let text = format!("evaluate call to endorser returned error: {message}");
                detailed(Code::Unknown, &text, msp_id, &message)
            }
            other => other.plain(),
        }
    }

    /// Words the refusal of an Endorse call.
    pub(crate) fn endorsing(self, msp_id: &str) -> Status {
        let message = match self {
            Self::Denied(message) => message,
            Self::Chaincode { status, message } => format!("chaincode response {status}, {message}"),
            other => return other.plain(),
        };
        let text = "failed to endorse transaction, see attached details for more info";
        detailed(Code::Aborted, text, msp_id, &message)
    }

    fn plain(self) -> Status {
        match self {
            Self::Malformed(message) => Status::invalid_argument(message),
            Self::Precondition(message) | Self::Denied(message) => Status::failed_precondition(message),
            Self::Chaincode { message, .. } => Status::unknown(message),
            Self::Internal(message) => Status::internal(message),
        }
    }
}

/// Makes an error with one node's word in its details.
pub(crate) fn detailed(code: Code, text: &str, msp_id: &str, message: &str) -> Status {
    let detail = ErrorDetail {
        address: ADDRESS.to_owned(),
        msp_id: msp_id.to_owned(),
        message: message.to_owned(),
    };
    let any = prost_types::Any {
        type_url: ERROR_DETAIL_TYPE_URL.to_owned(),
        value: detail.encode_to_vec(),
    };
    let status = google::rpc::Status {
        code: code as i32,
        message: text.to_owned(),
        details: vec![any],
    };
    Status::with_details(code, text, status.encode_to_vec().into())
}

/// Authenticates a signer in a channel and checks its signature, its expiry and a policy; the error is Fabric's text.
pub(crate) fn authorise(
    channel: &str,
    membership: &Membership,
    policy: &str,
    creator: &[u8],
    (message, signature): (&[u8], &[u8]),
    now: i64,
) -> Result<Arc<Identity>, String> {
    let identity = membership.authenticate(creator).map_err(|error| {
        tracing::debug!(channel, error = %error, "an identity was refused");
        format!("access denied: channel [{channel}] creator org unknown, creator is malformed")
    })?;
    let denied = |error: msp::MspError| {
        tracing::debug!(channel, msp_id = identity.msp_id, error = %error, "a signer was refused");
        format!("access denied: channel [{channel}] creator org [{}]", claimed_msp_id(creator))
    };
    identity.verify(message, signature).map_err(denied)?;
    identity
        .certificate
        .check_expiry(now)
        .map_err(|error| format!("access denied: channel [{channel}] creator org [{}]: {error}", identity.msp_id))?;
    if !membership.satisfied(policy, &[Arc::clone(&identity)]) {
        return Err(format!(
            "access denied: channel [{channel}] creator org [{}]: it does not satisfy the policy {policy}",
            identity.msp_id
        ));
    }
    Ok(identity)
}
