//! The rules of changing a desired state: one place, for the chaincode on the ledger and for every follower off it.

pub mod clauses;
mod graph;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use crate::acts::handovers::HandOver;
use crate::acts::{handovers, imports, life};
use crate::agreement::{Agreement, Role};
use crate::canonical::Digest;
use crate::ids::{MemberId, MspId, ResourceName};
use crate::records::Books;
use crate::resource::Resource;
use crate::size::Totals;
use crate::time::Timestamp;

pub use clauses::Breach;
pub(crate) use graph::edges;
pub(crate) use graph::{acyclic, is_acyclic};
pub use refusal::{CheckError, Refusal};

/// The most resources that one transaction may order, amend or retire.
pub const MAX_ITEMS: usize = 1_000;
/// The most dependencies of one resource.
pub const MAX_DEPENDENCIES: usize = 256;

/// What a rule needs to see of the present state.
pub trait View {
    /// The state could not be read.
    type Error;
    /// A registered member.
    fn member(&mut self, member: &MemberId) -> Result<Option<Membership>, Self::Error>;
    /// The member that an MSP is bound to.
    fn member_of(&mut self, msp: &MspId) -> Result<Option<MemberId>, Self::Error>;
    /// A resource that is in force.
    fn ordered(&mut self, name: &ResourceName) -> Result<Option<InForce>, Self::Error>;
    /// The resources that depend on one.
    fn dependents(&mut self, name: &ResourceName) -> Result<BTreeSet<ResourceName>, Self::Error>;
    /// How many resources are in force.
    fn count(&mut self) -> Result<u64, Self::Error>;
    /// What they come to; asked only where the agreement has quotas.
    fn totals(&mut self) -> Result<Totals, Self::Error>;
}

/// What a member registered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Its MSP.
    pub msp: MspId,
    /// What it brings.
    pub role: Role,
}

/// A resource that is in force, and who ordered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The resource.
    pub resource: Resource,
    /// The member that ordered it.
    pub orderer: MemberId,
}

/// The agreement that stands before the members, and who has accepted it.
#[derive(Clone, Debug)]
pub struct Proposed<'a> {
    /// The agreement.
    pub agreement: &'a Agreement,
    /// Its digest.
    pub digest: Digest,
    /// Who has accepted it.
    pub accepted: BTreeSet<&'a MemberId>,
}

/// A change that a member asks for.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// New resources.
    Order(&'a [Resource]),
    /// Changed resources.
    Amend(&'a [Resource]),
    /// Resources that are no longer wanted.
    Retire(&'a [ResourceName]),
    /// Resources that another version of the DAO carries on, replaces, or does without.
    HandOver(&'a HandOver),
}

impl<'a> Change<'a> {
    /// The resources that are no longer wanted with it, each with whether it is kept and carried on elsewhere.
    pub(crate) fn leaving(self) -> Vec<(&'a ResourceName, bool)> {
        match self {
            Change::Order(_) | Change::Amend(_) => Vec::new(),
            Change::Retire(names) => names.iter().map(|name| (name, false)).collect(),
            Change::HandOver(hand_over) => hand_over.leaving().collect(),
        }
    }
}

/// Checks that a member may bind its name to its MSP: each is bound once.
pub fn register<V: View + ?Sized>(view: &mut V, member: &MemberId, msp: &MspId) -> Result<(), CheckError<V::Error>> {
    if view.member(member).map_err(CheckError::View)?.is_some() {
        return Err(Refusal::Registered(format!("member {member}")).into());
    }
    if view.member_of(msp).map_err(CheckError::View)?.is_some() {
        return Err(Refusal::Registered(format!("MSP {msp}")).into());
    }
    Ok(())
}

/// Checks that a member may put an agreement before the others, beside the one that stands already.
pub fn constitute<V: View + ?Sized>(
    view: &mut V,
    standing: Option<&Agreement>,
    agreement: &Agreement,
    by: &MemberId,
) -> Result<(), CheckError<V::Error>> {
    if standing.is_some() {
        return Err(Refusal::Constituted.into());
    }
    agreement.check().map_err(Refusal::Agreement)?;
    if agreement.party(by).is_none() {
        return Err(Refusal::NotAParty(by.clone()).into());
    }
    for party in &agreement.parties {
        let registered = view.member(&party.member).map_err(CheckError::View)?;
        if registered.is_none_or(|found| found.msp != party.msp || found.role != party.role) {
            return Err(Refusal::Party {
                member: party.member.clone(),
                msp: party.msp.clone(),
                role: party.role,
            }
            .into());
        }
    }
    Ok(())
}

/// Checks that a member may accept a digest, and tells whether the agreement is in force then.
pub fn accept(proposed: Option<&Proposed<'_>>, digest: Digest, by: &MemberId) -> Result<Acceptance, Refusal> {
    let proposed = proposed.ok_or(Refusal::NothingProposed)?;
    if proposed.digest != digest {
        return Err(Refusal::OtherDigest(proposed.digest));
    }
    if proposed.agreement.party(by).is_none() {
        return Err(Refusal::NotAParty(by.clone()));
    }
    if proposed.accepted.contains(by) {
        return Err(Refusal::Accepted(by.clone()));
    }
    if proposed.accepted.len() + 1 == proposed.agreement.parties.len() {
        Ok(Acceptance::InForce)
    } else {
        Ok(Acceptance::Awaiting)
    }
}

/// What one more acceptance makes of an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It was the last one: the agreement is in force.
    InForce,
    /// Other parties have not accepted yet.
    Awaiting,
}

/// Whether a change that the rules allow is in force at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Now,
    /// It has to be approved under these approval clauses first, by their places.
    Awaits(BTreeSet<usize>),
}

/// Checks a change by a member at a ledger time against the agreement in force.
pub fn check<V: Books + ?Sized>(
    view: &mut V,
    in_force: Option<&Agreement>,
    by: &MemberId,
    at: Timestamp,
    change: Change<'_>,
) -> Result<Verdict, CheckError<V::Error>> {
    let agreement = in_force.ok_or(Refusal::NoAgreement)?;
    approved(view, agreement, by, at, change)?;
    let alone = [by].into();
    let open: BTreeSet<usize> = clauses::approvals(view, agreement, change)
        .map_err(CheckError::View)?
        .into_iter()
        .filter(|index| !clauses::approved(agreement, *index, &alone))
        .collect();
    Ok(if open.is_empty() { Verdict::Now } else { Verdict::Awaits(open) })
}

/// Checks a change that takes effect at once: one that awaits approvals is refused.
pub fn check_at_once<V: Books + ?Sized>(
    view: &mut V,
    in_force: Option<&Agreement>,
    by: &MemberId,
    at: Timestamp,
    change: Change<'_>,
) -> Result<(), CheckError<V::Error>> {
    match check(view, in_force, by, at, change)? {
        Verdict::Now => Ok(()),
        Verdict::Awaits(open) => {
            let index = open.into_iter().next().unwrap_or_default();
            Err(Refusal::Clause(Breach::Approval { index }).into())
        }
    }
}

/// Checks a change, but for approvals: those it has.
pub(crate) fn approved<V: Books + ?Sized>(
    view: &mut V,
    agreement: &Agreement,
    by: &MemberId,
    at: Timestamp,
    change: Change<'_>,
) -> Result<(), CheckError<V::Error>> {
    let effective = &agreement.effective;
    if at < effective.from || effective.until.is_some_and(|until| at >= until) {
        let until = effective.until.map_or_else(|| "it is ended".to_owned(), |until| until.to_string());
        return Err(Refusal::Dates {
            from: effective.from,
            until,
            at,
        }
        .into());
    }
    if agreement.party(by).is_none() {
        return Err(Refusal::NotAParty(by.clone()).into());
    }
    if agreement.keeps_time() {
        life::open(view, by)?;
        if let Change::Order(resources) = change {
            let owners: BTreeSet<&MemberId> = resources.iter().map(|resource| &resource.owner).collect();
            for owner in owners {
                life::open(view, owner)?;
            }
        }
    }
    match change {
        Change::Order(resources) => order(view, agreement, by, resources)?,
        Change::Amend(resources) => amend(view, agreement, by, resources)?,
        Change::Retire(_) => retire(view, agreement, by, &change.leaving())?,
        Change::HandOver(hand_over) => {
            handovers::own(view, by, hand_over)?;
            retire(view, agreement, by, &change.leaving())?;
        }
    }
    clauses::hold(view, agreement, by, change)
}

fn order<V: Books + ?Sized>(
    view: &mut V,
    agreement: &Agreement,
    by: &MemberId,
    resources: &[Resource],
) -> Result<(), CheckError<V::Error>> {
    let batch = unique(resources)?;
    for resource in resources {
        if resource.name.as_str().starts_with(imports::PREFIX) {
            return Err(Refusal::Reserved(resource.name.clone()).into());
        }
        if resource.origin.is_some() && resource.owner != *by {
            return Err(Refusal::Origin {
                resource: resource.name.clone(),
                owner: resource.owner.clone(),
            }
            .into());
        }
        if view.ordered(&resource.name).map_err(CheckError::View)?.is_some() {
            return Err(Refusal::Exists(resource.name.clone()).into());
        }
        if agreement.party(&resource.owner).is_none() {
            return Err(Refusal::Owner {
                resource: resource.name.clone(),
                owner: resource.owner.clone(),
            }
            .into());
        }
    }
    let would_be = view.count().map_err(CheckError::View)? + resources.len() as u64;
    if would_be > u64::from(agreement.limits.resources) {
        return Err(Refusal::Limit {
            limit: agreement.limits.resources,
            would_be,
        }
        .into());
    }
    edges(view, &batch, &BTreeMap::new())
}

fn amend<V: Books + ?Sized>(
    view: &mut V,
    agreement: &Agreement,
    by: &MemberId,
    resources: &[Resource],
) -> Result<(), CheckError<V::Error>> {
    let batch = unique(resources)?;
    let mut before = BTreeMap::new();
    for resource in resources {
        let name = &resource.name;
        let present = view
            .ordered(name)
            .map_err(CheckError::View)?
            .ok_or_else(|| Refusal::Missing(name.clone()))?;
        allowed(&present, by)?;
        if present.resource.kind != resource.kind {
            return Err(Refusal::Fixed {
                resource: name.clone(),
                field: "kind",
            }
            .into());
        }
        if present.resource.owner != resource.owner || agreement.party(&resource.owner).is_none() {
            return Err(Refusal::Fixed {
                resource: name.clone(),
                field: "owner",
            }
            .into());
        }
        if present.resource.origin != resource.origin {
            return Err(Refusal::Fixed {
                resource: name.clone(),
                field: "origin",
            }
            .into());
        }
        // An export that others' resources refer to has to stay.
        if let Some(lost) = present.resource.exports.difference(&resource.exports).next() {
            for dependent in view.dependents(name).map_err(CheckError::View)? {
                let other = match batch.get(&dependent) {
                    Some(changed) => Some((*changed).clone()),
                    None => view.ordered(&dependent).map_err(CheckError::View)?.map(|present| present.resource),
                };
                let Some(other) = other else { continue };
                let refers = other.spec.references().iter().any(|r| r.resource == *name && r.output == *lost);
                if refers && other.owner != resource.owner {
                    return Err(Refusal::NotExported {
                        resource: dependent,
                        on: name.clone(),
                        output: lost.clone(),
                    }
                    .into());
                }
            }
        }
        before.insert(name.clone(), present.resource.dependencies());
    }
    edges(view, &batch, &before)
}

fn retire<V: View + ?Sized>(
    view: &mut V,
    agreement: &Agreement,
    by: &MemberId,
    leaving: &[(&ResourceName, bool)],
) -> Result<(), CheckError<V::Error>> {
    let mut going = BTreeSet::new();
    items(leaving.len())?;
    for (name, _) in leaving {
        if !going.insert(*name) {
            return Err(Refusal::Twice((*name).clone()).into());
        }
    }
    for (name, kept) in leaving.iter().copied() {
        let present = view
            .ordered(name)
            .map_err(CheckError::View)?
            .ok_or_else(|| Refusal::Missing(name.clone()))?;
        allowed(&present, by)?;
        if present.resource.protect && !kept && !clauses::can_destroy(agreement, &present.resource.kind) {
            return Err(Refusal::Protected(name.clone()).into());
        }
        let mut left = view.dependents(name).map_err(CheckError::View)?;
        left.retain(|dependent| !going.contains(dependent));
        if !left.is_empty() {
            return Err(Refusal::Needed {
                resource: name.clone(),
                by: left,
            }
            .into());
        }
    }
    Ok(())
}

fn items(count: usize) -> Result<(), Refusal> {
    if (1..=MAX_ITEMS).contains(&count) {
        Ok(())
    } else {
        Err(Refusal::Items(count))
    }
}

fn unique(resources: &[Resource]) -> Result<BTreeMap<ResourceName, &Resource>, Refusal> {
    items(resources.len())?;
    let mut batch = BTreeMap::new();
    for resource in resources {
        if batch.insert(resource.name.clone(), resource).is_some() {
            return Err(Refusal::Twice(resource.name.clone()));
        }
        if let Some((dimension, found)) = resource.size().excess() {
            return Err(Refusal::Size {
                resource: resource.name.clone(),
                dimension: dimension.word(),
                found,
            });
        }
    }
    Ok(batch)
}

fn allowed(present: &InForce, by: &MemberId) -> Result<(), Refusal> {
    if present.resource.owner == *by || present.orderer == *by {
        return Ok(());
    }
    Err(Refusal::NotAllowed {
        resource: present.resource.name.clone(),
        owner: present.resource.owner.clone(),
        orderer: present.orderer.clone(),
        by: by.clone(),
    })
}
