//! Refusals as Fabric's gateway, peers and orderers word them.

use std::sync::Arc;
use std::time::Duration;

use msp::channel::Membership;
use msp::{Identity, MspError};
use prost::Message;
use protos::gateway::ErrorDetail;
use protos::{ERROR_DETAIL_TYPE_URL, google, prost_types};
use tonic::{Code, Status};

use crate::validation::claimed_msp_id;

/// The address that error details name: the one node that there is.
const ADDRESS: &str = "embedded-ledger";
/// The most characters of a client's own words that a refusal repeats.
const MAX_QUOTED: usize = 128;

/// Bounds what a refusal repeats of a client's own words.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}

/// A call that carries a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Evaluate: the answer of one node.
    Evaluate,
    /// Endorse: the answers of as many as the policy needs.
    Endorse,
}

/// Why a proposal was not endorsed or evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request is not one that could ever be served.
    Malformed(String),
    /// There is no such channel here.
    NoChannel {
        /// The channel's name.
        channel: String,
        /// The chaincode's name.
        chaincode: String,
    },
    /// The chaincode isn't there, or no endorsers satisfy the policy.
    Precondition(String),
    /// Organisations were asked for that have no peer here.
    Unavailable(String),
    /// A peer would not even look at the proposal: its client's certificate or clock is out of time.
    OutOfTime(String),
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
    /// Words the refusal of a call, in the name of a member's node.
    pub(crate) fn worded(self, call: Call, msp_id: &str) -> Status {
        match self {
            Self::Malformed(message) => Status::invalid_argument(message),
            Self::Precondition(message) => Status::failed_precondition(message),
            Self::Unavailable(message) => Status::unavailable(message),
            Self::Internal(message) => Status::internal(message),
            Self::NoChannel { channel, chaincode } => match call {
                Call::Evaluate => Status::unavailable(no_config(&channel)),
                Call::Endorse => Status::failed_precondition(no_endorsers(&chaincode, &channel)),
            },
            Self::OutOfTime(detail) => {
                // A peer's gateway takes this for a node that is away, asks the next one, and has asked them all.
                let (code, text) = match call {
                    Call::Evaluate => (
                        Code::Unavailable,
                        "failed to evaluate transaction, see attached details for more info",
                    ),
                    Call::Endorse => (Code::Aborted, NOT_ENDORSED),
                };
                detailed(code, text, msp_id, &detail)
            }
            Self::Denied(message) => refused(call, Code::FailedPrecondition, msp_id, &message),
            Self::Chaincode { status, message } => {
                let message = format!("chaincode response {status}, {message}");
                refused(call, Code::Unknown, msp_id, &message)
            }
        }
    }
}

const NOT_ENDORSED: &str = "failed to endorse transaction, see attached details for more info";

fn refused(call: Call, evaluating: Code, msp_id: &str, message: &str) -> Status {
    match call {
        Call::Evaluate => {
            let text = format!("evaluate call to endorser returned error: {message}");
            detailed(evaluating, &text, msp_id, message)
        }
        Call::Endorse => detailed(Code::Aborted, NOT_ENDORSED, msp_id, message),
    }
}

/// Checks that a proposal's timestamp is near the ledger's clock, both in Unix seconds. One without a timestamp is of 1970.
pub(crate) fn in_time(seconds: Option<i64>, now: i64, window: Duration) -> Result<(), Refusal> {
    let seconds = seconds.unwrap_or_default();
    if now.abs_diff(seconds) <= window.as_secs() {
        return Ok(());
    }
    let [stamped, now] = [seconds, now].map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
    let (minutes, rest) = (window.as_secs() / 60, window.as_secs() % 60);
    Err(Refusal::OutOfTime(format!(
        "request unauthorized due to incorrect timestamp {stamped}, peer time {now}, peer.authentication.timewindow {minutes}m{rest}s"
    )))
}

/// Says that a channel is not known here.
pub(crate) fn no_config(channel: &str) -> String {
    let channel = quoted(channel);
    format!("failed to get config for channel [{channel}]: could not get last config for channel {channel}")
}

/// Says that a chaincode is not known on a channel.
pub(crate) fn no_endorsers(chaincode: &str, channel: &str) -> String {
    let (chaincode, channel) = (quoted(chaincode), quoted(channel));
    format!(
        "no combination of peers can be derived which satisfy the endorsement policy: No metadata was found for chaincode \
         {chaincode} in channel {channel}"
    )
}

/// Makes an error with one node's word in its details.
fn detailed(code: Code, text: &str, msp_id: &str, message: &str) -> Status {
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

/// A policy of a channel that a request's signer has to satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Those who may read the channel.
    Readers,
    /// Those who may propose transactions.
    Writers,
    /// Those whose transactions are ordered.
    Ordered,
}

impl Policy {
    /// Returns its path below the channel's group.
    fn path(self) -> &'static str {
        match self {
            Self::Readers => "Application/Readers",
            Self::Writers => "Application/Writers",
            Self::Ordered => "Writers",
        }
    }

    /// Says that nobody who counts has signed.
    pub(crate) fn unsatisfied(self) -> String {
        let name = self.path().rsplit('/').next().unwrap_or_default();
        format!(
            "implicit policy evaluation failed - 0 sub-policies were satisfied, but this policy requires 1 of the '{name}' \
             sub-policies to be satisfied"
        )
    }

    /// Says it as a peer does that checks who may use one of its services.
    pub(crate) fn denied(self, channel: &str) -> String {
        format!(
            "Failed evaluating policy on signed data during check policy on channel [{}] with policy [/Channel/{}]: [{}]",
            quoted(channel),
            self.path(),
            self.unsatisfied()
        )
    }
}

/// Something with its signer and its signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'a> {
    /// The serialized identity.
    pub(crate) creator: &'a [u8],
    /// The bytes that were signed.
    pub(crate) message: &'a [u8],
    /// The signature.
    pub(crate) signature: &'a [u8],
}

/// Why a signer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No organisation of the channel vouches for the identity.
    Stranger,
    /// The certificate has expired.
    Expired,
    /// The signature isn't the identity's.
    Signature,
    /// The identity does not satisfy the policy.
    Policy(Policy),
}

impl Denied {
    /// Words what an endorsing peer says to a proposal.
    pub(crate) fn proposing(self, channel: &str, creator: &[u8]) -> Refusal {
        let channel_id = quoted(channel);
        let text = match self {
            Self::Expired => return Refusal::OutOfTime("proposal client identity expired".into()),
            Self::Policy(policy) => policy.denied(channel),
            Self::Stranger => {
                format!("error validating proposal: access denied: channel [{channel_id}] creator org unknown, creator is malformed")
            }
            Self::Signature => {
                let msp_id = claimed_msp_id(creator);
                format!("error validating proposal: access denied: channel [{channel_id}] creator org [{msp_id}]")
            }
        };
        Refusal::Denied(text)
    }
}

/// Authenticates a signer in a channel: checks its certificate, its expiry and its signature.
///
/// Expiry is checked of everybody. A peer doesn't for the commit status and chaincode events; nobody has reason to rely on it.
pub(crate) fn authenticate(channel: &str, membership: &Membership, signed: Signed<'_>, now: i64) -> Result<Arc<Identity>, Denied> {
    let because = |denied: Denied| {
        move |error: MspError| {
            tracing::debug!(channel, ?denied, error = %error, "a signer was refused");
            denied
        }
    };
    let identity = membership.authenticate(signed.creator).map_err(because(Denied::Stranger))?;
    identity.certificate.check_expiry(now).map_err(because(Denied::Expired))?;
    identity
        .verify(signed.message, signed.signature)
        .map_err(because(Denied::Signature))?;
    Ok(identity)
}

/// Checks that somebody who was authenticated satisfies a policy.
pub(crate) fn permit(membership: &Membership, policy: Policy, identity: &Arc<Identity>) -> Result<(), Denied> {
    if membership.satisfied(policy.path(), &[Arc::clone(identity)]) {
        Ok(())
    } else {
        Err(Denied::Policy(policy))
    }
}

/// Authenticates a signer in a channel and checks a policy.
pub(crate) fn authorise(
    channel: &str,
    membership: &Membership,
    policy: Policy,
    signed: Signed<'_>,
    now: i64,
) -> Result<Arc<Identity>, Denied> {
    let identity = authenticate(channel, membership, signed, now)?;
    permit(membership, policy, &identity)?;
    Ok(identity)
}
