//! Transaction ids.

use sha2::{Digest, Sha256};

/// The number of random bytes in a proposal's nonce.
pub const NONCE_BYTES: usize = 24;

/// Computes a transaction's id: lower-case hexadecimal SHA-256 of the nonce followed by the serialized creator.
pub fn tx_id(nonce: &[u8], creator: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(nonce);
    hash.update(creator);
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::tx_id;

    #[test]
    fn the_id_hashes_nonce_then_creator() {
        // printf 'abc' | sha256sum
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(tx_id(b"a", b"bc"), expected);
        assert_eq!(tx_id(b"ab", b"c"), expected);
        assert_ne!(tx_id(b"bc", b"a"), expected);
    }
}
