//! The configuration of a channel: its members and who has to agree to what.

use std::fmt::Write;
use std::path::Path;

use super::organisation;
use super::{ORDERER, Organisation};

/// The profile in the file that [`configtx`] writes.
pub(super) const PROFILE: &str = "Channel";

/// The `configtx.yaml` of one channel. Endorsement, administration and lifecycle take all members but one, so that one that has
/// vanished can't veto its own closure.
pub(super) fn configtx(members: &[&Organisation], crypto: &Path, orderer_port: u16) -> String {
    let orderer_msp = organisation::orderer_msp(crypto);
    let orderer = organisation::orderer(crypto);
    let tls = orderer.join("tls/server.crt");
    let tls = tls.display();
    let mut text = format!(
        "Organizations:
  - &Orderer
    Name: OrdererMSP
    ID: OrdererMSP
    MSPDir: {}
    OrdererEndpoints: ['127.0.0.1:{orderer_port}']
    Policies:
      Readers: {{ Type: Signature, Rule: \"OR('OrdererMSP.member')\" }}
      Writers: {{ Type: Signature, Rule: \"OR('OrdererMSP.member')\" }}
      Admins: {{ Type: Signature, Rule: \"OR('OrdererMSP.admin')\" }}
",
        orderer_msp.display()
    );
    for member in members {
        let (id, port) = (&member.msp_id, member.port);
        let _ = write!(
            text,
            "  - &{id}
    Name: {id}
    ID: {id}
    MSPDir: {}
    AnchorPeers: [{{ Host: 127.0.0.1, Port: {port} }}]
    Policies:
      Readers: {{ Type: Signature, Rule: \"OR('{id}.member')\" }}
      Writers: {{ Type: Signature, Rule: \"OR('{id}.member')\" }}
      Admins: {{ Type: Signature, Rule: \"OR('{id}.admin')\" }}
      Endorsement: {{ Type: Signature, Rule: \"OR('{id}.peer')\" }}
",
            member.msp().display(),
        );
    }
    let all: Vec<String> = members.iter().map(|member| format!("*{}", member.msp_id)).collect();
    let (peers, admins) = (all_but_one(members, "peer"), all_but_one(members, "admin"));
    let _ = write!(
        text,
        "Profiles:
  {PROFILE}:
    Policies: &Meta
      Readers: {{ Type: ImplicitMeta, Rule: ANY Readers }}
      Writers: {{ Type: ImplicitMeta, Rule: ANY Writers }}
      Admins: {{ Type: ImplicitMeta, Rule: MAJORITY Admins }}
    Capabilities: {{ V2_0: true }}
    Orderer:
      OrdererType: etcdraft
      BatchTimeout: 200ms
      BatchSize: {{ MaxMessageCount: 100, AbsoluteMaxBytes: 10 MB, PreferredMaxBytes: 2 MB }}
      EtcdRaft:
        Consenters: [{{ Host: 127.0.0.1, Port: {orderer_port}, ClientTLSCert: {tls}, ServerTLSCert: {tls} }}]
        Options: {{ TickInterval: 100ms, ElectionTick: 5, HeartbeatTick: 1, MaxInflightBlocks: 5, SnapshotIntervalSize: 16 MB }}
      Organizations: [*Orderer]
      Policies:
        <<: *Meta
        BlockValidation: {{ Type: ImplicitMeta, Rule: ANY Writers }}
      Capabilities: {{ V2_0: true }}
    Application:
      Organizations: [{}]
      Policies:
        Readers: {{ Type: ImplicitMeta, Rule: ANY Readers }}
        Writers: {{ Type: ImplicitMeta, Rule: ANY Writers }}
        Admins: {{ Type: Signature, Rule: \"{admins}\" }}
        Endorsement: {{ Type: Signature, Rule: \"{peers}\" }}
        LifecycleEndorsement: {{ Type: Signature, Rule: \"{peers}\" }}
      Capabilities: {{ V2_5: true }}
",
        all.join(", ")
    );
    text
}

/// The host name in the orderer's certificate.
pub(super) fn orderer_host() -> String {
    format!("orderer.{ORDERER}")
}

/// «All members but one, at least one», by identities with this role.
fn all_but_one(members: &[&Organisation], role: &str) -> String {
    let each: Vec<String> = members.iter().map(|member| format!("'{}.{role}'", member.msp_id)).collect();
    format!("OutOf({}, {})", members.len().saturating_sub(1).max(1), each.join(", "))
}
