//! The state in memory: for re-executing history, and for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::invoke;
use crate::stub::{Invocation, Response, Stub, StubError};

/// What a transaction writes: each key's new value, or none when it goes.
pub type Writes = BTreeMap<String, Option<Vec<u8>>>;

/// The place of the transaction that wrote a value: what a ledger compares a transaction's reads with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The block's number.
    pub block: u64,
    /// The transaction's index in it.
    pub tx: u64,
}

/// A value, and which transaction wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// Where it was written.
    pub version: Version,
}

/// The program's state after some transactions of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    values: BTreeMap<String, Versioned>,
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
        self.values.get(key).map(|found| found.value.as_slice())
    }

    /// Which transaction wrote a key's value; none when the key isn't there.
    pub fn version(&self, key: &str) -> Option<Version> {
        self.values.get(key).map(|found| found.version)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The keys of `start <= key < end` with what stands under them, in key order. An empty end is open, as in Fabric.
    pub fn range(&self, start: &str, end: &str) -> impl Iterator<Item = (&str, &Versioned)> {
        // BTreeMap::range panics on a range that ends before it starts.
        let backwards = !end.is_empty() && start >= end;
        let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        let found = (!backwards).then(|| self.values.range::<str, _>((Bound::Included(start), end)));
        found.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }

    /// Every key with its value, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.values.iter().map(|(key, found)| (key.as_str(), found.value.as_slice()))
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

    /// Takes in what a valid transaction wrote, wherever that stood.
    pub fn apply(&mut self, writes: &Writes) {
        self.apply_at(writes.clone(), Version::default());
    }

    /// Takes in what the valid transaction at a place wrote.
    pub fn apply_at(&mut self, writes: Writes, version: Version) {
        for (key, value) in writes {
            match value {
                Some(value) => drop(self.values.insert(key, Versioned { value, version })),
                None => drop(self.values.remove(&key)),
            }
        }
    }
}

impl FromIterator<(String, Vec<u8>)> for MemoryState {
    fn from_iter<T: IntoIterator<Item = (String, Vec<u8>)>>(values: T) -> Self {
        let version = Version::default();
        values.into_iter().map(|(key, value)| (key, Versioned { value, version })).collect()
    }
}

impl FromIterator<(String, Versioned)> for MemoryState {
    fn from_iter<T: IntoIterator<Item = (String, Versioned)>>(values: T) -> Self {
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
        let found = self.state.range(start, end).take(limit);
        found.map(|(key, found)| (key.to_owned(), found.value.clone())).collect()
    }
}

impl Stub for Run<'_> {
    fn get_state(&mut self, key: &str) -> Result<Option<Vec<u8>>, StubError> {
        self.reads.insert(key.to_owned());
        Ok(self.state.get(key).map(<[u8]>::to_vec))
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
