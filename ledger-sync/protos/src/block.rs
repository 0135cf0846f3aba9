//! The hash chain: header and data hashes, as Fabric computes them.

use sha2::{Digest, Sha256};

use crate::common::{Block, BlockHeader};

/// Encodes a header as the ASN.1 DER sequence { number INTEGER, previous hash OCTET STRING, data hash OCTET STRING }.
///
/// The header's hash is over these bytes, and an orderer's signature ends with them.
pub fn header_bytes(header: &BlockHeader) -> Vec<u8> {
    let mut body = Vec::with_capacity(96);
    push_integer(&mut body, header.number);
    push_octets(&mut body, &header.previous_hash);
    push_octets(&mut body, &header.data_hash);
    let mut der = Vec::with_capacity(body.len() + 6);
    push_header(&mut der, 0x30, body.len());
    der.extend_from_slice(&body);
    der
}

/// Computes a header's hash, which the next block names as its previous hash.
pub fn header_hash(header: &BlockHeader) -> [u8; 32] {
    Sha256::digest(header_bytes(header)).into()
}

/// Computes the data hash over a block's envelopes, in order.
pub fn data_hash(data: &[Vec<u8>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for envelope in data {
        hash.update(envelope);
    }
    hash.finalize().into()
}

/// What is wrong with a block's place in its chain.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChainError {
    /// The block has no header or no data.
    #[error("a block arrived without its {0}")]
    Missing(&'static str),
    /// The block has another number than the next one.
    #[error("block {found} arrived where block {expected} was expected")]
    Number {
        /// The number that follows the last verified block.
        expected: u64,
        /// The number in the header.
        found: u64,
    },
    /// The block names another predecessor.
    #[error("block {number} does not follow block {}: its previous hash is {found}, expected {expected}", number.saturating_sub(1))]
    PreviousHash {
        /// The block's number.
        number: u64,
        /// The hash of the verified predecessor's header, hexadecimal.
        expected: String,
        /// The hash in the header, hexadecimal.
        found: String,
    },
    /// The data is not what the header commits to.
    #[error("block {number} was altered: its transactions hash to {computed}, its header says {claimed}")]
    DataHash {
        /// The block's number.
        number: u64,
        /// The hash of the data that arrived, hexadecimal.
        computed: String,
        /// The hash in the header, hexadecimal.
        claimed: String,
    },
}

/// Checks that `block` is number `expected`, that its data is what its header says, and that it follows a header with
/// the hash `previous` (`None`: the first block of a channel, whose previous hash is empty). Returns the header's hash.
pub fn check_link(block: &Block, expected: u64, previous: Option<&[u8]>) -> Result<[u8; 32], ChainError> {
    let header = block.header.as_ref().ok_or(ChainError::Missing("header"))?;
    let data = block.data.as_ref().ok_or(ChainError::Missing("data"))?;
    if header.number != expected {
        return Err(ChainError::Number {
            expected,
            found: header.number,
        });
    }
    let wanted = previous.unwrap_or_default();
    if header.previous_hash != wanted {
        return Err(ChainError::PreviousHash {
            number: header.number,
            expected: hex::encode(wanted),
            found: hex::encode(&header.previous_hash),
        });
    }
    let computed = data_hash(&data.data);
    if header.data_hash != computed {
        return Err(ChainError::DataHash {
            number: header.number,
            computed: hex::encode(computed),
            claimed: hex::encode(&header.data_hash),
        });
    }
    Ok(header_hash(header))
}

fn push_integer(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    let significant = &bytes[first..];
    // DER integers are signed: a set top bit needs a zero byte before it.
    let padding = usize::from(significant[0] & 0x80 != 0);
    push_header(out, 0x02, significant.len() + padding);
    out.extend(std::iter::repeat_n(0, padding));
    out.extend_from_slice(significant);
}

fn push_octets(out: &mut Vec<u8>, octets: &[u8]) {
    push_header(out, 0x04, octets.len());
    out.extend_from_slice(octets);
}

fn push_header(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let bytes = length.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
    out.push(0x80 | (bytes.len() - first) as u8);
    out.extend_from_slice(&bytes[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::BlockData;

    fn header(number: u64, previous: &[u8], data: &[u8]) -> BlockHeader {
        BlockHeader {
            number,
            previous_hash: previous.to_vec(),
            data_hash: data.to_vec(),
        }
    }

    #[test]
    fn headers_are_der() {
        assert_eq!(
            hex::encode(header_bytes(&header(0, b"", b"\x01"))),
            "3008020100040004 0101".replace(' ', "")
        );
        assert_eq!(hex::encode(header_bytes(&header(127, b"", b""))), "300702017f04000400");
        assert_eq!(hex::encode(header_bytes(&header(128, b"", b""))), "30080202008004000400");
        assert_eq!(
            hex::encode(header_bytes(&header(u64::MAX, b"", b""))),
            "300f020900ffffffffffffffff04000400"
        );
        let long = header_bytes(&header(1, &[7; 100], &[8; 100]));
        assert_eq!(&long[..3], &[0x30, 0x81, 3 + 102 + 102]);
    }

    #[test]
    fn a_link_is_checked_in_every_part() {
        let data = vec![b"one".to_vec(), b"two".to_vec()];
        let block = Block {
            header: Some(header(4, b"before", &data_hash(&data))),
            data: Some(BlockData { data }),
            metadata: None,
        };
        assert!(check_link(&block, 4, Some(b"before")).is_ok());
        assert!(matches!(
            check_link(&block, 5, Some(b"before")),
            Err(ChainError::Number { expected: 5, found: 4 })
        ));
        assert!(matches!(
            check_link(&block, 4, Some(b"other")),
            Err(ChainError::PreviousHash { number: 4, .. })
        ));
        let mut altered = block.clone();
        altered.data = Some(BlockData {
            data: vec![b"one".to_vec()],
        });
        assert!(matches!(
            check_link(&altered, 4, Some(b"before")),
            Err(ChainError::DataHash { number: 4, .. })
        ));
        altered.data = None;
        assert_eq!(check_link(&altered, 4, Some(b"before")), Err(ChainError::Missing("data")));
    }
}
