//! How a member's part in an agreement ends, and how an agreement does: by silence, by its date, or because its parties say so.
//!
//! A deadline has passed when a majority of the other parties each put something on the ledger that is stamped after it. With two
//! parties that is the word of one, and the record says so.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ActRefusal, Effect, Fault, Source, Taken};
use crate::agreement::Agreement;
use crate::clauses::{AbandonmentClause, Ending};
use crate::ids::{MemberId, ResourceName};
use crate::records::{self, Books, Submitted};
use crate::rules::{CheckError, InForce, Refusal};
use crate::time::Timestamp;

/// The name of the one record of an agreement's end.
pub const ENDING: &str = "agreement";
/// A member's part counts its epochs from this one; closing it begins the next.
pub const FIRST_EPOCH: u32 = 1;

/// Names a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberNamed {
    /// The member.
    pub member: MemberId,
}

/// Nothing more to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Whose word it is that a deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// The word of the one who says so: there is nobody else.
    Accuser,
    /// That of a majority of the others.
    Majority,
}

/// A member's part that was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    /// The member.
    pub member: MemberId,
    /// The epoch that began with it.
    pub epoch: u32,
    /// The transaction that closed it.
    pub closed: Submitted,
    /// The member's last sign of life.
    pub since: Timestamp,
    /// When its grace was over.
    pub deadline: Timestamp,
    /// The others whose words are later than that, and of when.
    pub witnesses: BTreeMap<MemberId, Timestamp>,
    /// Whose word it is.
    pub word: Word,
}

/// Why an agreement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its date has come.
    Expired,
    /// Enough of its parties asked for it.
    Asked,
}

/// The end of an agreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Why.
    pub why: Why,
    /// The transaction that ended it.
    pub by: Submitted,
}

/// Who asks for the end of an agreement, and whether it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndingRecord {
    /// Who asks for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub asked: BTreeMap<MemberId, Submitted>,
    /// Its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// Why something about an end is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LifeRefusal {
    /// The agreement doesn't know abandonment.
    #[error("clauses.abandonment: the agreement has none, so nobody's silence ends anything")]
    NoAbandonment,
    /// It would be its own.
    #[error("a member can't close its own part: ask for the end of the agreement, or transfer its rights")]
    Own,
    /// It is closed.
    #[error("the part of {0} is closed: it has no rights on this channel any more")]
    Closed(MemberId),
    /// The agreement is over.
    #[error("the agreement has ended; nothing is ordered or decided on this channel any more")]
    Ended,
    /// It is too early.
    #[error(
        "{member} was heard of last at {since}, and its grace ends at {deadline}: {have} of {need} other parties have put something on the ledger after that"
    )]
    NotYet {
        /// The member.
        member: MemberId,
        /// Its last sign of life.
        since: Timestamp,
        /// When its grace ends.
        deadline: Timestamp,
        /// How many are later.
        have: usize,
        /// How many have to be.
        need: usize,
    },
    /// The agreement has no last day.
    #[error("effective.until: the agreement has none, so it doesn't expire")]
    NoDate,
    /// It is too early.
    #[error("the agreement holds until {until}: {have} of {need} parties have put something on the ledger after that")]
    Holds {
        /// Its last moment.
        until: Timestamp,
        /// How many are later.
        have: usize,
        /// How many have to be.
        need: usize,
    },
    /// Asked already.
    #[error("{0} has asked for the end already")]
    Asked(MemberId),
    /// The agreement doesn't say how it ends early.
    #[error("clauses.end: the agreement has none, so it ends at its date only")]
    NoEnd,
}

impl LifeRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            LifeRefusal::Own | LifeRefusal::Closed(_) => Fault::Forbidden,
            LifeRefusal::NoAbandonment | LifeRefusal::NoDate | LifeRefusal::NoEnd => Fault::Bad,
            LifeRefusal::Ended | LifeRefusal::NotYet { .. } | LifeRefusal::Holds { .. } | LifeRefusal::Asked(_) => Fault::Conflict,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            LifeRefusal::NoAbandonment => "the agreement has no clause on abandonment",
            LifeRefusal::Own => "a member can't close its own part",
            LifeRefusal::Closed(_) => "the member's part is closed",
            LifeRefusal::Ended => "the agreement has ended",
            LifeRefusal::NotYet { .. } => "the member's grace is not over",
            LifeRefusal::NoDate => "the agreement has no last day",
            LifeRefusal::Holds { .. } => "the agreement's date has not come",
            LifeRefusal::Asked(_) => "the member has asked for the end already",
            LifeRefusal::NoEnd => "the agreement has no clause on its end",
        }
    }
}

fn refused<E>(refusal: LifeRefusal) -> CheckError<E> {
    CheckError::Refused(ActRefusal::from(refusal).into())
}

/// A deadline, and who is later than it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The member's last sign of life; of an agreement, its first moment.
    pub since: Timestamp,
    /// The deadline.
    pub at: Timestamp,
    /// Who is later, and of when.
    pub witnesses: BTreeMap<MemberId, Timestamp>,
    /// How many have to be.
    pub need: usize,
}

impl Deadline {
    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.witnesses.len() >= self.need
    }
}

/// The agreement in force of somebody who may act on it: a party whose part is open, while it has not ended.
pub(super) fn acting<B: Books + ?Sized>(books: &mut B, by: &MemberId) -> Result<Agreement, CheckError<B::Error>> {
    let agreement = books.agreement().map_err(CheckError::View)?.ok_or(Refusal::NoAgreement)?;
    if agreement.party(by).is_none() {
        return Err(Refusal::NotAParty(by.clone()).into());
    }
    open(books, by)?;
    Ok(agreement)
}

/// Refuses what a member does whose part is closed, or after the end of the agreement.
pub(crate) fn open<B: Books + ?Sized>(books: &mut B, by: &MemberId) -> Result<(), CheckError<B::Error>> {
    let ending: Option<EndingRecord> = records::get(books, ENDING).map_err(CheckError::View)?;
    if ending.is_some_and(|ending| ending.ended.is_some()) {
        return Err(refused(LifeRefusal::Ended));
    }
    match records::get::<PartRecord, B>(books, by.as_str()).map_err(CheckError::View)? {
        Some(_) => Err(refused(LifeRefusal::Closed(by.clone()))),
        None => Ok(()),
    }
}

/// The parties whose parts are open.
pub(super) fn standing<B: Books + ?Sized>(books: &mut B, agreement: &Agreement) -> Result<Vec<MemberId>, B::Error> {
    let mut open = Vec::new();
    for party in &agreement.parties {
        if records::get::<PartRecord, B>(books, party.member.as_str())?.is_none() {
            open.push(party.member.clone());
        }
    }
    Ok(open)
}

/// Finds which of these have put something on the ledger after a moment; `now` is what one of them says with this very transaction.
fn later<B: Books + ?Sized>(
    books: &mut B,
    members: &[MemberId],
    now: (&MemberId, Timestamp),
    deadline: Timestamp,
) -> Result<BTreeMap<MemberId, Timestamp>, B::Error> {
    let mut witnesses = BTreeMap::new();
    for member in members {
        let heard = match (member == now.0, books.heard(member)?) {
            (true, heard) => Some(now.1).max(heard),
            (false, heard) => heard,
        };
        if let Some(heard) = heard.filter(|heard| *heard > deadline) {
            witnesses.insert(member.clone(), heard);
        }
    }
    Ok(witnesses)
}

fn majority(of: usize) -> usize {
    of / 2 + 1
}

/// When a member's silence is abandonment, and who says so, as one of the others asks at a moment.
pub fn silence<B: Books + ?Sized>(
    books: &mut B,
    agreement: &Agreement,
    clause: &AbandonmentClause,
    member: &MemberId,
    now: (&MemberId, Timestamp),
) -> Result<Deadline, B::Error> {
    let since = match books.heard(member)? {
        Some(heard) => Some(heard),
        None => books.accepted(member)?,
    };
    let since = since.unwrap_or(agreement.effective.from);
    let at = Timestamp::clamped(since.seconds().saturating_add(i64::from(clause.grace_seconds)));
    let mut others = standing(books, agreement)?;
    others.retain(|other| other != member);
    Ok(Deadline {
        since,
        at,
        witnesses: later(books, &others, now, at)?,
        need: majority(others.len()),
    })
}

/// When an agreement is over by its date, and who says so, as one of its parties asks at a moment; none: never.
pub fn expiry<B: Books + ?Sized>(books: &mut B, agreement: &Agreement, now: (&MemberId, Timestamp)) -> Result<Option<Deadline>, B::Error> {
    let Some(until) = agreement.effective.until else {
        return Ok(None);
    };
    // The first moment after it is enough.
    let at = Timestamp::clamped(until.seconds().saturating_sub(1));
    let parties = standing(books, agreement)?;
    Ok(Some(Deadline {
        since: agreement.effective.from,
        at,
        witnesses: later(books, &parties, now, at)?,
        need: majority(parties.len()),
    }))
}

/// Closes the part of a member that is silent for longer than the agreement's grace, and retires what it owns and what depends on that.
pub(super) fn close<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &MemberNamed) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let agreement = acting(books, by)?;
    let clauses = agreement.clauses.as_ref();
    let clause = clauses
        .and_then(|clauses| clauses.abandonment.as_ref())
        .ok_or_else(|| refused(LifeRefusal::NoAbandonment))?;
    let member = &named.member;
    if member == by {
        return Err(refused(LifeRefusal::Own));
    }
    if agreement.party(member).is_none() {
        return Err(Refusal::NotAParty(member.clone()).into());
    }
    open(books, member)?;
    let deadline = silence(books, &agreement, clause, member, (by, source.submitted.at)).map_err(CheckError::View)?;
    if !deadline.passed() {
        return Err(refused(LifeRefusal::NotYet {
            member: member.clone(),
            since: deadline.since,
            deadline: deadline.at,
            have: deadline.witnesses.len(),
            need: deadline.need,
        }));
    }
    let all = books.all_ordered().map_err(CheckError::View)?;
    let going = with_dependents(&all, member);
    let going = all.into_iter().filter(|one| going.contains(&one.resource.name));
    Ok(Taken {
        changes: leave(by, clause.resources, going),
        ..Taken::record(PartRecord {
            member: member.clone(),
            epoch: FIRST_EPOCH + 1,
            closed: source.submitted.clone(),
            since: deadline.since,
            deadline: deadline.at,
            word: if deadline.need == 1 && deadline.witnesses.len() == 1 {
                Word::Accuser
            } else {
                Word::Majority
            },
            witnesses: deadline.witnesses,
        })
    })
}

/// What a member owns, and everything that needs it, directly or not.
fn with_dependents(all: &[InForce], member: &MemberId) -> BTreeSet<ResourceName> {
    let mut going: BTreeSet<ResourceName> = all
        .iter()
        .filter(|one| one.resource.owner == *member)
        .map(|one| one.resource.name.clone())
        .collect();
    let needs: Vec<(&ResourceName, BTreeSet<ResourceName>)> =
        all.iter().map(|one| (&one.resource.name, one.resource.dependencies())).collect();
    loop {
        let before = going.len();
        for (name, needed) in &needs {
            if !needed.is_disjoint(&going) {
                going.insert((*name).clone());
            }
        }
        if going.len() == before {
            return going;
        }
    }
}

/// Retires resources as a clause says. What is protected is kept where it is: nobody agreed to its destruction.
fn leave(by: &MemberId, ending: Ending, going: impl Iterator<Item = InForce>) -> Vec<Effect> {
    let (mut retired, mut kept) = (Vec::new(), Vec::new());
    for one in going {
        if one.resource.protect || ending == Ending::Retained {
            kept.push(one.resource.name);
        } else {
            retired.push(one.resource.name);
        }
    }
    let mut effects = Vec::new();
    if !retired.is_empty() {
        effects.push(Effect::Retire(by.clone(), retired));
    }
    if !kept.is_empty() {
        effects.push(Effect::Release(by.clone(), kept));
    }
    effects
}

/// Ends an agreement whose date has come.
pub(super) fn expire<B: Books + ?Sized>(books: &mut B, source: &Source<'_>) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let agreement = acting(books, by)?;
    let deadline = expiry(books, &agreement, (by, source.submitted.at)).map_err(CheckError::View)?;
    let (Some(deadline), Some(until)) = (deadline, agreement.effective.until) else {
        return Err(refused(LifeRefusal::NoDate));
    };
    if !deadline.passed() {
        return Err(refused(LifeRefusal::Holds {
            until,
            have: deadline.witnesses.len(),
            need: deadline.need,
        }));
    }
    let record: EndingRecord = records::get(books, ENDING).map_err(CheckError::View)?.unwrap_or_default();
    over(books, &agreement, source, record, Why::Expired)
}

/// Asks for the end of an agreement before its date; with enough of those whose parts are open, it has ended.
pub(super) fn end<B: Books + ?Sized>(books: &mut B, source: &Source<'_>) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let agreement = acting(books, by)?;
    let clause = agreement.clauses.as_ref().and_then(|clauses| clauses.end.as_ref());
    let clause = clause.ok_or_else(|| refused(LifeRefusal::NoEnd))?;
    let mut record: EndingRecord = records::get(books, ENDING).map_err(CheckError::View)?.unwrap_or_default();
    if record.asked.insert(by.clone(), source.submitted.clone()).is_some() {
        return Err(refused(LifeRefusal::Asked(by.clone())));
    }
    let open = standing(books, &agreement).map_err(CheckError::View)?;
    let asking = open.iter().filter(|member| record.asked.contains_key(*member)).count();
    // Whose part is closed can neither ask nor be waited for.
    let need = clause.need.map_or(open.len(), |need| (need as usize).min(open.len()));
    if asking < need {
        return Ok(Taken::record(record));
    }
    over(books, &agreement, source, record, Why::Asked)
}

fn over<B: Books + ?Sized>(
    books: &mut B,
    agreement: &Agreement,
    source: &Source<'_>,
    mut record: EndingRecord,
    why: Why,
) -> Result<Taken, CheckError<B::Error>> {
    record.ended = Some(Ended {
        why,
        by: source.submitted.clone(),
    });
    let clause = agreement.clauses.as_ref().and_then(|clauses| clauses.end.as_ref());
    let ending = clause.map_or(Ending::default(), |clause| clause.resources);
    let all = books.all_ordered().map_err(CheckError::View)?;
    Ok(Taken {
        changes: leave(source.by(), ending, all.into_iter()),
        ..Taken::record(record)
    })
}
