//! The state in memory: for re-executing history, and for tests.

use std::collections::{BTreeMap, BTreeSet};

use crate::invoke;
use crate::stub::{Invocation, Response, Stub, StubError};

/// What a transaction writes: each key's new value, or none when it goes.
pub type Writes = BTreeMap<String, Option<Vec<u8>>>;

/// The program's state after some transactions of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    values: BTreeMap<String, Vec<u8>>,
}

/// What one run did, to be compared with what the ledger recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The answer.
    pub response: Response,
    /// The keys that it read.
    pub reads: BTreeSet<String>,
    /// The ranges that it read, start and end.
    pub ranges: BTreeSet<(String, String)>,
    /// What it writes.
    pub writes: Writes,
    /// Its event: name and payload.
    pub event: Option<(String, Vec<u8>)>,
}

impl MemoryState {
    /// The state before the first transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key).map(Vec::as_slice)
    }

    /// Every key with its value, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Runs a transaction without taking in what it writes.
    pub fn execute(&self, invocation: &Invocation<'_>) -> Execution {
        let mut run = Run {
            state: self,
            reads: BTreeSet::new(),
            ranges: BTreeSet::new(),
            writes: Writes::new(),
            event: None,
        };
        let response = invoke(&mut run, invocation);
        Execution {
            response,
            reads: run.reads,
            ranges: run.ranges,
            writes: run.writes,
            event: run.event,
        }
    }

    /// Takes in what a valid transaction wrote.
    pub fn apply(&mut self, writes: &Writes) {
        for (key, value) in writes {
            match value {
                Some(value) => self.values.insert(key.clone(), value.clone()),
                None => self.values.remove(key),
            };
        }
    }
}

impl FromIterator<(String, Vec<u8>)> for MemoryState {
    fn from_iter<T: IntoIterator<Item = (String, Vec<u8>)>>(values: T) -> Self {
        Self {
            values: values.into_iter().collect(),
        }
    }
}

struct Run<'a> {
    state: &'a MemoryState,
    reads: BTreeSet<String>,
    ranges: BTreeSet<(String, String)>,
    writes: Writes,
    event: Option<(String, Vec<u8>)>,
}

impl Run<'_> {
    fn range(&mut self, start: &str, end: &str, limit: usize) -> Vec<(String, Vec<u8>)> {
        self.ranges.insert((start.to_owned(), end.to_owned()));
        // BTreeMap::range panics on a range that ends before it starts.
        if start >= end {
            return Vec::new();
        }
        let found = self
            .state
            .values
            .range::<str, _>((std::ops::Bound::Included(start), std::ops::Bound::Excluded(end)));
        found.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Stub for Run<'_> {
    fn get_state(&mut self, key: &str) -> Result<Option<Vec<u8>>, StubError> {
        self.reads.insert(key.to_owned());
        Ok(self.state.values.get(key).cloned())
    }

    fn get_state_by_range(&mut self, start: &str, end: &str) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        Ok(self.range(start, end, usize::MAX))
    }

    fn get_state_page(&mut self, start: &str, end: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        Ok(self.range(start, end, limit))
    }

    fn put_state(&mut self, key: &str, value: Vec<u8>) {
        self.writes.insert(key.to_owned(), Some(value));
    }

    fn del_state(&mut self, key: &str) {
        self.writes.insert(key.to_owned(), None);
    }

    fn set_event(&mut self, name: &str, payload: Vec<u8>) {
        self.event = Some((name.to_owned(), payload));
    }
}
