//! Holding a change, or all that is in force, to the clauses of the agreement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use thiserror::Error;

use super::{Change, CheckError, View};
use crate::agreement::Agreement;
use crate::clauses::{ChangeKind, Clauses, QuotaClause};
use crate::ids::{Kind, MemberId, Region, ResourceName};
use crate::resource::Resource;
use crate::size::{Dimension, Totals};

/// A clause of the agreement forbids a change. Every sentence starts with the clause.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Breach {
    /// Nobody gave the member that right.
    #[error("clauses.orders: no clause lets {by} order {kind} on the side of {owner} (resource {resource})")]
    Order {
        /// The resource.
        resource: ResourceName,
        /// Who asks.
        by: MemberId,
        /// Its kind.
        kind: Kind,
        /// Its owner.
        owner: MemberId,
    },
    /// The kind is not among the allowed ones.
    #[error("clauses.kinds: resource {resource} is {kind}; the agreement allows {allowed}")]
    Kind {
        /// The resource.
        resource: ResourceName,
        /// Its kind.
        kind: Kind,
        /// What is allowed.
        allowed: String,
    },
    /// The region is not among the allowed ones, or none is named.
    #[error("clauses.regions: resource {resource} {}; the agreement allows {allowed}", in_region(.region.as_ref()))]
    Region {
        /// The resource.
        resource: ResourceName,
        /// Its region.
        region: Option<Region>,
        /// What is allowed.
        allowed: String,
    },
    /// A quota counts what the order doesn't state.
    #[error("clauses.quotas[{index}].{dimension}: resource {resource} has to state size.{dimension}")]
    Unstated {
        /// The resource.
        resource: ResourceName,
        /// Which quota, from 0.
        index: usize,
        /// What it counts.
        dimension: &'static str,
    },
    /// Too much.
    #[error("clauses.quotas[{index}].{dimension}: {} may come to {limit}, this would make {would_be}", of(.owner.as_ref()))]
    Quota {
        /// Which quota, from 0.
        index: usize,
        /// What it counts.
        dimension: &'static str,
        /// Whose resources; none: all.
        owner: Option<MemberId>,
        /// The limit.
        limit: u64,
        /// What it would be.
        would_be: u64,
    },
    /// Others have to approve it, so it can't just be in force.
    #[error("clauses.approvals[{index}]: the change has to be approved first")]
    Approval {
        /// Which clause, from 0.
        index: usize,
    },
}

impl Breach {
    /// The breach in fixed words, which are part of commit ids and never change.
    pub fn reason(&self) -> &'static str {
        match self {
            Breach::Order { .. } => "no clause of the agreement lets the member order it",
            Breach::Kind { .. } => "the agreement does not allow the kind of a resource",
            Breach::Region { .. } => "the agreement does not allow the region of a resource",
            Breach::Unstated { .. } => "a resource does not state a size that a quota counts",
            Breach::Quota { .. } => "a quota of the agreement would be exceeded",
            Breach::Approval { .. } => "the change has to be approved first",
        }
    }
}

fn in_region(region: Option<&Region>) -> String {
    region.map_or_else(|| "names no region".to_owned(), |region| format!("is in {region}"))
}

fn of(owner: Option<&MemberId>) -> String {
    owner.map_or_else(|| "all resources together".to_owned(), |owner| format!("the resources of {owner}"))
}

fn list<T: Display>(items: &BTreeSet<T>) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is said of one resource by itself: its orderer, kind and region.
fn single(clauses: &Clauses, resource: &Resource, by: &MemberId) -> Result<(), Breach> {
    may_order(clauses, &resource.name, &resource.kind, &resource.owner, by)?;
    if !clauses.kinds.is_empty() && !clauses.kinds.iter().any(|kinds| kinds.has(&resource.kind)) {
        return Err(Breach::Kind {
            resource: resource.name.clone(),
            kind: resource.kind.clone(),
            allowed: list(&clauses.kinds),
        });
    }
    if !clauses.regions.is_empty() && resource.region.as_ref().is_none_or(|region| !clauses.regions.contains(region)) {
        return Err(Breach::Region {
            resource: resource.name.clone(),
            region: resource.region.clone(),
            allowed: list(&clauses.regions),
        });
    }
    Ok(())
}

fn may_order(clauses: &Clauses, resource: &ResourceName, kind: &Kind, owner: &MemberId, by: &MemberId) -> Result<(), Breach> {
    let fits = clauses.orders.iter().any(|clause| {
        clause.members.contains(by)
            && clause.kinds.iter().any(|kinds| kinds.has(kind))
            && (clause.owners.is_empty() || clause.owners.contains(owner))
    });
    if clauses.orders.is_empty() || fits {
        return Ok(());
    }
    Err(Breach::Order {
        resource: resource.clone(),
        by: by.clone(),
        kind: kind.clone(),
        owner: owner.clone(),
    })
}

/// Every limit of the agreement's quotas: the quota's place, the quota, what it counts, and how much.
fn limits(clauses: &Clauses) -> impl Iterator<Item = (usize, &QuotaClause, Dimension, u64)> {
    clauses.quotas.iter().enumerate().flat_map(|(index, quota)| {
        Dimension::ALL
            .into_iter()
            .filter_map(move |dimension| quota.limit(dimension).map(|limit| (index, quota, dimension, limit)))
    })
}

fn quotas(clauses: &Clauses, changed: &[&Resource], before: &Totals, after: &Totals) -> Result<(), Breach> {
    for (index, quota, dimension, limit) in limits(clauses) {
        let counts = |resource: &&&Resource| quota.owner.as_ref().is_none_or(|owner| *owner == resource.owner);
        let unstated = |resource: &&&Resource| resource.size().of(dimension).is_none();
        // Of others' resources a change says nothing.
        if !changed.iter().any(|resource| counts(&resource)) {
            continue;
        }
        if let Some(resource) = changed.iter().filter(counts).find(unstated) {
            return Err(Breach::Unstated {
                resource: resource.name.clone(),
                index,
                dimension: dimension.word(),
            });
        }
        let sum = |totals: &Totals| totals.whose(quota.owner.as_ref()).of(dimension);
        // What is over a limit may still shrink.
        if sum(after) > limit && sum(after) > sum(before) {
            return Err(Breach::Quota {
                index,
                dimension: dimension.word(),
                owner: quota.owner.clone(),
                limit,
                would_be: sum(after),
            });
        }
    }
    Ok(())
}

/// Holds a change to the clauses, but for approvals.
pub(crate) fn hold<V: View + ?Sized>(
    view: &mut V,
    agreement: &Agreement,
    by: &MemberId,
    change: Change<'_>,
) -> Result<(), CheckError<V::Error>> {
    let Some(clauses) = &agreement.clauses else {
        return Ok(());
    };
    let refused = |breach| CheckError::Refused(super::Refusal::Clause(breach));
    let (Change::Order(resources) | Change::Amend(resources)) = change else {
        for (name, _) in change.leaving() {
            if let Some(present) = view.ordered(name).map_err(CheckError::View)? {
                let resource = &present.resource;
                may_order(clauses, name, &resource.kind, &resource.owner, by).map_err(refused)?;
            }
        }
        return Ok(());
    };
    for resource in resources {
        single(clauses, resource, by).map_err(refused)?;
    }
    if clauses.quotas.is_empty() {
        return Ok(());
    }
    let before = view.totals().map_err(CheckError::View)?;
    let mut after = before.clone();
    for resource in resources {
        if let Some(present) = view.ordered(&resource.name).map_err(CheckError::View)? {
            after.remove(&present.resource);
        }
        after.add(resource);
    }
    let changed: Vec<&Resource> = resources.iter().collect();
    quotas(clauses, &changed, &before, &after).map_err(refused)
}

/// Holds all that is in force to the clauses of its agreement: what breaks one, and which.
///
/// A ledger whose program is this one never comes to such a state. It is asked again before anything is made, because what a peer
/// hands out is not believed. Each resource comes with the member that has
/// the orderer's rights.
pub fn breaches<'a>(clauses: &Clauses, resources: impl Iterator<Item = (&'a Resource, &'a MemberId)>) -> BTreeMap<ResourceName, Breach> {
    let mut found = BTreeMap::new();
    let mut kept: Vec<&Resource> = Vec::new();
    for (resource, by) in resources {
        match single(clauses, resource, by) {
            Ok(()) => kept.push(resource),
            Err(breach) => {
                found.insert(resource.name.clone(), breach);
            }
        }
    }
    if clauses.quotas.is_empty() {
        return found;
    }
    let (nothing, all) = (Totals::default(), kept.iter().copied().collect());
    for resource in kept {
        if let Err(breach) = quotas(clauses, &[resource], &nothing, &all) {
            found.insert(resource.name.clone(), breach);
        }
    }
    found
}

/// The approval clauses that a change falls under, by their places.
pub fn approvals<V: View + ?Sized>(view: &mut V, agreement: &Agreement, change: Change<'_>) -> Result<BTreeSet<usize>, V::Error> {
    let mut fitting = BTreeSet::new();
    let Some(clauses) = agreement.clauses.as_ref().filter(|clauses| !clauses.approvals.is_empty()) else {
        return Ok(fitting);
    };
    let mut falls = |on: &[ChangeKind], kind: &Kind| {
        for (index, clause) in clauses.approvals.iter().enumerate() {
            if on.iter().any(|on| clause.on.contains(on)) && clause.kinds.iter().any(|kinds| kinds.has(kind)) {
                fitting.insert(index);
            }
        }
    };
    match change {
        Change::Order(resources) => resources.iter().for_each(|resource| falls(&[ChangeKind::Order], &resource.kind)),
        Change::Amend(resources) => {
            for resource in resources {
                let present = view.ordered(&resource.name)?;
                if present.is_some_and(|present| present.resource.protect && !resource.protect) {
                    falls(&[ChangeKind::Amend, ChangeKind::DestroyProtected], &resource.kind);
                } else {
                    falls(&[ChangeKind::Amend], &resource.kind);
                }
            }
        }
        Change::Retire(_) | Change::HandOver(_) => {
            for (name, kept) in change.leaving() {
                if let Some(present) = view.ordered(name)? {
                    if present.resource.protect && !kept {
                        falls(&[ChangeKind::Retire, ChangeKind::DestroyProtected], &present.resource.kind);
                    } else {
                        falls(&[ChangeKind::Retire], &present.resource.kind);
                    }
                }
            }
        }
    }
    Ok(fitting)
}

/// Whether these members' approvals are enough for an approval clause.
pub fn approved(agreement: &Agreement, index: usize, members: &BTreeSet<&MemberId>) -> bool {
    let clause = agreement.clauses.as_ref().and_then(|clauses| clauses.approvals.get(index));
    clause.is_none_or(|clause| {
        let count = members.iter().filter(|member| clause.counts(agreement, member)).count();
        count >= clause.need as usize
    })
}

/// Whether something protected of a kind can be retired at all: only where a clause says who has to approve that.
pub(super) fn can_destroy(agreement: &Agreement, kind: &Kind) -> bool {
    let clauses = agreement.clauses.iter().flat_map(|clauses| &clauses.approvals);
    let fits = |clause: &crate::clauses::ApprovalClause| {
        clause.on.contains(&ChangeKind::DestroyProtected) && clause.kinds.iter().any(|kinds| kinds.has(kind))
    };
    clauses.into_iter().any(fits)
}
