//! Walking one map along another that has the same order.

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::iter::Peekable;

use state::ids::ResourceName;

/// Finds the values of ascending names: ten thousand searches in a tree are most of what a plan without steps costs.
pub(super) struct Alongside<'a, V> {
    rest: Peekable<Iter<'a, ResourceName, V>>,
}

impl<'a, V> Alongside<'a, V> {
    pub(super) fn new(map: &'a BTreeMap<ResourceName, V>) -> Self {
        Self {
            rest: map.iter().peekable(),
        }
    }

    /// The value of a name that is not before the one that was asked for last.
    pub(super) fn get(&mut self, name: &ResourceName) -> Option<&'a V> {
        while self.rest.next_if(|(found, _)| *found < name).is_some() {}
        self.rest.peek().filter(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_found_as_a_search_would() {
        let name = |text: &str| ResourceName::new(text).unwrap();
        let map: BTreeMap<ResourceName, u32> = [(name("b"), 1), (name("d"), 2), (name("e"), 3)].into();
        let mut along = Alongside::new(&map);
        for text in ["a", "b", "b", "c", "e", "f"] {
            assert_eq!(along.get(&name(text)), map.get(text), "{text}");
        }
    }
}
