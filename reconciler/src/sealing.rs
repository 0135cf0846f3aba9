//! Sealing terms to the parties of a negotiation, and opening them: HPKE (RFC 9180), by a library.
//!
//! The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, in base mode. Terms are sealed once, to a key pair that is made
//! for their envelope and never used again; its private half is sealed to each party. Both are bound to channel, negotiation, round,
//! offerer and digest, so an envelope opens in its own place only. Who offered is known by the transaction's signature, not by HPKE.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable};
use msp::{MspError, folder};
use ring::rand::{SecureRandom as _, SystemRandom};
use state::canonical::{CanonicalError, Digest};
use state::ids::MemberId;
use state::sealed::{Binding, Ciphertext, CiphertextError, Envelope, PublicKey, Wrapped};
use state::terms::{PackError, Salt, Salted, Terms, UnpackError};
use thiserror::Error;

use crate::config::Config;

type Suite = X25519HkdfSha256;
type PrivateKey = <Suite as Kem>::PrivateKey;
type Public = <Suite as Kem>::PublicKey;
type Encapsulated = <Suite as Kem>::EncappedKey;

/// What the encryption of terms is for: no other use of the same keys opens it.
const OF_TERMS: &[u8] = b"charter negotiation terms v1";
/// What the encryption of an envelope's key is for.
const OF_KEY: &[u8] = b"charter negotiation envelope key v1";
/// The folder of a member's private keys, below its configuration.
const FOLDER: &str = "identity/negotiation";

/// Terms could not be sealed or opened.
#[derive(Debug, Error)]
pub enum SealError {
    /// A party's key is none.
    #[error("the key that {0} has published can't be sealed to")]
    Key(MemberId),
    /// Nobody sealed them to this member.
    #[error("the terms are not sealed to {0}: only the parties of a negotiation can read them")]
    NotAddressed(MemberId),
    /// The private key is not here.
    #[error("the private key that the terms are sealed to is not in {}: it was made on another machine, or is lost", .0.display())]
    NoKey(PathBuf),
    /// A key file can't be read or written.
    #[error("the member's negotiation key can't be used")]
    File(#[from] MspError),
    /// A key file holds no key.
    #[error("{} holds no private key", .0.display())]
    NoKeyIn(PathBuf),
    /// The envelope doesn't open: it was changed, or is of another place.
    #[error("the envelope does not open: it was changed, or sealed for another channel, negotiation, round or member")]
    Open,
    /// The library could not seal.
    #[error("the terms can't be sealed")]
    Seal,
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// What was sealed has an impossible size.
    #[error("the terms can't be sealed")]
    Size(#[from] CiphertextError),
    /// The terms are too long.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// What was opened is not what the market says.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Something has no canonical form.
    #[error("the terms' place can't be encoded")]
    Encode(#[from] CanonicalError),
}

/// A member's private keys on its machine, one file each, for its owner's eyes only.
#[derive(Clone, Debug)]
pub struct KeyRing {
    folder: PathBuf,
}

impl KeyRing {
    /// The keys of a member.
    pub fn of(config: &Config) -> Self {
        Self {
            folder: config.folder().join(FOLDER),
        }
    }

    /// The keys in a folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, public: PublicKey) -> PathBuf {
        self.folder.join(format!("{public}.key"))
    }

    /// Whether the private half of a key is here.
    pub fn has(&self, public: PublicKey) -> bool {
        self.path(public).is_file()
    }

    /// Makes a new key pair, keeps the private half, and gives the public one. Older ones stay, to read older rounds.
    pub fn make(&self) -> Result<PublicKey, SealError> {
        let (private, public) = pair()?;
        let public = written(&public);
        let text = format!("{}\n", hex::encode(private.to_bytes()));
        folder::write_file(&self.path(public), text.as_bytes(), folder::Readers::Owner)?;
        Ok(public)
    }

    fn private(&self, public: PublicKey) -> Result<PrivateKey, SealError> {
        let path = self.path(public);
        if !path.exists() {
            return Err(SealError::NoKey(self.folder.clone()));
        }
        let text = folder::read_key(&path)?;
        let bytes = hex::decode(text.trim_ascii()).ok();
        bytes
            .and_then(|bytes| PrivateKey::from_bytes(&bytes).ok())
            .ok_or(SealError::NoKeyIn(path))
    }
}

/// Seals terms to every party. The place's digest has to be that of the terms.
pub fn seal(salted: &Salted, place: &Binding<'_>, to: &BTreeMap<MemberId, PublicKey>) -> Result<Envelope, SealError> {
    let (private, public) = pair()?;
    let (enc, sealed) = sealed_to(&public, OF_TERMS, &salted.pack()?, &place.of_text()?).map_err(|_| SealError::Seal)?;
    let private = private.to_bytes();
    let mut wrapped = BTreeMap::new();
    for (member, key) in to {
        let refused = || SealError::Key(member.clone());
        let recipient = Public::from_bytes(key.as_bytes()).map_err(|_| refused())?;
        let (enc, sealed) = sealed_to(&recipient, OF_KEY, &private, &place.of_key(member)?).map_err(|_| refused())?;
        let sealed = Ciphertext::new(sealed)?;
        wrapped.insert(member.clone(), Wrapped { key: *key, enc, sealed });
    }
    Ok(Envelope {
        key: written(&public),
        enc,
        sealed: Ciphertext::new(sealed)?,
        to: wrapped,
    })
}

/// Opens terms with a member's key, and holds them to the place's digest.
pub fn open(envelope: &Envelope, place: &Binding<'_>, member: &MemberId, keys: &KeyRing) -> Result<Salted, SealError> {
    let wrapped = envelope.to.get(member).ok_or_else(|| SealError::NotAddressed(member.clone()))?;
    let own = keys.private(wrapped.key)?;
    let private = opened(&own, wrapped.enc, OF_KEY, &wrapped.sealed, &place.of_key(member)?)?;
    let private = PrivateKey::from_bytes(&private).map_err(|_| SealError::Open)?;
    if written(&Suite::sk_to_pk(&private)) != envelope.key {
        return Err(SealError::Open);
    }
    let text = opened(&private, envelope.enc, OF_TERMS, &envelope.sealed, &place.of_text()?)?;
    Ok(Salted::unpack(&text, place.digest)?)
}

/// Terms with a new salt, and their digest.
pub fn salted(terms: Terms) -> Result<(Salted, Digest), SealError> {
    let salt = Salt::from_bytes(random()?);
    let salted = Salted { salt, terms };
    let digest = salted.digest()?;
    Ok((salted, digest))
}

fn sealed_to(to: &Public, purpose: &[u8], text: &[u8], place: &[u8]) -> Result<(PublicKey, Vec<u8>), HpkeError> {
    let (enc, sealed) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, Suite>(&OpModeS::Base, to, purpose, text, place)?;
    Ok((PublicKey::from_bytes(enc.to_bytes().into()), sealed))
}

fn opened(own: &PrivateKey, enc: PublicKey, purpose: &[u8], sealed: &Ciphertext, place: &[u8]) -> Result<Vec<u8>, SealError> {
    let enc = Encapsulated::from_bytes(enc.as_bytes()).map_err(|_| SealError::Open)?;
    hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Suite>(&OpModeR::Base, own, &enc, purpose, sealed.as_bytes(), place)
        .map_err(|_| SealError::Open)
}

/// A new key pair.
fn pair() -> Result<(PrivateKey, Public), SealError> {
    Ok(Suite::derive_keypair(&random()?))
}

fn random() -> Result<[u8; 32], SealError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SealError::Random)?;
    Ok(bytes)
}

fn written(public: &Public) -> PublicKey {
    PublicKey::from_bytes(public.to_bytes().into())
}

#[cfg(test)]
mod tests;
