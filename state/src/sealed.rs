//! An envelope that only its addressees can open: what a channel may keep of terms that rivals must not read.
//!
//! These are the bounded types and what binds an envelope to its place. Sealing and opening need randomness and private keys, so they
//! are a member's own business: HPKE (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::canonical::{self, CanonicalError, Digest};
use crate::ids::{Channel, MemberId, NegotiationId};

/// The largest text that is sealed, in bytes, its padding included.
pub const MAX_TEXT: usize = 64 * 1024;
/// What the encryption adds, in bytes.
pub const TAG: usize = 16;
/// A private key in its envelope, in bytes.
pub const WRAPPED: usize = 32 + TAG;

/// An X25519 public key, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// A text is not a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a public key is written as 64 lower-case hexadecimal digits")]
pub struct PublicKeyError;

impl PublicKey {
    /// Takes a key made elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl TryFrom<String> for PublicKey {
    type Error = PublicKeyError;
    fn try_from(text: String) -> Result<Self, PublicKeyError> {
        let mut out = [0; 32];
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(PublicKeyError);
        }
        hex::decode_to_slice(&text, &mut out).map_err(|_| PublicKeyError)?;
        Ok(Self(out))
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

/// Sealed bytes, written in base64; never longer than a sealed text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ciphertext(Vec<u8>);

/// A text is no ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("sealed bytes are written in base64, {TAG} to {most} bytes of them", most = MAX_TEXT + TAG)]
pub struct CiphertextError;

impl Ciphertext {
    /// Takes sealed bytes, if they are neither too few nor too many.
    pub fn new(bytes: Vec<u8>) -> Result<Self, CiphertextError> {
        if (TAG..=MAX_TEXT + TAG).contains(&bytes.len()) {
            return Ok(Self(bytes));
        }
        Err(CiphertextError)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ciphertext({} bytes)", self.0.len())
    }
}

impl TryFrom<String> for Ciphertext {
    type Error = CiphertextError;
    fn try_from(text: String) -> Result<Self, CiphertextError> {
        STANDARD.decode(text).map_err(|_| CiphertextError).and_then(Self::new)
    }
}

impl From<Ciphertext> for String {
    fn from(sealed: Ciphertext) -> String {
        STANDARD.encode(sealed.0)
    }
}

/// The envelope's private key, sealed to one addressee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapped {
    /// The addressee's public key.
    pub key: PublicKey,
    /// HPKE's encapsulated key.
    pub enc: PublicKey,
    /// The envelope's private key, sealed.
    pub sealed: Ciphertext,
}

/// A text for several addressees: sealed once, to a key of its own; that key's private half is sealed to each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The envelope's own public key, made for it and never used again.
    pub key: PublicKey,
    /// HPKE's encapsulated key.
    pub enc: PublicKey,
    /// The text, sealed.
    pub sealed: Ciphertext,
    /// Who can open it.
    pub to: BTreeMap<MemberId, Wrapped>,
}

impl Envelope {
    /// The digest of the envelope, as the channel keeps it.
    pub fn digest(&self) -> Result<Digest, CanonicalError> {
        canonical::digest(self)
    }
}

/// Where an envelope belongs. It is authenticated with every part of it, so an envelope opens in its own place only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding<'a> {
    /// The channel.
    pub channel: &'a Channel,
    /// The negotiation.
    pub negotiation: &'a NegotiationId,
    /// The round, from 1.
    pub round: u32,
    /// Who sealed it.
    pub by: &'a MemberId,
    /// The digest of what is in it.
    pub digest: Digest,
}

impl Binding<'_> {
    /// What the text is authenticated with.
    pub fn of_text(&self) -> Result<Vec<u8>, CanonicalError> {
        canonical::bytes(self)
    }

    /// What the key for one addressee is authenticated with.
    pub fn of_key(&self, to: &MemberId) -> Result<Vec<u8>, CanonicalError> {
        #[derive(Serialize)]
        struct Addressed<'a> {
            #[serde(flatten)]
            place: &'a Binding<'a>,
            to: &'a MemberId,
        }
        canonical::bytes(&Addressed { place: self, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bounded_canonical_texts_are_read() {
        let key = "ab".repeat(32);
        assert_eq!(PublicKey::try_from(key.clone()).unwrap().to_string(), key);
        for bad in ["AB".repeat(32), "ab".repeat(31), "zz".repeat(32), String::new()] {
            assert!(PublicKey::try_from(bad.clone()).is_err(), "{bad}");
        }
        for (length, fits) in [(TAG - 1, false), (TAG, true), (MAX_TEXT + TAG, true), (MAX_TEXT + TAG + 1, false)] {
            assert_eq!(Ciphertext::try_from(STANDARD.encode(vec![7; length])).is_ok(), fits, "{length}");
        }
        // Two writings of the same bytes would be two digests.
        assert!(Ciphertext::try_from("AAAAAAAAAAAAAAAAAAAAAB==".to_owned()).is_err());
    }
}
