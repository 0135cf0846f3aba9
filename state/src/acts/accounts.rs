//! Accounts: a member of a market that is a DAO itself, and the members that stand for it.
//!
//! Whoever registers can claim to be a DAO. The claim counts once every member that the DAO's agreement names has said the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ActRefusal, Fault, Source, Taken};
use crate::agreement::MAX_PARTIES;
use crate::canonical::Digest;
use crate::ids::{DaoId, MemberId, Version};
use crate::records::{self, Books, Submitted};
use crate::rules::{CheckError, Refusal};

/// A version of a DAO that a member says to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Representation {
    /// The DAO.
    pub dao: DaoId,
    /// Its version.
    pub version: Version,
    /// The digest of its agreement.
    pub agreement: Digest,
    /// The members that its agreement names.
    pub members: BTreeSet<MemberId>,
}

/// A member stands for another one that says to be a DAO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouching {
    /// The member that says to be a DAO.
    pub member: MemberId,
    /// What it says, in the words of the one who stands for it.
    pub representation: Representation,
}

/// What a member says to be, and who stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepresentationRecord {
    /// The member.
    pub member: MemberId,
    /// The DAO.
    pub representation: Representation,
    /// The transaction that said so.
    pub claimed: Submitted,
    /// The members that have said the same.
    pub vouched: BTreeMap<MemberId, Submitted>,
}

impl RepresentationRecord {
    /// Whether every member that the agreement names stands for it.
    pub fn counts(&self) -> bool {
        self.representation.members.iter().all(|member| self.vouched.contains_key(member))
    }
}

/// Why a representation is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AccountRefusal {
    /// Versions count from 1.
    #[error("the version of a DAO counts from 1")]
    Version,
    /// Too few or too many members.
    #[error("an agreement names 2 to {MAX_PARTIES} members, this one {0}")]
    Members(usize),
    /// A DAO is none of its own members.
    #[error("member {0} can't be a DAO whose agreement names it: a DAO registers under a name of its own")]
    Itself(MemberId),
    /// A named member is not on the market.
    #[error("member {0} is not registered on this market: it has to register first")]
    Stranger(MemberId),
    /// It was said already.
    #[error("member {0} has said the same already")]
    Said(MemberId),
    /// The member says to be no DAO.
    #[error("member {0} does not say that it is a DAO")]
    Missing(MemberId),
    /// It says something else.
    #[error("member {member} says to be {dao} v{version} with other members or another agreement: see charter members")]
    Other {
        /// The member.
        member: MemberId,
        /// The DAO that it names.
        dao: DaoId,
        /// The version that it names.
        version: Version,
    },
    /// Only those whom the agreement names stand for the DAO.
    #[error("member {by} is not among the members of {dao}")]
    NotNamed {
        /// Who asks.
        by: MemberId,
        /// The DAO.
        dao: DaoId,
    },
}

impl AccountRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            AccountRefusal::Version | AccountRefusal::Members(_) | AccountRefusal::Itself(_) => Fault::Bad,
            AccountRefusal::NotNamed { .. } => Fault::Forbidden,
            AccountRefusal::Missing(_) => Fault::Missing,
            AccountRefusal::Stranger(_) | AccountRefusal::Said(_) | AccountRefusal::Other { .. } => Fault::Conflict,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            AccountRefusal::Version => "the version of a DAO counts from 1",
            AccountRefusal::Members(_) => "a DAO has too few or too many members",
            AccountRefusal::Itself(_) => "a member can't be a DAO whose agreement names it",
            AccountRefusal::Stranger(_) => "a member of a DAO is not registered",
            AccountRefusal::Said(_) => "the member has said the same of a DAO already",
            AccountRefusal::Missing(_) => "the member does not say that it is a DAO",
            AccountRefusal::Other { .. } => "the member says to be another DAO",
            AccountRefusal::NotNamed { .. } => "the member is not among those of the DAO",
        }
    }
}

impl From<AccountRefusal> for Refusal {
    fn from(refusal: AccountRefusal) -> Self {
        ActRefusal::from(refusal).into()
    }
}

fn refused<E>(refusal: AccountRefusal) -> CheckError<E> {
    CheckError::Refused(refusal.into())
}

fn claimed<B: Books + ?Sized>(books: &mut B, member: &MemberId) -> Result<Option<RepresentationRecord>, CheckError<B::Error>> {
    records::get(books, member.as_str()).map_err(CheckError::View)
}

/// Says which DAO a member is. Said anew of another version, it takes the place of the former, and nobody stands for it yet.
pub(super) fn represent<B: Books + ?Sized>(
    books: &mut B,
    source: &Source<'_>,
    representation: &Representation,
) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    if representation.version.0 == 0 {
        return Err(refused(AccountRefusal::Version));
    }
    if !(2..=MAX_PARTIES).contains(&representation.members.len()) {
        return Err(refused(AccountRefusal::Members(representation.members.len())));
    }
    if representation.members.contains(by) {
        return Err(refused(AccountRefusal::Itself(by.clone())));
    }
    if claimed(books, by)?.is_some_and(|standing| standing.representation == *representation) {
        return Err(refused(AccountRefusal::Said(by.clone())));
    }
    for member in &representation.members {
        if books.member(member).map_err(CheckError::View)?.is_none() {
            return Err(refused(AccountRefusal::Stranger(member.clone())));
        }
    }
    Ok(Taken::record(RepresentationRecord {
        member: by.clone(),
        representation: representation.clone(),
        claimed: source.submitted.clone(),
        vouched: BTreeMap::new(),
    }))
}

/// Stands for a member that says to be a DAO, by saying the same.
pub(super) fn vouch<B: Books + ?Sized>(books: &mut B, source: &Source<'_>, vouching: &Vouching) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let mut record = claimed(books, &vouching.member)?.ok_or_else(|| refused(AccountRefusal::Missing(vouching.member.clone())))?;
    let said = &record.representation;
    if *said != vouching.representation {
        return Err(refused(AccountRefusal::Other {
            member: vouching.member.clone(),
            dao: said.dao.clone(),
            version: said.version,
        }));
    }
    if !said.members.contains(by) {
        return Err(refused(AccountRefusal::NotNamed {
            by: by.clone(),
            dao: said.dao.clone(),
        }));
    }
    if record.vouched.insert(by.clone(), source.submitted.clone()).is_some() {
        return Err(refused(AccountRefusal::Said(by.clone())));
    }
    Ok(Taken::record(record))
}
