//! The state as one transaction sees it, with the peer at the other end of a stream.

use std::sync::mpsc::RecvTimeoutError;

use chaincode::stub::{Stub, StubError};
use prost::Message;
use protos::peer::chaincode_message::Type;
use protos::peer::{
    ChaincodeEvent, ChaincodeMessage, DelState, GetState, GetStateByRange, PutState, QueryResponse, QueryStateClose, QueryStateNext,
};
use protos::queryresult::Kv;
use tokio::sync::mpsc;
use tonic::Status;

use crate::Limits;
use crate::calls::{Calls, Key};

/// The longest text of a peer's error that is passed on, in characters.
pub(crate) const LONGEST: usize = 1_000;

/// What is sent to the peer.
pub(crate) type Outbound = mpsc::Sender<Result<ChaincodeMessage, Status>>;

/// A stub whose calls go over a stream. It blocks: one transaction has one thread.
pub(crate) struct Remote<'a> {
    key: &'a Key,
    calls: &'a Calls,
    outbound: &'a Outbound,
    limits: &'a Limits,
    event: Option<ChaincodeEvent>,
    fault: Option<String>,
}

/// A message of a transaction.
pub(crate) fn message(key: &Key, kind: Type, payload: Vec<u8>) -> ChaincodeMessage {
    ChaincodeMessage {
        r#type: kind.into(),
        payload,
        txid: key.1.clone(),
        channel_id: key.0.clone(),
        ..ChaincodeMessage::default()
    }
}

/// Somebody else's text, short enough for an error.
pub(crate) fn bounded(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Holds a message to the bound: one above it would end the stream, and every transaction on it.
pub(crate) fn fitting(message: ChaincodeMessage, most: usize) -> Result<ChaincodeMessage, String> {
    let bytes = message.encoded_len();
    if bytes > most {
        let kind = message.r#type().as_str_name();
        return Err(format!("the message {kind} has {bytes} bytes; the limit is {most}"));
    }
    Ok(message)
}

/// The ERROR that ends a transaction.
pub(crate) fn error(key: &Key, text: &str) -> ChaincodeMessage {
    message(key, Type::Error, text.as_bytes().to_vec())
}

impl<'a> Remote<'a> {
    pub(crate) fn new(key: &'a Key, calls: &'a Calls, outbound: &'a Outbound, limits: &'a Limits) -> Self {
        Self {
            key,
            calls,
            outbound,
            limits,
            event: None,
            fault: None,
        }
    }

    /// Returns the event that was set, or why what was written is not what the peer has.
    pub(crate) fn finish(self) -> Result<Option<ChaincodeEvent>, String> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.event),
        }
    }

    /// Sends one call and waits for its answer.
    fn call(&mut self, kind: Type, payload: Vec<u8>) -> Result<Vec<u8>, StubError> {
        let gone = || StubError("the peer's stream has ended".into());
        let call = fitting(message(self.key, kind, payload), self.limits.message_bytes).map_err(StubError)?;
        let answer = self.calls.expect(self.key).ok_or_else(gone)?;
        self.outbound.blocking_send(Ok(call)).map_err(|_| gone())?;
        let answer = answer.recv_timeout(self.limits.answer).map_err(|error| match error {
            RecvTimeoutError::Disconnected => gone(),
            RecvTimeoutError::Timeout => StubError(format!(
                "the peer has not answered {} for {} s",
                kind.as_str_name(),
                self.limits.answer.as_secs()
            )),
        })?;
        match answer.r#type() {
            Type::Response => Ok(answer.payload),
            Type::Error => Err(StubError(bounded(&String::from_utf8_lossy(&answer.payload), LONGEST))),
            other => Err(StubError(format!("the peer answered with {}", other.as_str_name()))),
        }
    }

    fn query(&mut self, kind: Type, payload: Vec<u8>) -> Result<QueryResponse, StubError> {
        let answer = self.call(kind, payload)?;
        QueryResponse::decode(answer.as_slice()).map_err(|error| StubError(format!("the peer's results cannot be decoded: {error}")))
    }

    /// Reads up to `limit` entries of a range, one page of the peer after the other.
    fn range(&mut self, start: &str, end: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        let request = GetStateByRange {
            start_key: start.to_owned(),
            end_key: end.to_owned(),
            ..GetStateByRange::default()
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut page = self.query(Type::GetStateByRange, request.encode_to_vec())?;
        loop {
            if page.has_more && page.results.is_empty() {
                return Err(StubError("the peer sent a page without results and has more".into()));
            }
            for result in page.results {
                if found.len() == limit {
                    break;
                }
                bytes += result.result_bytes.len();
                let entry = Kv::decode(result.result_bytes.as_slice())
                    .map_err(|error| StubError(format!("the peer's result cannot be decoded: {error}")))?;
                found.push((entry.key, entry.value));
            }
            if bytes > self.limits.range_bytes {
                let most = self.limits.range_bytes;
                return Err(StubError(format!("a range query's results have more than {most} bytes")));
            }
            if !page.has_more {
                return Ok(found);
            }
            if found.len() == limit {
                let close = QueryStateClose { id: page.id };
                self.query(Type::QueryStateClose, close.encode_to_vec())?;
                return Ok(found);
            }
            let next = QueryStateNext { id: page.id };
            page = self.query(Type::QueryStateNext, next.encode_to_vec())?;
        }
    }

    /// Writes; what goes wrong is remembered, and ends the transaction.
    fn write(&mut self, key: &str, kind: Type, payload: Vec<u8>) {
        if self.fault.is_some() {
            return;
        }
        let written = if key.is_empty() {
            Err(StubError("the chaincode wrote an empty key".into()))
        } else {
            self.call(kind, payload)
        };
        if let Err(StubError(why)) = written {
            self.fault = Some(format!("cannot write the ledger's state: {why}"));
        }
    }
}

impl Stub for Remote<'_> {
    fn get_state(&mut self, key: &str) -> Result<Option<Vec<u8>>, StubError> {
        let request = GetState {
            key: key.to_owned(),
            ..GetState::default()
        };
        let value = self.call(Type::GetState, request.encode_to_vec())?;
        // A value on a Fabric ledger is never empty: an empty answer is an absent key.
        Ok((!value.is_empty()).then_some(value))
    }

    fn get_state_by_range(&mut self, start: &str, end: &str) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        let most = self.limits.range_results;
        let found = self.range(start, end, most + 1)?;
        if found.len() > most {
            return Err(StubError(format!("a range query has more than {most} results")));
        }
        Ok(found)
    }

    fn get_state_page(&mut self, start: &str, end: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StubError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.range(start, end, limit)
    }

    fn put_state(&mut self, key: &str, value: Vec<u8>) {
        let request = PutState {
            key: key.to_owned(),
            value,
            ..PutState::default()
        };
        self.write(key, Type::PutState, request.encode_to_vec());
    }

    fn del_state(&mut self, key: &str) {
        let request = DelState {
            key: key.to_owned(),
            ..DelState::default()
        };
        self.write(key, Type::DelState, request.encode_to_vec());
    }

    fn set_event(&mut self, name: &str, payload: Vec<u8>) {
        if name.is_empty() {
            self.fault = Some("the chaincode set an event without a name".into());
            return;
        }
        // The peer fills in the chaincode's name.
        self.event = Some(ChaincodeEvent {
            tx_id: self.key.1.clone(),
            event_name: name.to_owned(),
            payload,
            ..ChaincodeEvent::default()
        });
    }
}
