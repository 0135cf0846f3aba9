//! Why a change is refused, in words for people.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{Breach, MAX_DEPENDENCIES, MAX_ITEMS};
use crate::acts::ActRefusal;
use crate::acts::imports::PREFIX;
use crate::agreement::{AgreementError, Role};
use crate::canonical::Digest;
use crate::ids::{MemberId, MspId, OutputName, ResourceName};
use crate::size::MAX_AMOUNT;
use crate::time::Timestamp;

/// Why a change is refused. Nothing of it is taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The member or the MSP is bound already.
    #[error("{0} is registered already")]
    Registered(String),
    /// The channel has an agreement already.
    #[error("this channel has an agreement already; the DAO's next version gets its own channel")]
    Constituted,
    /// A party has not registered, or otherwise than the agreement says.
    #[error("party {member} is not registered on this channel with {msp} as {role}")]
    Party {
        /// The party.
        member: MemberId,
        /// The MSP that the agreement names.
        msp: MspId,
        /// The role that the agreement names.
        role: Role,
    },
    /// The agreement breaks its own rules.
    #[error("the agreement is not valid")]
    Agreement(#[from] AgreementError),
    /// Nothing to accept.
    #[error("no agreement was put before the members of this channel yet")]
    NothingProposed,
    /// The digest is that of another agreement.
    #[error("the digest is not that of this channel's agreement, {0}")]
    OtherDigest(Digest),
    /// The member has accepted already.
    #[error("member {0} has accepted already")]
    Accepted(MemberId),
    /// There is no agreement, or not every party has accepted it.
    #[error("no agreement is in force on this channel: every party has to accept it first")]
    NoAgreement,
    /// Before or after the agreement's dates.
    #[error("the agreement holds from {from} until {until}; the transaction is of {at}")]
    Dates {
        /// The first moment.
        from: Timestamp,
        /// The first moment after it, in words.
        until: String,
        /// The transaction's timestamp.
        at: Timestamp,
    },
    /// The submitter takes no part.
    #[error("member {0} is not a party of the agreement")]
    NotAParty(MemberId),
    /// Nothing in it, or too much.
    #[error("a transaction changes 1 to {MAX_ITEMS} resources, this one {0}")]
    Items(usize),
    /// One name twice.
    #[error("resource {0} stands twice")]
    Twice(ResourceName),
    /// An order for something that is there.
    #[error("resource {0} exists already: amend it instead")]
    Exists(ResourceName),
    /// A change of something that isn't.
    #[error("resource {0} does not exist on this channel")]
    Missing(ResourceName),
    /// An owner outside the agreement.
    #[error("resource {resource}: its owner {owner} is not a party of the agreement")]
    Owner {
        /// The resource.
        resource: ResourceName,
        /// Its owner.
        owner: MemberId,
    },
    /// Only the owner and the member that ordered it may change it.
    #[error("resource {resource}: only its owner {owner} or {orderer}, who ordered it, may change it, not {by}")]
    NotAllowed {
        /// The resource.
        resource: ResourceName,
        /// Its owner.
        owner: MemberId,
        /// Who ordered it.
        orderer: MemberId,
        /// Who asks.
        by: MemberId,
    },
    /// Kind, owner and origin stay.
    #[error("resource {resource}: {field} can't be amended; retire it and order it anew")]
    Fixed {
        /// The resource.
        resource: ResourceName,
        /// `kind`, `owner` or `origin`.
        field: &'static str,
    },
    /// Another's thing is not carried over.
    #[error("resource {resource}: only its owner {owner} can say that it carries it over from elsewhere (origin)")]
    Origin {
        /// The resource.
        resource: ResourceName,
        /// Its owner.
        owner: MemberId,
    },
    /// A dependency that is nowhere.
    #[error("resource {resource} depends on {on}, which does not exist")]
    Dangling {
        /// The resource.
        resource: ResourceName,
        /// What it names.
        on: ResourceName,
    },
    /// Too many dependencies.
    #[error("resource {resource} has {count} dependencies; the limit is {MAX_DEPENDENCIES}")]
    Dependencies {
        /// The resource.
        resource: ResourceName,
        /// How many.
        count: usize,
    },
    /// A reference to another member's output that is not exported.
    #[error("resource {resource} refers to {on}.outputs.{output} of another member, which {on} does not export")]
    NotExported {
        /// The resource.
        resource: ResourceName,
        /// What it refers to.
        on: ResourceName,
        /// The output.
        output: OutputName,
    },
    /// Resources that wait for each other.
    #[error("these resources depend on each other in a circle: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Cycle(Vec<ResourceName>),
    /// Others still need it.
    #[error("resource {resource} is still needed by {}", .by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Needed {
        /// The resource.
        resource: ResourceName,
        /// Who needs it.
        by: BTreeSet<ResourceName>,
    },
    /// It is protected.
    #[error("resource {0} is protected: amend it to protect: false first")]
    Protected(ResourceName),
    /// An act's own rule.
    #[error(transparent)]
    Act(#[from] ActRefusal),
    /// More resources than the agreement allows.
    #[error("the agreement allows {limit} resources, this would make {would_be}")]
    Limit {
        /// The limit.
        limit: u32,
        /// What it would be.
        would_be: u64,
    },
    /// A name that only an import has.
    #[error("resource {0}: names that begin with {PREFIX} are those of imports")]
    Reserved(ResourceName),
    /// A clause of the agreement.
    #[error(transparent)]
    Clause(#[from] Breach),
    /// An amount that can't be meant.
    #[error("resource {resource}: size.{dimension} is {found}; the limit is {MAX_AMOUNT}")]
    Size {
        /// The resource.
        resource: ResourceName,
        /// Which amount.
        dimension: &'static str,
        /// What it says.
        found: u64,
    },
}

/// A refusal, or the view's own failure.
#[derive(Debug)]
pub enum CheckError<E> {
    /// A rule forbids the change.
    Refused(Refusal),
    /// The state could not be read.
    View(E),
}

impl<E> From<ActRefusal> for CheckError<E> {
    fn from(refusal: ActRefusal) -> Self {
        CheckError::Refused(refusal.into())
    }
}

impl<E> From<Refusal> for CheckError<E> {
    fn from(refusal: Refusal) -> Self {
        CheckError::Refused(refusal)
    }
}
