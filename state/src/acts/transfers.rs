//! Transfer of rights: resources that one member owns become another's, or a newcomer takes a party's whole place, with the approvals that
//! the agreement asks.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ActRefusal, Effect, Fault, Source, Taken, life};
use crate::agreement::{Agreement, Role};
use crate::clauses::TransferClause;
use crate::ids::{MemberId, MspId, ResourceName, TxId};
use crate::records::{self, Books, Submitted};
use crate::resource::Resource;
use crate::rules::{self, Change, CheckError, MAX_ITEMS, Refusal};

/// What is to be transferred, to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Who takes it.
    pub to: MemberId,
    /// The resources, 1 to 1,000; all of them the giver's. None with `place`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub resources: BTreeSet<ResourceName>,
    /// The giver's whole place in the agreement: its share, its voice and all that it owns, to somebody who is no party yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub place: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Names a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferNamed {
    /// The transaction that proposed it.
    pub id: TxId,
}

/// A transfer and what was said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRecord {
    /// The transaction that proposed it; its id is the transfer's, its member the giver.
    pub proposed: Submitted,
    /// What, to whom.
    pub transfer: Transfer,
    /// Who approves, the giver first.
    pub approved: BTreeMap<MemberId, Submitted>,
    /// The taker's word that it takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Submitted>,
    /// The transaction with which it was in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Submitted>,
    /// The transaction with which the giver or the taker called it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Submitted>,
}

/// Why something about a transfer is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferRefusal {
    /// The agreement doesn't know it.
    #[error("clauses.transfer: the agreement has none, so rights are not transferred")]
    NoClause,
    /// It doesn't know newcomers.
    #[error("clauses.transfer.newcomers: the agreement doesn't let a party give its place to somebody who is none")]
    NoNewcomers,
    /// Not a newcomer.
    #[error("{0} is a party already: a place goes to somebody who is none; transfer resources to it instead")]
    AParty(MemberId),
    /// A place with a list.
    #[error("a place is given with everything that belongs to it: name no resources")]
    PlaceAndResources,
    /// Not registered, or as something else.
    #[error("{to} takes the place of a {role}: it has to be registered on this channel as one")]
    NotRegistered {
        /// The newcomer.
        to: MemberId,
        /// What it has to bring.
        role: Role,
    },
    /// To itself.
    #[error("{0} owns it already")]
    Same(MemberId),
    /// Somebody else's.
    #[error("resource {resource} is of {owner}, not of {giver}")]
    NotYours {
        /// The resource.
        resource: ResourceName,
        /// Whose it is.
        owner: MemberId,
        /// Who would give it.
        giver: MemberId,
    },
    /// There is none.
    #[error("there is no transfer {0} on this channel")]
    Missing(TxId),
    /// It is done, or was called off.
    #[error("transfer {0} is settled already")]
    Settled(TxId),
    /// Said already.
    #[error("{by} has said so of transfer {id} already")]
    Said {
        /// The transfer.
        id: TxId,
        /// Who.
        by: MemberId,
    },
    /// Not the taker.
    #[error("transfer {id} is to {to}: only {to} can accept it")]
    NotTheTaker {
        /// The transfer.
        id: TxId,
        /// The taker.
        to: MemberId,
    },
    /// Neither giver nor taker.
    #[error("only {giver}, who gives, or {to}, who takes, can call transfer {id} off")]
    NotTheirs {
        /// The transfer.
        id: TxId,
        /// The giver.
        giver: MemberId,
        /// The taker.
        to: MemberId,
    },
}

impl TransferRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            TransferRefusal::NoClause | TransferRefusal::NoNewcomers | TransferRefusal::PlaceAndResources => Fault::Bad,
            TransferRefusal::NotYours { .. } | TransferRefusal::NotTheTaker { .. } | TransferRefusal::NotTheirs { .. } => Fault::Forbidden,
            TransferRefusal::Missing(_) => Fault::Missing,
            TransferRefusal::Same(_)
            | TransferRefusal::Settled(_)
            | TransferRefusal::Said { .. }
            | TransferRefusal::AParty(_)
            | TransferRefusal::NotRegistered { .. } => Fault::Conflict,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            TransferRefusal::NoClause => "the agreement has no clause on transfer",
            TransferRefusal::NoNewcomers => "the agreement does not let newcomers take a place",
            TransferRefusal::AParty(_) => "the member is a party already",
            TransferRefusal::PlaceAndResources => "a place is given without a list of resources",
            TransferRefusal::NotRegistered { .. } => "the newcomer is not registered as what it takes the place of",
            TransferRefusal::Same(_) => "the member owns it already",
            TransferRefusal::NotYours { .. } => "a resource is another member's",
            TransferRefusal::Missing(_) => "the transfer does not exist",
            TransferRefusal::Settled(_) => "the transfer is settled",
            TransferRefusal::Said { .. } => "the member has said so already",
            TransferRefusal::NotTheTaker { .. } => "the transfer is to another member",
            TransferRefusal::NotTheirs { .. } => "the transfer is between other members",
        }
    }
}

fn refused<E>(refusal: TransferRefusal) -> CheckError<E> {
    CheckError::Refused(ActRefusal::from(refusal).into())
}

fn clause<E>(agreement: &Agreement) -> Result<&TransferClause, CheckError<E>> {
    let clause = agreement.clauses.as_ref().and_then(|clauses| clauses.transfer.as_ref());
    clause.ok_or_else(|| refused(TransferRefusal::NoClause))
}

/// A newcomer in the place of a party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// Who had the place.
    pub from: MemberId,
    /// Who has it.
    pub to: MemberId,
    /// The agreement with the newcomer in it.
    pub agreement: Agreement,
    /// What the one owned or ordered: who owns it then, and who has the orderer's rights.
    pub resources: BTreeMap<ResourceName, (MemberId, MemberId)>,
}

/// What a newcomer's taking of a place makes of the agreement, and of everything that the giver owned or ordered. The clauses hold as they
/// did: the newcomer stands in them where the giver stood.
fn succession<B: Books + ?Sized>(
    books: &mut B,
    agreement: &Agreement,
    from: &MemberId,
    to: &MemberId,
) -> Result<Succession, CheckError<B::Error>> {
    let msp = registered(books, agreement, from, to)?;
    let after = agreement.succeeded(from, to, &msp);
    after.check().map_err(Refusal::Agreement)?;
    let successor = |member: &MemberId| if member == from { to.clone() } else { member.clone() };
    let all = books.all_ordered().map_err(CheckError::View)?;
    let theirs = all.into_iter().filter(|one| [&one.resource.owner, &one.orderer].contains(&from));
    Ok(Succession {
        from: from.clone(),
        to: to.clone(),
        agreement: after,
        resources: theirs
            .map(|one| (one.resource.name, (successor(&one.resource.owner), successor(&one.orderer))))
            .collect(),
    })
}

/// Proposes a transfer of what the submitter owns; it approves it with that.
pub(super) fn propose<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, transfer: &Transfer) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let agreement = life::acting(books, by)?;
    let clause = clause(&agreement)?;
    if transfer.to == *by {
        return Err(refused(TransferRefusal::Same(by.clone())));
    }
    if transfer.place {
        place(&agreement, clause, transfer).map_err(refused)?;
    } else {
        if agreement.party(&transfer.to).is_none() {
            return Err(Refusal::NotAParty(transfer.to.clone()).into());
        }
        life::open(books, &transfer.to)?;
        if !(1..=MAX_ITEMS).contains(&transfer.resources.len()) {
            return Err(Refusal::Items(transfer.resources.len()).into());
        }
        fits(books, &agreement, by, transfer)?;
    }
    Ok(Taken::record(TransferRecord {
        proposed: source.submitted.clone(),
        transfer: transfer.clone(),
        approved: [(by.clone(), source.submitted.clone())].into(),
        accepted: None,
        done: None,
        cancelled: None,
    }))
}

/// A place goes to a newcomer, whole, where the agreement lets it.
fn place(agreement: &Agreement, clause: &TransferClause, transfer: &Transfer) -> Result<(), TransferRefusal> {
    if !clause.newcomers {
        return Err(TransferRefusal::NoNewcomers);
    }
    if !transfer.resources.is_empty() {
        return Err(TransferRefusal::PlaceAndResources);
    }
    match agreement.party(&transfer.to) {
        Some(_) => Err(TransferRefusal::AParty(transfer.to.clone())),
        None => Ok(()),
    }
}

/// The MSP of a newcomer that is registered as what it takes the place of.
fn registered<B: Books + ?Sized>(
    books: &mut B,
    agreement: &Agreement,
    giver: &MemberId,
    to: &MemberId,
) -> Result<MspId, CheckError<B::Error>> {
    let party = agreement.party(giver).ok_or_else(|| Refusal::NotAParty(giver.clone()))?;
    let member = books.member(to).map_err(CheckError::View)?;
    match member.filter(|member| member.role == party.role) {
        Some(member) => Ok(member.msp),
        None => Err(refused(TransferRefusal::NotRegistered {
            to: to.clone(),
            role: party.role,
        })),
    }
}

/// The agreement, for somebody who speaks on a transfer: a party, or the newcomer that it is to.
fn heard<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &TransferNamed) -> Result<Agreement, CheckError<B::Error>> {
    let record: Option<TransferRecord> = records::get(books, named.id.as_str()).map_err(CheckError::View)?;
    match record.filter(|record| record.transfer.place && record.transfer.to == *source.by()) {
        Some(_) => {
            life::open(books, source.by())?;
            Ok(books.agreement().map_err(CheckError::View)?.ok_or(Refusal::NoAgreement)?)
        }
        None => life::acting(books, source.by()),
    }
}

/// What is transferred is the giver's, and as the taker's it keeps to the clauses.
fn fits<B: Books + ?Sized>(
    books: &mut B,
    agreement: &Agreement,
    giver: &MemberId,
    transfer: &Transfer,
) -> Result<(), CheckError<B::Error>> {
    let mut taken = Vec::new();
    for name in &transfer.resources {
        let present = books.ordered(name).map_err(CheckError::View)?;
        let present = present.ok_or_else(|| Refusal::Missing(name.clone()))?;
        if present.resource.owner != *giver {
            return Err(refused(TransferRefusal::NotYours {
                resource: name.clone(),
                owner: present.resource.owner,
                giver: giver.clone(),
            }));
        }
        taken.push(Resource {
            owner: transfer.to.clone(),
            ..present.resource
        });
    }
    rules::clauses::hold(books, agreement, &transfer.to, Change::Amend(&taken))?;
    exported(books, taken)
}

/// What crosses members after the transfer is exported, in both directions: what is taken refers to, and what refers to it.
fn exported<B: Books + ?Sized>(books: &mut B, taken: Vec<Resource>) -> Result<(), CheckError<B::Error>> {
    let mut all: BTreeMap<ResourceName, Resource> = BTreeMap::new();
    for resource in &taken {
        for dependent in books.dependents(&resource.name).map_err(CheckError::View)? {
            if let Some(present) = books.ordered(&dependent).map_err(CheckError::View)? {
                all.insert(dependent, present.resource);
            }
        }
    }
    all.extend(taken.into_iter().map(|resource| (resource.name.clone(), resource)));
    let before = all.iter().map(|(name, resource)| (name.clone(), resource.dependencies())).collect();
    let batch = all.iter().map(|(name, resource)| (name.clone(), resource)).collect();
    rules::edges(books, &batch, &before)
}

fn open<B: Books + ?Sized>(books: &mut B, id: &TxId) -> Result<TransferRecord, CheckError<B::Error>> {
    let record: TransferRecord = records::get(books, id.as_str())
        .map_err(CheckError::View)?
        .ok_or_else(|| refused(TransferRefusal::Missing(id.clone())))?;
    if record.done.is_some() || record.cancelled.is_some() {
        return Err(refused(TransferRefusal::Settled(id.clone())));
    }
    Ok(record)
}

/// Approves a transfer as a party.
pub(super) fn approve<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &TransferNamed) -> Result<Taken, CheckError<B::Error>> {
    let agreement = life::acting(books, source.by())?;
    let mut record = open(books, &named.id)?;
    if record.approved.insert(source.by().clone(), source.submitted.clone()).is_some() {
        return Err(said(source, named));
    }
    settle(books, source, &agreement, record)
}

/// Takes what is transferred, as the taker.
pub(super) fn accept<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &TransferNamed) -> Result<Taken, CheckError<B::Error>> {
    let agreement = heard(books, source, named)?;
    let mut record = open(books, &named.id)?;
    if record.transfer.to != *source.by() {
        return Err(refused(TransferRefusal::NotTheTaker {
            id: named.id.clone(),
            to: record.transfer.to,
        }));
    }
    if record.accepted.is_some() {
        return Err(said(source, named));
    }
    if record.transfer.place {
        registered(books, &agreement, &record.proposed.by, &record.transfer.to)?;
    }
    record.accepted = Some(source.submitted.clone());
    settle(books, source, &agreement, record)
}

/// Calls a transfer off, as its giver or its taker.
pub(super) fn cancel<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &TransferNamed) -> Result<Taken, CheckError<B::Error>> {
    heard(books, source, named)?;
    let mut record = open(books, &named.id)?;
    if ![&record.proposed.by, &record.transfer.to].contains(&source.by()) {
        return Err(refused(TransferRefusal::NotTheirs {
            id: named.id.clone(),
            giver: record.proposed.by,
            to: record.transfer.to,
        }));
    }
    record.cancelled = Some(source.submitted.clone());
    Ok(Taken::record(record))
}

fn said<E>(source: &Source<'_>, named: &TransferNamed) -> CheckError<E> {
    refused(TransferRefusal::Said {
        id: named.id.clone(),
        by: source.by().clone(),
    })
}

/// Puts a transfer into force when the taker has accepted it and enough parties approve; what is transferred is asked again then.
fn settle<B: Books + ?Sized>(
    books: &mut B,
    source: &Source<'_>,
    agreement: &Agreement,
    mut record: TransferRecord,
) -> Result<Taken, CheckError<B::Error>> {
    let clause = clause(agreement)?;
    // Whose part is closed has no voice, and is not waited for.
    let open = life::standing(books, agreement).map_err(CheckError::View)?;
    let approving = open.iter().filter(|member| record.approved.contains_key(*member)).count();
    if record.accepted.is_none() || approving < (clause.need as usize).min(open.len()) {
        return Ok(Taken::record(record));
    }
    let (giver, to) = (record.proposed.by.clone(), record.transfer.to.clone());
    life::open(books, &giver)?;
    life::open(books, &to)?;
    if record.transfer.place {
        place(agreement, clause, &record.transfer).map_err(refused)?;
        let succession = succession(books, agreement, &giver, &to)?;
        record.done = Some(source.submitted.clone());
        return Ok(Taken {
            changes: vec![Effect::Succeed(Box::new(succession))],
            ..Taken::record(record)
        });
    }
    fits(books, agreement, &giver, &record.transfer)?;
    record.done = Some(source.submitted.clone());
    Ok(Taken {
        changes: vec![Effect::Transfer(to, record.transfer.resources.iter().cloned().collect())],
        ..Taken::record(record)
    })
}
