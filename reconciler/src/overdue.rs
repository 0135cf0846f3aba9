//! What has become due on a channel by ledger time: a part to close, an agreement that has expired.
//!
//! It is asked of the same rules that the chaincode holds such a transaction to, with the signs of life that reports leave.

use state::acts::life::{self, Deadline, ENDING, EndingRecord, PartRecord};
use state::agreement::Agreement;
use state::clauses::Closing;
use state::desired::{DesiredState, Present};
use state::ids::MemberId;
use state::reported::ReportedState;
use state::time::Timestamp;

/// Something that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// A member is silent for longer than its grace.
    Abandoned {
        /// The member.
        member: MemberId,
        /// Since when, and who says so.
        deadline: Deadline,
        /// Who closes its part.
        closing: Closing,
    },
    /// The agreement's date has come.
    Expired,
}

/// How long a member has been silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The member.
    pub member: MemberId,
    /// Its part, if that is closed.
    pub closed: Option<PartRecord>,
    /// When its silence is abandonment, and who is later; none: never, or not any more.
    pub deadline: Option<Deadline>,
}

/// The agreement in force, while it has not ended.
fn alive(desired: &DesiredState) -> Option<&Agreement> {
    let ending = desired.records().of::<EndingRecord>(ENDING);
    desired.in_force().filter(|_| ending.is_none_or(|ending| ending.ended.is_none()))
}

/// How every party's silence stands, as one of them sees it at a moment.
pub fn silences(desired: &DesiredState, reported: &ReportedState, member: &MemberId, now: Timestamp) -> Vec<Silence> {
    let Some(agreement) = desired.in_force() else {
        return Vec::new();
    };
    let clause = agreement.clauses.as_ref().and_then(|clauses| clauses.abandonment.as_ref());
    let clause = clause.filter(|_| alive(desired).is_some());
    let heard = reported.heartbeats();
    let mut all = Vec::new();
    for party in &agreement.parties {
        let closed = desired.records().of::<PartRecord>(party.member.as_str()).cloned();
        let deadline = clause.filter(|_| closed.is_none()).map(|clause| {
            let books = &mut Present::with(desired, &heard);
            let found = life::silence(books, agreement, clause, &party.member, (member, now));
            found.unwrap_or_else(|never| match never {})
        });
        all.push(Silence {
            member: party.member.clone(),
            closed,
            deadline,
        });
    }
    all
}

/// What is due on a channel, as one of its members sees it at a moment.
pub fn due(desired: &DesiredState, reported: &ReportedState, member: &MemberId, now: Timestamp) -> Vec<Due> {
    let closed = |member: &MemberId| desired.records().of::<PartRecord>(member.as_str()).is_some();
    let Some(agreement) = alive(desired).filter(|agreement| agreement.party(member).is_some() && !closed(member)) else {
        return Vec::new();
    };
    let heard = reported.heartbeats();
    let books = &mut Present::with(desired, &heard);
    let expiry = life::expiry(books, agreement, (member, now));
    if expiry
        .unwrap_or_else(|never| match never {})
        .is_some_and(|deadline| deadline.passed())
    {
        return vec![Due::Expired];
    }
    let clause = agreement.clauses.as_ref().and_then(|clauses| clauses.abandonment.as_ref());
    let closing = clause.map(|clause| clause.closing).unwrap_or_default();
    let others = silences(desired, reported, member, now).into_iter();
    others
        .filter(|silence| silence.member != *member)
        .filter_map(|silence| {
            let deadline = silence.deadline.filter(Deadline::passed)?;
            Some(Due::Abandoned {
                member: silence.member,
                deadline,
                closing,
            })
        })
        .collect()
}
