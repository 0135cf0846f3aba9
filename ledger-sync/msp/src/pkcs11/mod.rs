//! Signing with a key that stays in a token: an HSM, a smart card or SoftHSM, behind its PKCS#11 module.
//!
//! A signer needs nothing but a token and a key. It keeps a few sessions, logs in again when they are lost, and starts the
//! module anew when that is what it takes. The key is tried when it is opened: what it signs has to verify with the
//! certificate. Nothing here outlives the process, and nothing is shared with one that it forks.

mod error;
mod module;
mod token;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use sha2::{Digest, Sha256};

use crate::{Certificate, MspError, Signer, signature};

pub use error::TokenError;
use module::{Failed, Module};
use token::Session;
pub use token::{KeyName, PinSource, Place, TokenName};

/// The most sessions that one signer holds: as many signatures are made at once.
const LANES: usize = 4;
/// How often one signature is tried: as it stands, with a new session, with the module started anew.
const TRIES: usize = 3;
/// What is signed to find out whether the key is the certificate's. No message of the ledger, no report and no commit begins so.
const QUESTION: &[u8] = b"charter: does this key belong to the certificate?";

/// A signer whose key is in a token.
pub struct Pkcs11Signer {
    msp_id: String,
    certificate_pem: String,
    certificate: Certificate,
    place: Place,
    module: Arc<Module>,
    lanes: [Mutex<Option<Session>>; LANES],
}

impl Pkcs11Signer {
    /// Loads the module, logs in to the token, finds the key, and checks that it belongs to the certificate.
    ///
    /// A key without a label and an id is found by the id that Fabric's own tools give it: SHA-256 of the public point.
    pub fn open(msp_id: &str, certificate_pem: &[u8], place: Place) -> Result<Self, MspError> {
        let certificate = Certificate::from_pem(certificate_pem)?;
        let certificate_pem = String::from_utf8(certificate_pem.to_vec()).map_err(|_| MspError::Certificate("it is not text".into()))?;
        let signer = Self {
            msp_id: msp_id.to_owned(),
            certificate_pem,
            module: Module::load(&place.module)?,
            certificate,
            place,
            lanes: Default::default(),
        };
        let mut lane = signer.lane();
        let raw = signer.attempt(&mut lane, &Sha256::digest(QUESTION));
        drop(lane);
        signer.finished(QUESTION, &raw.map_err(|failed| failed.error)?)?;
        Ok(signer)
    }

    /// Takes a lane that nobody uses, the first ones first; waits where all are in use.
    fn lane(&self) -> MutexGuard<'_, Option<Session>> {
        for lane in &self.lanes {
            match lane.try_lock() {
                Ok(lane) => return lane,
                // Whoever panicked left a session that works, or one that is replaced when it doesn't.
                Err(TryLockError::Poisoned(lane)) => return lane.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.first_lane()
    }

    fn first_lane(&self) -> MutexGuard<'_, Option<Session>> {
        self.lanes[0].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the token sign a digest once, in the lane's session or in a new one.
    fn attempt(&self, lane: &mut Option<Session>, digest: &[u8]) -> Result<Vec<u8>, Failed> {
        self.module.call(|context, generation| {
            if lane.as_ref().is_some_and(|session| session.generation() != generation) {
                // It ended with the module that it was opened in; its number may be another session's now.
                *lane = None;
            }
            let session = match lane {
                Some(session) => session,
                None => lane.insert(Session::open(
                    context,
                    generation,
                    &self.module,
                    &self.place,
                    self.certificate.public_key(),
                )?),
            };
            session.sign(&self.place, digest)
        })
    }

    /// Has the token sign a digest, whatever sessions were lost.
    fn raw(&self, digest: &[u8]) -> Result<Vec<u8>, TokenError> {
        let mut lane = self.lane();
        for left in (0..TRIES).rev() {
            let failed = match self.attempt(&mut lane, digest) {
                Ok(raw) => return Ok(raw),
                Err(failed) => failed,
            };
            self.module.close(lane.take());
            if left == 0 || !failed.error.transient() {
                return Err(failed.error);
            }
            if failed.error.no_more_sessions() {
                drop(lane);
                lane = self.first_lane();
            } else if left == 1 || failed.error.not_started() {
                self.module.restart(failed.generation)?;
            }
        }
        Err(TokenError::Answer {
            token: self.place.token.to_string(),
            what: "nothing",
        })
    }

    /// Makes the DER of a token's signature, with the lower of the two possible `s`, and checks it with the certificate: a key
    /// that was exchanged in the token never signs in the member's name.
    fn finished(&self, message: &[u8], raw: &[u8]) -> Result<Vec<u8>, MspError> {
        let answer = |what| TokenError::Answer {
            token: self.place.token.to_string(),
            what,
        };
        let signature = p256::ecdsa::Signature::from_slice(raw).map_err(|_| answer("no signature of 64 bytes on P-256"))?;
        let der = signature.normalize_s().to_der();
        signature::verify(&self.certificate, message, der.as_bytes()).map_err(|_| TokenError::NotItsKey {
            token: self.place.token.to_string(),
            key: self.place.key.to_string(),
            subject: self.certificate.common_name().to_owned(),
        })?;
        Ok(der.as_bytes().to_vec())
    }
}

impl Signer for Pkcs11Signer {
    fn msp_id(&self) -> &str {
        &self.msp_id
    }

    fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Waits for the token.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, MspError> {
        let raw = self.raw(&Sha256::digest(message))?;
        self.finished(message, &raw)
    }
}

impl Drop for Pkcs11Signer {
    fn drop(&mut self) {
        for lane in &mut self.lanes {
            let session = lane.get_mut().unwrap_or_else(PoisonError::into_inner).take();
            self.module.close(session);
        }
    }
}

impl fmt::Debug for Pkcs11Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.certificate.common_name();
        formatter
            .debug_struct("Pkcs11Signer")
            .field("msp_id", &self.msp_id)
            .field("subject", &subject)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
