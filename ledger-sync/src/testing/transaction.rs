//! Transactions that carry any event, whatever the chaincode would say to it.

use std::sync::Arc;

use msp::{MspError, PemSigner, Signer};
use prost::Message;
use protos::common::{Envelope, Payload};
use protos::kvrwset::KvrwSet;
use protos::peer::{
    ChaincodeAction, ChaincodeActionPayload, ChaincodeEndorsedAction, ChaincodeEvent, ChaincodeId, Endorsement, ProposalResponsePayload,
    Response, Transaction, TransactionAction, TxValidationCode,
};
use protos::prost_types;
use protos::rwset::{NsReadWriteSet, TxReadWriteSet};
use sha2::{Digest as _, Sha256};
use state::canonical;
use state::event::{CloudEvent, EventBody};
use state::ids::{Channel, MemberId, TxId};
use state::time::Timestamp;

use crate::proposal::Proposed;

type Document = dyn Fn(&Channel, TxId, Timestamp) -> Vec<u8> + Send + Sync;

/// A transaction to be committed as it is.
#[derive(Clone)]
pub struct Emit {
    pub(super) msp: String,
    pub(super) chaincode: String,
    pub(super) name: String,
    pub(super) code: TxValidationCode,
    document: Arc<Document>,
}

impl Emit {
    /// A transaction of our chaincode with a proper event.
    pub fn body(msp: &str, member: MemberId, body: EventBody) -> Self {
        let name = body.kind().to_owned();
        let document = move |channel: &Channel, tx_id: TxId, at: Timestamp| {
            let event = CloudEvent::new(channel, tx_id, member.clone(), at, body.clone());
            canonical::bytes(&event).expect("an event of checked parts has a canonical form")
        };
        Self {
            document: Arc::new(document),
            ..Self::raw(msp, &name, Vec::new())
        }
    }

    /// A transaction of our chaincode with any bytes as its event.
    pub fn raw(msp: &str, name: &str, bytes: Vec<u8>) -> Self {
        Self {
            msp: msp.to_owned(),
            chaincode: chaincode::NAME.to_owned(),
            name: name.to_owned(),
            code: TxValidationCode::Valid,
            document: Arc::new(move |_, _, _| bytes.clone()),
        }
    }

    /// The same with its event's document changed.
    pub fn altered(self, alter: impl Fn(&mut serde_json::Value) + Send + Sync + 'static) -> Self {
        let document = Arc::clone(&self.document);
        let altered = move |channel: &Channel, tx_id: TxId, at: Timestamp| {
            let mut value = serde_json::from_slice(&document(channel, tx_id, at)).expect("the document is JSON");
            alter(&mut value);
            canonical::bytes(&value).expect("JSON has a canonical form")
        };
        Self {
            document: Arc::new(altered),
            ..self
        }
    }

    /// The same as a transaction of another chaincode.
    pub fn of_chaincode(self, name: &str) -> Self {
        Self {
            chaincode: name.to_owned(),
            ..self
        }
    }

    /// The same with another validation code.
    pub fn with_code(self, code: TxValidationCode) -> Self {
        Self { code, ..self }
    }

    pub(super) fn event(&self, channel: &Channel, tx_id: &str, at: Timestamp) -> Option<(String, Vec<u8>)> {
        let tx_id = TxId::new(tx_id).ok()?;
        Some((self.name.clone(), (self.document)(channel, tx_id, at)))
    }
}

/// What a chaincode did in a transaction, as its endorsers tell it.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// The chaincode.
    pub chaincode: String,
    /// Its event: name and payload.
    pub event: Option<(String, Vec<u8>)>,
    /// What it read and wrote, by namespace.
    pub namespaces: Vec<(String, KvrwSet)>,
    /// Its answer.
    pub response: Response,
}

impl Effects {
    /// Nothing but an event.
    pub(super) fn event(chaincode: &str, event: Option<(String, Vec<u8>)>) -> Self {
        Self {
            chaincode: chaincode.to_owned(),
            event,
            namespaces: vec![(chaincode.to_owned(), KvrwSet::default())],
            response: Response {
                status: 200,
                ..Response::default()
            },
        }
    }

    /// What it read and wrote in its own namespace.
    pub fn own(&mut self) -> &mut KvrwSet {
        let index = self.namespaces.iter().position(|(name, _)| *name == self.chaincode);
        let index = index.unwrap_or_else(|| {
            self.namespaces.push((self.chaincode.clone(), KvrwSet::default()));
            self.namespaces.len() - 1
        });
        &mut self.namespaces[index].1
    }
}

/// Puts a transaction together, endorses and signs it.
pub(super) fn transaction(signer: &PemSigner, proposed: Proposed, effects: Effects, endorsers: &[&PemSigner]) -> Result<Vec<u8>, MspError> {
    let chaincode_id = ChaincodeId {
        name: effects.chaincode.clone(),
        ..ChaincodeId::default()
    };
    let events = effects.event.map(|(event_name, payload)| ChaincodeEvent {
        chaincode_id: effects.chaincode.clone(),
        tx_id: proposed.tx_id.clone(),
        event_name,
        payload,
    });
    let namespaces = effects.namespaces.into_iter().map(|(namespace, rwset)| NsReadWriteSet {
        namespace,
        rwset: rwset.encode_to_vec(),
        collection_hashed_rwset: Vec::new(),
    });
    let results = TxReadWriteSet {
        data_model: 0,
        ns_rwset: namespaces.collect(),
    };
    let action = ChaincodeAction {
        results: results.encode_to_vec(),
        events: events.map(|event| event.encode_to_vec()).unwrap_or_default(),
        response: Some(effects.response),
        chaincode_id: Some(chaincode_id),
    };
    let mut hash = Sha256::new();
    hash.update(&proposed.header.channel_header);
    hash.update(&proposed.header.signature_header);
    hash.update(&proposed.payload);
    let response_payload = ProposalResponsePayload {
        proposal_hash: hash.finalize().to_vec(),
        extension: action.encode_to_vec(),
    }
    .encode_to_vec();
    let endorsements = endorsers.iter().map(|endorser| {
        let identity = endorser.identity();
        let signature = endorser.sign(&[response_payload.as_slice(), &identity].concat())?;
        Ok(Endorsement {
            endorser: identity,
            signature,
        })
    });
    let endorsements = endorsements.collect::<Result<_, MspError>>()?;
    let action = ChaincodeActionPayload {
        chaincode_proposal_payload: proposed.payload,
        action: Some(ChaincodeEndorsedAction {
            proposal_response_payload: response_payload,
            endorsements,
        }),
    };
    let transaction = Transaction {
        actions: vec![TransactionAction {
            header: proposed.header.signature_header.clone(),
            payload: action.encode_to_vec(),
        }],
    };
    let payload = Payload {
        header: Some(proposed.header),
        data: transaction.encode_to_vec(),
    }
    .encode_to_vec();
    let signature = signer.sign(&payload)?;
    Ok(Envelope { payload, signature }.encode_to_vec())
}

/// The transaction that an honest gateway makes of a proposal, of no effect.
#[cfg(test)]
pub(crate) fn prepared(signer: &PemSigner, proposed: &Proposed) -> Result<Envelope, MspError> {
    let proposed = Proposed {
        tx_id: proposed.tx_id.clone(),
        header: proposed.header.clone(),
        payload: proposed.payload.clone(),
    };
    let bytes = transaction(signer, proposed, Effects::event(chaincode::NAME, None), &[])?;
    Ok(Envelope::decode(bytes.as_slice()).expect("it was encoded just above"))
}

pub(super) fn moment(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}
