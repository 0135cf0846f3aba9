//! The graphs that are planned, the same for Charter and for its peer.

use serde_json::json;
use state::resource::Resource;

use crate::support::resource;

/// The shape of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A binary tree: each node depends on its two children.
    Tree,
    /// One long line: each node depends on the next.
    Chain,
}

/// A graph of some size.
#[derive(Clone, Copy, Debug)]
pub struct Graph {
    pub shape: Shape,
    pub count: usize,
}

impl std::fmt::Display for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape = match self.shape {
            Shape::Tree => "a tree",
            Shape::Chain => "a chain",
        };
        write!(f, "{shape} of {} resources", self.count)
    }
}

impl Graph {
    /// The name of a node.
    pub fn name(self, index: usize) -> String {
        format!("node-{index:05}")
    }

    /// The nodes that a node depends on.
    pub fn below(self, index: usize) -> Vec<usize> {
        let all = match self.shape {
            Shape::Tree => vec![2 * index + 1, 2 * index + 2],
            Shape::Chain => vec![index + 1],
        };
        all.into_iter().filter(|below| *below < self.count).collect()
    }

    /// The orders, by name and by reference; what is depended on first, as each transaction may only refer to what is there.
    pub fn resources(self) -> Vec<Resource> {
        let node = |index| {
            let depends_on: Vec<String> = self.below(index).into_iter().map(|below| self.name(below)).collect();
            let mut spec = json!({ "input": format!("value {index}") });
            if let Some(first) = depends_on.first() {
                spec["left"] = json!({ "$ref": format!("{first}.outputs.id") });
            }
            resource(json!({ "name": self.name(index), "spec": spec, "depends_on": depends_on }))
        };
        (0..self.count).rev().map(node).collect()
    }
}
