//! The rules of changing a desired state: one place, for the chaincode on the ledger and for every follower off it.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graphmap::DiGraphMap;
use thiserror::Error;

use crate::acts::ActRefusal;
use crate::agreement::{Agreement, AgreementError, Role};
use crate::canonical::Digest;
use crate::ids::{MemberId, MspId, OutputName, ResourceName};
use crate::resource::Resource;
use crate::time::Timestamp;

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
}

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
    /// Kind and owner stay.
    #[error("resource {resource}: {field} can't be amended; retire it and order it anew")]
    Fixed {
        /// The resource.
        resource: ResourceName,
        /// `kind` or `owner`.
        field: &'static str,
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

/// Checks that a member may bind its name to its MSP: each is bound once.
pub fn register<V: View>(view: &mut V, member: &MemberId, msp: &MspId) -> Result<(), CheckError<V::Error>> {
    if view.member(member).map_err(CheckError::View)?.is_some() {
        return Err(Refusal::Registered(format!("member {member}")).into());
    }
    if view.member_of(msp).map_err(CheckError::View)?.is_some() {
        return Err(Refusal::Registered(format!("MSP {msp}")).into());
    }
    Ok(())
}

/// Checks that a member may put an agreement before the others, beside the one that stands already.
pub fn constitute<V: View>(
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

/// Checks a change by a member at a ledger time against the agreement in force.
pub fn check<V: View>(
    view: &mut V,
    in_force: Option<&Agreement>,
    by: &MemberId,
    at: Timestamp,
    change: Change<'_>,
) -> Result<(), CheckError<V::Error>> {
    let agreement = in_force.ok_or(Refusal::NoAgreement)?;
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
    match change {
        Change::Order(resources) => order(view, agreement, resources),
        Change::Amend(resources) => amend(view, agreement, by, resources),
        Change::Retire(names) => retire(view, by, names),
    }
}

fn order<V: View>(view: &mut V, agreement: &Agreement, resources: &[Resource]) -> Result<(), CheckError<V::Error>> {
    let batch = unique(resources)?;
    for resource in resources {
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

fn amend<V: View>(view: &mut V, agreement: &Agreement, by: &MemberId, resources: &[Resource]) -> Result<(), CheckError<V::Error>> {
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

fn retire<V: View>(view: &mut V, by: &MemberId, names: &[ResourceName]) -> Result<(), CheckError<V::Error>> {
    let mut going = BTreeSet::new();
    items(names.len())?;
    for name in names {
        if !going.insert(name) {
            return Err(Refusal::Twice(name.clone()).into());
        }
    }
    for name in names {
        let present = view
            .ordered(name)
            .map_err(CheckError::View)?
            .ok_or_else(|| Refusal::Missing(name.clone()))?;
        allowed(&present, by)?;
        if present.resource.protect {
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

/// Every dependency exists, every reference across members is exported, and nothing waits for itself.
///
/// `before` holds what the resources of the batch that are in force depend on so far.
fn edges<V: View>(
    view: &mut V,
    batch: &BTreeMap<ResourceName, &Resource>,
    before: &BTreeMap<ResourceName, BTreeSet<ResourceName>>,
) -> Result<(), CheckError<V::Error>> {
    let mut after: BTreeMap<ResourceName, BTreeSet<ResourceName>> = BTreeMap::new();
    for (name, resource) in batch {
        let dependencies = resource.dependencies();
        if dependencies.len() > MAX_DEPENDENCIES {
            return Err(Refusal::Dependencies {
                resource: name.clone(),
                count: dependencies.len(),
            }
            .into());
        }
        let references = resource.spec.references();
        for on in &dependencies {
            let present;
            let target = match batch.get(on) {
                Some(target) => *target,
                None => match view.ordered(on).map_err(CheckError::View)? {
                    Some(found) => {
                        present = found.resource;
                        &present
                    }
                    None => {
                        return Err(Refusal::Dangling {
                            resource: name.clone(),
                            on: on.clone(),
                        }
                        .into());
                    }
                },
            };
            if target.owner == resource.owner {
                continue;
            }
            if let Some(reference) = references.iter().find(|r| r.resource == *on && !target.exports.contains(&r.output)) {
                return Err(Refusal::NotExported {
                    resource: name.clone(),
                    on: on.clone(),
                    output: reference.output.clone(),
                }
                .into());
            }
        }
        after.insert(name.clone(), dependencies);
    }
    // The graph had no circle before, so a new one goes through a new edge: only what can be reached from one matters. A new
    // resource has nothing in force that depends on it, so what it needs of the present graph never leads back to it.
    let mut open: Vec<ResourceName> = Vec::new();
    for (name, dependencies) in &after {
        match before.get(name) {
            Some(so_far) => open.extend(dependencies.difference(so_far).cloned()),
            None => open.extend(dependencies.iter().filter(|on| batch.contains_key(*on)).cloned()),
        }
    }
    let mut reached = after.clone();
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let dependencies = match after.get(&name) {
            Some(dependencies) => dependencies.clone(),
            None => {
                let present = view.ordered(&name).map_err(CheckError::View)?;
                present.map(|present| present.resource.dependencies()).unwrap_or_default()
            }
        };
        if before.is_empty() {
            open.extend(dependencies.iter().filter(|on| batch.contains_key(*on)).cloned());
        } else {
            open.extend(dependencies.iter().cloned());
        }
        reached.insert(name, dependencies);
    }
    acyclic(&reached).map_err(CheckError::Refused)
}

/// Names a circle in a dependency graph, if there is one.
/// Whether `count` nodes with these edges, each from the one that comes first, form no circle.
pub(crate) fn is_acyclic(count: usize, mut edges: Vec<(u32, u32)>) -> bool {
    edges.sort_unstable();
    let mut before = vec![0_u32; count];
    for (_, to) in &edges {
        before[*to as usize] += 1;
    }
    let mut ready: Vec<u32> = (0..)
        .zip(&before)
        .filter(|(_, before)| **before == 0)
        .map(|(node, _)| node)
        .collect();
    let mut seen = 0;
    while let Some(node) = ready.pop() {
        seen += 1;
        let first = edges.partition_point(|(from, _)| *from < node);
        for (_, to) in edges[first..].iter().take_while(|(from, _)| *from == node) {
            before[*to as usize] -= 1;
            if before[*to as usize] == 0 {
                ready.push(*to);
            }
        }
    }
    seen == count
}

pub(crate) fn acyclic(dependencies: &BTreeMap<ResourceName, BTreeSet<ResourceName>>) -> Result<(), Refusal> {
    let mut graph: DiGraphMap<&str, ()> = DiGraphMap::new();
    for (name, on) in dependencies {
        graph.add_node(name.as_str());
        for dependency in on {
            graph.add_edge(name.as_str(), dependency.as_str(), ());
        }
    }
    if toposort(&graph, None).is_ok() {
        return Ok(());
    }
    let mut circle: Vec<ResourceName> = tarjan_scc(&graph)
        .into_iter()
        .find(|part| part.len() > 1 || part.iter().any(|node| graph.contains_edge(node, node)))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|node| dependencies.get_key_value(node).map(|(name, _)| name.clone()))
        .collect();
    circle.sort();
    Err(Refusal::Cycle(circle))
}
