//! A channel's first block: its whole configuration.

use std::collections::BTreeMap;

use msp::{MspError, policy};
use prost::Message;
use protos::common::msp_role::MspRoleType;
use protos::common::policy::PolicyType;
use protos::common::{
    Block, BlockData, BlockDataHashingStructure, BlockHeader, Capabilities, Capability, ChannelHeader, Config, ConfigEnvelope, ConfigGroup,
    ConfigPolicy, ConfigValue, Envelope, HashingAlgorithm, Header, HeaderType, ImplicitMetaPolicy, Payload, Policy, SignatureHeader,
    SignaturePolicyEnvelope, implicit_meta_policy,
};
use protos::msp::MspConfig;
use protos::orderer::{BatchSize, BatchTimeout, ConsensusType};
use protos::{block, prost_types, txid};

use crate::commit::{self, Nonce};
use crate::organisations::{Keys, OrganisationKeys};
use crate::{LedgerError, Limits};

const ADMINS: &str = "Admins";

/// Builds a channel's block 0 for members given by name.
pub(crate) fn block(channel: &str, members: &[&str], keys: &Keys, limits: &Limits, now: i64) -> Result<Block, LedgerError> {
    let members = members.iter().map(|name| keys.member(name)).collect::<Result<Vec<_>, _>>()?;
    let root = root(&members, keys, limits);
    let config = ConfigEnvelope {
        config: Some(Config {
            sequence: 0,
            channel_group: Some(root),
        }),
        last_update: None,
    };
    let nonce = Nonce::draw()?;
    let channel_header = ChannelHeader {
        r#type: HeaderType::Config as i32,
        version: 1,
        timestamp: Some(prost_types::Timestamp { seconds: now, nanos: 0 }),
        channel_id: channel.to_owned(),
        tx_id: txid::tx_id(nonce.bytes(), b""),
        ..ChannelHeader::default()
    };
    let signature_header = SignatureHeader {
        creator: Vec::new(),
        nonce: nonce.bytes().to_vec(),
    };
    let header = Header {
        channel_header: channel_header.encode_to_vec(),
        signature_header: signature_header.encode_to_vec(),
    };
    let payload = Payload {
        header: Some(header),
        data: config.encode_to_vec(),
    };
    // As in Fabric, nobody has signed the first configuration: a member decides to join by its hash.
    let data = vec![
        Envelope {
            payload: payload.encode_to_vec(),
            signature: Vec::new(),
        }
        .encode_to_vec(),
    ];
    let header = BlockHeader {
        number: 0,
        previous_hash: Vec::new(),
        data_hash: block::data_hash(&data).to_vec(),
    };
    let metadata = commit::metadata(&header, keys.orderer.node.as_ref(), vec![0], None)?;
    Ok(Block {
        header: Some(header),
        data: Some(BlockData { data }),
        metadata: Some(metadata),
    })
}

fn root(members: &[&OrganisationKeys], keys: &Keys, limits: &Limits) -> ConfigGroup {
    let mut root = group(
        [
            ("HashingAlgorithm", value(&HashingAlgorithm { name: "SHA256".into() })),
            ("BlockDataHashingStructure", value(&BlockDataHashingStructure { width: u32::MAX })),
            ("Capabilities", capabilities("V2_0")),
        ],
        implicit_policies(),
    );
    root.groups.insert("Application".into(), application(members, keys));
    root.groups.insert("Orderer".into(), orderer(keys, limits));
    root
}

fn application(members: &[&OrganisationKeys], keys: &Keys) -> ConfigGroup {
    let mut msp_ids: Vec<&str> = members.iter().map(|member| member.msp_id.as_str()).collect();
    msp_ids.sort_unstable();
    // All but one: a vanished member can't veto its own closure.
    let enough = msp_ids.len().saturating_sub(1).max(1);
    let mut policies = implicit_policies();
    policies.insert(ADMINS.into(), signature(policy::out_of(enough, &msp_ids, MspRoleType::Admin)));
    for name in ["Endorsement", "LifecycleEndorsement"] {
        policies.insert(name.into(), signature(policy::out_of(enough, &msp_ids, MspRoleType::Peer)));
    }
    let mut application = group([("Capabilities", capabilities("V2_5"))], policies);
    for member in members {
        application
            .groups
            .insert(member.msp_id.clone(), organisation(member, MspRoleType::Peer, keys));
    }
    application
}

fn orderer(keys: &Keys, limits: &Limits) -> ConfigGroup {
    let mut policies = implicit_policies();
    policies.insert("BlockValidation".into(), implicit("Writers", implicit_meta_policy::Rule::Any));
    let batch_size = BatchSize {
        max_message_count: limits.block_transactions as u32,
        absolute_max_bytes: limits.envelope_bytes as u32,
        preferred_max_bytes: limits.block_bytes as u32,
    };
    let mut orderer = group(
        [
            (
                "ConsensusType",
                value(&ConsensusType {
                    r#type: "embedded".into(),
                    metadata: Vec::new(),
                    state: 0,
                }),
            ),
            ("BatchSize", value(&batch_size)),
            ("BatchTimeout", value(&BatchTimeout { timeout: "0s".into() })),
            ("Capabilities", capabilities("V2_0")),
        ],
        policies,
    );
    let organisation = organisation(&keys.orderer, MspRoleType::Orderer, keys);
    orderer.groups.insert(keys.orderer.msp_id.clone(), organisation);
    orderer
}

fn organisation(keys: &OrganisationKeys, node: MspRoleType, network: &Keys) -> ConfigGroup {
    let definition = msp::organisation::definition(&keys.msp_id, keys.ca_pem(), network.tls_ca_pem());
    let msp = value(&MspConfig {
        r#type: 0,
        config: definition.encode_to_vec(),
    });
    let by = |role| signature(policy::out_of(1, &[&keys.msp_id], role));
    let policies = [
        ("Readers", MspRoleType::Member),
        ("Writers", MspRoleType::Member),
        (ADMINS, MspRoleType::Admin),
        ("Endorsement", node),
    ];
    group(
        [("MSP", msp)],
        policies.into_iter().map(|(name, role)| (name.to_owned(), by(role))).collect(),
    )
}

fn group<const N: usize>(values: [(&str, ConfigValue); N], policies: BTreeMap<String, ConfigPolicy>) -> ConfigGroup {
    ConfigGroup {
        values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        policies,
        mod_policy: ADMINS.into(),
        ..ConfigGroup::default()
    }
}

fn value(message: &impl Message) -> ConfigValue {
    ConfigValue {
        version: 0,
        value: message.encode_to_vec(),
        mod_policy: ADMINS.into(),
    }
}

fn capabilities(name: &str) -> ConfigValue {
    value(&Capabilities {
        capabilities: BTreeMap::from([(name.to_owned(), Capability {})]),
    })
}

fn implicit_policies() -> BTreeMap<String, ConfigPolicy> {
    use implicit_meta_policy::Rule;
    let policies = [("Readers", Rule::Any), ("Writers", Rule::Any), (ADMINS, Rule::Majority)];
    policies
        .into_iter()
        .map(|(name, rule)| (name.to_owned(), implicit(name, rule)))
        .collect()
}

fn implicit(sub_policy: &str, rule: implicit_meta_policy::Rule) -> ConfigPolicy {
    let meta = ImplicitMetaPolicy {
        sub_policy: sub_policy.to_owned(),
        rule: rule as i32,
    };
    policy(PolicyType::ImplicitMeta, meta.encode_to_vec())
}

fn signature(envelope: SignaturePolicyEnvelope) -> ConfigPolicy {
    policy(PolicyType::Signature, envelope.encode_to_vec())
}

fn policy(kind: PolicyType, value: Vec<u8>) -> ConfigPolicy {
    ConfigPolicy {
        version: 0,
        policy: Some(Policy {
            r#type: kind as i32,
            value,
        }),
        mod_policy: ADMINS.into(),
    }
}

/// Reads who the members of a channel are from its first block, which has to be that channel's.
pub(crate) fn membership(channel: &str, block: &Block) -> Result<msp::channel::Membership, MspError> {
    let bad = |error: protos::envelope::UnpackError| MspError::Channel(error.to_string());
    let data = block.data.as_ref().map(|data| data.data.as_slice()).unwrap_or_default();
    let [envelope] = data else {
        return Err(MspError::Channel("block 0 is not exactly one configuration".into()));
    };
    let envelope = protos::envelope::decode_envelope(envelope).map_err(bad)?;
    let opened = protos::envelope::open(&envelope).map_err(bad)?;
    // One file in another's place would show a channel to those who may not read it.
    if opened.channel.channel_id != channel {
        let found: String = opened.channel.channel_id.chars().take(80).collect();
        return Err(MspError::Channel(format!(
            "these are the blocks of channel {found}, not of {channel}"
        )));
    }
    msp::channel::Membership::from_config(protos::envelope::config(&opened).map_err(bad)?)
}
