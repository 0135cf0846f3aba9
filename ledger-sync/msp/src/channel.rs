//! Membership of one channel, read from its configuration: its organisations and its policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use protos::common::policy::PolicyType;
use protos::common::{
    Block, BlockHeader, Capabilities, Config, ConfigGroup, IdentifierHeader, ImplicitMetaPolicy, MetadataSignature, Orderers,
    SignatureHeader, SignaturePolicyEnvelope, implicit_meta_policy,
};
use protos::msp::{FabricMspConfig, MspConfig};
use protos::{block, metadata};

use crate::signer::serialize_identity;
use crate::{Identity, MspError, MspSet, Organisation, policy};

/// The most signatures that are looked at in one block.
const MAX_BLOCK_SIGNATURES: usize = 64;
/// The deepest nesting of a configuration's groups.
const MAX_DEPTH: usize = 8;
/// The channel capability from which on orderers may sign under a number instead of their certificate.
const NUMBERED_ORDERERS: &str = "V3_0";

/// The organisations and policies of one channel.
#[derive(Debug)]
pub struct Membership {
    config: Config,
    set: MspSet,
    application: BTreeSet<String>,
    orderers: BTreeSet<String>,
    /// The orderers that sign under a number, as serialized identities.
    numbered: BTreeMap<u32, Vec<u8>>,
}

impl Membership {
    /// Reads a channel's configuration.
    pub fn from_config(config: Config) -> Result<Self, MspError> {
        let root = config
            .channel_group
            .as_ref()
            .ok_or_else(|| MspError::Channel("it has no groups".into()))?;
        let mut organisations = std::collections::BTreeMap::new();
        let mut section = |name: &str| -> Result<BTreeSet<String>, MspError> {
            let mut ids = BTreeSet::new();
            for group in root.groups.get(name).map(|section| section.groups.values()).into_iter().flatten() {
                let organisation = organisation(group)?;
                ids.insert(organisation.msp_id().to_owned());
                organisations.insert(organisation.msp_id().to_owned(), organisation);
            }
            Ok(ids)
        };
        let application = section("Application")?;
        let orderers = section("Orderer")?;
        let set = MspSet::new(organisations.into_values())?;
        let numbered = numbered(root)?;
        Ok(Self {
            config,
            set,
            application,
            orderers,
            numbered,
        })
    }

    /// Returns the configuration that this was read from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns every organisation of the channel, members and orderers.
    pub fn organisations(&self) -> &MspSet {
        &self.set
    }

    /// Returns the MSP ids of the members (the Application group), sorted.
    pub fn members(&self) -> &BTreeSet<String> {
        &self.application
    }

    /// Returns the MSP ids of the ordering organisations, sorted.
    pub fn orderers(&self) -> &BTreeSet<String> {
        &self.orderers
    }

    /// Authenticates a `SerializedIdentity` of any of the channel's organisations.
    pub fn authenticate(&self, serialized: &[u8]) -> Result<Arc<Identity>, MspError> {
        self.set.authenticate(serialized)
    }

    /// Tells whether identities, each of which signed, satisfy a policy named by its path, for example
    /// `Application/Readers`. A policy that is not there, or of an unknown kind, is satisfied by nobody.
    pub fn satisfied(&self, path: &str, signers: &[Arc<Identity>]) -> bool {
        let mut parts: Vec<&str> = path.split('/').collect();
        let Some(name) = parts.pop() else { return false };
        let mut group = self.config.channel_group.as_ref();
        for part in parts {
            group = group.and_then(|group| group.groups.get(part));
        }
        group.is_some_and(|group| group_satisfied(group, name, signers, 0))
    }

    /// Returns a signature policy named by its path, if there is one of that kind.
    pub fn signature_policy(&self, path: &str) -> Option<SignaturePolicyEnvelope> {
        let (groups, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut group = self.config.channel_group.as_ref()?;
        for part in groups.split('/').filter(|part| !part.is_empty()) {
            group = group.groups.get(part)?;
        }
        let policy = group.policies.get(name)?.policy.as_ref()?;
        if policy.r#type != PolicyType::Signature as i32 {
            return None;
        }
        SignaturePolicyEnvelope::decode(policy.value.as_slice()).ok()
    }

    /// Checks that a block carries orderers' signatures that satisfy `Orderer/BlockValidation`. The block's place in the
    /// chain is checked elsewhere ([`protos::block::check_link`]).
    pub fn verify_block(&self, block: &Block) -> Result<(), MspError> {
        let bad = |reason: String| MspError::Channel(reason);
        let header = block.header.as_ref().ok_or_else(|| bad("a block without a header".into()))?;
        let slot = metadata::signatures(block).map_err(|error| bad(error.to_string()))?;
        if slot.signatures.len() > MAX_BLOCK_SIGNATURES {
            return Err(bad(format!("block {} carries {} signatures", header.number, slot.signatures.len())));
        }
        let mut signers = Vec::new();
        let mut refused = None;
        for entry in &slot.signatures {
            match self.orderer(&slot.value, entry, header) {
                Ok(identity) => signers.push(identity),
                // One bad signature among enough good ones changes nothing, as in Fabric.
                Err(error) => refused = Some(error),
            }
        }
        if self.satisfied("Orderer/BlockValidation", &signers) {
            return Ok(());
        }
        let why = refused.map_or_else(|| "its signers are not the channel's orderers".into(), |error| error.to_string());
        Err(bad(format!("the signatures of block {} are not enough: {why}", header.number)))
    }

    /// Authenticates the orderer that made one of a block's signatures, and verifies it.
    fn orderer(&self, value: &[u8], entry: &MetadataSignature, header: &BlockHeader) -> Result<Arc<Identity>, MspError> {
        let bad = |reason: String| MspError::Channel(reason);
        let by_number = entry.signature_header.is_empty() && !entry.identifier_header.is_empty();
        let (identity, signed) = if by_number {
            let named = IdentifierHeader::decode(entry.identifier_header.as_slice())
                .map_err(|error| bad(format!("an identifier header cannot be decoded: {error}")))?;
            let creator = self
                .numbered
                .get(&named.identifier)
                .ok_or_else(|| bad(format!("the channel has no orderer number {}", named.identifier)))?;
            (self.authenticate(creator)?, &entry.identifier_header)
        } else {
            let named = SignatureHeader::decode(entry.signature_header.as_slice())
                .map_err(|error| bad(format!("a signature header cannot be decoded: {error}")))?;
            (self.authenticate(&named.creator)?, &entry.signature_header)
        };
        identity.verify(&metadata::signed_bytes(value, signed, header), &entry.signature)?;
        Ok(identity)
    }

    /// Computes the hash of a block's header, which the next block must name.
    pub fn header_hash(block: &Block) -> Option<[u8; 32]> {
        block.header.as_ref().map(block::header_hash)
    }
}

/// Reads which orderers sign under which number, where the channel's capabilities allow it.
fn numbered(root: &ConfigGroup) -> Result<BTreeMap<u32, Vec<u8>>, MspError> {
    let bad = |reason: &str| MspError::Channel(reason.to_owned());
    let Some(value) = root.values.get("Capabilities") else {
        return Ok(BTreeMap::new());
    };
    let capabilities = Capabilities::decode(value.value.as_slice()).map_err(|_| bad("its capabilities cannot be decoded"))?;
    let Some(value) = root.groups.get("Orderer").and_then(|orderer| orderer.values.get("Orderers")) else {
        return Ok(BTreeMap::new());
    };
    if !capabilities.capabilities.contains_key(NUMBERED_ORDERERS) {
        return Ok(BTreeMap::new());
    }
    let orderers = Orderers::decode(value.value.as_slice()).map_err(|_| bad("its orderers cannot be decoded"))?;
    let mut numbered = BTreeMap::new();
    for one in orderers.consenter_mapping {
        let identity = serialize_identity(&one.msp_id, &one.identity);
        if numbered.insert(one.id, identity).is_some() {
            return Err(bad("two orderers have one number"));
        }
    }
    Ok(numbered)
}

fn organisation(group: &ConfigGroup) -> Result<Organisation, MspError> {
    let bad = |reason: &str| MspError::Channel(reason.to_owned());
    let value = group.values.get("MSP").ok_or_else(|| bad("an organisation has no MSP"))?;
    let config = MspConfig::decode(value.value.as_slice()).map_err(|_| bad("an MSP cannot be decoded"))?;
    if config.r#type != 0 {
        return Err(bad("an MSP is not of the X.509 kind (type 0)"));
    }
    let config = FabricMspConfig::decode(config.config.as_slice()).map_err(|_| bad("an MSP cannot be decoded"))?;
    Organisation::from_config(&config)
}

fn group_satisfied(group: &ConfigGroup, name: &str, signers: &[Arc<Identity>], depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    let Some(policy) = group.policies.get(name).and_then(|policy| policy.policy.as_ref()) else {
        return false;
    };
    match PolicyType::try_from(policy.r#type) {
        Ok(PolicyType::Signature) => {
            SignaturePolicyEnvelope::decode(policy.value.as_slice()).is_ok_and(|policy| policy::satisfied(&policy, signers))
        }
        Ok(PolicyType::ImplicitMeta) => ImplicitMetaPolicy::decode(policy.value.as_slice()).is_ok_and(|meta| {
            let granted = group
                .groups
                .values()
                .filter(|sub| group_satisfied(sub, &meta.sub_policy, signers, depth + 1))
                .count();
            let all = group.groups.len();
            match meta.rule() {
                implicit_meta_policy::Rule::Any => granted >= 1,
                implicit_meta_policy::Rule::All => all > 0 && granted == all,
                implicit_meta_policy::Rule::Majority => granted > all / 2,
            }
        }),
        _ => false,
    }
}
