//! Verifying signatures: ECDSA P-256 over SHA-256, DER, low S only.

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::{Certificate, MspError};

/// The largest DER signature on P-256, in bytes.
const MAX_SIGNATURE_BYTES: usize = 72;

/// Verifies a signature with a certificate's key.
pub fn verify(certificate: &Certificate, message: &[u8], signature: &[u8]) -> Result<(), MspError> {
    verify_key(certificate.public_key(), message, signature)
}

/// Verifies a signature with an uncompressed public point (65 bytes).
///
/// A signature with the upper of its two possible `s` is refused even where it fits, as Fabric does: without this anyone
/// could turn one valid signature into another.
pub fn verify_key(public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), MspError> {
    if signature.is_empty() || signature.len() > MAX_SIGNATURE_BYTES {
        return Err(MspError::Signature("it is empty or too long"));
    }
    let parsed = p256::ecdsa::Signature::from_der(signature).map_err(|_| MspError::Signature("it is not DER"))?;
    if parsed.normalize_s() != parsed {
        return Err(MspError::Signature("its S is not the lower one"));
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key)
        .verify(message, parsed.to_bytes().as_slice())
        .map_err(|_| MspError::Signature("it does not fit the message and the key"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;

    /// The order of the curve minus `s`: the other signature that fits.
    fn with_high_s(der: &[u8]) -> Vec<u8> {
        let signature = p256::ecdsa::Signature::from_der(der).unwrap();
        let (r, s) = signature.split_scalars();
        p256::ecdsa::Signature::from_scalars(r, -s).unwrap().to_der().as_bytes().to_vec()
    }

    #[test]
    fn every_signature_is_low_and_the_high_twin_is_refused() {
        let key = PrivateKey::generate().unwrap();
        for round in 0..32u8 {
            let message = [round; 40];
            let signature = key.sign(&message).unwrap();
            verify_key(key.public_key(), &message, &signature).unwrap();
            let error = verify_key(key.public_key(), &message, &with_high_s(&signature)).unwrap_err();
            assert!(error.to_string().contains("lower one"), "{error}");
            assert!(verify_key(key.public_key(), b"other", &signature).is_err());
        }
    }

    #[test]
    fn rubbish_is_refused() {
        let key = PrivateKey::generate().unwrap();
        for rubbish in [&b""[..], b"\x30\x00", b"\x30\x06\x02\x01\x00\x02\x01\x00", &[0x30; 200]] {
            assert!(verify_key(key.public_key(), b"m", rubbish).is_err());
        }
    }

    #[test]
    fn both_key_formats_are_read() {
        let key = PrivateKey::generate().unwrap();
        let pkcs8 = key.to_pem().unwrap();
        assert_eq!(PrivateKey::from_pem(pkcs8.as_bytes()).unwrap().public_key(), key.public_key());
        let sec1 = p256::SecretKey::from_slice(&[7; 32])
            .unwrap()
            .to_sec1_pem(p256::pkcs8::LineEnding::LF)
            .unwrap();
        PrivateKey::from_pem(sec1.as_bytes()).unwrap();
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        PrivateKey::from_pem(format!("{parameters}{}", sec1.as_str()).as_bytes()).unwrap();
        assert!(PrivateKey::from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
    }
}
