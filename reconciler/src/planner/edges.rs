//! The graph of the steps: what has to come before what, and who waits for whom.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::toposort;
use petgraph::graphmap::DiGraphMap;
use state::canonical::CanonicalError;
use state::ids::ResourceName;
use state::plan::{Action, Step, Wait};
use state::report::Condition;
use state::resource::Resource;

use super::fields;
use super::judge::{Judged, Need};
use super::references::Known;
use super::{Draft, Input, PlanError};

/// Turns needs into steps with their order, or into waits.
pub(super) fn weave<'a>(input: &Input<'a>, mut judged: Judged<'a>, draft: &mut Draft) -> Result<(), PlanError> {
    if judged.needs.is_empty() {
        return Ok(());
    }
    let member = input.member().clone();
    let known = Known {
        member: &member,
        desired: input.desired,
        inventory: input.inventory,
        reported: input.reported,
        observed: Some(input.observed),
        fresh: None,
    };
    for name in in_order(input, &judged)? {
        match judged.needs.remove(name) {
            Some(need) => place(input, name, need, &known, draft)?,
            None => follow_replaced(input, name, draft)?,
        }
    }
    Ok(())
}

/// The resources with needs, and those that refer to one that may be replaced, dependencies first.
fn in_order<'a>(input: &Input<'a>, judged: &Judged<'a>) -> Result<Vec<&'a ResourceName>, PlanError> {
    let mut names: BTreeSet<&'a ResourceName> = judged.needs.keys().copied().collect();
    for (name, need) in &judged.needs {
        if need.action == Action::Replace {
            let own = |dependent: &&ResourceName| {
                let ordered = input.desired.resources().get(*dependent);
                ordered.is_some_and(|ordered| ordered.resource.owner == *input.member() && ordered.resource.spec.refers())
            };
            names.extend(input.desired.dependents(name).filter(own));
        }
    }
    let mut graph: DiGraphMap<&'a ResourceName, ()> = DiGraphMap::with_capacity(names.len(), names.len() * 2);
    for name in &names {
        graph.add_node(*name);
    }
    for name in &names {
        for dependent in input.desired.dependents(name) {
            if names.contains(dependent) {
                graph.add_edge(*name, dependent, ());
            }
        }
    }
    toposort(&graph, None).map_err(|circle| PlanError::Circle(circle.node_id().clone()))
}

fn place(input: &Input<'_>, name: &ResourceName, need: Need<'_>, known: &Known<'_>, draft: &mut Draft) -> Result<(), CanonicalError> {
    let resource = &need.ordered.resource;
    let mut after = BTreeSet::new();
    let mut on = BTreeMap::new();
    for dependency in resource.dependencies() {
        if draft.steps.contains_key(&dependency) {
            after.insert(dependency);
        } else if let Some(state) = hindrance(input, &dependency, draft)? {
            on.insert(dependency, state);
        }
    }
    for reference in resource.spec.references() {
        let settled = !after.contains(&reference.resource) && !on.contains_key(&reference.resource);
        if settled && known.value(&reference).is_none() {
            on.insert(reference.resource, format!("it has no output {} yet", reference.output));
        }
    }
    if on.is_empty() {
        let step = Step {
            action: need.action,
            ordered: resource.digest()?,
            resource: resource.clone(),
            external: need.external,
            why: need.why,
            tx: need.tx,
            changes: need.changes,
            after,
        };
        draft.steps.insert(name.clone(), step);
        return Ok(());
    }
    let whom: Vec<String> = on.iter().map(|(name, state)| format!("{name} ({state})")).collect();
    let why = format!("to {} it, {} has to be ready first", need.action, whom.join(", "));
    if let Some(status) = draft.statuses.get_mut(name) {
        status.condition = Condition::Waiting;
        status.why = Some(format!("it waits for {}", whom.join(", ")));
    }
    draft.waits.insert(name.clone(), Wait { on, why });
    Ok(())
}

/// Why a dependency that has no step in this plan is not ready, if it isn't.
fn hindrance(input: &Input<'_>, name: &ResourceName, draft: &Draft) -> Result<Option<String>, CanonicalError> {
    let Some(ordered) = input.desired.resources().get(name) else {
        // An import is what a member said; there is nothing to wait for.
        let there = input.desired.imported(name.as_str()).is_some();
        return Ok((!there).then(|| "it is not ordered".to_owned()));
    };
    let owner = &ordered.resource.owner;
    if owner == input.member() {
        let condition = draft.statuses.get(name).map(|status| status.condition);
        // What drifted and is only reported is there: nobody has to wait for it.
        return Ok(match condition {
            Some(Condition::InSync | Condition::Drifted) => None,
            Some(condition) => Some(condition.to_string()),
            None => Some("not observed".to_owned()),
        });
    }
    Ok(match input.reported.status(owner, name) {
        None => Some(format!("not reported by {owner} yet")),
        Some(status) if status.condition != Condition::InSync => Some(format!("reported {} by {owner}", status.condition)),
        Some(status) if status.applied != Some(ordered.resource.digest()?) => {
            Some(format!("reported by {owner} as it was before it was amended"))
        }
        Some(_) => None,
    })
}

/// A resource that needs nothing itself, but refers to one that is made anew: its values change with it.
fn follow_replaced(input: &Input<'_>, name: &ResourceName, draft: &mut Draft) -> Result<(), CanonicalError> {
    let in_sync = draft.statuses.get(name).is_some_and(|status| status.condition == Condition::InSync);
    let (Some(ordered), Some(entry)) = (input.desired.resources().get(name), input.inventory.get(name)) else {
        return Ok(());
    };
    if !in_sync {
        return Ok(());
    }
    let resource = &ordered.resource;
    let replaced = |dependency: &str| draft.steps.get(dependency).is_some_and(|step| step.action == Action::Replace);
    let changes = fields::referring(&entry.resource, resource, &replaced);
    if changes.is_empty() {
        return Ok(());
    }
    let dependencies = resource.dependencies();
    let made_anew: Vec<&str> = dependencies
        .iter()
        .map(ResourceName::as_str)
        .filter(|name| replaced(name))
        .collect();
    let step = Step {
        action: Action::Update,
        resource: resource.clone(),
        ordered: entry.ordered,
        external: Some(entry.external.clone()),
        why: vec![format!("it refers to {}, made anew", made_anew.join(", "))],
        tx: None,
        changes,
        after: dependencies
            .iter()
            .filter(|name| draft.steps.contains_key(*name))
            .cloned()
            .collect(),
    };
    if let Some(status) = draft.statuses.get_mut(name) {
        status.condition = Condition::Pending;
        status.exports.clear();
        status.why = step.why.first().cloned();
    }
    draft.steps.insert(name.clone(), step);
    Ok(())
}

/// Orders deletions: what depended on a thing goes, or lets go of it, before the thing does.
pub(super) fn weave_deletions(input: &Input<'_>, draft: &mut Draft) {
    let going: BTreeSet<ResourceName> = draft
        .steps
        .iter()
        .filter(|(_, step)| takes_away(step))
        .map(|(name, _)| name.clone())
        .collect();
    if going.is_empty() {
        return;
    }
    let mut after: BTreeMap<ResourceName, BTreeSet<ResourceName>> = BTreeMap::new();
    let mut held: BTreeMap<ResourceName, BTreeMap<ResourceName, String>> = BTreeMap::new();
    for (dependent, dependency) in former_edges(input, draft) {
        if !going.contains(&dependency) || dependent == dependency {
            continue;
        }
        let wanted = input.desired.resources().get(&dependent);
        // It still needs something of that name: the one that comes after this deletion.
        if wanted.is_some_and(|ordered| ordered.resource.owner == *input.member() && ordered.resource.dependencies().contains(&dependency))
        {
            continue;
        }
        if draft.steps.contains_key(&dependent) {
            after.entry(dependency).or_default().insert(dependent);
        } else if input.inventory.get(&dependent).is_some() {
            let state = match draft.statuses.get(&dependent) {
                Some(status) => format!("it depended on this, and is {}", status.condition),
                None => "it depended on this, and is still there".to_owned(),
            };
            held.entry(dependency).or_default().insert(dependent, state);
        }
    }
    for (name, before) in after {
        if let Some(step) = draft.steps.get_mut(&name) {
            step.after.extend(before);
        }
    }
    hold(held, draft);
}

/// Whether a step takes something away from what depended on it.
fn takes_away(step: &Step) -> bool {
    match step.action {
        Action::Delete => true,
        Action::Forget => step.external.is_some(),
        Action::Create | Action::Update | Action::Replace | Action::Adopt => false,
    }
}

/// Which resource depended on which when it was applied: (dependent, dependency).
fn former_edges(input: &Input<'_>, draft: &Draft) -> BTreeSet<(ResourceName, ResourceName)> {
    let mut edges = BTreeSet::new();
    let mut take = |resource: &Resource| {
        for dependency in resource.dependencies() {
            edges.insert((resource.name.clone(), dependency));
        }
    };
    for entry in input.inventory.entries().values() {
        take(&entry.resource);
    }
    // A lost store knows no inventory, but the tombstones that the steps carry do.
    for step in draft.steps.values().filter(|step| takes_away(step)) {
        take(&step.resource);
    }
    edges
}

/// Turns deletions that can't happen yet into waits, and with them whatever comes after them.
fn hold(mut held: BTreeMap<ResourceName, BTreeMap<ResourceName, String>>, draft: &mut Draft) {
    while let Some((name, on)) = held.pop_first() {
        if draft.steps.remove(&name).is_none() {
            continue;
        }
        for (later, step) in &draft.steps {
            if step.after.contains(&name) {
                held.entry(later.clone())
                    .or_default()
                    .insert(name.clone(), "it has to go first, and waits".to_owned());
            }
        }
        let whom: Vec<String> = on.iter().map(|(name, state)| format!("{name} ({state})")).collect();
        let why = format!("to delete it, {} has to be gone first", whom.join(", "));
        if let Some(status) = draft.statuses.get_mut(&name) {
            status.why = Some(why.clone());
        }
        draft.waits.insert(name, Wait { on, why });
    }
}
