//! A P-256 private key: parsing, generating, signing.

use p256::SecretKey;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::MspError;

/// The largest key file that is read, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 16 * 1024;

/// A private key ready to sign. It never prints itself.
pub(crate) struct PrivateKey {
    secret: SecretKey,
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl PrivateKey {
    pub(crate) fn generate() -> Result<Self, MspError> {
        let failed = |reason: String| MspError::Issue {
            action: "generate a key",
            reason,
        };
        let pair = rcgen::KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let secret = SecretKey::from_pkcs8_der(&pair.serialize_der()).map_err(|error| failed(error.to_string()))?;
        Self::new(secret)
    }

    /// Reads PKCS#8 (`PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`) text.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, MspError> {
        if pem.len() > MAX_KEY_BYTES {
            return Err(MspError::Key("the file is too large".into()));
        }
        // The parser's own message is left out: nothing of a key may reach an error.
        let text = std::str::from_utf8(pem).map_err(|_| MspError::Key("the file is not text".into()))?;
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(MspError::Key(
                "it is encrypted with a passphrase: decrypt it with `openssl pkcs8 -topk8 -nocrypt`, or keep it in a token".into(),
            ));
        }
        // OpenSSL writes the curve's parameters before a SEC1 key.
        let text = text.find("-----BEGIN EC PRIVATE KEY-----").map_or(text, |start| &text[start..]);
        let secret = if text.contains("BEGIN EC PRIVATE KEY") {
            SecretKey::from_sec1_pem(text).map_err(|_| MspError::Key("the SEC1 content cannot be parsed".into()))?
        } else {
            SecretKey::from_pkcs8_pem(text).map_err(|_| MspError::Key("the PKCS#8 content cannot be parsed".into()))?
        };
        Self::new(secret)
    }

    fn new(secret: SecretKey) -> Result<Self, MspError> {
        let random = SystemRandom::new();
        let public = secret.public_key().to_sec1_point(false);
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            secret.to_bytes().as_slice(),
            public.as_bytes(),
            &random,
        )
        .map_err(|_| MspError::Key("the key is not consistent".into()))?;
        Ok(Self { secret, pair, random })
    }

    pub(crate) fn to_pem(&self) -> Result<String, MspError> {
        let pem = self.secret.to_pkcs8_pem(LineEnding::LF);
        Ok(pem
            .map_err(|error| MspError::Issue {
                action: "encode a key",
                reason: error.to_string(),
            })?
            .to_string())
    }

    /// The public point, uncompressed (65 bytes).
    pub(crate) fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Signs SHA-256 of the message; the result is DER with the lower of the two possible `s`, as Fabric demands.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, MspError> {
        let failed = |reason: &str| MspError::Issue {
            action: "sign",
            reason: reason.to_owned(),
        };
        let fixed = self.pair.sign(&self.random, message).map_err(|_| failed("no randomness"))?;
        let signature = p256::ecdsa::Signature::from_slice(fixed.as_ref()).map_err(|_| failed("a zero scalar"))?;
        Ok(signature.normalize_s().to_der().as_bytes().to_vec())
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.public_key()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

// Certificates are signed with low S too: Fabric rewrites those that aren't before it compares them.
impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        PrivateKey::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
