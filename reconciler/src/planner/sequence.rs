//! The order in which a plan is walked.

use petgraph::algo::toposort;
use petgraph::graphmap::DiGraphMap;
use state::ids::ResourceName;
use state::plan::Plan;

use super::PlanError;

/// The names of a plan's steps, each after all that it comes after.
///
/// # Errors
/// [`PlanError::Circle`] for a plan whose steps wait for each other: one from a file may have been edited.
pub fn sequence(plan: &Plan) -> Result<Vec<&ResourceName>, PlanError> {
    let mut graph: DiGraphMap<&str, ()> = DiGraphMap::with_capacity(plan.steps.len(), plan.steps.len());
    for name in plan.steps.keys() {
        graph.add_node(name.as_str());
    }
    for (name, step) in &plan.steps {
        for before in &step.after {
            if plan.steps.contains_key(before) {
                graph.add_edge(before.as_str(), name.as_str(), ());
            }
        }
    }
    let name_of = |node: &str| plan.steps.get_key_value(node).map(|(name, _)| name);
    match toposort(&graph, None) {
        Ok(order) => Ok(order.into_iter().filter_map(name_of).collect()),
        Err(circle) => match name_of(circle.node_id()) {
            Some(name) => Err(PlanError::Circle(name.clone())),
            None => Ok(Vec::new()),
        },
    }
}
