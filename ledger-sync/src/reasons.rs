//! Why an event was not taken in, in fixed words.
//!
//! The errors of `state` speak to people and may be worded better one day. These words stand in commits, so no later version
//! may change them: the same blocks have to give the same commit ids.

use state::desired::Rejection;
use state::event::EventError;
use state::reported::ReportRejection;
use state::rules::Refusal;

/// Why a document is no event.
pub(crate) fn event(error: &EventError) -> &'static str {
    match error {
        EventError::Newer { .. } => "the event is of a newer schema version",
        EventError::TooLarge { .. } => "the event is too large",
        EventError::Malformed(_) => "the event is malformed",
        EventError::Contradicts { attribute } => match *attribute {
            "specversion" => "the event is not of CloudEvents 1.0",
            "id" => "the event's id is not that of its transaction",
            "source" => "the event's source is not this channel",
            "time" => "the event's time is not that of its transaction",
            // What a Charter that knows only the named version says of it.
            "schemaversion" => "the event is malformed",
            _ => "the event contradicts its transaction",
        },
    }
}

/// Why the desired state did not take an event.
pub(crate) fn desired(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Channel { .. } => "the event is of another channel",
        Rejection::Identity { .. } => "the member is not bound to the MSP that signed the transaction",
        Rejection::Contradicts(_) => "the event contradicts what its content leads to",
        Rejection::Refused(refusal) => rule(refusal),
        Rejection::Encode(_) => "the event can't be encoded",
        Rejection::Report => "a report does not change the desired state",
    }
}

fn rule(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Registered(_) => "the member or its MSP is registered already",
        Refusal::Constituted => "the channel has an agreement already",
        Refusal::Party { .. } => "a party is not registered as the agreement says",
        Refusal::Agreement(_) => "the agreement breaks its own rules",
        Refusal::NothingProposed => "the channel has no agreement to accept",
        Refusal::OtherDigest(_) => "the digest is not that of the channel's agreement",
        Refusal::Accepted(_) => "the member has accepted already",
        Refusal::NoAgreement => "no agreement is in force",
        Refusal::Dates { .. } => "the agreement does not hold at that time",
        Refusal::NotAParty(_) => "the member is not a party of the agreement",
        Refusal::Items(_) => "it changes no resource, or too many at once",
        Refusal::Twice(_) => "a resource stands twice",
        Refusal::Exists(_) => "a resource exists already",
        Refusal::Missing(_) => "a resource does not exist",
        Refusal::Owner { .. } => "the owner of a resource is not a party of the agreement",
        Refusal::NotAllowed { .. } => "the member may not change a resource of another",
        Refusal::Fixed { field: "origin", .. } => "the origin of a resource can't be amended",
        Refusal::Fixed { .. } => "kind or owner of a resource can't be amended",
        Refusal::Origin { .. } => "only the owner of a resource carries it over",
        Refusal::Dangling { .. } => "a resource depends on one that does not exist",
        Refusal::Dependencies { .. } => "a resource has too many dependencies",
        Refusal::NotExported { .. } => "a resource refers to an output of another member that is not exported",
        Refusal::Cycle(_) => "resources depend on each other in a circle",
        Refusal::Needed { .. } => "a resource is still needed by another",
        Refusal::Protected(_) => "a resource is protected",
        Refusal::Act(refusal) => refusal.reason(),
        Refusal::Reserved(_) => "the name of a resource is one of imports",
        Refusal::Clause(breach) => breach.reason(),
        Refusal::Size { .. } => "an amount of a resource is too large",
        Refusal::Limit { .. } => "the agreement does not allow so many resources",
    }
}

/// Why the reports did not take one.
pub(crate) fn report(rejection: &ReportRejection) -> &'static str {
    match rejection {
        ReportRejection::NotAReport => "the event is not a report",
        ReportRejection::Envelope(_) => "the report's envelope can't be read",
        ReportRejection::Contradicts(_) => "the report contradicts the event that carries it",
        ReportRejection::Chain { .. } => "the report does not follow the member's last one",
        ReportRejection::Whole => "the report's changes don't lead to its digest of the whole",
        ReportRejection::Encode(_) => "the report can't be encoded",
    }
}
