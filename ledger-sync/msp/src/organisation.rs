//! Who belongs to an organisation: from its definition in a channel's configuration to an authenticated identity.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use protos::common::{MspPrincipal, MspRole, msp_principal, msp_role};
use protos::msp::{FabricCryptoConfig, FabricMspConfig, FabricNodeOUs, FabricOuIdentifier, SerializedIdentity};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use crate::certificate::{self, Certificate};
use crate::{MspError, Role, signature};

/// The longest chain from an identity to its root, in authorities.
const MAX_CHAIN: usize = 5;
/// The most identities that a set remembers having validated.
const MAX_CACHED: usize = 1024;

/// Someone whose certificate was validated against its organisation's roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The organisation.
    pub msp_id: String,
    /// The certificate.
    pub certificate: Certificate,
    /// The role by NodeOUs; `None` where the organisation doesn't use them.
    pub role: Option<Role>,
    /// The exact `SerializedIdentity` that was authenticated.
    pub serialized: Vec<u8>,
}

impl Identity {
    /// Verifies a signature by this identity.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), MspError> {
        signature::verify(&self.certificate, message, signature)
    }

    /// Tells whether the identity is what a policy's principal asks for. Kinds of principals that this crate doesn't
    /// know are never satisfied.
    pub fn satisfies(&self, principal: &MspPrincipal) -> bool {
        use msp_principal::Classification;
        match principal.principal_classification() {
            Classification::Identity => SerializedIdentity::decode(principal.principal.as_slice()).is_ok_and(|wanted| {
                // The same certificate may be wrapped in other line breaks.
                wanted.mspid == self.msp_id && certificate::pem_to_der(&wanted.id_bytes).is_ok_and(|der| der == self.certificate.der())
            }),
            Classification::Role => MspRole::decode(principal.principal.as_slice())
                .is_ok_and(|wanted| wanted.msp_identifier == self.msp_id && self.has_role(wanted.role)),
            _ => false,
        }
    }

    fn has_role(&self, wanted: i32) -> bool {
        use msp_role::MspRoleType;
        match MspRoleType::try_from(wanted) {
            Ok(MspRoleType::Member) => true,
            Ok(MspRoleType::Admin) => self.role == Some(Role::Admin),
            Ok(MspRoleType::Client) => self.role == Some(Role::Client),
            Ok(MspRoleType::Peer) => self.role == Some(Role::Peer),
            Ok(MspRoleType::Orderer) => self.role == Some(Role::Orderer),
            Err(_) => false,
        }
    }
}

/// One organisation: its authorities and how its roles are told apart.
#[derive(Clone, Debug)]
pub struct Organisation {
    msp_id: String,
    /// DER, each a parsed authority.
    roots: Vec<Vec<u8>>,
    intermediates: Vec<Vec<u8>>,
    revocations: Vec<Vec<u8>>,
    roles: Option<Vec<NodeOu>>,
}

#[derive(Clone, Debug)]
struct NodeOu {
    role: Role,
    unit: String,
    /// The authority that must stand in the identity's chain, DER.
    certifier: Option<Vec<u8>>,
}

/// Makes the definition of an organisation that uses NodeOUs, as it stands in a channel's configuration.
pub fn definition(msp_id: &str, ca_pem: &str, tls_ca_pem: &str) -> FabricMspConfig {
    let unit = |role: Role| {
        Some(FabricOuIdentifier {
            certificate: ca_pem.as_bytes().to_vec(),
            organizational_unit_identifier: role.unit().to_owned(),
        })
    };
    FabricMspConfig {
        name: msp_id.to_owned(),
        root_certs: vec![ca_pem.as_bytes().to_vec()],
        tls_root_certs: vec![tls_ca_pem.as_bytes().to_vec()],
        crypto_config: Some(FabricCryptoConfig {
            signature_hash_family: "SHA2".into(),
            identity_identifier_hash_function: "SHA256".into(),
        }),
        fabric_node_ous: Some(FabricNodeOUs {
            enable: true,
            client_ou_identifier: unit(Role::Client),
            peer_ou_identifier: unit(Role::Peer),
            admin_ou_identifier: unit(Role::Admin),
            orderer_ou_identifier: unit(Role::Orderer),
        }),
        ..FabricMspConfig::default()
    }
}

impl Organisation {
    /// Reads an organisation's definition, as it stands in a channel's configuration.
    pub fn from_config(config: &FabricMspConfig) -> Result<Self, MspError> {
        let unusable = |reason: String| MspError::Organisation {
            msp_id: config.name.clone(),
            reason,
        };
        let authorities = |certificates: &[Vec<u8>]| -> Result<Vec<Vec<u8>>, MspError> {
            certificates
                .iter()
                .map(|pem| {
                    let der = certificate::pem_to_der(pem).map_err(|error| unusable(error.to_string()))?;
                    if !certificate::parse(&der).map_err(|error| unusable(error.to_string()))?.is_ca() {
                        return Err(unusable("one of its root certificates is not an authority's".into()));
                    }
                    Ok(der)
                })
                .collect()
        };
        let roots = authorities(&config.root_certs)?;
        if roots.is_empty() {
            return Err(unusable("it has no root certificate".into()));
        }
        let revocations = config
            .revocation_list
            .iter()
            .map(|list| match x509_parser::pem::parse_x509_pem(list) {
                Ok((_, block)) => block.contents,
                Err(_) => list.clone(),
            })
            .collect();
        let roles = match config.fabric_node_ous.as_ref().filter(|units| units.enable) {
            None => None,
            Some(units) => Some(node_ous(units).map_err(|error| unusable(error.to_string()))?),
        };
        let intermediates = authorities(&config.intermediate_certs)?;
        Ok(Self {
            msp_id: config.name.clone(),
            roots,
            intermediates,
            revocations,
            roles,
        })
    }

    /// Returns the organisation's MSP id.
    pub fn msp_id(&self) -> &str {
        &self.msp_id
    }

    /// Validates a certificate that claims to be of this organisation.
    ///
    /// Its chain is validated at one second after the certificate's own start, as Fabric does, so the verdict never
    /// changes with time. Whether it has expired is another question: [`Certificate::check_expiry`].
    fn validate(&self, pem: &[u8]) -> Result<(Certificate, Option<Role>), MspError> {
        let invalid = |reason: String| MspError::Identity {
            msp_id: self.msp_id.clone(),
            reason,
        };
        let certificate = Certificate::from_pem(pem).map_err(|error| invalid(error.to_string()))?;
        let leaf = certificate::parse(certificate.der()).map_err(|error| invalid(error.to_string()))?;
        if leaf.is_ca() {
            return Err(invalid("an authority's certificate is not an identity".into()));
        }
        let at = ASN1Time::from_timestamp(certificate.not_before() + 1).map_err(|_| invalid("its validity is out of range".into()))?;
        let chain = self.chain(&leaf, at).map_err(&invalid)?;
        let role = self.role(&certificate, &chain).map_err(&invalid)?;
        Ok((certificate, role))
    }

    /// Finds the authorities above a certificate, up to a root.
    fn chain(&self, leaf: &X509Certificate<'_>, at: ASN1Time) -> Result<Vec<&[u8]>, String> {
        if !leaf.validity().is_valid_at(at) {
            return Err("its validity is empty".into());
        }
        let mut chain: Vec<&[u8]> = Vec::new();
        let mut current_der: Option<&[u8]> = None;
        while chain.len() < MAX_CHAIN {
            let held = current_der.map(certificate::parse).transpose().map_err(|error| error.to_string())?;
            let current = held.as_ref().unwrap_or(leaf);
            let (der, is_root) = self
                .issuer(current, at, chain.len())
                .ok_or("no authority of the organisation vouches for it")?;
            self.check_revoked(current, der)?;
            chain.push(der);
            if is_root {
                return Ok(chain);
            }
            current_der = Some(der);
        }
        Err(format!("its chain is longer than {MAX_CHAIN} authorities"))
    }

    fn issuer(&self, of: &X509Certificate<'_>, at: ASN1Time, below: usize) -> Option<(&[u8], bool)> {
        let roots = self.roots.iter().map(|der| (der.as_slice(), true));
        let candidates = roots.chain(self.intermediates.iter().map(|der| (der.as_slice(), false)));
        candidates.into_iter().find(|(der, _)| {
            certificate::parse(der).is_ok_and(|authority| {
                let path_allows = authority.basic_constraints().ok().flatten().is_some_and(|constraints| {
                    constraints.value.ca && constraints.value.path_len_constraint.is_none_or(|most| below <= most as usize)
                });
                let may_sign = authority.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
                path_allows
                    && may_sign
                    && authority.subject().as_raw() == of.issuer().as_raw()
                    && authority.validity().is_valid_at(at)
                    && of.verify_signature(Some(authority.public_key())).is_ok()
            })
        })
    }

    fn check_revoked(&self, certificate: &X509Certificate<'_>, authority: &[u8]) -> Result<(), String> {
        let authority = certificate::parse(authority).map_err(|error| error.to_string())?;
        for list in &self.revocations {
            let (_, list) =
                CertificateRevocationList::from_der(list).map_err(|_| "the organisation's revocation list cannot be parsed".to_owned())?;
            if list.issuer().as_raw() == authority.subject().as_raw()
                && list.verify_signature(authority.public_key()).is_ok()
                && list
                    .iter_revoked_certificates()
                    .any(|revoked| revoked.raw_serial() == certificate.raw_serial())
            {
                return Err("its certificate was revoked".into());
            }
        }
        Ok(())
    }

    fn role(&self, certificate: &Certificate, chain: &[&[u8]]) -> Result<Option<Role>, String> {
        let Some(roles) = &self.roles else { return Ok(None) };
        let mut found = None;
        for candidate in roles {
            let certified = candidate.certifier.as_ref().is_none_or(|wanted| chain.contains(&wanted.as_slice()));
            if certified && certificate.organizational_units().contains(&candidate.unit) {
                if found.is_some() {
                    return Err("its certificate claims more than one role (client, peer, admin, orderer)".into());
                }
                found = Some(candidate.role);
            }
        }
        found
            .map(Some)
            .ok_or_else(|| "its certificate claims no role (client, peer, admin, orderer)".into())
    }
}

fn node_ous(units: &FabricNodeOUs) -> Result<Vec<NodeOu>, MspError> {
    let defined = [
        (Role::Client, &units.client_ou_identifier),
        (Role::Peer, &units.peer_ou_identifier),
        (Role::Admin, &units.admin_ou_identifier),
        (Role::Orderer, &units.orderer_ou_identifier),
    ];
    let mut roles = Vec::new();
    for (role, unit) in defined {
        let Some(unit) = unit else { continue };
        let certifier = if unit.certificate.is_empty() {
            None
        } else {
            Some(certificate::pem_to_der(&unit.certificate)?)
        };
        roles.push(NodeOu {
            role,
            unit: unit.organizational_unit_identifier.clone(),
            certifier,
        });
    }
    Ok(roles)
}

/// The organisations of one channel. It remembers a bounded number of identities that it has validated.
#[derive(Debug, Default)]
pub struct MspSet {
    organisations: BTreeMap<String, Organisation>,
    validated: Mutex<Validated>,
}

#[derive(Debug, Default)]
struct Validated {
    identities: BTreeMap<[u8; 32], Arc<Identity>>,
    order: VecDeque<[u8; 32]>,
}

impl MspSet {
    /// Builds a set; two organisations with one MSP id are refused.
    pub fn new(organisations: impl IntoIterator<Item = Organisation>) -> Result<Self, MspError> {
        let mut set = Self::default();
        for organisation in organisations {
            let msp_id = organisation.msp_id.clone();
            if set.organisations.insert(msp_id.clone(), organisation).is_some() {
                return Err(MspError::Organisation {
                    msp_id,
                    reason: "it is defined twice".into(),
                });
            }
        }
        Ok(set)
    }

    /// Returns the MSP ids of the organisations, sorted.
    pub fn msp_ids(&self) -> impl Iterator<Item = &str> {
        self.organisations.keys().map(String::as_str)
    }

    /// Tells whether an organisation is in the set.
    pub fn contains(&self, msp_id: &str) -> bool {
        self.organisations.contains_key(msp_id)
    }

    /// Authenticates a `SerializedIdentity`: its organisation is in the set and vouches for its certificate. Nothing is
    /// said about expiry.
    pub fn authenticate(&self, serialized: &[u8]) -> Result<Arc<Identity>, MspError> {
        let digest: [u8; 32] = Sha256::digest(serialized).into();
        if let Some(identity) = self.validated().identities.get(&digest) {
            return Ok(Arc::clone(identity));
        }
        let claimed = SerializedIdentity::decode(serialized).map_err(|error| MspError::Identity {
            msp_id: "(unknown)".into(),
            reason: format!("it cannot be decoded: {error}"),
        })?;
        let organisation = self
            .organisations
            .get(&claimed.mspid)
            .ok_or_else(|| MspError::UnknownOrganisation(claimed.mspid.chars().take(128).collect()))?;
        let (certificate, role) = organisation.validate(&claimed.id_bytes)?;
        let identity = Arc::new(Identity {
            msp_id: claimed.mspid,
            certificate,
            role,
            serialized: serialized.to_vec(),
        });
        let mut validated = self.validated();
        if validated.identities.insert(digest, Arc::clone(&identity)).is_none() {
            validated.order.push_back(digest);
            if validated.order.len() > MAX_CACHED
                && let Some(oldest) = validated.order.pop_front()
            {
                validated.identities.remove(&oldest);
            }
        }
        Ok(identity)
    }

    fn validated(&self) -> std::sync::MutexGuard<'_, Validated> {
        // The cache holds only finished entries, so one left by a panicking thread is as good as any.
        self.validated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
