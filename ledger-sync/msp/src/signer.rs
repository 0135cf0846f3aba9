//! Signing as one member.

use std::fmt;
use std::path::Path;

use prost::Message;
use protos::msp::SerializedIdentity;

use crate::key::PrivateKey;
use crate::{Certificate, MspError, folder};

/// One identity that can sign. Where its key lives is the implementation's affair.
pub trait Signer: Send + Sync {
    /// Returns the id of the membership service provider, for example `CityMSP`.
    fn msp_id(&self) -> &str;

    /// Returns the certificate's PEM, exactly as it stands in [`identity`](Self::identity).
    fn certificate_pem(&self) -> &str;

    /// Returns the parsed certificate.
    fn certificate(&self) -> &Certificate;

    /// Signs SHA-256 of the message: ECDSA P-256, DER, low S.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, MspError>;

    /// Encodes the `SerializedIdentity` that stands as creator in headers and endorsements.
    fn identity(&self) -> Vec<u8> {
        serialize_identity(self.msp_id(), self.certificate_pem().as_bytes())
    }
}

/// Encodes a `SerializedIdentity`.
pub fn serialize_identity(msp_id: &str, certificate_pem: &[u8]) -> Vec<u8> {
    SerializedIdentity {
        mspid: msp_id.to_owned(),
        id_bytes: certificate_pem.to_vec(),
    }
    .encode_to_vec()
}

/// A signer whose key is in this process's memory.
pub struct PemSigner {
    msp_id: String,
    certificate_pem: String,
    certificate: Certificate,
    key: PrivateKey,
}

impl PemSigner {
    /// Builds a signer from a certificate and its key, PKCS#8 or SEC1.
    pub fn new(msp_id: &str, certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, MspError> {
        let certificate = Certificate::from_pem(certificate_pem)?;
        let key = PrivateKey::from_pem(key_pem)?;
        if key.public_key() != certificate.public_key() {
            return Err(MspError::KeyMismatch(certificate.common_name().to_owned()));
        }
        let certificate_pem = String::from_utf8(certificate_pem.to_vec()).map_err(|_| MspError::Certificate("it is not text".into()))?;
        Ok(Self {
            msp_id: msp_id.to_owned(),
            certificate_pem,
            certificate,
            key,
        })
    }

    /// Reads a signer from two PEM files. The key's may be open to its owner only.
    pub fn from_files(certificate: &Path, key: &Path, msp_id: &str) -> Result<Self, MspError> {
        let certificate_pem = folder::read_certificate(certificate)?;
        let key_pem = folder::read_key(key)?;
        Self::new(msp_id, &certificate_pem, &key_pem).map_err(|source| MspError::KeyFile {
            path: key.to_owned(),
            source: Box::new(source),
        })
    }

    /// Reads a signer from a folder in Fabric's MSP layout: `signcerts/` and `keystore/`.
    pub fn from_msp_dir(path: &Path, msp_id: &str) -> Result<Self, MspError> {
        let (certificate, key) = folder::read_signing_pair(path)?;
        Self::new(msp_id, &certificate, &key)
    }
}

impl Signer for PemSigner {
    fn msp_id(&self) -> &str {
        &self.msp_id
    }

    fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, MspError> {
        self.key.sign(message)
    }
}

impl fmt::Debug for PemSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.certificate.common_name();
        formatter
            .debug_struct("PemSigner")
            .field("msp_id", &self.msp_id)
            .field("subject", &subject)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use p256::pkcs8::LineEnding;

    use super::*;
    use crate::folder::{Readers, write_file};
    use crate::{CertificateAuthority, Enrolment, Issued, Role, verify};

    fn issued() -> Issued {
        let ca = CertificateAuthority::create("City", "ca.city", 1_780_000_000).unwrap();
        let charter = Enrolment::Member {
            name: "charter",
            role: Role::Client,
        };
        ca.enrol("City", &charter, 1_780_000_000).unwrap()
    }

    /// The same key in SEC1, as `openssl ecparam -genkey` writes it.
    fn sec1(issued: &Issued) -> String {
        use p256::pkcs8::DecodePrivateKey;
        let key = p256::SecretKey::from_pkcs8_pem(&issued.key_pem).unwrap();
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        format!("{parameters}{}", key.to_sec1_pem(LineEnding::LF).unwrap().as_str())
    }

    #[test]
    fn key_files_of_both_kinds_sign_and_others_are_refused_by_name() {
        let place = tempfile::tempdir().unwrap();
        let (certificate, key) = (place.path().join("cert.pem"), place.path().join("city.pem"));
        let issued = issued();
        write_file(&certificate, issued.certificate_pem.as_bytes(), Readers::Everybody).unwrap();
        let write = |content: &str| write_file(&key, content.as_bytes(), Readers::Owner).unwrap();
        for content in [issued.key_pem.clone(), sec1(&issued)] {
            write(&content);
            let signer = PemSigner::from_files(&certificate, &key, "CityMSP").unwrap();
            verify(signer.certificate(), b"m", &signer.sign(b"m").unwrap()).unwrap();
            assert!(!format!("{signer:?}").contains("PRIVATE"));
        }
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHs\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let stranger = self::issued().key_pem;
        for (content, why) in [
            (encrypted, "encrypted with a passphrase"),
            ("no key at all", "cannot be parsed"),
            (stranger.as_str(), "does not belong to the certificate of charter"),
        ] {
            write(content);
            let error = PemSigner::from_files(&certificate, &key, "CityMSP").unwrap_err();
            assert!(error.to_string().contains("city.pem"), "{error}");
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(why), "{source}");
        }
        let error = PemSigner::from_files(&key, &key, "CityMSP").unwrap_err();
        assert!(matches!(error, MspError::CertificateFile { .. }), "{error}");
        write_file(&key, issued.key_pem.as_bytes(), Readers::Everybody).unwrap();
        let error = PemSigner::from_files(&certificate, &key, "CityMSP").unwrap_err();
        assert!(matches!(error, MspError::Exposed { mode: 0o644, .. }), "{error}");
    }
}
