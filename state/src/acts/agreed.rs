//! What a market knows of the agreements between its members: that one was made, by whom, and that it is finished.
//!
//! A market can't see the channels in which agreements live. It knows of one what all of its parties say, and no terms.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ActRefusal, Fault, Source, Taken};
use crate::agreement::MAX_PARTIES;
use crate::canonical::Digest;
use crate::ids::{DaoId, MemberId, Version};
use crate::records::{self, Books, Submitted};
use crate::rules::{CheckError, Refusal};

/// An agreement as its parties name it on a market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreed {
    /// The DAO.
    pub dao: DaoId,
    /// Its version.
    pub version: Version,
    /// The digest of the agreement.
    pub agreement: Digest,
    /// Its parties.
    pub parties: BTreeSet<MemberId>,
}

/// Names an agreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreementNamed {
    /// Its digest.
    pub agreement: Digest,
}

/// An agreement that was made, and what its parties have said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgreedRecord {
    /// The agreement.
    pub agreed: Agreed,
    /// The parties that have said that it is in force.
    pub confirmed: BTreeMap<MemberId, Submitted>,
    /// The parties that have said that it is finished.
    pub concluded: BTreeMap<MemberId, Submitted>,
}

impl AgreedRecord {
    /// An agreement that these parties have confirmed, and nobody has concluded.
    pub fn new(agreed: Agreed, confirmed: BTreeMap<MemberId, Submitted>) -> Self {
        Self {
            agreed,
            confirmed,
            concluded: BTreeMap::new(),
        }
    }

    /// The name of the record of an agreement.
    pub fn name(agreement: Digest) -> String {
        agreement.hex()
    }

    /// Whether every party has confirmed it.
    pub fn is_confirmed(&self) -> bool {
        self.unconfirmed().next().is_none()
    }

    /// The parties that have not confirmed it.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &MemberId> {
        self.agreed.parties.iter().filter(|party| !self.confirmed.contains_key(*party))
    }

    /// How many parties have to conclude it: all but one, so that nobody who has left keeps it open, and two at least.
    pub fn needed(&self) -> usize {
        self.agreed.parties.len().saturating_sub(1).max(2)
    }

    /// Whether it is finished: every party has confirmed it, and so many as are needed have concluded it.
    pub fn is_finished(&self) -> bool {
        self.is_confirmed() && self.concluded.len() >= self.needed()
    }
}

/// Why something said of an agreement is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgreedRefusal {
    /// Versions count from 1.
    #[error("the version of a DAO counts from 1")]
    Version,
    /// Too few or too many parties.
    #[error("an agreement has 2 to {MAX_PARTIES} parties, this one {0}")]
    Parties(usize),
    /// Only a party speaks of it.
    #[error("member {by} is not a party of {dao} v{version}")]
    NotAParty {
        /// Who asks.
        by: MemberId,
        /// The DAO.
        dao: DaoId,
        /// Its version.
        version: Version,
    },
    /// A party is not on the market.
    #[error("party {0} is not registered on this market: it has to register first")]
    Stranger(MemberId),
    /// Another party has said otherwise.
    #[error("another party names other parties or another DAO for agreement {0}: compare with charter agreed list")]
    Other(Digest),
    /// It was said already.
    #[error("member {0} has said so already")]
    Said(MemberId),
    /// Nobody has confirmed such an agreement.
    #[error("nobody has confirmed agreement {0} on this market: charter agreed confirm")]
    Missing(Digest),
    /// Not every party has confirmed it.
    #[error("{dao} v{version} was not confirmed yet by {}", .by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Unconfirmed {
        /// The DAO.
        dao: DaoId,
        /// Its version.
        version: Version,
        /// Who has not.
        by: BTreeSet<MemberId>,
    },
}

impl AgreedRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            AgreedRefusal::Version | AgreedRefusal::Parties(_) => Fault::Bad,
            AgreedRefusal::NotAParty { .. } => Fault::Forbidden,
            AgreedRefusal::Missing(_) => Fault::Missing,
            AgreedRefusal::Stranger(_) | AgreedRefusal::Other(_) | AgreedRefusal::Said(_) | AgreedRefusal::Unconfirmed { .. } => {
                Fault::Conflict
            }
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            AgreedRefusal::Version => "the version of an agreement counts from 1",
            AgreedRefusal::Parties(_) => "an agreement has too few or too many parties",
            AgreedRefusal::NotAParty { .. } => "the member is not a party of the agreement that it speaks of",
            AgreedRefusal::Stranger(_) => "a party of the agreement is not registered",
            AgreedRefusal::Other(_) => "another party says otherwise of the agreement",
            AgreedRefusal::Said(_) => "the member has said so of the agreement already",
            AgreedRefusal::Missing(_) => "nobody has confirmed such an agreement",
            AgreedRefusal::Unconfirmed { .. } => "not every party has confirmed the agreement",
        }
    }
}

impl From<AgreedRefusal> for Refusal {
    fn from(refusal: AgreedRefusal) -> Self {
        ActRefusal::from(refusal).into()
    }
}

fn refused<E>(refusal: AgreedRefusal) -> CheckError<E> {
    CheckError::Refused(refusal.into())
}

/// The record of an agreement, if one of its parties has spoken of it.
pub(super) fn known<B: Books + ?Sized>(books: &mut B, agreement: Digest) -> Result<Option<AgreedRecord>, CheckError<B::Error>> {
    records::get(books, &AgreedRecord::name(agreement)).map_err(CheckError::View)
}

/// Says that an agreement is in force and who its parties are. Every party says the same.
pub(super) fn confirm<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, agreed: &Agreed) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    if agreed.version.0 == 0 {
        return Err(refused(AgreedRefusal::Version));
    }
    if !(2..=MAX_PARTIES).contains(&agreed.parties.len()) {
        return Err(refused(AgreedRefusal::Parties(agreed.parties.len())));
    }
    party(agreed, by).map_err(refused)?;
    for member in &agreed.parties {
        if books.member(member).map_err(CheckError::View)?.is_none() {
            return Err(refused(AgreedRefusal::Stranger(member.clone())));
        }
    }
    let mut record = known(books, agreed.agreement)?.unwrap_or_else(|| AgreedRecord::new(agreed.clone(), BTreeMap::new()));
    if record.agreed != *agreed {
        return Err(refused(AgreedRefusal::Other(agreed.agreement)));
    }
    if record.confirmed.insert(by.clone(), source.submitted.clone()).is_some() {
        return Err(refused(AgreedRefusal::Said(by.clone())));
    }
    Ok(Taken::record(record))
}

/// Says that an agreement is finished.
pub(super) fn conclude<B: Books + ?Sized>(
    books: &mut B,
    source: &Source<'_>,
    named: &AgreementNamed,
) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let mut record = known(books, named.agreement)?.ok_or_else(|| refused(AgreedRefusal::Missing(named.agreement)))?;
    party(&record.agreed, by).map_err(refused)?;
    if !record.is_confirmed() {
        return Err(refused(AgreedRefusal::Unconfirmed {
            dao: record.agreed.dao.clone(),
            version: record.agreed.version,
            by: record.unconfirmed().cloned().collect(),
        }));
    }
    if record.concluded.insert(by.clone(), source.submitted.clone()).is_some() {
        return Err(refused(AgreedRefusal::Said(by.clone())));
    }
    Ok(Taken::record(record))
}

fn party(agreed: &Agreed, by: &MemberId) -> Result<(), AgreedRefusal> {
    if agreed.parties.contains(by) {
        return Ok(());
    }
    Err(AgreedRefusal::NotAParty {
        by: by.clone(),
        dao: agreed.dao.clone(),
        version: agreed.version,
    })
}
