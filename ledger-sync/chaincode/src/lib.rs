//! The agreement's program: a deterministic library that a ledger runs and a follower can run again.
//!
//! [`invoke`] runs one transaction over a [`Stub`](stub::Stub). It decides everything first and writes afterwards, so a refusal
//! leaves no trace, and an accepted transaction sets exactly one event, from which every member builds the same desired
//! state. The rules themselves are those of [`state::rules`]: the same ones that each follower applies to the events.
//!
//! Nothing here does I/O, reads a clock, draws randomness or depends on the order of a hash table.

mod acts;
mod agreement;
pub mod arguments;
mod effect;
mod error;
mod member;
pub mod memory;
mod negotiations;
mod reads;
pub mod records;
mod report;
mod resources;
mod snapshot;
pub mod stub;

pub use error::ALREADY_RECORDED;

use effect::{Call, ok};
use error::Refused;
use snapshot::Snapshot;
use state::acts::accounts::RepresentationRecord;
use state::acts::agreed::AgreedRecord;
use state::acts::approvals::ProposalRecord;
use state::acts::keys::KeyRecord;
use state::acts::negotiations::{NegotiationRecord, SealedRecord};
use state::acts::offers::OfferRecord;
use state::acts::ratings::RatingRecord;
use state::event::EventBody;
use stub::{Invocation, Response, Stub};

/// The chaincode's name on every channel.
pub const NAME: &str = "charter";

/// The functions: first those that change the state, then those that only read it.
pub const FUNCTIONS: &[&str] = &[
    "register",
    "constitute",
    "accept",
    "order",
    "amend",
    "retire",
    "report",
    "publish",
    "republish",
    "withdraw",
    "approve",
    "reject",
    "retract",
    "publish_key",
    "negotiate_request",
    "negotiate_offer",
    "negotiate_accept",
    "negotiate_agree",
    "negotiate_verify",
    "negotiate_finalize",
    "negotiate_terminate",
    "represent",
    "vouch",
    "confirm",
    "conclude",
    "rate",
    "heartbeat",
    "close_abandoned",
    "expire",
    "end",
    "transfer",
    "approve_transfer",
    "accept_transfer",
    "cancel_transfer",
    "distribute",
    "import",
    "drop_import",
    "hand_over",
    "agreement",
    "member",
    "resource",
    "resources",
    "head",
    "offer",
    "offers",
    "proposal",
    "proposals",
    "key",
    "negotiation",
    "negotiations",
    "sealed",
    "representation",
    "agreed",
    "rating",
];

/// Runs one transaction. It is total: no input makes it panic, and a refusal writes nothing.
pub fn invoke(stub: &mut dyn Stub, invocation: &Invocation<'_>) -> Response {
    run(stub, invocation).unwrap_or_else(|refused| refused.response())
}

fn run(stub: &mut dyn Stub, invocation: &Invocation<'_>) -> Result<Response, Refused> {
    let call = Call::new(invocation)?;
    let (function, rest) = invocation.args.split_first().ok_or(Refused::NoFunction)?;
    let function = function_name(function)?;
    let snapshot = &mut Snapshot::new(stub);
    let effect = match function {
        "register" => member::register(snapshot, &call, rest)?,
        "constitute" => agreement::constitute(snapshot, &call, rest)?,
        "accept" => agreement::accept(snapshot, &call, rest)?,
        "order" => resources::order(snapshot, &call, rest)?,
        "amend" => resources::amend(snapshot, &call, rest)?,
        "retire" => resources::retire(snapshot, &call, rest)?,
        "hand_over" => resources::hand_over(snapshot, &call, rest)?,
        "report" => report::report(snapshot, &call, rest)?,
        "publish" => acts::act(snapshot, &call, "publish", rest, EventBody::OfferPublished)?,
        "republish" => acts::act(snapshot, &call, "republish", rest, EventBody::OfferAmended)?,
        "withdraw" => acts::act(snapshot, &call, "withdraw", rest, EventBody::OfferWithdrawn)?,
        "approve" => acts::act(snapshot, &call, "approve", rest, EventBody::ChangeApproved)?,
        "reject" => acts::act(snapshot, &call, "reject", rest, EventBody::ChangeRejected)?,
        "retract" => acts::act(snapshot, &call, "retract", rest, EventBody::ChangeWithdrawn)?,
        "publish_key" => acts::act(snapshot, &call, "publish_key", rest, EventBody::KeyPublished)?,
        negotiate if negotiate.starts_with("negotiate_") => negotiations::run(snapshot, &call, negotiate, rest)?,
        "represent" => acts::act(snapshot, &call, "represent", rest, EventBody::DaoRepresented)?,
        "vouch" => acts::act(snapshot, &call, "vouch", rest, EventBody::RepresentationVouched)?,
        "confirm" => acts::act(snapshot, &call, "confirm", rest, EventBody::AgreementConfirmed)?,
        "conclude" => acts::act(snapshot, &call, "conclude", rest, EventBody::AgreementConcluded)?,
        "rate" => acts::act(snapshot, &call, "rate", rest, EventBody::MemberRated)?,
        "heartbeat" => report::heartbeat(snapshot, &call, rest)?,
        "close_abandoned" => acts::act(snapshot, &call, "close_abandoned", rest, EventBody::PartClosed)?,
        "expire" => acts::act(snapshot, &call, "expire", rest, EventBody::AgreementExpired)?,
        "end" => acts::act(snapshot, &call, "end", rest, EventBody::EndAsked)?,
        "transfer" => acts::act(snapshot, &call, "transfer", rest, EventBody::TransferProposed)?,
        "approve_transfer" => acts::act(snapshot, &call, "approve_transfer", rest, EventBody::TransferApproved)?,
        "accept_transfer" => acts::act(snapshot, &call, "accept_transfer", rest, EventBody::TransferAccepted)?,
        "cancel_transfer" => acts::act(snapshot, &call, "cancel_transfer", rest, EventBody::TransferCancelled)?,
        "distribute" => acts::act(snapshot, &call, "distribute", rest, EventBody::ProfitDistributed)?,
        "import" => acts::act(snapshot, &call, "import", rest, EventBody::Imported)?,
        "drop_import" => acts::act(snapshot, &call, "drop_import", rest, EventBody::ImportDropped)?,
        read => return answer(snapshot, read, rest).map(ok),
    };
    effect.commit(stub, call)
}

/// What a function says that only reads.
fn answer(snapshot: &mut Snapshot<'_>, function: &str, rest: &[Vec<u8>]) -> Result<Vec<u8>, Refused> {
    match function {
        "agreement" => reads::agreement(snapshot, rest),
        "member" => reads::member(snapshot, rest),
        "resource" => reads::resource(snapshot, rest),
        "resources" => reads::resources(snapshot, rest),
        "head" => reads::head(snapshot, rest),
        "offer" => reads::record::<OfferRecord>(snapshot, "offer", rest),
        "offers" => reads::records::<OfferRecord>(snapshot, "offers", rest),
        "proposal" => reads::record::<ProposalRecord>(snapshot, "proposal", rest),
        "proposals" => reads::records::<ProposalRecord>(snapshot, "proposals", rest),
        "key" => reads::record::<KeyRecord>(snapshot, "key", rest),
        "negotiation" => reads::record::<NegotiationRecord>(snapshot, "negotiation", rest),
        "negotiations" => reads::records::<NegotiationRecord>(snapshot, "negotiations", rest),
        "sealed" => reads::record::<SealedRecord>(snapshot, "sealed", rest),
        "representation" => reads::record::<RepresentationRecord>(snapshot, "representation", rest),
        "agreed" => reads::record::<AgreedRecord>(snapshot, "agreed", rest),
        "rating" => reads::record::<RatingRecord>(snapshot, "rating", rest),
        other => Err(Refused::Function(other.to_owned())),
    }
}

fn function_name(bytes: &[u8]) -> Result<&str, Refused> {
    if bytes.len() > arguments::MAX_FUNCTION_BYTES {
        return Err(Refused::TooLarge {
            function: "the function's name",
            bytes: bytes.len(),
            limit: arguments::MAX_FUNCTION_BYTES,
        });
    }
    std::str::from_utf8(bytes).map_err(|_| Refused::NotText("the function's name"))
}
