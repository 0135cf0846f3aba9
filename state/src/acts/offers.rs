//! Offers: what a member would share on which terms, for everybody on the market to find.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ActRefusal, Fault, Source, Taken};
use crate::agreement::{Beta, Role};
use crate::ids::{MemberId, OfferId, Region};
use crate::records::{self, Books, Submitted};
use crate::rules::{CheckError, Refusal};

/// The longest title, in characters.
pub const MAX_TITLE: usize = 120;
/// The longest description, in characters.
pub const MAX_DESCRIPTION: usize = 4_000;
/// The most keywords or regions of one offer.
pub const MAX_WORDS: usize = 16;
/// The longest of an offer's conditions, in characters.
pub const MAX_CONDITION: usize = 400;

/// What is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OfferKind {
    /// Data, by a data service provider.
    DataSet,
    /// A service above data, by a value service provider.
    ValueService,
}

impl OfferKind {
    /// As it is written in documents.
    pub fn word(self) -> &'static str {
        match self {
            OfferKind::DataSet => "data-set",
            OfferKind::ValueService => "value-service",
        }
    }

    /// Who offers such a thing.
    pub fn role(self) -> Role {
        match self {
            OfferKind::DataSet => Role::DataServiceProvider,
            OfferKind::ValueService => Role::ValueServiceProvider,
        }
    }
}

/// On which terms something is offered, before anybody negotiates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferTerms {
    /// The least β that a data service provider would agree to, or the β that a value service provider would join at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<Beta>,
    /// For how long, in days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36_500))]
    pub days: Option<u32>,
    /// Regions that data or service may not leave.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 16))]
    pub regions: BTreeSet<Region>,
    /// What else has to hold, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<String>,
}

/// What a member offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Its name on the market.
    pub id: OfferId,
    /// What is offered.
    pub kind: OfferKind,
    /// One line for people.
    #[schemars(length(min = 1, max = 120))]
    pub title: String,
    /// More for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4000))]
    pub description: String,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 16))]
    pub keywords: BTreeSet<Region>,
    /// On which terms.
    #[serde(default)]
    pub terms: OfferTerms,
}

/// Names an offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferNamed {
    /// The offer.
    pub id: OfferId,
}

/// An offer with the transactions that made it what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferRecord {
    /// The offer as it stands.
    pub offer: Offer,
    /// The member that offers it.
    pub provider: MemberId,
    /// How often it was changed, from 1.
    pub revision: u32,
    /// The transaction that published it.
    pub published: Submitted,
    /// The transaction that changed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amended: Option<Submitted>,
    /// The transaction that withdrew it; its name is not free again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Submitted>,
}

/// Why an offer is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OfferRefusal {
    /// The name is taken.
    #[error("offer {0} exists already: amend it, or choose another name")]
    Exists(OfferId),
    /// There is no such offer.
    #[error("offer {0} does not exist on this market")]
    Missing(OfferId),
    /// It is another member's.
    #[error("offer {id} is of {provider}, not of {by}")]
    NotYours {
        /// The offer.
        id: OfferId,
        /// Whose it is.
        provider: MemberId,
        /// Who asks.
        by: MemberId,
    },
    /// It was withdrawn.
    #[error("offer {0} was withdrawn")]
    Withdrawn(OfferId),
    /// A member offers what its role doesn't bring.
    #[error("offer {id}: a {kind} is offered by a {needs}, and {by} is registered as {role}", kind = .kind.word(), needs = .kind.role())]
    Role {
        /// The offer.
        id: OfferId,
        /// What it offers.
        kind: OfferKind,
        /// Who asks.
        by: MemberId,
        /// As what it is registered.
        role: Role,
    },
    /// A text is empty or too long.
    #[error("offer {id}: {field} has to have {min} to {max} characters, this one has {found}")]
    Length {
        /// The offer.
        id: OfferId,
        /// Which text.
        field: &'static str,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
        /// How many there are.
        found: usize,
    },
    /// A list is too long.
    #[error("offer {id}: {field} has {found} entries; the limit is {MAX_WORDS}")]
    Entries {
        /// The offer.
        id: OfferId,
        /// Which list.
        field: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A duration that can't be meant.
    #[error("offer {0}: days is outside 1 to 36500")]
    Days(OfferId),
}

impl OfferRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            OfferRefusal::Missing(_) => Fault::Missing,
            OfferRefusal::NotYours { .. } | OfferRefusal::Role { .. } => Fault::Forbidden,
            OfferRefusal::Exists(_) | OfferRefusal::Withdrawn(_) => Fault::Conflict,
            OfferRefusal::Length { .. } | OfferRefusal::Entries { .. } | OfferRefusal::Days(_) => Fault::Bad,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            OfferRefusal::Exists(_) => "an offer of this name exists already",
            OfferRefusal::Missing(_) => "the offer does not exist",
            OfferRefusal::NotYours { .. } => "the offer is another member's",
            OfferRefusal::Withdrawn(_) => "the offer was withdrawn",
            OfferRefusal::Role { .. } => "the member's role does not offer such a thing",
            OfferRefusal::Length { .. } => "a text of the offer is empty or too long",
            OfferRefusal::Entries { .. } => "a list of the offer is too long",
            OfferRefusal::Days(_) => "the offer's duration is outside its bounds",
        }
    }
}

impl From<OfferRefusal> for Refusal {
    fn from(refusal: OfferRefusal) -> Self {
        ActRefusal::from(refusal).into()
    }
}

/// Publishes a new offer.
pub(super) fn publish<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, offer: &Offer) -> Result<Taken, CheckError<B::Error>> {
    check(books, source, offer)?;
    if records::get::<OfferRecord, B>(books, offer.id.as_str())
        .map_err(CheckError::View)?
        .is_some()
    {
        return Err(refused(OfferRefusal::Exists(offer.id.clone())));
    }
    Ok(Taken::record(OfferRecord {
        offer: offer.clone(),
        provider: source.by().clone(),
        revision: 1,
        published: source.submitted.clone(),
        amended: None,
        withdrawn: None,
    }))
}

/// Changes an offer; it is given whole.
pub(super) fn amend<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, offer: &Offer) -> Result<Taken, CheckError<B::Error>> {
    check(books, source, offer)?;
    let mut record = own(books, source, &offer.id)?;
    record.offer = offer.clone();
    record.revision = record.revision.saturating_add(1);
    record.amended = Some(source.submitted.clone());
    Ok(Taken::record(record))
}

/// Withdraws an offer: it stays on the record, and nobody finds it among what is offered.
pub(super) fn withdraw<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, named: &OfferNamed) -> Result<Taken, CheckError<B::Error>> {
    let mut record = own(books, source, &named.id)?;
    record.withdrawn = Some(source.submitted.clone());
    Ok(Taken::record(record))
}

fn refused<E>(refusal: OfferRefusal) -> CheckError<E> {
    CheckError::Refused(refusal.into())
}

fn own<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, id: &OfferId) -> Result<OfferRecord, CheckError<B::Error>> {
    let record: OfferRecord = records::get(books, id.as_str())
        .map_err(CheckError::View)?
        .ok_or_else(|| refused(OfferRefusal::Missing(id.clone())))?;
    if record.provider != *source.by() {
        return Err(refused(OfferRefusal::NotYours {
            id: id.clone(),
            provider: record.provider,
            by: source.by().clone(),
        }));
    }
    if record.withdrawn.is_some() {
        return Err(refused(OfferRefusal::Withdrawn(id.clone())));
    }
    Ok(record)
}

fn check<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, offer: &Offer) -> Result<(), CheckError<B::Error>> {
    let length = |field, text: &str, min, max| {
        let found = text.chars().count();
        if (min..=max).contains(&found) {
            return Ok(());
        }
        Err(OfferRefusal::Length {
            id: offer.id.clone(),
            field,
            min,
            max,
            found,
        })
    };
    let entries = |field, found: usize| {
        if found <= MAX_WORDS {
            return Ok(());
        }
        Err(OfferRefusal::Entries {
            id: offer.id.clone(),
            field,
            found,
        })
    };
    let itself = || {
        length("title", &offer.title, 1, MAX_TITLE)?;
        length("description", &offer.description, 0, MAX_DESCRIPTION)?;
        entries("keywords", offer.keywords.len())?;
        entries("terms.regions", offer.terms.regions.len())?;
        entries("terms.conditions", offer.terms.conditions.len())?;
        for condition in &offer.terms.conditions {
            length("terms.conditions", condition, 1, MAX_CONDITION)?;
        }
        match offer.terms.days {
            Some(days) if !(1..=36_500).contains(&days) => Err(OfferRefusal::Days(offer.id.clone())),
            _ => Ok(()),
        }
    };
    itself().map_err(refused)?;
    let by = source.by();
    let registered = books.member(by).map_err(CheckError::View)?;
    match registered {
        Some(membership) if membership.role != offer.kind.role() => Err(refused(OfferRefusal::Role {
            id: offer.id.clone(),
            kind: offer.kind,
            by: by.clone(),
            role: membership.role,
        })),
        _ => Ok(()),
    }
}
