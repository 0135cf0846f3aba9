//! What an accepted transaction does: writes and one event, decided whole before anything is written.

use serde::Serialize;
use state::canonical::{self, CanonicalError};
use state::event::{CloudEvent, EventBody, MAX_EVENT_BYTES};
use state::ids::{Channel, MemberId, MspId, TxId};
use state::time::Timestamp;

use crate::error::Refused;
use crate::records::Submitted;
use crate::stub::{Creator, Invocation, Response, Stub};

/// One transaction whose envelope was checked.
pub(crate) struct Call<'a> {
    pub(crate) channel: Channel,
    pub(crate) tx_id: TxId,
    pub(crate) at: Timestamp,
    pub(crate) msp: MspId,
    pub(crate) creator: &'a Creator,
}

impl<'a> Call<'a> {
    pub(crate) fn new(invocation: &Invocation<'a>) -> Result<Self, Refused> {
        Ok(Self {
            channel: Channel::new(invocation.channel).map_err(Refused::Name)?,
            tx_id: TxId::new(invocation.tx_id).map_err(Refused::Name)?,
            at: Timestamp::clamped(invocation.seconds),
            msp: MspId::new(invocation.creator.msp_id.as_str()).map_err(Refused::Name)?,
            creator: invocation.creator,
        })
    }

    /// This transaction, as evidence.
    pub(crate) fn submitted(&self, by: &MemberId) -> Submitted {
        Submitted {
            tx_id: self.tx_id.clone(),
            at: self.at,
            by: by.clone(),
        }
    }
}

/// What an accepted transaction does.
pub(crate) struct Effect {
    pub(crate) by: MemberId,
    body: EventBody,
    answer: Vec<u8>,
    writes: Vec<(String, Option<Vec<u8>>)>,
}

impl Effect {
    pub(crate) fn new<T: Serialize>(by: MemberId, body: EventBody, answer: &T) -> Result<Self, CanonicalError> {
        Ok(Self {
            by,
            body,
            answer: canonical::bytes(answer)?,
            writes: Vec::new(),
        })
    }

    pub(crate) fn put<T: Serialize>(&mut self, key: String, value: &T) -> Result<(), CanonicalError> {
        let bytes = canonical::bytes(value)?;
        self.writes.push((key, Some(bytes)));
        Ok(())
    }

    pub(crate) fn put_bytes(&mut self, key: String, value: &[u8]) {
        self.writes.push((key, Some(value.to_vec())));
    }

    pub(crate) fn delete(&mut self, key: String) {
        self.writes.push((key, None));
    }

    /// Writes, and sets the event. Everything that can fail comes first.
    pub(crate) fn commit(self, stub: &mut dyn Stub, call: Call<'_>) -> Result<Response, Refused> {
        let kind = self.body.kind();
        let event = CloudEvent::new(&call.channel, call.tx_id, self.by, call.at, self.body);
        let payload = canonical::bytes(&event)?;
        if payload.len() > MAX_EVENT_BYTES {
            return Err(Refused::Event(payload.len()));
        }
        for (key, value) in self.writes {
            match value {
                Some(bytes) => stub.put_state(&key, bytes),
                None => stub.del_state(&key),
            }
        }
        stub.set_event(kind, payload);
        Ok(ok(self.answer))
    }
}

/// An answer without a refusal.
pub(crate) fn ok(payload: Vec<u8>) -> Response {
    Response {
        status: 200,
        message: String::new(),
        payload,
    }
}
