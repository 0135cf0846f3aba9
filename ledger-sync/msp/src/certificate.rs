//! A parsed X.509 certificate with a P-256 key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::MspError;

/// The largest certificate that is parsed, PEM or DER, in bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The facts of a certificate that membership needs. It says nothing about who vouches for it: see
/// [`MspSet`](crate::MspSet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    public_key: Vec<u8>,
    common_name: String,
    organizational_units: Vec<String>,
    not_before: i64,
    not_after: i64,
}

impl Certificate {
    /// Parses one PEM block.
    pub fn from_pem(pem: &[u8]) -> Result<Self, MspError> {
        Self::from_der(&pem_to_der(pem)?)
    }

    /// Parses DER.
    pub fn from_der(der: &[u8]) -> Result<Self, MspError> {
        let parsed = parse(der)?;
        let key = parsed.public_key();
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
            return Err(MspError::Certificate("its key is not on the curve P-256".into()));
        }
        let public_key = key.subject_public_key.data.to_vec();
        p256::PublicKey::from_sec1_bytes(&public_key)
            .map_err(|_| MspError::Certificate("its public key is not a point of the curve".into()))?;
        let names = |attributes: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| -> Vec<String> {
            attributes
                .into_iter()
                .filter_map(|value| value.as_str().ok())
                .map(str::to_owned)
                .collect()
        };
        let subject = parsed.subject();
        let common_name = names(subject.iter_common_name().collect()).into_iter().next().unwrap_or_default();
        Ok(Self {
            der: der.to_vec(),
            public_key,
            common_name,
            organizational_units: names(subject.iter_organizational_unit().collect()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// Returns the certificate's DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the serial number that its authority gave it, big-endian.
    pub fn serial(&self) -> Result<Vec<u8>, MspError> {
        Ok(parse(&self.der)?.raw_serial().to_vec())
    }

    /// Encodes the certificate as PEM.
    pub fn to_pem(&self) -> String {
        der_to_pem(&self.der)
    }

    /// Returns the public point, uncompressed (65 bytes).
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// Returns the subject's common name, empty where it has none.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// Returns the subject's organizational units.
    pub fn organizational_units(&self) -> &[String] {
        &self.organizational_units
    }

    /// Returns the start of the validity, Unix seconds.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Returns the end of the validity, Unix seconds.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Checks that the certificate's end has not passed at `now` (Unix seconds).
    pub fn check_expiry(&self, now: i64) -> Result<(), MspError> {
        if now > self.not_after {
            return Err(MspError::Expired {
                subject: self.common_name.clone(),
                not_after: self.not_after,
            });
        }
        Ok(())
    }
}

/// A day as people write it, in UTC.
pub(crate) fn day(seconds: i64) -> String {
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!("{:04}-{:02}-{:02} (UTC)", at.year(), u8::from(at.month()), at.day()),
        Err(_) => format!("{seconds} (Unix seconds)"),
    }
}

/// Names a signer's key: the MSP id, a colon, and the hexadecimal SHA-256 of the certificate's DER.
pub fn key_id(msp_id: &str, certificate: &Certificate) -> String {
    format!("{msp_id}:{}", hex::encode(Sha256::digest(certificate.der())))
}

/// Takes the DER out of the first PEM block, which must be a certificate.
pub(crate) fn pem_to_der(pem: &[u8]) -> Result<Vec<u8>, MspError> {
    if pem.len() > MAX_CERTIFICATE_BYTES {
        return Err(MspError::Certificate("it is too large".into()));
    }
    let (_, block) =
        x509_parser::pem::parse_x509_pem(pem).map_err(|error| MspError::Certificate(format!("its PEM cannot be parsed: {error}")))?;
    if block.label != "CERTIFICATE" {
        return Err(MspError::Certificate(format!(
            "a PEM block «CERTIFICATE» was expected, «{}» found",
            block.label
        )));
    }
    Ok(block.contents)
}

/// Parses DER and refuses what this crate would not honour: trailing bytes and unknown critical extensions.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, MspError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(MspError::Certificate("it is too large".into()));
    }
    let (rest, parsed) =
        X509Certificate::from_der(der).map_err(|error| MspError::Certificate(format!("its DER cannot be parsed: {error}")))?;
    if !rest.is_empty() {
        return Err(MspError::Certificate("bytes follow its DER".into()));
    }
    for extension in parsed.extensions().iter().filter(|extension| extension.critical) {
        let honoured = matches!(
            extension.parsed_extension(),
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        );
        if !honoured {
            return Err(MspError::Certificate(format!(
                "its critical extension {} is not known",
                extension.oid
            )));
        }
    }
    Ok(parsed)
}

fn der_to_pem(der: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let encoded = STANDARD.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
