//! What a committing peer checks of every transaction, in a peer's order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use msp::channel::Membership;
use prost::Message;
use protos::common::HeaderType;
use protos::envelope::{self, EndorsedTransaction, Opened};
use protos::kvrwset::{KvRead, KvrwSet, RangeQueryInfo, range_query_info};
use protos::msp::SerializedIdentity;
use protos::peer::TxValidationCode as Code;
use protos::txid;

use crate::world_state::{Updates, Version, WorldState};

/// The most endorsements that are looked at in one transaction.
const MAX_ENDORSEMENTS: usize = 64;
/// The policy that a transaction's endorsements must satisfy.
pub(crate) const ENDORSEMENT_POLICY: &str = "Application/Endorsement";

/// A transaction after the checks that need no state.
pub(crate) struct Checked {
    pub(crate) code: Code,
    /// The transaction's id, where its creator is known to have chosen it.
    pub(crate) tx_id: Option<String>,
    pub(crate) transaction: Option<Box<EndorsedTransaction>>,
}

impl Checked {
    fn refused(code: Code, tx_id: Option<String>) -> Self {
        Self {
            code,
            tx_id,
            transaction: None,
        }
    }
}

/// Checks one transaction for everything but duplicates and conflicts.
pub(crate) fn check(bytes: &[u8], channel: &str, program: &str, membership: &Membership) -> Checked {
    let opened = match open(bytes, membership) {
        Ok(opened) => opened,
        Err(code) => return Checked::refused(code, None),
    };
    if !opened.is(HeaderType::EndorserTransaction) {
        let configuration = opened.is(HeaderType::Config) || opened.is(HeaderType::ConfigUpdate);
        let code = if configuration {
            Code::InvalidConfigTransaction
        } else {
            Code::UnsupportedTxPayload
        };
        return Checked::refused(code, None);
    }
    let header = &opened.signature;
    if opened.channel.tx_id != txid::tx_id(&header.nonce, &header.creator) {
        return Checked::refused(Code::BadProposalTxid, None);
    }
    let tx_id = Some(opened.channel.tx_id.clone());
    let transaction = match envelope::endorsed(&opened) {
        Ok(transaction) => transaction,
        Err(error) => return Checked::refused(error.validation_code(), tx_id),
    };
    match check_transaction(&opened, &transaction, channel, program, membership) {
        Ok(()) => Checked {
            code: Code::Valid,
            tx_id,
            transaction: Some(Box::new(transaction)),
        },
        Err(code) => Checked::refused(code, tx_id),
    }
}

/// Opens an envelope and checks its headers and its creator's signature.
fn open(bytes: &[u8], membership: &Membership) -> Result<Opened, Code> {
    let envelope = envelope::decode_envelope(bytes).map_err(|error| error.validation_code())?;
    let opened = envelope::open(&envelope).map_err(|error| error.validation_code())?;
    let known = [HeaderType::EndorserTransaction, HeaderType::Config, HeaderType::ConfigUpdate];
    let header = &opened.signature;
    if !known.iter().any(|wanted| opened.is(*wanted)) || opened.channel.epoch != 0 || header.nonce.is_empty() || header.creator.is_empty() {
        return Err(Code::BadCommonHeader);
    }
    membership
        .authenticate(&header.creator)
        .and_then(|creator| creator.verify(&envelope.payload, &envelope.signature))
        .map_err(|_| Code::BadCreatorSignature)?;
    Ok(opened)
}

fn check_transaction(
    opened: &Opened,
    transaction: &EndorsedTransaction,
    channel: &str,
    program: &str,
    membership: &Membership,
) -> Result<(), Code> {
    if transaction.endorsed_proposal_hash != transaction.invocation.proposal_hash {
        return Err(Code::InvalidEndorserTransaction);
    }
    if opened.channel.channel_id != channel {
        return Err(Code::TargetChainNotFound);
    }
    if transaction.invocation.chaincode.name != program || transaction.chaincode.name != program {
        return Err(Code::InvalidChaincode);
    }
    if transaction.response.status < 200 || transaction.response.status >= 400 {
        return Err(Code::BadResponsePayload);
    }
    if let Some(event) = &transaction.event
        && (event.chaincode_id != program || event.tx_id != opened.channel.tx_id)
    {
        return Err(Code::InvalidOtherReason);
    }
    check_namespaces(transaction, program)?;
    check_endorsements(transaction, membership)
}

fn check_namespaces(transaction: &EndorsedTransaction, program: &str) -> Result<(), Code> {
    if transaction.namespaces.len() > 1 {
        return Err(Code::BadRwset);
    }
    for namespace in &transaction.namespaces {
        if namespace.name != program || namespace.private_collections > 0 {
            return Err(Code::IllegalWriteset);
        }
        if !namespace.rwset.metadata_writes.is_empty() {
            return Err(Code::IllegalWriteset);
        }
        let mut keys = BTreeSet::new();
        let repeated = namespace
            .rwset
            .writes
            .iter()
            .any(|write| write.key.is_empty() || !keys.insert(&write.key));
        let hashed = namespace
            .rwset
            .range_queries_info
            .iter()
            .any(|query| matches!(query.reads_info, Some(range_query_info::ReadsInfo::ReadsMerkleHashes(_))));
        if repeated || hashed {
            return Err(Code::BadRwset);
        }
    }
    Ok(())
}

fn check_endorsements(transaction: &EndorsedTransaction, membership: &Membership) -> Result<(), Code> {
    if transaction.endorsements.len() > MAX_ENDORSEMENTS {
        return Err(Code::EndorsementPolicyFailure);
    }
    let mut signers = Vec::new();
    for endorsement in &transaction.endorsements {
        let Ok(identity) = membership.authenticate(&endorsement.endorser) else {
            continue;
        };
        let signed = [transaction.response_payload.as_slice(), &endorsement.endorser].concat();
        if identity.verify(&signed, &endorsement.signature).is_ok() {
            signers.push(identity);
        }
    }
    if membership.satisfied(ENDORSEMENT_POLICY, &signers) {
        Ok(())
    } else {
        Err(Code::EndorsementPolicyFailure)
    }
}

/// Checks a transaction's reads against the state and what earlier transactions of the block write, then adds its writes.
pub(crate) fn apply(transaction: &EndorsedTransaction, version: Version, state: &WorldState, updates: &mut Updates) -> Code {
    for namespace in &transaction.namespaces {
        if let Some(code) = conflict(&namespace.rwset, state, updates) {
            return code;
        }
    }
    add_writes(transaction, version, updates);
    Code::Valid
}

/// Adds a valid transaction's writes to its block's.
pub(crate) fn add_writes(transaction: &EndorsedTransaction, version: Version, updates: &mut Updates) {
    for namespace in &transaction.namespaces {
        for write in &namespace.rwset.writes {
            // Fabric takes an empty value for a deletion.
            let deleted = write.is_delete || write.value.is_empty();
            let value = (!deleted).then(|| Arc::from(write.value.as_slice()));
            updates.insert(write.key.clone(), (value, version));
        }
    }
}

fn conflict(set: &KvrwSet, state: &WorldState, updates: &Updates) -> Option<Code> {
    let stale = |read: &KvRead| updates.contains_key(&read.key) || state.get(&read.key).map(|found| found.version) != version_of(read);
    if set.reads.iter().any(stale) {
        return Some(Code::MvccReadConflict);
    }
    set.range_queries_info
        .iter()
        .any(|query| phantom(query, state, updates))
        .then_some(Code::PhantomReadConflict)
}

fn version_of(read: &KvRead) -> Option<Version> {
    read.version.as_ref().map(|version| Version {
        block: version.block_num,
        tx: version.tx_num,
    })
}

/// Tells whether a range would now give other keys or versions than the transaction saw.
fn phantom(query: &RangeQueryInfo, state: &WorldState, updates: &Updates) -> bool {
    let seen: &[KvRead] = match &query.reads_info {
        Some(range_query_info::ReadsInfo::RawReads(reads)) => &reads.kv_reads,
        _ => &[],
    };
    let (start, end) = (query.start_key.as_str(), query.end_key.as_str());
    // A query that wasn't read to its end vouches only for what stands up to its last key, that key included.
    let in_range = |key: &str| key >= start && (end.is_empty() || key < end || !query.itr_exhausted && key == end);
    let mut now: BTreeMap<&str, Option<Version>> = state.range(start, end).map(|(key, found)| (key, Some(found.version))).collect();
    if !query.itr_exhausted
        && let Some(found) = state.get(end)
    {
        now.insert(end, Some(found.version));
    }
    for (key, (value, version)) in updates.iter().filter(|(key, _)| in_range(key)) {
        match value {
            Some(_) => drop(now.insert(key, Some(*version))),
            None => drop(now.remove(key.as_str())),
        }
    }
    !now.into_iter().eq(seen.iter().map(|read| (read.key.as_str(), version_of(read))))
}

/// Decodes the organisation that a serialized identity claims, for messages.
pub(crate) fn claimed_msp_id(serialized: &[u8]) -> String {
    SerializedIdentity::decode(serialized)
        .map(|identity| identity.mspid.chars().take(128).collect())
        .unwrap_or_else(|_| "(unreadable)".into())
}
