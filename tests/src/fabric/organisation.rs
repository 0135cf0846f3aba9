//! The organisations of a network, and the certificates that Fabric's own `cryptogen` makes for them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use reconciler::network::NetworkMember;

use super::node::Endpoints;
use super::ports;

/// The domain of the ordering organisation.
pub const ORDERER: &str = "orderer.test";

/// One member's organisation: its certificates, its peer, and where its chaincode runs.
#[derive(Clone, Debug)]
pub struct Organisation {
    /// The member's name in the example.
    pub member: String,
    /// Its MSP.
    pub msp_id: String,
    /// The port of its peer, for clients and for other peers.
    pub port: u16,
    /// The port on which the peer tells how it is.
    pub operations: u16,
    /// The port of its chaincode server.
    pub chaincode: u16,
    folder: PathBuf,
}

impl Organisation {
    pub(super) fn new(member: &NetworkMember, crypto: &Path) -> Self {
        let domain = domain(member.name.as_str());
        Self {
            member: member.name.to_string(),
            msp_id: member.msp.to_string(),
            port: ports::free(),
            operations: ports::free(),
            chaincode: ports::free(),
            folder: crypto.join("peerOrganizations").join(domain),
        }
    }

    /// Its domain.
    pub fn domain(&self) -> String {
        domain(&self.member)
    }

    /// Its MSP as a channel's configuration has it: certificates of authorities, no key.
    pub fn msp(&self) -> PathBuf {
        self.folder.join("msp")
    }

    /// The MSP folder of its administrator.
    pub fn admin(&self) -> PathBuf {
        self.folder.join(format!("users/Admin@{}/msp", self.domain()))
    }

    /// The MSP folder of the client that its Charter is.
    pub fn client(&self) -> PathBuf {
        self.folder.join(format!("users/User1@{}/msp", self.domain()))
    }

    /// The folder with its client's TLS certificate and key, for mutual TLS.
    pub fn client_tls(&self) -> PathBuf {
        self.folder.join(format!("users/User1@{}/tls", self.domain()))
    }

    /// The certificate of the authority that vouches for its peer's TLS certificate.
    pub fn tls_ca(&self) -> PathBuf {
        self.folder.join(format!("tlsca/tlsca.{}-cert.pem", self.domain()))
    }

    /// Its peer's address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where its peer can be asked whether it is well.
    pub(super) fn endpoints(&self) -> Endpoints {
        Endpoints {
            ports: vec![self.port],
            operations: Some(self.operations),
        }
    }

    /// The folder of its peer's certificates.
    pub(super) fn peer(&self) -> PathBuf {
        self.folder.join(format!("peers/peer0.{}", self.domain()))
    }
}

/// The folder of the orderer's certificates below those of all.
pub(super) fn orderer(crypto: &Path) -> PathBuf {
    crypto
        .join("ordererOrganizations")
        .join(ORDERER)
        .join("orderers")
        .join(format!("orderer.{ORDERER}"))
}

/// The MSP of the ordering organisation.
pub(super) fn orderer_msp(crypto: &Path) -> PathBuf {
    crypto.join("ordererOrganizations").join(ORDERER).join("msp")
}

/// What `cryptogen` is told to make.
pub(super) fn crypto_config(organisations: &[Organisation]) -> String {
    let sans = "[localhost, 127.0.0.1]";
    let mut text = format!(
        "OrdererOrgs:\n  - Name: Orderer\n    Domain: {ORDERER}\n    EnableNodeOUs: true\n    Specs:\n      - Hostname: orderer\n        SANS: {sans}\nPeerOrgs:\n"
    );
    for organisation in organisations {
        let _ = write!(
            text,
            "  - Name: {}\n    Domain: {}\n    EnableNodeOUs: true\n    Template:\n      Count: 1\n      SANS: {sans}\n    Users:\n      Count: 1\n",
            organisation.member,
            organisation.domain(),
        );
    }
    text
}

fn domain(member: &str) -> String {
    format!("{member}.test")
}
