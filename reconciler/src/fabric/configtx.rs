//! `configtx.yaml`, from which `configtxgen` makes a channel's first block.
//!
//! It is written from types that know Fabric's keys, because the tool refuses a file with any other key at the top.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::address::Address;
use super::document::{ChannelDocument, MemberSite, OrdererSite};
use super::public_msp::PublicMsp;

/// The name of the only profile.
pub const PROFILE: &str = "Charter";
/// The file's name.
pub const FILE_NAME: &str = "configtx.yaml";

/// The whole file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigTx {
    profiles: BTreeMap<&'static str, Profile>,
}

type Policies = BTreeMap<&'static str, Policy>;
type Capabilities = BTreeMap<&'static str, bool>;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Profile {
    capabilities: Capabilities,
    policies: Policies,
    application: Application,
    orderer: Orderer,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    r#type: &'static str,
    rule: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Application {
    capabilities: Capabilities,
    policies: Policies,
    organizations: Vec<Organization>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Orderer {
    orderer_type: &'static str,
    batch_timeout: String,
    batch_size: BatchSize,
    etcd_raft: EtcdRaft,
    capabilities: Capabilities,
    policies: Policies,
    organizations: Vec<Organization>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct BatchSize {
    max_message_count: u32,
    absolute_max_bytes: u32,
    preferred_max_bytes: u32,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EtcdRaft {
    consenters: Vec<Consenter>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Consenter {
    host: String,
    port: u16,
    #[serde(rename = "ClientTLSCert")]
    client_tls_cert: PathBuf,
    #[serde(rename = "ServerTLSCert")]
    server_tls_cert: PathBuf,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Organization {
    name: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "MSPDir")]
    msp_dir: PathBuf,
    policies: Policies,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    anchor_peers: Vec<AnchorPeer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    orderer_endpoints: Vec<Address>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct AnchorPeer {
    host: String,
    port: u16,
}

/// The policies of a channel that all but one member have to meet, with the role that signs.
pub const MEMBER_POLICIES: [(&str, &str); 3] = [("Admins", "admin"), ("Endorsement", "peer"), ("LifecycleEndorsement", "peer")];

impl ConfigTx {
    /// Puts the configuration of a document's channel together.
    pub fn new(document: &ChannelDocument) -> Self {
        let profile = Profile {
            capabilities: capability("V2_0"),
            policies: implicit(),
            application: application(document),
            orderer: orderer(document),
        };
        Self {
            profiles: BTreeMap::from([(PROFILE, profile)]),
        }
    }

    /// The file's text.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(self)
    }
}

fn application(document: &ChannelDocument) -> Application {
    let mut policies = implicit();
    for (name, role) in MEMBER_POLICIES {
        let principals: Vec<String> = document.members.iter().map(|site| format!("'{}.{role}'", site.msp_id)).collect();
        policies.insert(name, signature(format!("OutOf({}, {})", document.enough(), principals.join(", "))));
    }
    Application {
        capabilities: capability("V2_5"),
        policies,
        organizations: document.members.iter().map(member).collect(),
    }
}

fn member(site: &MemberSite) -> Organization {
    let anchor_peers = site.peers.iter().map(|peer| AnchorPeer {
        host: peer.host().to_owned(),
        port: peer.port(),
    });
    Organization {
        anchor_peers: anchor_peers.collect(),
        ..organization(site.msp_id.as_str(), &site.msp, "peer")
    }
}

fn orderer(document: &ChannelDocument) -> Orderer {
    let mut policies = implicit();
    policies.insert("BlockValidation", meta("ANY Writers"));
    let consenters = document.orderer_nodes().map(|(_, node)| Consenter {
        host: node.cluster.host().to_owned(),
        port: node.cluster.port(),
        client_tls_cert: node.client_tls_cert.clone(),
        server_tls_cert: node.tls_cert.clone(),
    });
    let blocks = document.blocks;
    Orderer {
        orderer_type: "etcdraft",
        batch_timeout: format!("{}ms", blocks.timeout_ms),
        batch_size: BatchSize {
            max_message_count: blocks.max_transactions,
            absolute_max_bytes: blocks.max_bytes,
            preferred_max_bytes: blocks.preferred_bytes,
        },
        etcd_raft: EtcdRaft {
            consenters: consenters.collect(),
        },
        capabilities: capability("V2_0"),
        policies,
        organizations: document.orderers.iter().map(orderer_organization).collect(),
    }
}

fn orderer_organization(site: &OrdererSite) -> Organization {
    Organization {
        orderer_endpoints: site.nodes.iter().map(|node| node.address.clone()).collect(),
        ..organization(site.msp_id.as_str(), &site.msp, "orderer")
    }
}

fn organization(msp_id: &str, msp: &PublicMsp, node: &str) -> Organization {
    let by = |role: &str| signature(format!("OR('{msp_id}.{role}')"));
    Organization {
        name: msp_id.to_owned(),
        id: msp_id.to_owned(),
        msp_dir: msp.folder.clone(),
        policies: BTreeMap::from([
            ("Readers", by("member")),
            ("Writers", by("member")),
            ("Admins", by("admin")),
            ("Endorsement", by(node)),
        ]),
        anchor_peers: Vec::new(),
        orderer_endpoints: Vec::new(),
    }
}

fn implicit() -> Policies {
    BTreeMap::from([
        ("Readers", meta("ANY Readers")),
        ("Writers", meta("ANY Writers")),
        ("Admins", meta("MAJORITY Admins")),
    ])
}

fn meta(rule: &str) -> Policy {
    Policy {
        r#type: "ImplicitMeta",
        rule: rule.to_owned(),
    }
}

fn signature(rule: String) -> Policy {
    Policy { r#type: "Signature", rule }
}

fn capability(name: &'static str) -> Capabilities {
    BTreeMap::from([(name, true)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::testing::{self, Parties};

    fn check(parties: Parties, expected: impl FnOnce(String)) {
        let place = testing::Place::new(parties);
        let text = ConfigTx::new(&place.document()).to_yaml().unwrap();
        expected(text.replace(&place.path().display().to_string(), "/consortium"));
    }

    #[test]
    fn the_whole_file() {
        check(Parties::Two, |text| {
            insta::assert_snapshot!(text, @r"
        Profiles:
          Charter:
            Capabilities:
              V2_0: true
            Policies:
              Admins:
                Type: ImplicitMeta
                Rule: MAJORITY Admins
              Readers:
                Type: ImplicitMeta
                Rule: ANY Readers
              Writers:
                Type: ImplicitMeta
                Rule: ANY Writers
            Application:
              Capabilities:
                V2_5: true
              Policies:
                Admins:
                  Type: Signature
                  Rule: OutOf(1, 'CityMSP.admin', 'BreezeMSP.admin')
                Endorsement:
                  Type: Signature
                  Rule: OutOf(1, 'CityMSP.peer', 'BreezeMSP.peer')
                LifecycleEndorsement:
                  Type: Signature
                  Rule: OutOf(1, 'CityMSP.peer', 'BreezeMSP.peer')
                Readers:
                  Type: ImplicitMeta
                  Rule: ANY Readers
                Writers:
                  Type: ImplicitMeta
                  Rule: ANY Writers
              Organizations:
              - Name: CityMSP
                ID: CityMSP
                MSPDir: /consortium/msp/city
                Policies:
                  Admins:
                    Type: Signature
                    Rule: OR('CityMSP.admin')
                  Endorsement:
                    Type: Signature
                    Rule: OR('CityMSP.peer')
                  Readers:
                    Type: Signature
                    Rule: OR('CityMSP.member')
                  Writers:
                    Type: Signature
                    Rule: OR('CityMSP.member')
                AnchorPeers:
                - Host: peer0.city
                  Port: 7051
              - Name: BreezeMSP
                ID: BreezeMSP
                MSPDir: /consortium/msp/breeze
                Policies:
                  Admins:
                    Type: Signature
                    Rule: OR('BreezeMSP.admin')
                  Endorsement:
                    Type: Signature
                    Rule: OR('BreezeMSP.peer')
                  Readers:
                    Type: Signature
                    Rule: OR('BreezeMSP.member')
                  Writers:
                    Type: Signature
                    Rule: OR('BreezeMSP.member')
                AnchorPeers:
                - Host: peer0.breeze
                  Port: 7051
            Orderer:
              OrdererType: etcdraft
              BatchTimeout: 500ms
              BatchSize:
                MaxMessageCount: 500
                AbsoluteMaxBytes: 10485760
                PreferredMaxBytes: 2097152
              EtcdRaft:
                Consenters:
                - Host: orderer
                  Port: 7050
                  ClientTLSCert: /consortium/tls/orderer.pem
                  ServerTLSCert: /consortium/tls/orderer.pem
              Capabilities:
                V2_0: true
              Policies:
                Admins:
                  Type: ImplicitMeta
                  Rule: MAJORITY Admins
                BlockValidation:
                  Type: ImplicitMeta
                  Rule: ANY Writers
                Readers:
                  Type: ImplicitMeta
                  Rule: ANY Readers
                Writers:
                  Type: ImplicitMeta
                  Rule: ANY Writers
              Organizations:
              - Name: OrdererMSP
                ID: OrdererMSP
                MSPDir: /consortium/msp/orderer
                Policies:
                  Admins:
                    Type: Signature
                    Rule: OR('OrdererMSP.admin')
                  Endorsement:
                    Type: Signature
                    Rule: OR('OrdererMSP.orderer')
                  Readers:
                    Type: Signature
                    Rule: OR('OrdererMSP.member')
                  Writers:
                    Type: Signature
                    Rule: OR('OrdererMSP.member')
                OrdererEndpoints:
                - orderer:7050
        ")
        });
    }

    #[test]
    fn with_three_members_two_of_them_suffice() {
        check(Parties::Three, |text| {
            let rules: Vec<&str> = text.lines().map(str::trim).filter(|line| line.contains("OutOf")).collect();
            insta::assert_snapshot!(rules.join("\n"), @r"
            Rule: OutOf(2, 'CityMSP.admin', 'BreezeMSP.admin', 'TramMSP.admin')
            Rule: OutOf(2, 'CityMSP.peer', 'BreezeMSP.peer', 'TramMSP.peer')
            Rule: OutOf(2, 'CityMSP.peer', 'BreezeMSP.peer', 'TramMSP.peer')
            ");
        });
    }
}
