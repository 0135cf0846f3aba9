//! The commit hash: a chain over validation flags and state updates, as Fabric's peers compute it.
//!
//! value = SHA-256(varint(number of flags) ‖ flags ‖ updates ‖ the previous block's value). The updates are a Protobuf message
//! with the block's last write of each key, in the order of the keys.

use prost::Message;
use prost::encoding::encode_varint;
use sha2::{Digest, Sha256};

use crate::world_state::{Updates, Version};

#[derive(Clone, PartialEq, Message)]
struct KeyUpdate {
    /// Only on the namespace's first key.
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bool, tag = "4")]
    is_delete: bool,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    version: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct BlockUpdates {
    #[prost(message, repeated, tag = "1")]
    updates: Vec<KeyUpdate>,
}

/// Computes a block's commit hash. The first block of a channel has none, and its successor's `previous` is empty.
pub(crate) fn commit_hash(namespace: &str, flags: &[u8], updates: &Updates, previous: &[u8]) -> [u8; 32] {
    let updates = updates
        .iter()
        .enumerate()
        .map(|(index, (key, (value, version)))| KeyUpdate {
            namespace: if index == 0 { namespace.to_owned() } else { String::new() },
            collection: String::new(),
            key: key.clone().into_bytes(),
            is_delete: value.is_none(),
            value: value.as_deref().map(<[u8]>::to_vec).unwrap_or_default(),
            version: version_bytes(*version),
        })
        .collect();
    let mut bytes = Vec::new();
    encode_varint(flags.len() as u64, &mut bytes);
    bytes.extend_from_slice(flags);
    bytes.extend_from_slice(&BlockUpdates { updates }.encode_to_vec());
    bytes.extend_from_slice(previous);
    Sha256::digest(bytes).into()
}

/// Encodes a version as Fabric does: each number as its significant big-endian bytes after their count.
fn version_bytes(version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [version.block, version.tx] {
        let whole = number.to_be_bytes();
        let significant = &whole[(number.leading_zeros() / 8) as usize..];
        bytes.push(significant.len() as u8);
        bytes.extend_from_slice(significant);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn versions_keep_their_order() {
        assert_eq!(version_bytes(Version { block: 0, tx: 0 }), [0, 0]);
        assert_eq!(version_bytes(Version { block: 1, tx: 255 }), [1, 1, 1, 255]);
        assert_eq!(version_bytes(Version { block: 256, tx: 1 }), [2, 1, 0, 1, 1]);
    }

    #[test]
    fn every_part_is_committed_to() {
        let version = Version { block: 1, tx: 0 };
        let updates: Updates = [("k".to_owned(), (Some(Arc::from(&b"v"[..])), version))].into();
        let deleted: Updates = [("k".to_owned(), (None, version))].into();
        let hash = commit_hash("charter", &[0], &updates, b"");
        // 01 00 | 0a 15 (0a 07 charter, 1a 01 k, 2a 01 v, 32 03 01 01 00)
        let bytes = hex::decode("01000a140a07636861727465721a016b2a01763203010100").unwrap();
        assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(bytes)));
        assert_ne!(hash, commit_hash("charter", &[11], &updates, b""));
        assert_ne!(hash, commit_hash("charter", &[0], &deleted, b""));
        assert_ne!(hash, commit_hash("charter", &[0], &updates, b"x"));
    }
}
