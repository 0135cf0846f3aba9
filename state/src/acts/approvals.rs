//! Approvals: a change that others have to approve first stands as a proposal until they have.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::handovers::{self, HandOver};
use super::{ActRefusal, Effect, Fault, Source, Taken, life};
use crate::agreement::Agreement;
use crate::clauses::ApprovalClause;
use crate::ids::{MemberId, ResourceName, TxId};
use crate::records::{self, Books, Record, Submitted};
use crate::resource::Resource;
use crate::rules::clauses::{approvals, approved};
use crate::rules::{self, Change, CheckError, Verdict};

/// A change that somebody asked for, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Wanted {
    /// New resources.
    Order {
        /// The resources.
        resources: Vec<Resource>,
    },
    /// Changed resources.
    Amend {
        /// The resources, whole.
        resources: Vec<Resource>,
    },
    /// Resources that are no longer wanted.
    Retire {
        /// Their names.
        resources: Vec<ResourceName>,
    },
    /// Resources that another version of the DAO carries on, replaces, or does without.
    HandOver {
        /// What becomes of which, and where.
        hand_over: HandOver,
    },
}

impl Wanted {
    /// The change, as rules take it.
    pub fn change(&self) -> Change<'_> {
        match self {
            Wanted::Order { resources } => Change::Order(resources),
            Wanted::Amend { resources } => Change::Amend(resources),
            Wanted::Retire { resources } => Change::Retire(resources),
            Wanted::HandOver { hand_over } => Change::HandOver(hand_over),
        }
    }

    /// What it does: `order`, `amend`, `retire` or `hand over`.
    pub fn verb(&self) -> &'static str {
        match self {
            Wanted::Order { .. } => "order",
            Wanted::Amend { .. } => "amend",
            Wanted::Retire { .. } => "retire",
            Wanted::HandOver { .. } => "hand over",
        }
    }

    /// The resources that it is about, in its order.
    pub fn names(&self) -> Vec<&ResourceName> {
        match self {
            Wanted::Order { resources } | Wanted::Amend { resources } => resources.iter().map(|resource| &resource.name).collect(),
            Wanted::Retire { resources } => resources.iter().collect(),
            Wanted::HandOver { hand_over } => hand_over.leaving().map(|(name, _)| name).collect(),
        }
    }

    /// What it does in a transaction with which it is in force, asked for by a member.
    fn taken(self, source: &Source<'_>, by: MemberId) -> Taken {
        let change = match self {
            Wanted::Order { resources } => Effect::Order(by, resources),
            Wanted::Amend { resources } => Effect::Amend(by, resources),
            Wanted::Retire { resources } => Effect::Retire(by, resources),
            Wanted::HandOver { hand_over } => return handovers::taken(source, by, hand_over),
        };
        Taken {
            records: Vec::new(),
            changes: vec![change],
        }
    }
}

/// Names a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalNamed {
    /// The transaction that proposed it.
    pub id: TxId,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settlement {
    /// Enough members approved it, and it is in force.
    InForce,
    /// So many rejected it that it can't be approved any more.
    Rejected,
    /// Who proposed it took it back.
    Withdrawn,
}

/// A change that has to be approved, and what was said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalRecord {
    /// The transaction that proposed it; its id is the proposal's.
    pub proposed: Submitted,
    /// The change.
    pub wanted: Wanted,
    /// Who approves, the proposer first.
    pub approved: BTreeMap<MemberId, Submitted>,
    /// Who rejects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<MemberId, Submitted>,
    /// How it ended, and the transaction that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
}

/// The end of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settled {
    /// How.
    pub how: Settlement,
    /// By which transaction.
    pub by: Submitted,
}

/// How far a proposal is under one approval clause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The clause's place among the agreement's approval clauses, from 0.
    pub clause: usize,
    /// How many approve whose approval counts.
    pub have: usize,
    /// How many have to.
    pub need: u32,
}

/// Why something about a proposal is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApprovalRefusal {
    /// There is none.
    #[error("there is no proposal {0} on this channel")]
    Missing(TxId),
    /// It is settled.
    #[error("proposal {id} is {how} already")]
    Settled {
        /// The proposal.
        id: TxId,
        /// How it ended.
        how: &'static str,
    },
    /// It is another member's.
    #[error("proposal {id} is of {proposer}: only {proposer} can withdraw it")]
    NotYours {
        /// The proposal.
        id: TxId,
        /// Whose it is.
        proposer: MemberId,
    },
    /// One voice each.
    #[error("{by} has spoken on proposal {id} already")]
    Spoken {
        /// The proposal.
        id: TxId,
        /// Who.
        by: MemberId,
    },
    /// The clauses ask others.
    #[error("{by} is not asked: no approval clause that proposal {id} falls under counts its voice")]
    NotAsked {
        /// The proposal.
        id: TxId,
        /// Who.
        by: MemberId,
    },
    /// Nobody has to approve it.
    #[error("the change needs no approval: it can be in force at once")]
    NotNeeded,
}

impl ApprovalRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            ApprovalRefusal::Missing(_) => Fault::Missing,
            ApprovalRefusal::NotYours { .. } | ApprovalRefusal::NotAsked { .. } => Fault::Forbidden,
            ApprovalRefusal::Settled { .. } | ApprovalRefusal::Spoken { .. } | ApprovalRefusal::NotNeeded => Fault::Conflict,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            ApprovalRefusal::Missing(_) => "the proposal does not exist",
            ApprovalRefusal::Settled { .. } => "the proposal is settled",
            ApprovalRefusal::NotYours { .. } => "the proposal is another member's",
            ApprovalRefusal::Spoken { .. } => "the member has spoken on the proposal already",
            ApprovalRefusal::NotAsked { .. } => "the member's approval does not count",
            ApprovalRefusal::NotNeeded => "the change needs no approval",
        }
    }
}

impl Settlement {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Settlement::InForce => "in force",
            Settlement::Rejected => "rejected",
            Settlement::Withdrawn => "withdrawn",
        }
    }
}

impl ProposalRecord {
    /// How far it is under each approval clause that it falls under.
    pub fn standing<B: Books + ?Sized>(&self, books: &mut B, agreement: &Agreement) -> Result<Vec<Standing>, B::Error> {
        let fitting = approvals(books, agreement, self.wanted.change())?;
        Ok(clauses(agreement, &fitting)
            .map(|(index, clause)| Standing {
                clause: index,
                have: self.approved.keys().filter(|member| clause.counts(agreement, member)).count(),
                need: clause.need,
            })
            .collect())
    }
}

fn refused<E>(refusal: ApprovalRefusal) -> CheckError<E> {
    CheckError::Refused(ActRefusal::from(refusal).into())
}

/// The approval clauses at these places.
fn clauses<'a>(agreement: &'a Agreement, places: &'a BTreeSet<usize>) -> impl Iterator<Item = (usize, &'a ApprovalClause)> {
    let all = agreement.clauses.iter().flat_map(|clauses| &clauses.approvals).enumerate();
    all.filter(|(index, _)| places.contains(index))
}

/// Puts a change before those who have to approve it. The proposer approves it with that.
pub(super) fn propose<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, wanted: &Wanted) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let agreement = life::acting(books, by)?;
    if let Wanted::HandOver { hand_over } = wanted {
        handovers::check(source, hand_over)?;
    }
    match rules::check(books, Some(&agreement), by, source.submitted.at, wanted.change())? {
        Verdict::Now => Err(refused(ApprovalRefusal::NotNeeded)),
        Verdict::Awaits(_) => Ok(Taken::record(ProposalRecord {
            proposed: source.submitted.clone(),
            wanted: wanted.clone(),
            approved: [(by.clone(), source.submitted.clone())].into(),
            rejected: BTreeMap::new(),
            settled: None,
        })),
    }
}

fn open<B: Books + ?Sized>(books: &mut B, id: &TxId) -> Result<ProposalRecord, CheckError<B::Error>> {
    let record: ProposalRecord = records::get(books, id.as_str())
        .map_err(CheckError::View)?
        .ok_or_else(|| refused(ApprovalRefusal::Missing(id.clone())))?;
    match &record.settled {
        Some(settled) => Err(refused(ApprovalRefusal::Settled {
            id: id.clone(),
            how: settled.how.word(),
        })),
        None => Ok(record),
    }
}

/// Finds an open proposal on which a member may still speak, and the clauses that it falls under.
fn asked<B: Books + ?Sized>(
    books: &mut B,
    source: &Source<'_>,
    agreement: &Agreement,
    id: &TxId,
) -> Result<(ProposalRecord, BTreeSet<usize>), CheckError<B::Error>> {
    let by = source.by();
    let record = open(books, id)?;
    let fitting = approvals(books, agreement, record.wanted.change()).map_err(CheckError::View)?;
    if !clauses(agreement, &fitting).any(|(_, clause)| clause.counts(agreement, by)) {
        return Err(refused(ApprovalRefusal::NotAsked {
            id: id.clone(),
            by: by.clone(),
        }));
    }
    if record.approved.contains_key(by) || record.rejected.contains_key(by) {
        return Err(refused(ApprovalRefusal::Spoken {
            id: id.clone(),
            by: by.clone(),
        }));
    }
    Ok((record, fitting))
}

/// Approves a proposal. With the last approval that it needs the change is held to the rules again, and is in force.
///
/// A change that doesn't fit any more is refused with that approval, and stays open.
pub(super) fn approve<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &ProposalNamed) -> Result<Taken, CheckError<B::Error>> {
    let agreement = life::acting(books, source.by())?;
    let (mut record, fitting) = asked(books, source, &agreement, &named.id)?;
    record.approved.insert(source.by().clone(), source.submitted.clone());
    let members = record.approved.keys().collect();
    if !fitting.iter().all(|index| approved(&agreement, *index, &members)) {
        return Ok(Taken::record(record));
    }
    let proposer = record.proposed.by.clone();
    rules::approved(books, &agreement, &proposer, source.submitted.at, record.wanted.change())?;
    record.settled = Some(Settled {
        how: Settlement::InForce,
        by: source.submitted.clone(),
    });
    let mut taken = record.wanted.clone().taken(source, proposer);
    taken.records.insert(0, record.any());
    Ok(taken)
}

/// Rejects a proposal; when too few are left who could approve it, it is settled.
pub(super) fn reject<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &ProposalNamed) -> Result<Taken, CheckError<B::Error>> {
    let agreement = life::acting(books, source.by())?;
    let (mut record, fitting) = asked(books, source, &agreement, &named.id)?;
    record.rejected.insert(source.by().clone(), source.submitted.clone());
    // Whose part is closed can't approve any more, whatever it would have said.
    let able: BTreeSet<MemberId> = life::standing(books, &agreement)
        .map_err(CheckError::View)?
        .into_iter()
        .filter(|member| !record.rejected.contains_key(member))
        .collect();
    let hopeless = clauses(&agreement, &fitting).any(|(_, clause)| {
        let could = clause
            .electorate(&agreement)
            .into_iter()
            .filter(|member| able.contains(*member) || record.approved.contains_key(*member));
        could.count() < clause.need as usize
    });
    if hopeless {
        record.settled = Some(Settled {
            how: Settlement::Rejected,
            by: source.submitted.clone(),
        });
    }
    Ok(Taken::record(record))
}

/// Takes a proposal back.
pub(super) fn withdraw<B: Books + ?Sized>(
    books: &mut B,
    source: &Source<'_>,
    named: &ProposalNamed,
) -> Result<Taken, CheckError<B::Error>> {
    life::acting(books, source.by())?;
    let mut record = open(books, &named.id)?;
    if record.proposed.by != *source.by() {
        return Err(refused(ApprovalRefusal::NotYours {
            id: named.id.clone(),
            proposer: record.proposed.by,
        }));
    }
    record.settled = Some(Settled {
        how: Settlement::Withdrawn,
        by: source.submitted.clone(),
    });
    Ok(Taken::record(record))
}
