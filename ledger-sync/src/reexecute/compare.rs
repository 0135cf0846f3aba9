//! One transaction, run again over the state before it, and compared with what the ledger recorded.

use std::collections::{BTreeMap, BTreeSet};

use chaincode::memory::{Execution, MemoryState, Writes};
use chaincode::stub::Invocation;
use protos::envelope::{EndorsedTransaction, Namespace};
use state::ids::Channel;

use super::definition::LIFECYCLE;
use super::difference::{Difference, Ran, shortened};
use super::recorded::Ours;

/// What every transaction may read of, beside its chaincode's own namespace: the lifecycle, and the one before it.
const READ_BY_ALL: [&str; 2] = [LIFECYCLE, "lscc"];

/// Runs a transaction again and gives what it writes, when that is what the ledger recorded.
pub(super) fn rerun(channel: &Channel, ours: &Ours, state: &MemoryState) -> Result<Writes, Difference> {
    let transaction = &ours.transaction;
    formed(ours)?;
    let own = own(transaction)?;
    let execution = state.execute(&Invocation {
        channel: channel.as_str(),
        tx_id: &ours.tx_id,
        seconds: ours.seconds,
        creator: &ours.creator,
        args: &transaction.invocation.args,
    });
    if execution.response.status >= 400 {
        return Err(Difference::Refused {
            status: execution.response.status,
            message: shortened(&execution.response.message),
        });
    }
    compare(transaction, own, &execution)?;
    Ok(execution.writes)
}

/// Checks that creator and endorsers speak of one proposal to one chaincode.
fn formed(ours: &Ours) -> Result<(), Difference> {
    let transaction = &ours.transaction;
    if transaction.endorsed_proposal_hash != transaction.invocation.proposal_hash {
        return Err(Difference::Malformed(
            "its endorsements are of another proposal than its creator signed",
        ));
    }
    if transaction.chaincode.name != chaincode::NAME {
        return Err(Difference::Malformed("its endorsers ran another chaincode than its creator called"));
    }
    if let Some(event) = &transaction.event
        && (event.chaincode_id != chaincode::NAME || event.tx_id != ours.tx_id)
    {
        return Err(Difference::Malformed("its event is of another chaincode or transaction"));
    }
    Ok(())
}

/// Finds the chaincode's own reads and writes, when there are no others that count.
fn own(transaction: &EndorsedTransaction) -> Result<Option<&Namespace>, Difference> {
    let mut own = None;
    for namespace in &transaction.namespaces {
        let set = &namespace.rwset;
        let hidden = !namespace.collections.is_empty() || !set.metadata_writes.is_empty();
        let is_own = namespace.name == chaincode::NAME;
        let only_read = READ_BY_ALL.contains(&namespace.name.as_str()) && set.writes.is_empty();
        if hidden || !is_own && !only_read || is_own && own.is_some() {
            return Err(Difference::Namespace {
                namespace: shortened(&namespace.name),
            });
        }
        if is_own {
            own = Some(namespace);
        }
    }
    Ok(own)
}

fn compare(transaction: &EndorsedTransaction, own: Option<&Namespace>, execution: &Execution) -> Result<(), Difference> {
    let version = || Ran(shortened(&transaction.chaincode.version));
    let (answer, recorded) = (&execution.response, &transaction.response);
    if (answer.status, &answer.message, &answer.payload) != (recorded.status, &recorded.message, &recorded.payload) {
        return Err(Difference::Response { version: version() });
    }
    let event = transaction.event.as_ref().map(|event| (&event.event_name, &event.payload));
    if event != execution.event.as_ref().map(|(name, payload)| (name, payload)) {
        return Err(Difference::Event { version: version() });
    }
    if let Some(key) = own.and_then(|own| differing_write(own, &execution.writes)).or_else(|| {
        // Nothing was recorded at all.
        let first = execution.writes.keys().next();
        first.filter(|_| own.is_none()).cloned()
    }) {
        return Err(Difference::Writes {
            key: shortened(&key),
            version: version(),
        });
    }
    if let Some(key) = differing_read(own, execution) {
        return Err(Difference::Reads {
            key: shortened(&key),
            version: version(),
        });
    }
    Ok(())
}

/// The first key, in key order, that is written otherwise than by the chaincode.
fn differing_write(own: &Namespace, made: &Writes) -> Option<String> {
    let mut recorded: BTreeMap<&str, Option<&[u8]>> = BTreeMap::new();
    for write in &own.rwset.writes {
        // Fabric takes an empty value for a deletion.
        let value = (!write.is_delete && !write.value.is_empty()).then_some(write.value.as_slice());
        if recorded.insert(&write.key, value).is_some() {
            return Some(write.key.clone());
        }
    }
    let keys: BTreeSet<&str> = recorded.keys().copied().chain(made.keys().map(String::as_str)).collect();
    keys.into_iter()
        .find(|key| recorded.get(key).copied() != made.get(*key).map(Option::as_deref))
        .map(str::to_owned)
}

/// The first key, or start of a range, that is read otherwise than by the chaincode.
fn differing_read(own: Option<&Namespace>, execution: &Execution) -> Option<String> {
    let set = own.map(|own| &own.rwset);
    let reads: BTreeSet<&str> = set.into_iter().flat_map(|set| &set.reads).map(|read| read.key.as_str()).collect();
    let made: BTreeSet<&str> = execution.reads.iter().map(String::as_str).collect();
    if let Some(key) = reads.symmetric_difference(&made).next() {
        return Some((*key).to_owned());
    }
    let ranges = set.into_iter().flat_map(|set| &set.range_queries_info);
    let mut left: BTreeSet<(&str, &str)> = execution.ranges.iter().map(|(start, end)| (start.as_str(), end.as_str())).collect();
    let mut known = BTreeSet::new();
    for query in ranges {
        let (start, end) = (query.start_key.as_str(), query.end_key.as_str());
        // Of a range that wasn't read to its end the ledger keeps the last key that was.
        let made = execution
            .ranges
            .iter()
            .map(|(start, end)| (start.as_str(), end.as_str()))
            .find(|made| made.0 == start && (made.1 == end || !query.itr_exhausted));
        match made {
            Some(made) => {
                left.remove(&made);
                known.insert(made);
            }
            None => return Some(start.to_owned()),
        }
    }
    left.difference(&known).next().map(|(start, _)| (*start).to_owned())
}
