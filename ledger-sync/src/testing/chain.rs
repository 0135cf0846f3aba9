//! The chain of a network in memory, and its members.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chaincode::memory::MemoryState;
use chaincode::stub::{Creator, Invocation};
use msp::{CertificateAuthority, Enrolment, MspError, PemSigner, Role, Signer, policy};
use prost::Message;
use protos::common::msp_role::MspRoleType;
use protos::common::policy::PolicyType;
use protos::common::{
    Block, BlockData, BlockHeader, BlockMetadataIndex, ChannelHeader, Config, ConfigEnvelope, ConfigGroup, ConfigPolicy, ConfigValue,
    Envelope, Header, HeaderType, ImplicitMetaPolicy, LastConfig, Metadata, MetadataSignature, OrdererBlockMetadata, Payload, Policy,
    SignatureHeader, implicit_meta_policy,
};
use protos::msp::MspConfig;
use protos::peer::TxValidationCode;
use protos::{block, commit_hash, metadata};
use state::ids::Channel;
use state::time::Timestamp;
use tokio::sync::watch;

use super::draft::{self, Updates};
use super::ledger::{MemoryLedger, Misbehaviour};
use super::transaction::{Effects, Emit, moment, transaction};
use crate::ledger::{Committed, SubmitError};
use crate::proposal;

/// The part of a committed block that is falsified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// A transaction is changed, and nothing else.
    Data,
    /// A transaction is changed, and the header's data hash with it.
    DataAndHash,
    /// The previous hash.
    PreviousHash,
    /// A transaction's validation code.
    Code {
        /// Its index.
        tx: usize,
        /// The code that it is given.
        code: TxValidationCode,
    },
    /// The commit hash.
    CommitHash,
    /// The commit hash is taken away.
    NoCommitHash,
    /// The orderer's signature is another one's.
    Signature,
    /// The orderer's signature is taken away.
    NoSignature,
}

pub(super) struct Member {
    authority: CertificateAuthority,
    pub(super) signer: Arc<PemSigner>,
    /// Its endorsing peer.
    pub(super) peer: PemSigner,
}

/// One channel of a network in memory.
pub struct MemoryNetwork {
    pub(super) channel: Channel,
    pub(super) members: BTreeMap<String, Member>,
    stranger: PemSigner,
    inner: Mutex<Inner>,
    pub(super) height: watch::Sender<u64>,
    pub(super) misbehaviour: Mutex<Misbehaviour>,
}

pub(super) struct Inner {
    pub(super) blocks: Vec<Block>,
    pub(super) state: MemoryState,
    orderers: BTreeMap<String, Member>,
    orderer: String,
    last_config: u64,
    pub(super) clock: i64,
}

fn member(msp_id: &str, role: Role) -> Result<Member, MspError> {
    let authority = CertificateAuthority::create(msp_id, &format!("ca.{msp_id}"), super::START)?;
    let enrolled = |name, role| {
        let issued = authority.enrol(msp_id, &Enrolment::Member { name, role }, super::START)?;
        PemSigner::new(msp_id, issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())
    };
    let (signer, peer) = (Arc::new(enrolled("charter", role)?), enrolled("peer0", Role::Peer)?);
    Ok(Member { authority, signer, peer })
}

impl MemoryNetwork {
    /// Makes a channel of organisations, each with one member identity, and its genesis block.
    pub fn new(channel: &Channel, msp_ids: &[&str]) -> Result<Arc<Self>, MspError> {
        let mut members = BTreeMap::new();
        for msp_id in msp_ids {
            members.insert((*msp_id).to_owned(), member(msp_id, Role::Client)?);
        }
        let orderers = BTreeMap::from([("OrdererMSP".to_owned(), member("OrdererMSP", Role::Orderer)?)]);
        let stranger = member("OrdererMSP", Role::Orderer)?.signer;
        let inner = Inner {
            blocks: Vec::new(),
            state: MemoryState::new(),
            orderers,
            orderer: "OrdererMSP".into(),
            last_config: 0,
            clock: super::START,
        };
        let network = Self {
            channel: channel.clone(),
            members,
            stranger: Arc::into_inner(stranger).expect("nobody else holds it yet"),
            inner: Mutex::new(inner),
            height: watch::Sender::new(0),
            misbehaviour: Mutex::new(Misbehaviour::default()),
        };
        network.configure(&mut network.inner())?;
        Ok(Arc::new(network))
    }

    pub(super) fn inner_height(&self) -> u64 {
        self.inner().blocks.len() as u64
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// One organisation's connection.
    pub fn ledger(self: &Arc<Self>, msp_id: &str) -> MemoryLedger {
        MemoryLedger::new(Arc::clone(self), msp_id)
    }

    /// One organisation's identity; none of a stranger's.
    pub fn signer(&self, msp_id: &str) -> Option<Arc<PemSigner>> {
        self.members.get(msp_id).map(|member| Arc::clone(&member.signer))
    }

    /// The blocks as they are now.
    pub fn blocks(&self) -> Vec<Block> {
        self.inner().blocks.clone()
    }

    pub(super) fn block(&self, number: u64) -> Option<Block> {
        self.inner().blocks.get(usize::try_from(number).ok()?).cloned()
    }

    /// Sets how the network misbehaves from now on.
    pub fn misbehave(&self, misbehaviour: Misbehaviour) {
        *self.misbehaviour.lock().unwrap_or_else(PoisonError::into_inner) = misbehaviour;
        // Open streams look up.
        self.height.send_modify(|_| {});
    }

    /// Commits one block of transactions as they are. Returns its number.
    pub fn append(&self, transactions: &[Emit]) -> Result<u64, MspError> {
        let mut inner = self.inner();
        let mut data = Vec::with_capacity(transactions.len());
        let mut flags = Vec::with_capacity(transactions.len());
        for emit in transactions {
            let signer = self.known(&emit.msp)?;
            inner.clock += 1;
            let at = inner.clock;
            let proposed = proposal::propose(signer, &self.channel, &emit.chaincode, vec![b"raw".to_vec()], moment(at))?;
            let event = emit.event(&self.channel, &proposed.tx_id, Timestamp::clamped(at));
            data.push(transaction(signer, proposed, Effects::event(&emit.chaincode, event), &[])?);
            flags.push(emit.code as u8);
        }
        self.seal(&mut inner, data, flags, &Updates::new())
    }

    /// Commits a block that has nothing of ours.
    pub fn append_other(&self, msp_id: &str) -> Result<u64, MspError> {
        self.append(&[Emit::raw(msp_id, "moved", b"{}".to_vec()).of_chaincode("basic")])
    }

    /// Commits one block of any bytes, all called valid.
    pub fn append_data(&self, data: Vec<Vec<u8>>) -> Result<u64, MspError> {
        let flags = vec![TxValidationCode::Valid as u8; data.len()];
        self.seal(&mut self.inner(), data, flags, &Updates::new())
    }

    /// Commits a configuration under which another organisation orders, and does so from the next block on.
    pub fn rotate_orderer(&self, msp_id: &str) -> Result<u64, MspError> {
        let mut inner = self.inner();
        let added = member(msp_id, Role::Orderer)?;
        inner.orderers.insert(msp_id.to_owned(), added);
        // The old orderer signs the block that names the new one, and only that one orders after it.
        let old = inner.orderer.clone();
        let kept = inner.orderers.remove(&old);
        inner.last_config = inner.blocks.len() as u64;
        let data = self.configuration(&inner)?;
        inner.orderers.extend(kept.map(|kept| (old.clone(), kept)));
        let number = self.seal(&mut inner, data, vec![TxValidationCode::Valid as u8], &Updates::new())?;
        inner.orderers.remove(&old);
        inner.orderer = msp_id.to_owned();
        Ok(number)
    }

    /// Falsifies a committed block.
    pub fn tamper(&self, number: u64, how: Tamper) -> Result<(), MspError> {
        let mut inner = self.inner();
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let Some(block) = inner.blocks.get_mut(index) else { return Ok(()) };
        let (Some(header), Some(data)) = (block.header.as_mut(), block.data.as_mut()) else {
            return Ok(());
        };
        match how {
            Tamper::Data | Tamper::DataAndHash => {
                if let Some(byte) = data.data.first_mut().and_then(|bytes| bytes.last_mut()) {
                    *byte ^= 1;
                }
                if how == Tamper::DataAndHash {
                    header.data_hash = block::data_hash(&data.data).to_vec();
                }
            }
            Tamper::Code { tx, code } => {
                if let Some(flag) = flags(block).and_then(|flags| flags.get_mut(tx)) {
                    *flag = code as u8;
                }
            }
            Tamper::CommitHash => set(block, BlockMetadataIndex::CommitHash, commit_hash_slot(&[7; 32])),
            Tamper::NoCommitHash => set(block, BlockMetadataIndex::CommitHash, Vec::new()),
            Tamper::PreviousHash => header.previous_hash = vec![7; 32],
            Tamper::Signature => {
                let header = header.clone();
                let slot = signatures(&header, &self.stranger, 0)?;
                set(block, BlockMetadataIndex::Signatures, slot);
            }
            Tamper::NoSignature => set(block, BlockMetadataIndex::Signatures, Metadata::default().encode_to_vec()),
        }
        Ok(())
    }

    /// Forgets the blocks from a number on, as a ledger that was restored from an old backup would. What is committed next
    /// makes another history.
    pub fn fork(&self, from: u64) {
        let mut inner = self.inner();
        inner.blocks.truncate(usize::try_from(from).unwrap_or(usize::MAX));
        inner.clock += 1_000;
        self.height.send_replace(inner.blocks.len() as u64);
    }

    /// Starts anew with another genesis block.
    pub fn reset(&self) -> Result<(), MspError> {
        let mut inner = self.inner();
        inner.blocks.clear();
        inner.state = MemoryState::new();
        inner.last_config = 0;
        inner.clock += 1_000;
        self.configure(&mut inner)
    }

    /// Runs a function of the chaincode as a member, and commits what it did.
    pub(super) fn submit(&self, msp_id: &str, function: &str, args: &[Vec<u8>]) -> Result<Committed, SubmitError> {
        let draft = self.draft(msp_id, function, args)?;
        if draft.effects.response.status >= 400 {
            return Err(SubmitError::Refused {
                function: function.to_owned(),
                status: draft.effects.response.status,
                message: draft.effects.response.message,
            });
        }
        let tx_id = draft.tx_id().to_owned();
        let block = self.commit(vec![draft])?;
        Ok(Committed {
            tx_id,
            block,
            code: TxValidationCode::Valid,
        })
    }

    /// Runs a function of the chaincode as a member, and gives its answer.
    pub(super) fn ask(&self, msp_id: &str, function: &str, args: &[Vec<u8>]) -> Result<chaincode::stub::Response, MspError> {
        let signer = self.known(msp_id)?;
        let inner = self.inner();
        let all = all_args(function, args);
        let invocation = (creator(signer), inner.clock);
        let tx_id = "0".repeat(64);
        Ok(inner
            .state
            .execute(&self.invocation(&invocation.0, &tx_id, invocation.1, &all))
            .response)
    }

    pub(super) fn invocation<'a>(&'a self, creator: &'a Creator, tx_id: &'a str, seconds: i64, args: &'a [Vec<u8>]) -> Invocation<'a> {
        Invocation {
            channel: self.channel.as_str(),
            tx_id,
            seconds,
            creator,
            args,
        }
    }

    pub(super) fn known(&self, msp_id: &str) -> Result<&PemSigner, MspError> {
        self.members
            .get(msp_id)
            .map(|member| member.signer.as_ref())
            .ok_or_else(|| MspError::UnknownOrganisation(msp_id.to_owned()))
    }

    pub(super) fn seal(&self, inner: &mut Inner, data: Vec<Vec<u8>>, flags: Vec<u8>, updates: &Updates) -> Result<u64, MspError> {
        let block = self.sealed(inner, data, flags, updates)?;
        inner.blocks.push(block);
        let height = inner.blocks.len() as u64;
        self.height.send_replace(height);
        Ok(height - 1)
    }

    /// Makes the block after the last one, signed by the orderer, with what an honest peer adds to it.
    pub(super) fn sealed(&self, inner: &Inner, data: Vec<Vec<u8>>, flags: Vec<u8>, updates: &Updates) -> Result<Block, MspError> {
        let number = inner.blocks.len() as u64;
        let previous = inner.blocks.last().and_then(|block| block.header.as_ref()).map(block::header_hash);
        let header = BlockHeader {
            number,
            previous_hash: previous.map(|hash| hash.to_vec()).unwrap_or_default(),
            data_hash: block::data_hash(&data).to_vec(),
        };
        let orderer = inner.orderers.get(&inner.orderer).map(|member| member.signer.as_ref());
        let orderer = orderer.ok_or_else(|| MspError::UnknownOrganisation(inner.orderer.clone()))?;
        let signed = signatures(&header, orderer, inner.last_config)?;
        let mut block = Block {
            header: Some(header),
            data: Some(BlockData { data }),
            metadata: Some(metadata::empty()),
        };
        set(&mut block, BlockMetadataIndex::Signatures, signed);
        if let Some(before) = inner.blocks.last() {
            let previous = metadata::commit_hash(before).ok().flatten().unwrap_or_default();
            let hash = commit_hash::commit_hash(&flags, draft::updates(updates), &previous);
            set(&mut block, BlockMetadataIndex::CommitHash, commit_hash_slot(&hash));
        }
        set(&mut block, BlockMetadataIndex::TransactionsFilter, flags);
        Ok(block)
    }

    fn configure(&self, inner: &mut Inner) -> Result<(), MspError> {
        let data = self.configuration(inner)?;
        self.seal(inner, data, vec![TxValidationCode::Valid as u8], &Updates::new())
            .map(drop)
    }

    fn configuration(&self, inner: &Inner) -> Result<Vec<Vec<u8>>, MspError> {
        let mut root = ConfigGroup::default();
        let mut application = section(&self.members);
        let msp_ids: Vec<&str> = self.members.keys().map(String::as_str).collect();
        let enough = policy::out_of(msp_ids.len().saturating_sub(1).max(1), &msp_ids, MspRoleType::Peer);
        application
            .policies
            .insert("Endorsement".into(), named(PolicyType::Signature, enough.encode_to_vec()));
        root.groups.insert("Application".into(), application);
        let mut orderer = section(&inner.orderers);
        let any = ImplicitMetaPolicy {
            sub_policy: "Writers".into(),
            rule: implicit_meta_policy::Rule::Any as i32,
        };
        orderer
            .policies
            .insert("BlockValidation".into(), named(PolicyType::ImplicitMeta, any.encode_to_vec()));
        root.groups.insert("Orderer".into(), orderer);
        let config = ConfigEnvelope {
            config: Some(Config {
                sequence: inner.last_config,
                channel_group: Some(root),
            }),
            last_update: None,
        };
        let channel_header = ChannelHeader {
            r#type: HeaderType::Config as i32,
            timestamp: Some(moment(inner.clock)),
            channel_id: self.channel.to_string(),
            ..ChannelHeader::default()
        };
        let signature_header = SignatureHeader {
            creator: Vec::new(),
            nonce: proposal::nonce()?,
        };
        let payload = Payload {
            header: Some(Header {
                channel_header: channel_header.encode_to_vec(),
                signature_header: signature_header.encode_to_vec(),
            }),
            data: config.encode_to_vec(),
        };
        let envelope = Envelope {
            payload: payload.encode_to_vec(),
            signature: Vec::new(),
        };
        Ok(vec![envelope.encode_to_vec()])
    }
}

pub(super) fn creator(signer: &PemSigner) -> Creator {
    Creator {
        msp_id: signer.msp_id().to_owned(),
        certificate: signer.certificate_pem().as_bytes().to_vec(),
    }
}

pub(super) fn all_args(function: &str, args: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = vec![function.as_bytes().to_vec()];
    all.extend_from_slice(args);
    all
}

/// The validation codes of a block, to be changed.
fn flags(block: &mut Block) -> Option<&mut Vec<u8>> {
    let slots = &mut block.metadata.as_mut()?.metadata;
    slots.get_mut(BlockMetadataIndex::TransactionsFilter as usize)
}

fn commit_hash_slot(hash: &[u8]) -> Vec<u8> {
    Metadata {
        value: hash.to_vec(),
        signatures: Vec::new(),
    }
    .encode_to_vec()
}

fn section(organisations: &BTreeMap<String, Member>) -> ConfigGroup {
    let mut section = ConfigGroup::default();
    for (msp_id, member) in organisations {
        let ca = member.authority.certificate_pem();
        let definition = msp::organisation::definition(msp_id, ca, ca);
        let config = MspConfig {
            r#type: 0,
            config: definition.encode_to_vec(),
        };
        let value = ConfigValue {
            value: config.encode_to_vec(),
            ..ConfigValue::default()
        };
        let writers = policy::out_of(1, &[msp_id], MspRoleType::Member).encode_to_vec();
        let group = ConfigGroup {
            values: BTreeMap::from([("MSP".to_owned(), value)]),
            policies: BTreeMap::from([("Writers".to_owned(), named(PolicyType::Signature, writers))]),
            ..ConfigGroup::default()
        };
        section.groups.insert(msp_id.clone(), group);
    }
    section
}

fn named(kind: PolicyType, value: Vec<u8>) -> ConfigPolicy {
    ConfigPolicy {
        policy: Some(Policy {
            r#type: kind as i32,
            value,
        }),
        ..ConfigPolicy::default()
    }
}

fn signatures(header: &BlockHeader, orderer: &PemSigner, last_config: u64) -> Result<Vec<u8>, MspError> {
    let value = OrdererBlockMetadata {
        last_config: Some(LastConfig { index: last_config }),
        consenter_metadata: Vec::new(),
    }
    .encode_to_vec();
    let signature_header = SignatureHeader {
        creator: orderer.identity(),
        nonce: proposal::nonce()?,
    }
    .encode_to_vec();
    let signature = orderer.sign(&metadata::signed_bytes(&value, &signature_header, header))?;
    let signatures = vec![MetadataSignature {
        signature_header,
        signature,
        identifier_header: Vec::new(),
    }];
    Ok(Metadata { value, signatures }.encode_to_vec())
}

fn set(block: &mut Block, slot: BlockMetadataIndex, bytes: Vec<u8>) {
    if let Some(found) = block
        .metadata
        .as_mut()
        .and_then(|metadata| metadata.metadata.get_mut(slot as usize))
    {
        *found = bytes;
    }
}
