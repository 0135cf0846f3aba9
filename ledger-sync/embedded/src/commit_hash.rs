//! The commit hash of a block of the one program that a channel runs.

use protos::commit_hash::{self, Update};

use crate::world_state::Updates;

/// Computes a block's commit hash. The first block of a channel has none, and its successor's `previous` is empty.
pub(crate) fn commit_hash(namespace: &str, flags: &[u8], updates: &Updates, previous: &[u8]) -> [u8; 32] {
    let updates = updates.iter().map(|(key, (value, version))| Update {
        namespace,
        collection: "",
        key: key.as_bytes(),
        value: value.as_deref(),
        version: commit_hash::Version {
            block: version.block,
            tx: version.tx,
        },
    });
    commit_hash::commit_hash(flags, updates, previous)
}
