//! Hand-over: what becomes of a member's resources as another version of the DAO goes on without them, or with them.
//!
//! Each is carried (what is outside stays as it is, and is that version's from then on), replaced (that version has another in its place),
//! or retired. It is said on the channel that lets go; what the other channel has of it was ordered there, with its origin where it is carried.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ActRefusal, Effect, Fault, Source, Taken, life};
use crate::ids::{Channel, MemberId, ResourceName};
use crate::records::{Books, Record, Submitted};
use crate::rules::{self, Change, CheckError, Refusal};

/// What becomes of a member's own resources; 1 to 1,000 in all, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// The channel of the version that goes on.
    pub to: Channel,
    /// What goes on there as it is, and under which name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried: BTreeMap<ResourceName, ResourceName>,
    /// What that version has another resource for, and which.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replaced: BTreeMap<ResourceName, ResourceName>,
    /// What that version does without.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub retired: BTreeSet<ResourceName>,
}

/// What became of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes<'a> {
    /// It goes on under this name.
    Carried(&'a ResourceName),
    /// This one is there in its place.
    Replaced(&'a ResourceName),
    /// It is done without.
    Retired,
}

impl HandOver {
    /// Everything that this channel lets go of, each with whether it is kept and carried on.
    pub fn leaving(&self) -> impl Iterator<Item = (&ResourceName, bool)> {
        let carried = self.carried.keys().map(|name| (name, true));
        carried.chain(self.replaced.keys().chain(&self.retired).map(|name| (name, false)))
    }

    /// What becomes of a resource, if it says so.
    pub fn becomes(&self, name: &ResourceName) -> Option<Becomes<'_>> {
        let carried = self.carried.get(name).map(Becomes::Carried);
        carried
            .or_else(|| self.replaced.get(name).map(Becomes::Replaced))
            .or_else(|| self.retired.contains(name).then_some(Becomes::Retired))
    }
}

/// A hand-over that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOverRecord {
    /// The transaction with which it was in force.
    pub handed: Submitted,
    /// The member whose resources they were.
    pub of: MemberId,
    /// What became of which.
    pub hand_over: HandOver,
}

/// Why a hand-over is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandOverRefusal {
    /// To this very channel.
    #[error("{0} is this channel: a hand-over is to another version's")]
    Here(Channel),
    /// Somebody else's.
    #[error("resource {resource} is of {owner}, not of {by}: each member hands over what is its own")]
    NotYours {
        /// The resource.
        resource: ResourceName,
        /// Whose it is.
        owner: MemberId,
        /// Who would hand it over.
        by: MemberId,
    },
}

impl HandOverRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            HandOverRefusal::Here(_) => Fault::Bad,
            HandOverRefusal::NotYours { .. } => Fault::Forbidden,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            HandOverRefusal::Here(_) => "the hand-over is to its own channel",
            HandOverRefusal::NotYours { .. } => "a resource is another member's",
        }
    }
}

fn refused<E>(refusal: HandOverRefusal) -> CheckError<E> {
    CheckError::Refused(ActRefusal::from(refusal).into())
}

/// It is to another channel.
pub(super) fn check<E>(source: &Source<'_>, hand_over: &HandOver) -> Result<(), CheckError<E>> {
    if hand_over.to == *source.channel {
        return Err(refused(HandOverRefusal::Here(hand_over.to.clone())));
    }
    Ok(())
}

/// Everything in it is the member's own.
pub(crate) fn own<B: Books + ?Sized>(books: &mut B, by: &MemberId, hand_over: &HandOver) -> Result<(), CheckError<B::Error>> {
    for (name, _) in hand_over.leaving() {
        let present = books.ordered(name).map_err(CheckError::View)?;
        let present = present.ok_or_else(|| Refusal::Missing(name.clone()))?;
        if present.resource.owner != *by {
            return Err(refused(HandOverRefusal::NotYours {
                resource: name.clone(),
                owner: present.resource.owner,
                by: by.clone(),
            }));
        }
    }
    Ok(())
}

/// Lets go of what is handed over. What has to be approved is proposed instead.
pub(super) fn hand_over<B: Books + ?Sized>(
    books: &mut B,
    source: &Source<'_>,
    hand_over: &HandOver,
) -> Result<Taken, CheckError<B::Error>> {
    let agreement = life::acting(books, source.by())?;
    check(source, hand_over)?;
    rules::check_at_once(
        books,
        Some(&agreement),
        source.by(),
        source.submitted.at,
        Change::HandOver(hand_over),
    )?;
    Ok(taken(source, source.by().clone(), hand_over.clone()))
}

/// What a hand-over of a member does in the transaction with which it is in force.
pub(super) fn taken(source: &Source<'_>, of: MemberId, hand_over: HandOver) -> Taken {
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for (name, carried) in hand_over.leaving() {
        if carried { &mut kept } else { &mut gone }.push(name.clone());
    }
    let mut changes = Vec::new();
    if !gone.is_empty() {
        changes.push(Effect::Retire(of.clone(), gone));
    }
    if !kept.is_empty() {
        changes.push(Effect::Release(of.clone(), kept));
    }
    let handed = source.submitted.clone();
    Taken {
        records: vec![HandOverRecord { handed, of, hand_over }.any()],
        changes,
    }
}
