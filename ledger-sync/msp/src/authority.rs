//! An organisation's own certificate authority.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::OffsetDateTime;

use crate::key::PrivateKey;
use crate::{Certificate, MspError};

/// How long before its issue a certificate becomes valid, so that a neighbour's slow clock takes it: five minutes.
const BACKDATED_SECONDS: i64 = 5 * 60;
/// How long an authority's own certificate is valid: fifteen years.
const AUTHORITY_SECONDS: i64 = 15 * 365 * 86_400;
/// How long an issued certificate is valid: ten years, never past its authority's.
const ENROLMENT_SECONDS: i64 = 10 * 365 * 86_400;

/// A member's role, as its certificate's organizational unit tells it (Fabric's NodeOUs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Submits transactions.
    Client,
    /// Endorses and commits.
    Peer,
    /// Administers the organisation.
    Admin,
    /// Orders blocks.
    Orderer,
}

impl Role {
    /// Every role, in the order of their names in Fabric's configuration.
    pub const ALL: [Self; 4] = [Self::Client, Self::Peer, Self::Admin, Self::Orderer];

    /// Returns the organizational unit that marks the role.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Admin => "admin",
            Self::Orderer => "orderer",
        }
    }
}

/// What a certificate is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolment<'a> {
    /// An identity that signs on the ledger.
    Member {
        /// The subject's common name.
        name: &'a str,
        /// The subject's role.
        role: Role,
    },
    /// A server's TLS certificate.
    TlsServer {
        /// The host names and addresses that it answers under.
        hosts: &'a [&'a str],
    },
}

/// An issued certificate with its new key.
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8 PEM. Keep it from logs and errors.
    pub key_pem: String,
}

/// A certificate authority: its certificate and its key.
pub struct CertificateAuthority {
    certificate: Certificate,
    certificate_pem: String,
    key: PrivateKey,
}

impl CertificateAuthority {
    /// Makes a new authority with a new key. `organisation` and `name` are its subject's organisation and common name;
    /// `now` is in Unix seconds.
    pub fn create(organisation: &str, name: &str, now: i64) -> Result<Self, MspError> {
        let key = PrivateKey::generate()?;
        let mut params = params(organisation, name, None, now, now + AUTHORITY_SECONDS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let pem = params.self_signed(&key).map_err(issue("make an authority's certificate"))?.pem();
        Self::from_key(pem, key)
    }

    /// Loads an authority from its certificate and key.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, MspError> {
        let pem = String::from_utf8(certificate_pem.to_vec()).map_err(|_| MspError::Certificate("it is not text".into()))?;
        Self::from_key(pem, PrivateKey::from_pem(key_pem)?)
    }

    fn from_key(certificate_pem: String, key: PrivateKey) -> Result<Self, MspError> {
        let certificate = Certificate::from_pem(certificate_pem.as_bytes())?;
        if certificate.public_key() != key.public_key() {
            return Err(MspError::KeyMismatch(certificate.common_name().to_owned()));
        }
        Ok(Self {
            certificate,
            certificate_pem,
            key,
        })
    }

    /// Returns the authority's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Encodes the authority's private key, PKCS#8 PEM. Keep it from logs and errors.
    pub fn key_pem(&self) -> Result<String, MspError> {
        self.key.to_pem()
    }

    /// Issues a certificate with a new key for a subject of `organisation`; `now` is in Unix seconds.
    pub fn enrol(&self, organisation: &str, enrolment: &Enrolment<'_>, now: i64) -> Result<Issued, MspError> {
        let key = PrivateKey::generate()?;
        let end = (now + ENROLMENT_SECONDS).min(self.certificate.not_after());
        let mut params = match enrolment {
            Enrolment::Member { name, role } => params(organisation, name, Some(role.unit()), now, end)?,
            Enrolment::TlsServer { hosts } => {
                let name = hosts.first().copied().unwrap_or("localhost");
                let mut params = params(organisation, name, None, now, end)?;
                let named: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
                params.subject_alt_names = CertificateParams::new(named).map_err(issue("name a server"))?.subject_alt_names;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
                params
            }
        };
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key).map_err(issue("read the authority's certificate"))?;
        let certificate = params.signed_by(&key, &issuer).map_err(issue("issue a certificate"))?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.to_pem()?,
        })
    }

    /// Makes the list of certificates that the authority no longer vouches for, PEM; `now` is in Unix seconds. It takes the place
    /// of the list before it.
    pub fn revoke(&self, certificates: &[&Certificate], now: i64) -> Result<String, MspError> {
        let revoked = certificates.iter().map(|certificate| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&certificate.serial()?),
                revocation_time: instant(now)?,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: instant(now)?,
            next_update: instant(self.certificate.not_after())?,
            crl_number: SerialNumber::from(now.unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_, MspError>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key).map_err(issue("read the authority's certificate"))?;
        let list = params.signed_by(&issuer).map_err(issue("make a revocation list"))?;
        list.pem().map_err(issue("encode a revocation list"))
    }
}

fn params(organisation: &str, name: &str, unit: Option<&str>, now: i64, end: i64) -> Result<CertificateParams, MspError> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, organisation);
    if let Some(unit) = unit {
        subject.push(DnType::OrganizationalUnitName, unit);
    }
    subject.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = instant(now - BACKDATED_SECONDS)?;
    params.not_after = instant(end)?;
    Ok(params)
}

fn instant(seconds: i64) -> Result<OffsetDateTime, MspError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| MspError::Issue {
        action: "date a certificate",
        reason: error.to_string(),
    })
}

fn issue(action: &'static str) -> impl FnOnce(rcgen::Error) -> MspError {
    move |error| MspError::Issue {
        action,
        reason: error.to_string(),
    }
}
