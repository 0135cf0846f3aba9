//! Transactions as their endorsers make them: honest, until a test changes what they say.

use std::collections::{BTreeMap, BTreeSet};

use chaincode::memory::{Execution, MemoryState, Version};
use msp::{MspError, PemSigner};
use protos::commit_hash::{self, Update};
use protos::kvrwset::{self, KvRead, KvWrite, KvrwSet, QueryReads, RangeQueryInfo, range_query_info};
use protos::peer::{Response, TxValidationCode};

use super::MemoryNetwork;
use super::chain::{Inner, all_args, creator};
use super::transaction::{Effects, moment, transaction};
use crate::proposal::{self, Proposed};

/// The last writes of a block, by namespace and key.
pub(super) type Updates = BTreeMap<(String, String), (Option<Vec<u8>>, commit_hash::Version)>;

/// The same, as the commit hash takes them.
pub(super) fn updates(updates: &Updates) -> impl Iterator<Item = Update<'_>> {
    updates.iter().map(|((namespace, key), (value, version))| Update {
        namespace,
        collection: "",
        key: key.as_bytes(),
        value: value.as_deref(),
        version: *version,
    })
}

/// A transaction of the chaincode before it is ordered.
pub struct Draft {
    /// What its endorsers say that the chaincode did. It is what the chaincode did, until it is changed.
    pub effects: Effects,
    /// Whose peers endorse it. Enough of them, until it is changed.
    pub endorsers: Vec<String>,
    /// The validation code that the peer gives it; none: the one that it deserves.
    pub code: Option<TxValidationCode>,
    /// Who signs it; none: its creator.
    pub signed_by: Option<String>,
    msp: String,
    proposed: Proposed,
}

impl Draft {
    /// Its id.
    pub fn tx_id(&self) -> &str {
        &self.proposed.tx_id
    }
}

impl MemoryNetwork {
    /// Runs a function of the chaincode as a member over the present state, and gives the transaction. A refusal is one too.
    pub fn draft(&self, msp_id: &str, function: &str, args: &[Vec<u8>]) -> Result<Draft, MspError> {
        let signer = self.known(msp_id)?;
        let mut inner = self.inner();
        inner.clock += 1;
        let at = inner.clock;
        let all = all_args(function, args);
        let proposed = proposal::propose(signer, &self.channel, chaincode::NAME, all.clone(), moment(at))?;
        let execution = inner.state.execute(&self.invocation(&creator(signer), &proposed.tx_id, at, &all));
        let enough = self.members.len().saturating_sub(1).max(1);
        Ok(Draft {
            effects: effects(&inner.state, execution),
            endorsers: self.members.keys().take(enough).cloned().collect(),
            code: None,
            signed_by: None,
            msp: msp_id.to_owned(),
            proposed,
        })
    }

    /// Makes a transaction of any chaincode, with any effects.
    pub fn draft_of(&self, msp_id: &str, effects: Effects) -> Result<Draft, MspError> {
        let signer = self.known(msp_id)?;
        let mut inner = self.inner();
        inner.clock += 1;
        let proposed = proposal::propose(
            signer,
            &self.channel,
            &effects.chaincode,
            vec![b"any".to_vec()],
            moment(inner.clock),
        )?;
        Ok(Draft {
            effects,
            endorsers: self.members.keys().cloned().collect(),
            code: None,
            signed_by: None,
            msp: msp_id.to_owned(),
            proposed,
        })
    }

    /// Orders drafts as one block, and takes in what the valid ones write. Returns the block's number.
    pub fn commit(&self, drafts: Vec<Draft>) -> Result<u64, MspError> {
        let mut inner = self.inner();
        let number = inner.blocks.len() as u64;
        let mut data = Vec::with_capacity(drafts.len());
        let mut flags = Vec::with_capacity(drafts.len());
        let mut updates = Updates::new();
        for (tx, draft) in (0..).zip(drafts) {
            let Effects { namespaces, .. } = &draft.effects;
            let code = draft.code.unwrap_or_else(|| judged(&inner, namespaces, &updates));
            if code == TxValidationCode::Valid {
                take(
                    &mut inner.state,
                    namespaces,
                    commit_hash::Version { block: number, tx },
                    &mut updates,
                );
            }
            flags.push(code as u8);
            let endorsers = draft
                .endorsers
                .iter()
                .map(|msp_id| self.peer(msp_id))
                .collect::<Result<Vec<_>, _>>()?;
            let signer = self.known(draft.signed_by.as_ref().unwrap_or(&draft.msp))?;
            data.push(transaction(signer, draft.proposed, draft.effects, &endorsers)?);
        }
        self.seal(&mut inner, data, flags, &updates)
    }

    /// Orders other data in the last block's place, as an orderer does that tells one thing to one peer and another to another.
    pub fn equivocate(&self, data: Vec<Vec<u8>>) -> Result<protos::common::Block, MspError> {
        let mut inner = self.inner();
        let last = inner.blocks.pop();
        let flags = vec![TxValidationCode::Valid as u8; data.len()];
        let other = self.sealed(&inner, data, flags, &Updates::new());
        inner.blocks.extend(last);
        other
    }

    fn peer(&self, msp_id: &str) -> Result<&PemSigner, MspError> {
        let found = self.members.get(msp_id).map(|member| &member.peer);
        found.ok_or_else(|| MspError::UnknownOrganisation(msp_id.to_owned()))
    }
}

fn effects(state: &MemoryState, execution: Execution) -> Effects {
    let version = |Version { block, tx }: Version| kvrwset::Version {
        block_num: block,
        tx_num: tx,
    };
    let reads = execution.reads.into_iter().map(|key| KvRead {
        version: state.version(&key).map(version),
        key,
    });
    let ranges = execution.ranges.into_iter().map(|(start_key, end_key)| RangeQueryInfo {
        reads_info: Some(range_query_info::ReadsInfo::RawReads(QueryReads {
            kv_reads: state
                .range(&start_key, &end_key)
                .map(|(key, found)| KvRead {
                    key: key.to_owned(),
                    version: Some(version(found.version)),
                })
                .collect(),
        })),
        start_key,
        end_key,
        itr_exhausted: true,
    });
    let writes = execution.writes.into_iter().map(|(key, value)| KvWrite {
        key,
        is_delete: value.is_none(),
        value: value.unwrap_or_default(),
    });
    let set = KvrwSet {
        reads: reads.collect(),
        range_queries_info: ranges.collect(),
        writes: writes.collect(),
        metadata_writes: Vec::new(),
    };
    Effects {
        chaincode: chaincode::NAME.to_owned(),
        event: execution.event,
        namespaces: vec![(chaincode::NAME.to_owned(), set)],
        response: Response {
            status: execution.response.status,
            message: execution.response.message,
            payload: execution.response.payload,
        },
    }
}

/// The code that an honest peer gives: a conflict, or none.
fn judged(inner: &Inner, namespaces: &[(String, KvrwSet)], updates: &Updates) -> TxValidationCode {
    let own: BTreeSet<&str> = updates
        .keys()
        .filter(|(namespace, _)| namespace == chaincode::NAME)
        .map(|(_, key)| key.as_str())
        .collect();
    let stale = |read: &KvRead| {
        let recorded = read.version.as_ref().map(|version| Version {
            block: version.block_num,
            tx: version.tx_num,
        });
        own.contains(read.key.as_str()) || inner.state.version(&read.key) != recorded
    };
    let changed = |query: &RangeQueryInfo| {
        let now = inner.state.range(&query.start_key, &query.end_key);
        let seen = match &query.reads_info {
            Some(range_query_info::ReadsInfo::RawReads(seen)) => seen.kv_reads.as_slice(),
            _ => &[],
        };
        !now.map(|(key, _)| key).eq(seen.iter().map(|read| read.key.as_str())) || seen.iter().any(stale)
    };
    let ours = || namespaces.iter().filter(|(name, _)| name == chaincode::NAME).map(|(_, set)| set);
    if ours().flat_map(|set| &set.reads).any(stale) {
        TxValidationCode::MvccReadConflict
    } else if ours().flat_map(|set| &set.range_queries_info).any(changed) {
        TxValidationCode::PhantomReadConflict
    } else {
        TxValidationCode::Valid
    }
}

fn take(state: &mut MemoryState, namespaces: &[(String, KvrwSet)], version: commit_hash::Version, updates: &mut Updates) {
    let commit_hash::Version { block, tx } = version;
    for (namespace, set) in namespaces {
        for write in &set.writes {
            let value = (!write.is_delete).then(|| write.value.clone());
            if namespace == chaincode::NAME {
                state.apply_at([(write.key.clone(), value.clone())].into(), Version { block, tx });
            }
            updates.insert((namespace.clone(), write.key.clone()), (value, version));
        }
    }
}
