//! The dependency graph: everything in it exists, is exported where it crosses members, and nothing waits for itself.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graphmap::DiGraphMap;

use super::{CheckError, MAX_DEPENDENCIES, Refusal};
use crate::acts::imports;
use crate::ids::{OutputName, ResourceName};
use crate::records::Books;
use crate::resource::Resource;

/// Every dependency exists, every reference across members is exported, and nothing waits for itself.
///
/// `before` holds what the resources of the batch that are in force depend on so far.
pub(crate) fn edges<V: Books + ?Sized>(
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
                    None => match imports::present(view, on).map_err(CheckError::View)? {
                        Some(import) => {
                            let lost = references
                                .iter()
                                .find(|r| r.resource == *on && !import.import.outputs.contains_key(r.output.as_str()));
                            if let Some(reference) = lost {
                                return Err(not_exported(name, on, &reference.output).into());
                            }
                            continue;
                        }
                        None => {
                            return Err(Refusal::Dangling {
                                resource: name.clone(),
                                on: on.clone(),
                            }
                            .into());
                        }
                    },
                },
            };
            if target.owner == resource.owner {
                continue;
            }
            if let Some(reference) = references.iter().find(|r| r.resource == *on && !target.exports.contains(&r.output)) {
                return Err(not_exported(name, on, &reference.output).into());
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

fn not_exported(resource: &ResourceName, on: &ResourceName, output: &OutputName) -> Refusal {
    Refusal::NotExported {
        resource: resource.clone(),
        on: on.clone(),
        output: output.clone(),
    }
}

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
