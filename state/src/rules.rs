//! The rules of changing a desired state: one place, for the chaincode on the ledger and for every follower off it.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graphmap::DiGraphMap;
use thiserror::Error;

use crate::agreement::Agreement;
use crate::desired::Ordered;
use crate::ids::{MemberId, OutputName, ResourceName};
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
    /// A resource that is in force.
    fn ordered(&mut self, name: &ResourceName) -> Result<Option<Ordered>, Self::Error>;
    /// The resources that depend on one.
    fn dependents(&mut self, name: &ResourceName) -> Result<BTreeSet<ResourceName>, Self::Error>;
    /// How many resources are in force.
    fn count(&mut self) -> Result<u64, Self::Error>;
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

impl<E> From<Refusal> for CheckError<E> {
    fn from(refusal: Refusal) -> Self {
        CheckError::Refused(refusal)
    }
}

/// Checks a change by a member at a ledger time against an agreement in force.
pub fn check<V: View>(
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
    edges(view, &batch)
}

fn amend<V: View>(view: &mut V, agreement: &Agreement, by: &MemberId, resources: &[Resource]) -> Result<(), CheckError<V::Error>> {
    let batch = unique(resources)?;
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
                    None => view.ordered(&dependent).map_err(CheckError::View)?.map(|ordered| ordered.resource),
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
    }
    edges(view, &batch)
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

fn allowed(present: &Ordered, by: &MemberId) -> Result<(), Refusal> {
    if present.resource.owner == *by || present.ordered.by == *by {
        return Ok(());
    }
    Err(Refusal::NotAllowed {
        resource: present.resource.name.clone(),
        owner: present.resource.owner.clone(),
        orderer: present.ordered.by.clone(),
        by: by.clone(),
    })
}

/// Every dependency exists, every reference across members is exported, and nothing waits for itself.
fn edges<V: View>(view: &mut V, batch: &BTreeMap<ResourceName, &Resource>) -> Result<(), CheckError<V::Error>> {
    // Only what can be reached from the changed resources can have become a circle.
    let mut reached: BTreeMap<ResourceName, BTreeSet<ResourceName>> = BTreeMap::new();
    let mut open: Vec<ResourceName> = Vec::new();
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
            let target = match batch.get(on) {
                Some(target) => (*target).clone(),
                None => match view.ordered(on).map_err(CheckError::View)? {
                    Some(present) => present.resource,
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
        open.extend(dependencies.iter().cloned());
        reached.insert(name.clone(), dependencies);
    }
    while let Some(name) = open.pop() {
        if reached.contains_key(&name) {
            continue;
        }
        let dependencies = view
            .ordered(&name)
            .map_err(CheckError::View)?
            .map(|present| present.resource.dependencies());
        let dependencies = dependencies.unwrap_or_default();
        open.extend(dependencies.iter().cloned());
        reached.insert(name, dependencies);
    }
    acyclic(&reached).map_err(CheckError::Refused)
}

/// Names a circle in a dependency graph, if there is one.
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
