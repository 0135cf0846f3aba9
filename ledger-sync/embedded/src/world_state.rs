//! A channel's state: the latest value of every key, with the position of the transaction that wrote it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// The position of the transaction that wrote a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) block: u64,
    pub(crate) tx: u64,
}

/// A value with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) value: Arc<[u8]>,
    pub(crate) version: Version,
}

/// What a block writes: for each key its new value (`None`: deleted) and the version.
pub(crate) type Updates = BTreeMap<String, (Option<Arc<[u8]>>, Version)>;

/// The state of one channel, all in memory; it is rebuilt from the blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorldState {
    keys: BTreeMap<String, Versioned>,
}

impl WorldState {
    pub(crate) fn get(&self, key: &str) -> Option<&Versioned> {
        self.keys.get(key)
    }

    /// Returns the keys with `start <= key < end`, in order; an empty bound is open.
    pub(crate) fn range(&self, start: &str, end: &str) -> impl Iterator<Item = (&str, &Versioned)> {
        let empty = !end.is_empty() && end <= start;
        let lower = if start.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Included(start)
        };
        let upper = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        // BTreeMap refuses bounds that are the wrong way round.
        let found = (!empty).then(|| self.keys.range::<str, _>((lower, upper)));
        found.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }

    pub(crate) fn apply(&mut self, updates: Updates) {
        for (key, (value, version)) in updates {
            match value {
                Some(value) => drop(self.keys.insert(key, Versioned { value, version })),
                None => drop(self.keys.remove(&key)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_total() {
        let mut state = WorldState::default();
        let version = Version { block: 1, tx: 0 };
        state.apply(
            ["a", "b", "c"]
                .map(|key| (key.to_owned(), (Some(Arc::from(&b"v"[..])), version)))
                .into(),
        );
        let keys = |start, end| state.range(start, end).map(|(key, _)| key.to_owned()).collect::<Vec<_>>().concat();
        assert_eq!(keys("", ""), "abc");
        assert_eq!(keys("a", "c"), "ab");
        assert_eq!(keys("b", ""), "bc");
        assert_eq!(keys("c", "a"), "");
        assert_eq!(keys("b", "b"), "");
    }
}
