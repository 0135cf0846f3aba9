//! Running a chaincode against a snapshot of the state, recording what it reads and writes.

use std::collections::BTreeMap;

use chaincode::stub::{Stub, StubError};
use prost::Message;
use protos::kvrwset::{self, KvRead, KvWrite, KvrwSet, QueryReads, RangeQueryInfo, range_query_info};
use protos::rwset::{NsReadWriteSet, TxReadWriteSet};

use crate::world_state::{Version, WorldState};

/// A stub over one snapshot. Reads never see the transaction's own writes.
pub(crate) struct Simulation<'a> {
    state: &'a WorldState,
    range_results: usize,
    reads: BTreeMap<String, Option<Version>>,
    ranges: Vec<RangeQueryInfo>,
    writes: BTreeMap<String, Option<Vec<u8>>>,
    event: Option<(String, Vec<u8>)>,
    fault: Option<String>,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(state: &'a WorldState, range_results: usize) -> Self {
        Self {
            state,
            range_results,
            reads: BTreeMap::new(),
            ranges: Vec::new(),
            writes: BTreeMap::new(),
            event: None,
            fault: None,
        }
    }

    /// Returns what the run did that no transaction may do.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Returns the encoded read-write set under a namespace, and the event.
    pub(crate) fn finish(self, namespace: &str) -> (Vec<u8>, Option<(String, Vec<u8>)>) {
        let reads = self
            .reads
            .into_iter()
            .map(|(key, version)| KvRead {
                key,
                version: version.map(Into::into),
            })
            .collect();
        let writes = self
            .writes
            .into_iter()
            .map(|(key, value)| KvWrite {
                key,
                is_delete: value.is_none(),
                value: value.unwrap_or_default(),
            })
            .collect();
        let set = KvrwSet {
            reads,
            range_queries_info: self.ranges,
            writes,
            metadata_writes: Vec::new(),
        };
        let namespace = NsReadWriteSet {
            namespace: namespace.to_owned(),
            rwset: set.encode_to_vec(),
            collection_hashed_rwset: Vec::new(),
        };
        (
            TxReadWriteSet {
                data_model: 0,
                ns_rwset: vec![namespace],
            }
            .encode_to_vec(),
            self.event,
        )
    }

    /// Reads up to `limit` entries of a range and records what was seen. Where it stops early, the record ends with the last
    /// key that was read, so that changes behind it are no conflict.
    fn read_range(&mut self, start: &str, end: &str, limit: usize) -> Vec<(String, Vec<u8>)> {
        if limit == 0 {
            return Vec::new();
        }
        let mut results = Vec::new();
        let mut reads = Vec::new();
        for (key, found) in self.state.range(start, end).take(limit) {
            reads.push(KvRead {
                key: key.to_owned(),
                version: Some(found.version.into()),
            });
            results.push((key.to_owned(), found.value.to_vec()));
        }
        let stopped_at = results.last().filter(|_| results.len() == limit).map(|(key, _)| key.clone());
        self.ranges.push(RangeQueryInfo {
            start_key: start.to_owned(),
            itr_exhausted: stopped_at.is_none(),
            end_key: stopped_at.unwrap_or_else(|| end.to_owned()),
            reads_info: Some(range_query_info::ReadsInfo::RawReads(QueryReads { kv_reads: reads })),
        });
        results
    }

    fn write(&mut self, key: &str, value: Option<Vec<u8>>) {
        if key.is_empty() {
            self.fault = Some("the chaincode wrote an empty key".into());
            return;
        }
        self.writes.insert(key.to_owned(), value);
    }
}

impl From<Version> for kvrwset::Version {
    fn from(version: Version) -> Self {
        Self {
            block_num: version.block,
            tx_num: version.tx,
        }
    }
}

impl Stub for Simulation<'_> {
    fn get_state(&mut self, key: &str) -> Result<Option<Vec<u8>>, StubError> {
        let found = self.state.get(key);
        self.reads.insert(key.to_owned(), found.map(|found| found.version));
        Ok(found.map(|found| found.value.to_vec()))
    }

    fn get_state_by_range(&mut self, start: &str, end: &str) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        let most = self.range_results;
        let results = self.read_range(start, end, most + 1);
        if results.len() > most {
            return Err(StubError(format!("a range query has more than {most} results")));
        }
        Ok(results)
    }

    fn get_state_page(&mut self, start: &str, end: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        if limit > self.range_results {
            return Err(StubError(format!("a page has at most {} results", self.range_results)));
        }
        Ok(self.read_range(start, end, limit))
    }

    fn put_state(&mut self, key: &str, value: Vec<u8>) {
        self.write(key, Some(value));
    }

    fn del_state(&mut self, key: &str) {
        self.write(key, None);
    }

    fn set_event(&mut self, name: &str, payload: Vec<u8>) {
        if name.is_empty() {
            self.fault = Some("the chaincode set an event without a name".into());
            return;
        }
        self.event = Some((name.to_owned(), payload));
    }
}
