//! The commit hash: a chain over validation flags and state updates, as Fabric's peers compute it.
//!
//! value = SHA-256(varint(number of flags) ‖ flags ‖ updates ‖ the previous block's value). The updates are a Protobuf message
//! with the block's last write of each key, by namespace, collection (the public keys first) and key. What a configuration
//! writes is left out. The first block of a channel has no value, and its successor's previous one is empty.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use sha2::{Digest, Sha256};

/// The position of the transaction that wrote a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The block's number.
    pub block: u64,
    /// The transaction's index in it.
    pub tx: u64,
}

/// The last write of a key in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    /// The namespace: a chaincode's name.
    pub namespace: &'a str,
    /// The private collection, where the key and the value are hashes; empty for public keys.
    pub collection: &'a str,
    /// The key.
    pub key: &'a [u8],
    /// The value; none when the key goes.
    pub value: Option<&'a [u8]>,
    /// Who wrote it.
    pub version: Version,
}

/// Computes a block's commit hash. The updates have to come by namespace, collection and key.
pub fn commit_hash<'a>(flags: &[u8], updates: impl IntoIterator<Item = Update<'a>>, previous: &[u8]) -> [u8; 32] {
    let mut bytes = Vec::new();
    encode_varint(flags.len() as u64, &mut bytes);
    bytes.extend_from_slice(flags);
    let mut last = ("", "");
    let mut update_bytes = Vec::new();
    for update in updates {
        let Update { namespace, collection, .. } = update;
        // A name stands only on the first key that it is of.
        let named = if namespace == last.0 { "" } else { namespace };
        let collected = if (namespace, collection) == last { "" } else { collection };
        last = (namespace, collection);
        update_bytes.clear();
        encode(&update, named, collected, &mut update_bytes);
        bytes_field(1, &update_bytes, &mut bytes);
    }
    bytes.extend_from_slice(previous);
    Sha256::digest(bytes).into()
}

fn encode(update: &Update<'_>, namespace: &str, collection: &str, out: &mut Vec<u8>) {
    plain_field(1, namespace.as_bytes(), out);
    plain_field(2, collection.as_bytes(), out);
    plain_field(3, update.key, out);
    if update.value.is_none() {
        encode_key(4, WireType::Varint, out);
        encode_varint(1, out);
    }
    plain_field(5, update.value.unwrap_or_default(), out);
    plain_field(6, &version_bytes(update.version), out);
}

/// Writes a field, or nothing when it has its default value.
fn plain_field(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        bytes_field(tag, value, out);
    }
}

fn bytes_field(tag: u32, value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len() + 1 + encoded_len_varint(value.len() as u64));
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
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

    #[test]
    fn versions_keep_their_order() {
        assert_eq!(version_bytes(Version { block: 0, tx: 0 }), [0, 0]);
        assert_eq!(version_bytes(Version { block: 1, tx: 255 }), [1, 1, 1, 255]);
        assert_eq!(version_bytes(Version { block: 256, tx: 1 }), [2, 1, 0, 1, 1]);
    }

    fn update<'a>(namespace: &'a str, collection: &'a str, key: &'a str, value: Option<&'a str>) -> Update<'a> {
        Update {
            namespace,
            collection,
            key: key.as_bytes(),
            value: value.map(str::as_bytes),
            version: Version { block: 1, tx: 0 },
        }
    }

    #[test]
    fn every_part_is_committed_to() {
        let written = [update("charter", "", "k", Some("v"))];
        let hash = commit_hash(&[0], written, b"");
        // 01 00 | 0a 14 (0a 07 charter, 1a 01 k, 2a 01 v, 32 03 01 01 00)
        let bytes = hex::decode("01000a140a07636861727465721a016b2a01763203010100").unwrap();
        assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(bytes)));
        assert_ne!(hash, commit_hash(&[11], written, b""));
        assert_ne!(hash, commit_hash(&[0], [update("charter", "", "k", None)], b""));
        assert_ne!(hash, commit_hash(&[0], written, b"x"));
    }

    #[test]
    fn names_stand_once() {
        let updates = [
            update("a", "", "k", Some("v")),
            update("a", "", "l", None),
            update("a", "c", "k", Some("v")),
            update("a", "c", "l", Some("v")),
            update("b", "c", "k", Some("v")),
        ];
        // Each: its length, then namespace (0a), collection (12), key (1a), deletion (20), value (2a), version (32).
        let expected = [
            "00",
            "0a0e0a01611a016b2a01763203010100",
            "0a0a1a016c20013203010100",
            "0a0e1201631a016b2a01763203010100",
            "0a0b1a016c2a01763203010100",
            "0a110a01621201631a016b2a01763203010100",
        ]
        .concat();
        let hash: [u8; 32] = Sha256::digest(hex::decode(expected).unwrap()).into();
        assert_eq!(commit_hash(&[], updates, b""), hash);
    }
}
