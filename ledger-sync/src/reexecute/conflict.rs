//! Whether what a transaction read had changed before it was committed: the ledger's own rule, over the mirror.

use std::collections::BTreeSet;

use chaincode::memory::{MemoryState, Version};
use protos::envelope::Namespace;
use protos::kvrwset::{self, KvRead, RangeQueryInfo, range_query_info};

use super::definition::{Definitions, LIFECYCLE};
use super::difference::{At, Difference, shortened};

/// What the transactions of one block have written so far. A key that was written is a conflict for every later read of it in
/// the same block, even where it was deleted and had not been there.
#[derive(Debug, Default)]
pub(super) struct Written<'a> {
    pub(super) ours: BTreeSet<&'a str>,
    pub(super) lifecycle: BTreeSet<&'a str>,
}

/// What is known of a transaction's reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Everything that it read is as it was.
    Unchanged,
    /// Something is not.
    Changed(Difference),
    /// It read what the mirror has nothing of.
    Unknown,
}

/// Compares what a transaction read with what there is, in the ledger's order.
pub(super) fn reads(namespaces: &[Namespace], state: &MemoryState, definitions: &Definitions, written: &Written<'_>) -> Reads {
    let mut unknown = false;
    for namespace in namespaces {
        let set = &namespace.rwset;
        let changed = match namespace.name.as_str() {
            chaincode::NAME => set
                .reads
                .iter()
                .find_map(|read| stale(read, written.ours.contains(read.key.as_str()), state.version(&read.key))),
            LIFECYCLE => set
                .reads
                .iter()
                .find_map(|read| stale(read, written.lifecycle.contains(read.key.as_str()), definitions.version(&read.key))),
            _ => {
                unknown |= !set.reads.is_empty();
                None
            }
        };
        if let Some(changed) = changed {
            return Reads::Changed(changed);
        }
        for query in &set.range_queries_info {
            match (&query.reads_info, namespace.name.as_str()) {
                (Some(range_query_info::ReadsInfo::RawReads(seen)), chaincode::NAME) => {
                    if phantom(query, &seen.kv_reads, state) {
                        return Reads::Changed(Difference::Phantom {
                            start: shortened(&query.start_key),
                        });
                    }
                }
                // Nothing was seen.
                (None, chaincode::NAME) if !phantom(query, &[], state) => {}
                // A summary of hashes, or another namespace's range.
                _ => unknown = true,
            }
        }
        unknown |= namespace
            .collections
            .iter()
            .any(|collection| !collection.rwset.hashed_reads.is_empty());
    }
    if unknown { Reads::Unknown } else { Reads::Unchanged }
}

fn stale(read: &KvRead, written: bool, present: Option<Version>) -> Option<Difference> {
    let recorded = read.version.as_ref().map(version);
    (written || recorded != present).then(|| Difference::Conflict {
        key: shortened(&read.key),
        recorded: At(recorded),
        present: At(present),
    })
}

fn version(version: &kvrwset::Version) -> Version {
    Version {
        block: version.block_num,
        tx: version.tx_num,
    }
}

/// Tells whether a range would now give other keys or versions than the transaction saw.
fn phantom(query: &RangeQueryInfo, seen: &[KvRead], state: &MemoryState) -> bool {
    let (start, end) = (query.start_key.as_str(), query.end_key.as_str());
    let within = state.range(start, end).map(|(key, found)| (key, found.version));
    // A query that wasn't read to its end vouches for its last key too, and for nothing behind it.
    let last = if query.itr_exhausted { None } else { state.version(end) };
    let now = within.chain(last.map(|version| (end, version)));
    !now.eq(seen
        .iter()
        .map(|read| (read.key.as_str(), read.version.as_ref().map(version).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaincode::memory::Versioned;
    use protos::kvrwset::{KvrwSet, QueryReads};

    fn state() -> MemoryState {
        let at = |block| Versioned {
            value: b"v".to_vec(),
            version: Version { block, tx: 0 },
        };
        ["a", "b", "d"]
            .into_iter()
            .zip(1..)
            .map(|(key, block)| (key.to_owned(), at(block)))
            .collect()
    }

    fn read(key: &str, block: Option<u64>) -> KvRead {
        KvRead {
            key: key.into(),
            version: block.map(|block_num| kvrwset::Version { block_num, tx_num: 0 }),
        }
    }

    fn namespace(name: &str, rwset: KvrwSet) -> Namespace {
        Namespace {
            name: name.into(),
            rwset,
            private_collections: 0,
            collections: Vec::new(),
        }
    }

    fn judged(name: &str, rwset: KvrwSet, written: &Written<'_>) -> Reads {
        reads(&[namespace(name, rwset)], &state(), &Definitions::default(), written)
    }

    fn points(reads: &[KvRead]) -> KvrwSet {
        KvrwSet {
            reads: reads.to_vec(),
            ..KvrwSet::default()
        }
    }

    fn range(start: &str, end: &str, itr_exhausted: bool, seen: &[KvRead]) -> KvrwSet {
        KvrwSet {
            range_queries_info: vec![RangeQueryInfo {
                start_key: start.into(),
                end_key: end.into(),
                itr_exhausted,
                reads_info: Some(range_query_info::ReadsInfo::RawReads(QueryReads { kv_reads: seen.to_vec() })),
            }],
            ..KvrwSet::default()
        }
    }

    fn changed(reads: &Reads) -> bool {
        matches!(reads, Reads::Changed(_))
    }

    #[test]
    fn points_are_compared_by_version() {
        let none = Written::default();
        assert_eq!(
            judged("charter", points(&[read("a", Some(1)), read("x", None)]), &none),
            Reads::Unchanged
        );
        assert!(changed(&judged("charter", points(&[read("a", Some(2))]), &none)));
        assert!(changed(&judged("charter", points(&[read("a", None)]), &none)));
        assert!(changed(&judged("charter", points(&[read("x", Some(1))]), &none)));
        assert_eq!(judged("other", points(&[read("a", None)]), &none), Reads::Unknown);
        assert_eq!(judged("_lifecycle", points(&[read("a", None)]), &none), Reads::Unchanged);
        // Deleted earlier in the block, though it was never there.
        let written = Written {
            ours: ["x"].into(),
            ..Written::default()
        };
        assert!(changed(&judged("charter", points(&[read("x", None)]), &written)));
    }

    #[test]
    fn ranges_are_read_again() {
        let none = Written::default();
        let (a, b, d) = (read("a", Some(1)), read("b", Some(2)), read("d", Some(3)));
        let judged = |set| judged("charter", set, &none);
        assert_eq!(judged(range("a", "c", true, &[a.clone(), b.clone()])), Reads::Unchanged);
        assert_eq!(judged(range("a", "", true, &[a.clone(), b.clone(), d.clone()])), Reads::Unchanged);
        assert!(changed(&judged(range("a", "c", true, std::slice::from_ref(&a)))));
        // Stopped early: the last key counts, what is behind it doesn't.
        assert_eq!(judged(range("a", "b", false, &[a.clone(), b])), Reads::Unchanged);
        assert!(changed(&judged(range("a", "b", false, &[a]))));
        assert!(changed(&judged(range("e", "f", true, &[d]))));
    }
}
