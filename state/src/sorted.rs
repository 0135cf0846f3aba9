//! Maps from long lists: keys are sorted by themselves, so that large values move once.

use std::collections::BTreeMap;

/// Makes a map of a list in any order. Of several values under one key the last one counts.
///
/// `BTreeMap` sorts what it collects by moving keys and values around together; a resource is hundreds of bytes.
pub(crate) fn map<K: Ord + Clone, V>(list: Vec<(K, V)>) -> BTreeMap<K, V> {
    let mut order: Vec<(K, usize)> = list.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
    order.sort_unstable();
    let mut list: Vec<Option<(K, V)>> = list.into_iter().map(Some).collect();
    // Collecting what is in order already moves nothing.
    order.into_iter().filter_map(|(_, at)| list[at].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_the_map_that_collecting_makes() {
        let list = vec![(3, 'c'), (1, 'a'), (3, 'd'), (2, 'b')];
        let collected: BTreeMap<i32, char> = list.iter().copied().collect();
        assert_eq!(map(list), collected);
    }
}
