//! The network's organisations: their keys below the ledger's directory, and the identities that members are given.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use msp::folder::{self, Readers};
use msp::{CertificateAuthority, Enrolment, MspSet, Organisation, PemSigner, Role, Signer};
use serde::{Deserialize, Serialize};

use crate::LedgerError;

/// The MSP id of the organisation that orders blocks.
pub(crate) const ORDERER_MSP: &str = "OrdererMSP";
const ORDERER: &str = "orderer";
/// The most members of one network.
const MAX_MEMBERS: usize = 256;

/// One member organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberSpec {
    /// The member's name: a lower-case DNS label.
    pub name: String,
    /// Its MSP id: letters, digits, `.` and `-`, for example `CityMSP`.
    pub msp_id: String,
}

/// The members of a network; the ordering organisation is the ledger's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// The members.
    pub members: Vec<MemberSpec>,
}

impl NetworkSpec {
    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        if self.members.len() > MAX_MEMBERS {
            let name = format!("{} members", self.members.len());
            return Err(LedgerError::Name {
                what: "network",
                name,
                rule: "a network has at most 256 members",
            });
        }
        let mut seen = BTreeMap::new();
        for member in &self.members {
            check_label("member name", &member.name)?;
            check_msp_id(&member.msp_id)?;
            let taken = member.name == ORDERER || member.msp_id == ORDERER_MSP;
            if taken || seen.insert(&member.name, ()).is_some() {
                let rule = "it is taken by another organisation of the network";
                return Err(LedgerError::Name {
                    what: "member name",
                    name: member.name.clone(),
                    rule,
                });
            }
            if self.members.iter().filter(|other| other.msp_id == member.msp_id).count() > 1 {
                let rule = "it is taken by another organisation of the network";
                return Err(LedgerError::Name {
                    what: "MSP id",
                    name: member.msp_id.clone(),
                    rule,
                });
            }
        }
        Ok(())
    }
}

/// Checks a lower-case DNS label.
pub(crate) fn check_label(what: &'static str, name: &str) -> Result<(), LedgerError> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.is_empty() || name.len() > 63 || !plain || name.starts_with('-') || name.ends_with('-') {
        let rule = "use 1 to 63 lower-case letters, digits and inner hyphens";
        return Err(LedgerError::Name {
            what,
            name: name.chars().take(80).collect(),
            rule,
        });
    }
    Ok(())
}

fn check_msp_id(msp_id: &str) -> Result<(), LedgerError> {
    let plain = msp_id
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
    if msp_id.is_empty() || msp_id.len() > 63 || !plain || !msp_id.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let rule = "use 1 to 63 letters, digits, dots and hyphens, beginning with a letter";
        return Err(LedgerError::Name {
            what: "MSP id",
            name: msp_id.chars().take(80).collect(),
            rule,
        });
    }
    Ok(())
}

/// One organisation with the keys that the ledger signs with on its behalf.
pub(crate) struct OrganisationKeys {
    pub(crate) msp_id: String,
    authority: CertificateAuthority,
    /// The member's endorsing peer, or the orderer.
    pub(crate) node: Arc<PemSigner>,
    directory: PathBuf,
}

impl OrganisationKeys {
    /// Loads an organisation's keys, making those that are not there yet.
    fn open(root: &Path, name: &str, msp_id: &str, node: (&str, Role), tls_ca_pem: &str, now: i64) -> Result<Self, LedgerError> {
        let directory = root.join(name);
        let authority = authority(&directory.join("ca"), name, &format!("ca.{name}"), now)?;
        let (node_name, role) = node;
        let node = Arc::new(identity(
            &directory.join(node_name),
            &authority,
            (name, msp_id),
            role,
            tls_ca_pem,
            now,
        )?);
        Ok(Self {
            msp_id: msp_id.to_owned(),
            authority,
            node,
            directory,
        })
    }

    pub(crate) fn ca_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// Tells whether an MSP folder holds an identity of this organisation that can sign.
    fn owns(&self, folder: &Path, tls_ca_pem: &str) -> bool {
        let definition = msp::organisation::definition(&self.msp_id, self.ca_pem(), tls_ca_pem);
        PemSigner::from_msp_dir(folder, &self.msp_id).is_ok_and(|signer| {
            Organisation::from_config(&definition)
                .and_then(|organisation| MspSet::new([organisation]))
                .is_ok_and(|set| set.authenticate(&signer.identity()).is_ok())
        })
    }
}

/// Every organisation of a network, and the server's TLS identity.
pub(crate) struct Keys {
    root: PathBuf,
    tls_authority: CertificateAuthority,
    pub(crate) tls_certificate_pem: Vec<u8>,
    pub(crate) tls_key_pem: Vec<u8>,
    pub(crate) orderer: OrganisationKeys,
    members: BTreeMap<String, OrganisationKeys>,
}

impl Keys {
    /// Loads the network's keys below the ledger's directory, making those that are not there yet.
    pub(crate) fn open(ledger: &Path, spec: &NetworkSpec, now: i64) -> Result<Self, LedgerError> {
        let tls = ledger.join("tls");
        let tls_authority = authority(&tls.join("ca"), "embedded-ledger", "tlsca.embedded-ledger", now)?;
        let (certificate_path, key_path) = (tls.join("server/cert.pem"), tls.join("server/key.pem"));
        if !certificate_path.exists() {
            let hosts = ["localhost", "127.0.0.1"];
            let server = tls_authority.enrol("embedded-ledger", &Enrolment::TlsServer { hosts: &hosts }, now)?;
            folder::write_file(&key_path, server.key_pem.as_bytes(), Readers::Owner)?;
            folder::write_file(&certificate_path, server.certificate_pem.as_bytes(), Readers::Everybody)?;
        }
        let tls_certificate_pem = fs::read(&certificate_path).map_err(LedgerError::io("read", &certificate_path))?;
        let tls_key_pem = folder::read_key(&key_path)?;
        let root = ledger.join("organisations");
        let tls_ca = tls_authority.certificate_pem();
        let node = (ORDERER, Role::Orderer);
        let orderer = OrganisationKeys::open(&root, ORDERER, ORDERER_MSP, node, tls_ca, now)?;
        let mut keys = Self {
            root,
            tls_authority,
            tls_certificate_pem,
            tls_key_pem,
            orderer,
            members: BTreeMap::new(),
        };
        for member in &spec.members {
            keys.add(member, now)?;
        }
        Ok(keys)
    }

    /// Adds a member's keys.
    pub(crate) fn add(&mut self, member: &MemberSpec, now: i64) -> Result<(), LedgerError> {
        let node = ("peer", Role::Peer);
        let tls_ca = self.tls_authority.certificate_pem();
        let keys = OrganisationKeys::open(&self.root, &member.name, &member.msp_id, node, tls_ca, now)?;
        self.members.insert(member.name.clone(), keys);
        Ok(())
    }

    pub(crate) fn tls_ca_pem(&self) -> &str {
        self.tls_authority.certificate_pem()
    }

    /// Looks a member up by its name.
    pub(crate) fn member(&self, name: &str) -> Result<&OrganisationKeys, LedgerError> {
        self.members.get(name).ok_or_else(|| LedgerError::UnknownMember(name.to_owned()))
    }

    /// Looks a member's endorsing key up by its MSP id.
    pub(crate) fn endorser(&self, msp_id: &str) -> Option<Arc<PemSigner>> {
        self.members
            .values()
            .find(|member| member.msp_id == msp_id)
            .map(|member| Arc::clone(&member.node))
    }

    /// Writes a member's own client identity (`msp/`) and the TLS authority (`tls-ca.pem`) to a directory. An identity of
    /// that member that is there already is kept.
    pub(crate) fn export(&self, name: &str, directory: &Path, now: i64) -> Result<(), LedgerError> {
        let member = self.member(name)?;
        let tls_ca = self.tls_ca_pem();
        let client = member.directory.join("client");
        identity(&client, &member.authority, (name, &member.msp_id), Role::Client, tls_ca, now)?;
        let target = directory.join("msp");
        if !member.owns(&target, tls_ca) {
            let read = |path: PathBuf| fs::read_to_string(&path).map_err(LedgerError::io("read", &path));
            let issued = msp::Issued {
                certificate_pem: read(client.join("signcerts/cert.pem"))?,
                key_pem: read(client.join("keystore/priv_sk"))?,
            };
            folder::write(&target, member.ca_pem(), tls_ca, &issued)?;
        }
        Ok(folder::write_file(
            &directory.join("tls-ca.pem"),
            tls_ca.as_bytes(),
            Readers::Everybody,
        )?)
    }
}

fn authority(directory: &Path, organisation: &str, name: &str, now: i64) -> Result<CertificateAuthority, LedgerError> {
    let (certificate_path, key_path) = (directory.join("ca.pem"), directory.join("ca.key"));
    if certificate_path.exists() {
        let certificate = fs::read(&certificate_path).map_err(LedgerError::io("read", &certificate_path))?;
        return Ok(CertificateAuthority::from_pem(&certificate, &folder::read_key(&key_path)?)?);
    }
    let authority = CertificateAuthority::create(organisation, name, now)?;
    // The certificate comes last: where it is, the key is.
    folder::write_file(&key_path, authority.key_pem()?.as_bytes(), Readers::Owner)?;
    folder::write_file(&certificate_path, authority.certificate_pem().as_bytes(), Readers::Everybody)?;
    Ok(authority)
}

fn identity(
    directory: &Path,
    authority: &CertificateAuthority,
    (name, msp_id): (&str, &str),
    role: Role,
    tls_ca_pem: &str,
    now: i64,
) -> Result<PemSigner, LedgerError> {
    if !directory.join("signcerts/cert.pem").exists() {
        let common_name = format!("{}.{name}", role.unit());
        let issued = authority.enrol(name, &Enrolment::Member { name: &common_name, role }, now)?;
        folder::write(directory, authority.certificate_pem(), tls_ca_pem, &issued)?;
    }
    Ok(PemSigner::from_msp_dir(directory, msp_id)?)
}
