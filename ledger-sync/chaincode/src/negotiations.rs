//! The moves of a negotiation.

use state::event::EventBody;

use crate::acts;
use crate::effect::{Call, Effect};
use crate::error::Refused;
use crate::snapshot::Snapshot;

/// Runs one of the functions that begin with `negotiate_`.
pub(crate) fn run(snapshot: &mut Snapshot<'_>, call: &Call<'_>, function: &str, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    match function {
        "negotiate_request" => acts::act(snapshot, call, "negotiate_request", rest, EventBody::NegotiationRequested),
        "negotiate_offer" => acts::act(snapshot, call, "negotiate_offer", rest, EventBody::NegotiationOffered),
        "negotiate_accept" => acts::act(snapshot, call, "negotiate_accept", rest, EventBody::NegotiationAccepted),
        "negotiate_agree" => acts::act(snapshot, call, "negotiate_agree", rest, EventBody::NegotiationAgreed),
        "negotiate_verify" => acts::act(snapshot, call, "negotiate_verify", rest, EventBody::NegotiationVerified),
        "negotiate_finalize" => acts::act(snapshot, call, "negotiate_finalize", rest, EventBody::NegotiationFinalized),
        "negotiate_terminate" => acts::act(snapshot, call, "negotiate_terminate", rest, EventBody::NegotiationTerminated),
        other => Err(Refused::Function(other.to_owned())),
    }
}
