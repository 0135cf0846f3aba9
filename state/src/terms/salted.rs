//! Terms with their salt: what is sealed, and what digests on a market are of.
//!
//! Who guesses β and dates could check the guess by a digest. So every digest on a market covers a salt that only the parties know.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Terms;
use crate::canonical::{self, CanonicalError, Digest};
use crate::sealed::MAX_TEXT;

/// Sealed terms are as long as a multiple of so many bytes: their length tells rivals little.
pub const PAGE: usize = 4 * 1024;

/// 32 random bytes that only the parties know, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Salt([u8; 32]);

/// A text is not a salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a salt is written as 64 lower-case hexadecimal digits")]
pub struct SaltError;

impl Salt {
    /// Takes random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt")
    }
}

impl TryFrom<String> for Salt {
    type Error = SaltError;
    fn try_from(text: String) -> Result<Self, SaltError> {
        let mut out = [0; 32];
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(SaltError);
        }
        hex::decode_to_slice(&text, &mut out).map_err(|_| SaltError)?;
        Ok(Self(out))
    }
}

impl From<Salt> for String {
    fn from(salt: Salt) -> String {
        hex::encode(salt.0)
    }
}

/// Terms with their salt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Salted {
    /// The salt.
    pub salt: Salt,
    /// The terms.
    pub terms: Terms,
}

/// An opened envelope holds no terms.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// It is no JSON, or none of terms.
    #[error("the envelope holds no terms that this Charter reads")]
    Malformed(#[source] serde_json::Error),
    /// It holds other terms than those that the parties would sign.
    #[error("the envelope holds other terms than the digest on the market says")]
    OtherTerms,
    /// The terms have no canonical form.
    #[error("the terms have no canonical form")]
    Encode(#[from] CanonicalError),
}

/// Terms are too long to be sealed.
#[derive(Debug, Error)]
pub enum PackError {
    /// Over [`MAX_TEXT`].
    #[error("the terms have {found} bytes with their padding; the limit is {MAX_TEXT}: move texts out of them, or order less at once")]
    TooLarge {
        /// How many there are.
        found: usize,
    },
    /// They have no canonical form.
    #[error("the terms have no canonical form")]
    Encode(#[from] CanonicalError),
}

impl Salted {
    /// The digest of the terms on the market: over salt and canonical terms.
    pub fn digest(&self) -> Result<Digest, CanonicalError> {
        canonical::digest(self)
    }

    /// The digest of the agreement on the market: over the salt and the digest that members accept in their channel.
    pub fn agreement_digest(&self) -> Result<Digest, CanonicalError> {
        #[derive(Serialize)]
        struct Resulting {
            agreement: Digest,
            salt: Salt,
        }
        canonical::digest(&Resulting {
            agreement: self.terms.agreement.digest()?,
            salt: self.salt,
        })
    }

    /// The text to seal: canonical, and filled up with spaces.
    pub fn pack(&self) -> Result<Vec<u8>, PackError> {
        let mut text = canonical::bytes(self)?;
        text.resize(text.len().next_multiple_of(PAGE), b' ');
        if text.len() > MAX_TEXT {
            return Err(PackError::TooLarge { found: text.len() });
        }
        Ok(text)
    }

    /// Reads a text that was sealed, and holds it to the digest on the market.
    pub fn unpack(text: &[u8], digest: Digest) -> Result<Self, UnpackError> {
        let salted: Salted = serde_json::from_slice(text).map_err(UnpackError::Malformed)?;
        if salted.digest()? != digest {
            return Err(UnpackError::OtherTerms);
        }
        Ok(salted)
    }
}
