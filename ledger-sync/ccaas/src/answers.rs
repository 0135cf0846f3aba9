//! What a peer answers to a chaincode's calls, over the stub of the one transaction that they belong to.

use std::collections::BTreeMap;

use chaincode::stub::{Stub, StubError};
use prost::{DecodeError, Message};
use protos::peer::chaincode_message::Type;
use protos::peer::{
    ChaincodeMessage, DelState, GetState, GetStateByRange, PutState, QueryResponse, QueryResultBytes, QueryStateClose, QueryStateNext,
};
use protos::queryresult::Kv;

use crate::PeerLimits;
use crate::stub::bounded;

/// Why a call is answered with ERROR.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("unmarshal failed: {0}")]
    Malformed(#[from] DecodeError),
    #[error(transparent)]
    State(#[from] StubError),
    #[error("this ledger keeps no private data, and has no collection {0}")]
    PrivateData(String),
    #[error("this ledger answers no rich queries: read keys and ranges of keys")]
    RichQuery,
    #[error("this ledger answers no pages with bookmarks: read the range to where it is needed, and close it")]
    Bookmarks,
    #[error("this ledger keeps the latest value of a key only, and no history")]
    History,
    #[error("this ledger runs one chaincode, and none can call another one")]
    Call,
    #[error("this ledger does not offer {0}")]
    NotOffered(&'static str),
    #[error("a key is not empty")]
    EmptyKey,
    #[error("query iterator not found")]
    NoRange,
    #[error("the transaction has {0} range queries open already: close them")]
    Ranges(usize),
    #[error("a range query has more than {0} results")]
    TooMany(usize),
}

/// A range query that is not read to its end.
#[derive(Debug)]
struct Range {
    next: String,
    end: String,
    // Read already, and not sent yet: that there is one is how the chaincode hears of more.
    held: Option<(String, Vec<u8>)>,
    sent: usize,
}

/// Answers the calls of one transaction.
pub(crate) struct Answers<'a> {
    stub: &'a mut dyn Stub,
    chaincode: &'a str,
    limits: &'a PeerLimits,
    ranges: BTreeMap<String, Range>,
    opened: u64,
}

impl<'a> Answers<'a> {
    pub(crate) fn new(stub: &'a mut dyn Stub, chaincode: &'a str, limits: &'a PeerLimits) -> Self {
        Self {
            stub,
            chaincode,
            limits,
            ranges: BTreeMap::new(),
            opened: 0,
        }
    }

    /// Sets the transaction's event.
    pub(crate) fn set_event(&mut self, name: &str, payload: Vec<u8>) {
        self.stub.set_event(name, payload);
    }

    /// Answers one call with RESPONSE or ERROR.
    pub(crate) fn answer(&mut self, call: ChaincodeMessage) -> ChaincodeMessage {
        let kind = call.r#type();
        let (kind, payload) = match self.payload(kind, &call.payload) {
            Ok(payload) => (Type::Response, payload),
            Err(refused) => {
                let text = format!("{} failed: transaction ID: {}: {refused}", kind.as_str_name(), call.txid);
                (Type::Error, text.into_bytes())
            }
        };
        ChaincodeMessage {
            r#type: kind.into(),
            payload,
            txid: call.txid,
            channel_id: call.channel_id,
            ..ChaincodeMessage::default()
        }
    }

    fn payload(&mut self, kind: Type, payload: &[u8]) -> Result<Vec<u8>, Refused> {
        match kind {
            Type::GetState => {
                let call = GetState::decode(payload)?;
                public(&call.collection)?;
                Ok(self.stub.get_state(&call.key)?.unwrap_or_default())
            }
            Type::PutState => {
                let call = PutState::decode(payload)?;
                public(&call.collection)?;
                self.write(&call.key, call.value)
            }
            Type::DelState => {
                let call = DelState::decode(payload)?;
                public(&call.collection)?;
                self.write(&call.key, Vec::new())
            }
            Type::GetStateByRange => {
                let call = GetStateByRange::decode(payload)?;
                public(&call.collection)?;
                if !call.metadata.is_empty() {
                    return Err(Refused::Bookmarks);
                }
                if self.ranges.len() == self.limits.ranges {
                    return Err(Refused::Ranges(self.limits.ranges));
                }
                let range = Range {
                    next: call.start_key,
                    end: call.end_key,
                    held: None,
                    sent: 0,
                };
                self.opened += 1;
                self.page(self.opened.to_string(), range)
            }
            Type::QueryStateNext => {
                let id = QueryStateNext::decode(payload)?.id;
                let range = self.ranges.remove(&id).ok_or(Refused::NoRange)?;
                self.page(id, range)
            }
            Type::QueryStateClose => {
                let id = QueryStateClose::decode(payload)?.id;
                self.ranges.remove(&id);
                let closed = QueryResponse {
                    id,
                    ..QueryResponse::default()
                };
                Ok(closed.encode_to_vec())
            }
            Type::GetQueryResult => Err(Refused::RichQuery),
            Type::GetHistoryForKey => Err(Refused::History),
            Type::InvokeChaincode => Err(Refused::Call),
            Type::GetPrivateDataHash | Type::PurgePrivateData => {
                let collection = GetState::decode(payload)?.collection;
                Err(Refused::PrivateData(bounded(&collection, 80)))
            }
            other => Err(Refused::NotOffered(other.as_str_name())),
        }
    }

    /// Writes a value; an empty one deletes the key, as on every Fabric ledger.
    fn write(&mut self, key: &str, value: Vec<u8>) -> Result<Vec<u8>, Refused> {
        if key.is_empty() {
            return Err(Refused::EmptyKey);
        }
        if value.is_empty() {
            self.stub.del_state(key);
        } else {
            self.stub.put_state(key, value);
        }
        Ok(Vec::new())
    }

    /// Sends the next page of a range, and keeps the rest.
    fn page(&mut self, id: String, mut range: Range) -> Result<Vec<u8>, Refused> {
        let mut entries: Vec<(String, Vec<u8>)> = range.held.take().into_iter().collect();
        // One more than a page shows whether there is another one.
        let asked = self.limits.page + 1 - entries.len();
        let read = self.stub.get_state_page(&range.next, &range.end, asked)?;
        let more = read.len() == asked;
        entries.extend(read);
        if more && let Some(last) = entries.pop() {
            // The least key that is greater than the last one.
            range.next = format!("{}\0", last.0);
            range.held = Some(last);
        }
        range.sent += entries.len();
        if range.sent > self.limits.range_results {
            return Err(Refused::TooMany(self.limits.range_results));
        }
        let results = entries.into_iter().map(|(key, value)| QueryResultBytes {
            result_bytes: Kv {
                namespace: self.chaincode.to_owned(),
                key,
                value,
            }
            .encode_to_vec(),
        });
        let page = QueryResponse {
            results: results.collect(),
            has_more: range.held.is_some(),
            id: id.clone(),
            metadata: Vec::new(),
        };
        if page.has_more {
            self.ranges.insert(id, range);
        }
        Ok(page.encode_to_vec())
    }
}

fn public(collection: &str) -> Result<(), Refused> {
    if collection.is_empty() {
        Ok(())
    } else {
        Err(Refused::PrivateData(bounded(collection, 80)))
    }
}
