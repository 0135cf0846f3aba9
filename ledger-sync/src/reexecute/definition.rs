//! What the channel's lifecycle says of chaincodes, as far as running transactions again needs it: the versions of its public
//! keys, which every transaction reads, and the endorsement policy of our chaincode's definition.

use std::collections::BTreeMap;

use chaincode::memory::Version;
use prost::Message;
use protos::common::SignaturePolicyEnvelope;
use protos::kvrwset::KvrwSet;

use super::endorsement::{self, Policy};

/// The namespace of the lifecycle.
pub(super) const LIFECYCLE: &str = "_lifecycle";
/// The plugin that judges endorsements by a policy.
const PLUGIN: &str = "vscc";

/// Under which key a definition's policy stands.
fn policy_key() -> String {
    format!("namespaces/fields/{}/ValidationInfo", chaincode::NAME)
}

#[derive(Clone, PartialEq, Message)]
struct StateData {
    #[prost(bytes = "vec", tag = "2")]
    bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValidationInfo {
    #[prost(string, tag = "1")]
    plugin: String,
    #[prost(bytes = "vec", tag = "2")]
    parameter: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ApplicationPolicy {
    #[prost(message, optional, tag = "1")]
    signature: Option<SignaturePolicyEnvelope>,
    #[prost(string, tag = "2")]
    reference: String,
}

/// The public keys of the lifecycle, and the policy of our chaincode.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Definitions {
    versions: BTreeMap<String, Version>,
    /// What the definition says, undecoded; none where there is no definition.
    stated: Option<Vec<u8>>,
    policy: Policy,
}

impl Definitions {
    /// Puts together what was kept.
    pub(super) fn new(versions: BTreeMap<String, Version>, stated: Option<Vec<u8>>) -> Self {
        let policy = stated.as_deref().map(read).unwrap_or_default();
        Self { versions, stated, policy }
    }

    pub(super) fn version(&self, key: &str) -> Option<Version> {
        self.versions.get(key).copied()
    }

    pub(super) fn versions(&self) -> &BTreeMap<String, Version> {
        &self.versions
    }

    pub(super) fn stated(&self) -> Option<&[u8]> {
        self.stated.as_deref()
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes in what a valid transaction wrote to the lifecycle's public keys.
    pub(super) fn take(&mut self, set: &KvrwSet, version: Version) {
        for write in &set.writes {
            let gone = write.is_delete || write.value.is_empty();
            if write.key == policy_key() {
                self.stated = (!gone).then(|| write.value.clone());
                self.policy = self.stated.as_deref().map(read).unwrap_or_default();
            }
            if gone {
                self.versions.remove(&write.key);
            } else {
                self.versions.insert(write.key.clone(), version);
            }
        }
        for write in &set.metadata_writes {
            // A key's metadata shares its version.
            if let Some(present) = self.versions.get_mut(&write.key) {
                *present = version;
            }
        }
    }
}

fn read(stated: &[u8]) -> Policy {
    let decoded = StateData::decode(stated)
        .and_then(|data| ValidationInfo::decode(data.bytes.as_slice()))
        .and_then(|info| Ok((info.plugin, ApplicationPolicy::decode(info.parameter.as_slice())?)));
    let Ok((plugin, policy)) = decoded else { return Policy::Unknown };
    if plugin != PLUGIN {
        return Policy::Unknown;
    }
    match (policy.signature, policy.reference.strip_prefix("/Channel/")) {
        (Some(signature), _) => Policy::Signature(signature),
        (None, Some(path)) if endorsement::is_channels(path) => Policy::Channel,
        (None, Some(path)) => Policy::Reference(path.to_owned()),
        (None, None) => Policy::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protos::kvrwset::KvWrite;

    fn stated(plugin: &str, policy: &ApplicationPolicy) -> Vec<u8> {
        let info = ValidationInfo {
            plugin: plugin.to_owned(),
            parameter: policy.encode_to_vec(),
        };
        StateData {
            bytes: info.encode_to_vec(),
        }
        .encode_to_vec()
    }

    fn write(key: String, value: Vec<u8>) -> KvrwSet {
        KvrwSet {
            writes: vec![KvWrite {
                key,
                is_delete: false,
                value,
            }],
            ..KvrwSet::default()
        }
    }

    #[test]
    fn the_policy_of_a_definition_is_found() {
        let reference = |path: &str| ApplicationPolicy {
            signature: None,
            reference: path.to_owned(),
        };
        assert_eq!(
            read(&stated(PLUGIN, &reference("/Channel/Application/Endorsement"))),
            Policy::Channel
        );
        let other = read(&stated(PLUGIN, &reference("/Channel/Application/Writers")));
        assert_eq!(other, Policy::Reference("Application/Writers".into()));
        assert_eq!(
            read(&stated("mine", &reference("/Channel/Application/Endorsement"))),
            Policy::Unknown
        );
        assert_eq!(read(b"\xff"), Policy::Unknown);
        let signature = SignaturePolicyEnvelope::default();
        let own = ApplicationPolicy {
            signature: Some(signature.clone()),
            reference: String::new(),
        };
        assert_eq!(read(&stated(PLUGIN, &own)), Policy::Signature(signature));
    }

    #[test]
    fn versions_follow_writes() {
        let mut definitions = Definitions::default();
        let (first, second) = (Version { block: 1, tx: 0 }, Version { block: 2, tx: 3 });
        definitions.take(&write("a".into(), b"x".to_vec()), first);
        assert_eq!(definitions.version("a"), Some(first));
        let reference = ApplicationPolicy {
            signature: None,
            reference: "/Channel/Application/Writers".into(),
        };
        definitions.take(&write(policy_key(), stated(PLUGIN, &reference)), second);
        assert_eq!(definitions.policy(), &Policy::Reference("Application/Writers".into()));
        assert_eq!(
            Definitions::new(definitions.versions.clone(), definitions.stated.clone()),
            definitions
        );
        definitions.take(&write("a".into(), Vec::new()), second);
        assert_eq!(definitions.version("a"), None);
    }
}
