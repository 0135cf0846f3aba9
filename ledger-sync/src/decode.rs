//! From a verified block to typed events: one for each valid transaction of our chaincode that emitted one.
//!
//! Other chaincodes' transactions are passed over. An event that is malformed under its own schema version is kept for the
//! record as [`Quarantine`]; one of a newer version stops the channel.

use std::sync::Arc;

use msp::channel::Membership;
use protos::common::{Block, HeaderType};
use protos::envelope::{self, EndorsedTransaction, Opened};
use protos::metadata;
use protos::peer::TxValidationCode;
use protos::txid;
use serde::{Deserialize, Serialize};
use state::event::{CloudEvent, EventError, LedgerEvent, Position, Provenance};
use state::ids::{Channel, MspId, TxId};
use state::time::Timestamp;

use crate::limits;
use crate::reasons;
use crate::reexecute::Recorded;
use crate::verify::VerifyError;

/// What one transaction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// An event.
    Event {
        /// The event.
        event: Box<LedgerEvent>,
        /// Its schema version.
        schema: u32,
    },
    /// An event that can't be taken in.
    Quarantine(Quarantine),
    /// An event that this binary is too old for.
    Newer {
        /// The transaction's place.
        position: Position,
        /// The transaction.
        tx_id: TxId,
        /// The schema version that the event names.
        found: u64,
    },
}

impl Decoded {
    /// The transaction's place.
    pub fn position(&self) -> Position {
        match self {
            Decoded::Event { event, .. } => event.source.position,
            Decoded::Quarantine(quarantine) => quarantine.position,
            Decoded::Newer { position, .. } => *position,
        }
    }

    /// The transaction.
    pub fn tx_id(&self) -> &TxId {
        match self {
            Decoded::Event { event, .. } => &event.source.tx_id,
            Decoded::Quarantine(quarantine) => &quarantine.tx_id,
            Decoded::Newer { tx_id, .. } => tx_id,
        }
    }
}

/// A transaction whose event can't be taken in, as it stands under `quarantine/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// Where it stands.
    pub position: Position,
    /// Its id.
    pub tx_id: TxId,
    /// Its timestamp, clamped.
    pub at: Timestamp,
    /// The MSP that signed it.
    pub msp: String,
    /// The name of its event, shortened to plain characters.
    pub event: String,
    /// Why it can't be taken in. These words are part of commit ids and never change.
    pub reason: String,
}

/// Reads the transactions of a block whose chain and orderers were verified, and verifies the creators of ours. Gives their events,
/// and everything that running them again needs.
pub(crate) fn decode(
    membership: &Arc<Membership>,
    channel: &Channel,
    number: u64,
    block: &Block,
) -> Result<(Vec<Decoded>, Recorded), VerifyError> {
    let data = block.data.as_ref().map(|data| data.data.as_slice()).unwrap_or_default();
    let flags = metadata::validation_flags(block).map_err(|source| VerifyError::Metadata {
        channel: channel.clone(),
        block: number,
        source,
    })?;
    if flags.len() != data.len() {
        return Err(VerifyError::Codes {
            channel: channel.clone(),
            block: number,
            transactions: data.len(),
            codes: flags.len(),
        });
    }
    let mut decoded = Vec::new();
    let mut recorded = Recorded::of(block, flags, membership);
    for (index, (bytes, flag)) in data.iter().zip(flags).enumerate() {
        // A block's data is bounded by a message's size, so its transactions fit.
        let tx = u32::try_from(index).unwrap_or(u32::MAX);
        let code = metadata::validation_code(*flag);
        if code != TxValidationCode::Valid {
            recorded.invalid(tx, channel.as_str(), bytes, code);
            continue;
        }
        let place = Place {
            membership,
            channel,
            position: Position { block: number, tx },
        };
        decoded.extend(place.transaction(bytes, &mut recorded)?);
    }
    Ok((decoded, recorded))
}

/// Where a transaction stands.
struct Place<'a> {
    membership: &'a Membership,
    channel: &'a Channel,
    position: Position,
}

impl Place<'_> {
    fn unreadable(&self) -> impl Fn(envelope::UnpackError) -> VerifyError {
        let (channel, Position { block, tx }) = (self.channel.clone(), self.position);
        move |source| VerifyError::Transaction {
            channel: channel.clone(),
            block,
            tx,
            source,
        }
    }

    fn not_made(&self) -> impl Fn(msp::MspError) -> VerifyError {
        let (channel, Position { block, tx }) = (self.channel.clone(), self.position);
        move |source| VerifyError::Creator {
            channel: channel.clone(),
            block,
            tx,
            source,
        }
    }

    fn transaction(&self, bytes: &[u8], recorded: &mut Recorded) -> Result<Option<Decoded>, VerifyError> {
        let signed = envelope::decode_envelope(bytes).map_err(self.unreadable())?;
        let opened = envelope::open(&signed).map_err(self.unreadable())?;
        if opened.channel.channel_id != self.channel.as_str() {
            return Err(VerifyError::Foreign {
                channel: self.channel.clone(),
                block: self.position.block,
                tx: self.position.tx,
                found: limits::quoted(&opened.channel.channel_id),
            });
        }
        if !opened.is(HeaderType::EndorserTransaction) {
            return Ok(None);
        }
        let transaction = envelope::endorsed(&opened).map_err(self.unreadable())?;
        if transaction.invocation.chaincode.name != chaincode::NAME {
            recorded.other(self.position.tx, &opened, transaction);
            return Ok(None);
        }
        let identity = self.membership.authenticate(&opened.signature.creator).map_err(self.not_made())?;
        identity.verify(&signed.payload, &signed.signature).map_err(self.not_made())?;
        let id = txid::tx_id(&opened.signature.nonce, &opened.signature.creator);
        let tx_id = TxId::new(id)
            .ok()
            .filter(|id| id.as_str() == opened.channel.tx_id)
            .ok_or_else(|| self.not_made()(msp::MspError::Signature("the transaction id is not that of nonce and creator")))?;
        let decoded = self.event(&opened, &transaction, tx_id, &identity.msp_id);
        recorded.ours(self.position.tx, &opened, transaction);
        Ok(decoded)
    }

    fn event(&self, opened: &Opened, transaction: &EndorsedTransaction, tx_id: TxId, msp_id: &str) -> Option<Decoded> {
        let event = transaction.event.as_ref()?;
        let at = Timestamp::clamped(opened.seconds().unwrap_or(0));
        let quarantine = |reason: &str| {
            Some(Decoded::Quarantine(Quarantine {
                position: self.position,
                tx_id: tx_id.clone(),
                at,
                msp: plain(msp_id),
                event: plain(&event.event_name),
                reason: reason.to_owned(),
            }))
        };
        if transaction.endorsed_proposal_hash != transaction.invocation.proposal_hash {
            return quarantine("the endorsed proposal is not the one that the creator signed");
        }
        if transaction.chaincode.name != chaincode::NAME || event.chaincode_id != chaincode::NAME {
            return quarantine("the event is of another chaincode than the transaction");
        }
        if event.tx_id != tx_id.as_str() {
            return quarantine("the event is of another transaction");
        }
        let Ok(msp) = MspId::new(msp_id) else {
            return quarantine("the MSP id is not one that a member can have");
        };
        let document = match CloudEvent::parse(&event.payload, self.channel, &tx_id, at) {
            Ok(document) => document,
            Err(EventError::Newer { found }) => {
                return Some(Decoded::Newer {
                    position: self.position,
                    tx_id: tx_id.clone(),
                    found,
                });
            }
            Err(error) => return quarantine(reasons::event(&error)),
        };
        if document.body.kind() != event.event_name {
            return quarantine("the event's name is not its type");
        }
        Some(Decoded::Event {
            schema: document.schemaversion,
            event: Box::new(LedgerEvent {
                channel: self.channel.clone(),
                source: Provenance {
                    position: self.position,
                    tx_id,
                    at,
                    by: document.member,
                },
                msp,
                body: document.body,
            }),
        })
    }
}

/// Keeps what can stand in a file or a message as it is: plain characters, at most 64.
fn plain(text: &str) -> String {
    text.chars()
        .take(64)
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c
            } else {
                '?'
            }
        })
        .collect()
}
