//! The chain of commit hashes, computed from each block's own codes and writes.

use std::collections::BTreeMap;

use protos::commit_hash::{Update, Version, commit_hash};
use protos::envelope::Namespace;
use state::canonical::Digest;

/// Namespace, collection and key.
type Key<'a> = (&'a str, &'a str, &'a [u8]);

/// The last writes of a block, by namespace, collection and key.
#[derive(Debug, Default)]
pub(super) struct Writes<'a> {
    last: BTreeMap<Key<'a>, (Option<&'a [u8]>, Version)>,
    /// Whether something was written that only a peer's own state tells: a key's metadata without its value.
    incomplete: bool,
}

impl<'a> Writes<'a> {
    /// Takes what a valid transaction wrote.
    pub(super) fn take(&mut self, namespaces: &'a [Namespace], block: u64, tx: u32) {
        let version = Version { block, tx: u64::from(tx) };
        for namespace in namespaces {
            let name = namespace.name.as_str();
            let set = &namespace.rwset;
            for write in &set.writes {
                let value = (!write.is_delete && !write.value.is_empty()).then_some(write.value.as_slice());
                self.last.insert((name, "", write.key.as_bytes()), (value, version));
            }
            self.incomplete |= !set.metadata_writes.is_empty();
            for collection in &namespace.collections {
                let set = &collection.rwset;
                for write in &set.hashed_writes {
                    let gone = write.is_delete || write.is_purge || write.value_hash.is_empty();
                    let value = (!gone).then_some(write.value_hash.as_slice());
                    self.last.insert((name, &collection.name, &write.key_hash), (value, version));
                }
                self.incomplete |= !set.metadata_writes.is_empty();
            }
        }
    }
}

/// Where the chain of commit hashes stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// At a known value; empty before the second block.
    At(Vec<u8>),
    /// Nowhere: the peer wrote none.
    Unwritten,
}

impl Default for Chain {
    fn default() -> Self {
        Self::At(Vec::new())
    }
}

/// A block's commit hash is not that of its codes and writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) expected: Digest,
    pub(super) found: String,
}

impl Chain {
    /// Goes on by a block. What the block carries is believed where it can't be computed.
    pub(super) fn advance(&mut self, flags: &[u8], writes: Writes<'_>, found: Option<&[u8]>) -> Result<(), Wrong> {
        let Some(found) = found else {
            *self = Self::Unwritten;
            return Ok(());
        };
        if let Self::At(previous) = self
            && !writes.incomplete
        {
            let updates = writes.last.into_iter().filter(|((namespace, ..), _)| !namespace.is_empty());
            let updates = updates.map(|((namespace, collection, key), (value, version))| Update {
                namespace,
                collection,
                key,
                value,
                version,
            });
            let expected = commit_hash(flags, updates, previous);
            if expected != *found {
                return Err(Wrong {
                    expected: Digest::from_bytes(expected),
                    found: hexadecimal(found),
                });
            }
        }
        *self = Self::At(found.to_vec());
        Ok(())
    }
}

/// The first bytes of what should be a hash.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protos::envelope::Collection;
    use protos::kvrwset::{HashedRwSet, KvMetadataWrite, KvWrite, KvWriteHash, KvrwSet};

    fn namespace(name: &str, keys: &[&str]) -> Namespace {
        let write = |key: &&str| KvWrite {
            key: (*key).to_owned(),
            is_delete: false,
            value: b"v".to_vec(),
        };
        Namespace {
            name: name.to_owned(),
            rwset: KvrwSet {
                writes: keys.iter().map(write).collect(),
                ..KvrwSet::default()
            },
            private_collections: 0,
            collections: Vec::new(),
        }
    }

    fn advanced(chain: &mut Chain, namespaces: &[Namespace], found: &[u8]) -> Result<(), Wrong> {
        let mut writes = Writes::default();
        writes.take(namespaces, 1, 0);
        chain.advance(&[0], writes, Some(found))
    }

    /// What the chain asks for after these writes.
    fn hash(namespaces: &[Namespace]) -> Vec<u8> {
        let wrong = advanced(&mut Chain::default(), namespaces, b"x").unwrap_err();
        assert_eq!(wrong.found, "78");
        wrong.expected.as_bytes().to_vec()
    }

    #[test]
    fn collections_count_and_configurations_do_not() {
        let plain = [namespace("a", &["k"])];
        assert_eq!(
            hash(&plain),
            hash(&[namespace("", &["resourcesconfigtx.CHANNEL_CONFIG_KEY"]), namespace("a", &["k"])])
        );
        let mut hidden = namespace("a", &["k"]);
        hidden.collections.push(Collection {
            name: "c".into(),
            rwset: HashedRwSet {
                hashed_writes: vec![KvWriteHash {
                    key_hash: vec![1],
                    value_hash: vec![2],
                    ..KvWriteHash::default()
                }],
                ..HashedRwSet::default()
            },
        });
        assert_ne!(hash(&plain), hash(&[hidden]));
    }

    #[test]
    fn the_last_write_of_a_key_counts_and_the_order_of_keys_does_not() {
        assert_eq!(hash(&[namespace("a", &["k", "l"])]), hash(&[namespace("a", &["l", "k"])]));
        assert_ne!(hash(&[namespace("a", &["k"])]), hash(&[namespace("a", &["l"])]));
    }

    #[test]
    fn what_cannot_be_computed_is_believed_and_what_follows_is_held_to_it() {
        let mut chain = Chain::default();
        let mut metadata = namespace("a", &["k"]);
        metadata.rwset.metadata_writes.push(KvMetadataWrite::default());
        advanced(&mut chain, &[metadata], b"any").unwrap();
        assert_eq!(chain, Chain::At(b"any".to_vec()));
        assert!(advanced(&mut chain, &[namespace("a", &["k"])], b"any").is_err());
        // A peer that writes none can't be held to any.
        chain.advance(&[0], Writes::default(), None).unwrap();
        assert_eq!(chain, Chain::Unwritten);
        advanced(&mut chain, &[namespace("a", &["k"])], b"anew").unwrap();
        assert_eq!(chain, Chain::At(b"anew".to_vec()));
    }
}
