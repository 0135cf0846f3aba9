//! Taking an envelope apart into its typed parts, bounded and with one typed error.

use prost::Message;
use sha2::{Digest, Sha256};

use crate::common::{ChannelHeader, Config, ConfigEnvelope, Envelope, Header, HeaderType, Payload, SignatureHeader};
use crate::kvrwset::{HashedRwSet, KvrwSet};
use crate::peer::{
    ChaincodeAction, ChaincodeActionPayload, ChaincodeEvent, ChaincodeHeaderExtension, ChaincodeId, ChaincodeInvocationSpec,
    ChaincodeProposalPayload, Endorsement, Proposal, ProposalResponsePayload, Response, Transaction, TxValidationCode,
};
use crate::rwset::TxReadWriteSet;

/// The largest envelope that is taken apart, in bytes.
pub const MAX_ENVELOPE_BYTES: usize = crate::MAX_GRPC_MESSAGE_BYTES;

/// Why an envelope could not be taken apart.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// There are no bytes at all.
    #[error("the envelope is empty")]
    Empty,
    /// The envelope is larger than is looked at.
    #[error("the envelope has {bytes} bytes, at most {MAX_ENVELOPE_BYTES} are read")]
    TooLarge {
        /// The envelope's size.
        bytes: usize,
    },
    /// A part is not the message it should be.
    #[error("the {part} cannot be decoded")]
    Decode {
        /// The part's name.
        part: &'static str,
        /// What the decoder found.
        #[source]
        source: prost::DecodeError,
    },
    /// A part is missing.
    #[error("the {0} is missing")]
    Missing(&'static str),
    /// The envelope is of another type than the caller takes apart.
    #[error("the envelope has header type {found}, expected {expected:?}")]
    Type {
        /// The expected type.
        expected: HeaderType,
        /// The type in the channel header.
        found: i32,
    },
    /// A transaction has another number of actions than one.
    #[error("the transaction has {0} actions, exactly one is allowed")]
    Actions(usize),
}

impl UnpackError {
    /// Returns the validation code that a peer gives a transaction with this fault.
    pub fn validation_code(&self) -> TxValidationCode {
        match self {
            Self::Empty => TxValidationCode::NilEnvelope,
            Self::TooLarge { .. } => TxValidationCode::BadPayload,
            Self::Type { .. } => TxValidationCode::UnknownTxType,
            Self::Actions(_) => TxValidationCode::InvalidEndorserTransaction,
            Self::Decode { part, .. } | Self::Missing(part) => match *part {
                parts::ENVELOPE | parts::PAYLOAD => TxValidationCode::BadPayload,
                parts::HEADER | parts::CHANNEL_HEADER | parts::SIGNATURE_HEADER => TxValidationCode::BadCommonHeader,
                parts::HEADER_EXTENSION => TxValidationCode::BadHeaderExtension,
                parts::RESPONSE_PAYLOAD | parts::CHAINCODE_ACTION => TxValidationCode::BadResponsePayload,
                parts::RWSET => TxValidationCode::BadRwset,
                parts::CONFIG => TxValidationCode::InvalidConfigTransaction,
                _ => TxValidationCode::InvalidEndorserTransaction,
            },
        }
    }
}

/// The names of an envelope's parts in errors.
mod parts {
    pub(super) const ENVELOPE: &str = "envelope";
    pub(super) const PAYLOAD: &str = "payload";
    pub(super) const HEADER: &str = "header";
    pub(super) const CHANNEL_HEADER: &str = "channel header";
    pub(super) const SIGNATURE_HEADER: &str = "signature header";
    pub(super) const HEADER_EXTENSION: &str = "chaincode header extension";
    pub(super) const TRANSACTION: &str = "transaction";
    pub(super) const ACTION_PAYLOAD: &str = "chaincode action payload";
    pub(super) const PROPOSAL: &str = "proposal";
    pub(super) const PROPOSAL_PAYLOAD: &str = "chaincode proposal payload";
    pub(super) const INVOCATION: &str = "chaincode invocation";
    pub(super) const RESPONSE_PAYLOAD: &str = "proposal response payload";
    pub(super) const CHAINCODE_ACTION: &str = "chaincode action";
    pub(super) const RWSET: &str = "read-write set";
    pub(super) const EVENT: &str = "chaincode event";
    pub(super) const CONFIG: &str = "channel configuration";
}

/// An envelope's headers and what they wrap.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The two headers as their signer wrote them; hashes are over these bytes.
    pub header: Header,
    /// What the envelope is, for which channel, with which transaction id and timestamp.
    pub channel: ChannelHeader,
    /// Who made it, and the nonce.
    pub signature: SignatureHeader,
    /// The wrapped message's bytes.
    pub data: Vec<u8>,
}

impl Opened {
    /// Returns the channel header's timestamp in whole seconds since the Unix epoch, if it has one.
    pub fn seconds(&self) -> Option<i64> {
        self.channel.timestamp.as_ref().map(|timestamp| timestamp.seconds)
    }

    /// Tells whether the envelope is of this type.
    pub fn is(&self, wanted: HeaderType) -> bool {
        self.channel.r#type == wanted as i32
    }
}

/// One invocation of a chaincode, as a proposal or a transaction carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct InvocationParts {
    /// The chaincode that the header names.
    pub chaincode: ChaincodeId,
    /// The arguments; the first is the function's name.
    pub args: Vec<Vec<u8>>,
    /// SHA-256 over channel header, signature header and the payload without transient data.
    pub proposal_hash: [u8; 32],
}

/// The reads and writes of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// The chaincode's name.
    pub name: String,
    /// What was read and written.
    pub rwset: KvrwSet,
    /// The number of private collections touched; their content is never here.
    pub private_collections: usize,
    /// What was read and written in them, by hashes.
    pub collections: Vec<Collection>,
}

/// The hashed reads and writes of one private collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// The collection's name.
    pub name: String,
    /// What was read and written.
    pub rwset: HashedRwSet,
}

/// An endorsed transaction, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct EndorsedTransaction {
    /// What was invoked.
    pub invocation: InvocationParts,
    /// The bytes that every endorsement signs, before the endorser's identity.
    pub response_payload: Vec<u8>,
    /// The proposal hash that the endorsers saw.
    pub endorsed_proposal_hash: Vec<u8>,
    /// The endorsements.
    pub endorsements: Vec<Endorsement>,
    /// The chaincode that the endorsers ran.
    pub chaincode: ChaincodeId,
    /// The chaincode's answer.
    pub response: Response,
    /// The reads and writes, by namespace, in the transaction's order.
    pub namespaces: Vec<Namespace>,
    /// The transaction's one event, if it emitted one.
    pub event: Option<ChaincodeEvent>,
}

fn decode<M: Message + Default>(bytes: &[u8], part: &'static str) -> Result<M, UnpackError> {
    M::decode(bytes).map_err(|source| UnpackError::Decode { part, source })
}

/// Decodes an envelope from its bytes in a block.
pub fn decode_envelope(bytes: &[u8]) -> Result<Envelope, UnpackError> {
    if bytes.is_empty() {
        return Err(UnpackError::Empty);
    }
    if bytes.len() > MAX_ENVELOPE_BYTES {
        return Err(UnpackError::TooLarge { bytes: bytes.len() });
    }
    decode(bytes, parts::ENVELOPE)
}

/// Opens an envelope: decodes its payload and both headers. Its signature is not checked here.
pub fn open(envelope: &Envelope) -> Result<Opened, UnpackError> {
    if envelope.payload.is_empty() {
        return Err(UnpackError::Missing(parts::PAYLOAD));
    }
    if envelope.payload.len() > MAX_ENVELOPE_BYTES {
        return Err(UnpackError::TooLarge {
            bytes: envelope.payload.len(),
        });
    }
    let payload: Payload = decode(&envelope.payload, parts::PAYLOAD)?;
    let header = payload.header.ok_or(UnpackError::Missing(parts::HEADER))?;
    open_parts(header, payload.data)
}

/// Opens a proposal: decodes its headers and its invocation. Its signature is not checked here.
pub fn open_proposal(bytes: &[u8]) -> Result<(Opened, InvocationParts), UnpackError> {
    if bytes.len() > MAX_ENVELOPE_BYTES {
        return Err(UnpackError::TooLarge { bytes: bytes.len() });
    }
    let proposal: Proposal = decode(bytes, parts::PROPOSAL)?;
    if proposal.header.is_empty() {
        return Err(UnpackError::Missing(parts::HEADER));
    }
    let opened = open_parts(decode(&proposal.header, parts::HEADER)?, proposal.payload)?;
    let mut visible: ChaincodeProposalPayload = decode(&opened.data, parts::PROPOSAL_PAYLOAD)?;
    visible.transient_map.clear();
    let invocation = invocation(&opened, &opened.header.signature_header, &visible.encode_to_vec())?;
    Ok((opened, invocation))
}

fn open_parts(header: Header, data: Vec<u8>) -> Result<Opened, UnpackError> {
    if header.channel_header.is_empty() {
        return Err(UnpackError::Missing(parts::CHANNEL_HEADER));
    }
    if header.signature_header.is_empty() {
        return Err(UnpackError::Missing(parts::SIGNATURE_HEADER));
    }
    let channel = decode(&header.channel_header, parts::CHANNEL_HEADER)?;
    let signature = decode(&header.signature_header, parts::SIGNATURE_HEADER)?;
    Ok(Opened {
        header,
        channel,
        signature,
        data,
    })
}

/// Takes an endorsed transaction apart.
pub fn endorsed(opened: &Opened) -> Result<EndorsedTransaction, UnpackError> {
    if !opened.is(HeaderType::EndorserTransaction) {
        return Err(UnpackError::Type {
            expected: HeaderType::EndorserTransaction,
            found: opened.channel.r#type,
        });
    }
    let transaction: Transaction = decode(&opened.data, parts::TRANSACTION)?;
    let [action] = transaction.actions.as_slice() else {
        return Err(UnpackError::Actions(transaction.actions.len()));
    };
    let payload: ChaincodeActionPayload = decode(&action.payload, parts::ACTION_PAYLOAD)?;
    let endorsed = payload.action.ok_or(UnpackError::Missing(parts::ACTION_PAYLOAD))?;
    let invocation = invocation(opened, &action.header, &payload.chaincode_proposal_payload)?;
    let response_payload: ProposalResponsePayload = decode(&endorsed.proposal_response_payload, parts::RESPONSE_PAYLOAD)?;
    let result: ChaincodeAction = decode(&response_payload.extension, parts::CHAINCODE_ACTION)?;
    let event = if result.events.is_empty() {
        None
    } else {
        Some(decode(&result.events, parts::EVENT)?)
    };
    Ok(EndorsedTransaction {
        invocation,
        response_payload: endorsed.proposal_response_payload,
        endorsed_proposal_hash: response_payload.proposal_hash,
        endorsements: endorsed.endorsements,
        chaincode: result.chaincode_id.unwrap_or_default(),
        response: result.response.unwrap_or_default(),
        namespaces: namespaces(&result.results)?,
        event,
    })
}

/// Decodes a configuration transaction into the channel's configuration.
pub fn config(opened: &Opened) -> Result<Config, UnpackError> {
    if !opened.is(HeaderType::Config) {
        return Err(UnpackError::Type {
            expected: HeaderType::Config,
            found: opened.channel.r#type,
        });
    }
    let envelope: ConfigEnvelope = decode(&opened.data, parts::CONFIG)?;
    envelope.config.ok_or(UnpackError::Missing(parts::CONFIG))
}

/// Reads an invocation; the hash is over the action's own signature header, as a peer computes it.
fn invocation(opened: &Opened, signature_header: &[u8], visible_payload: &[u8]) -> Result<InvocationParts, UnpackError> {
    let extension: ChaincodeHeaderExtension = decode(&opened.channel.extension, parts::HEADER_EXTENSION)?;
    let chaincode = extension.chaincode_id.ok_or(UnpackError::Missing(parts::HEADER_EXTENSION))?;
    let payload: ChaincodeProposalPayload = decode(visible_payload, parts::PROPOSAL_PAYLOAD)?;
    let spec: ChaincodeInvocationSpec = decode(&payload.input, parts::INVOCATION)?;
    let input = spec
        .chaincode_spec
        .and_then(|spec| spec.input)
        .ok_or(UnpackError::Missing(parts::INVOCATION))?;
    let mut hash = Sha256::new();
    hash.update(&opened.header.channel_header);
    hash.update(signature_header);
    hash.update(visible_payload);
    Ok(InvocationParts {
        chaincode,
        args: input.args,
        proposal_hash: hash.finalize().into(),
    })
}

fn namespaces(results: &[u8]) -> Result<Vec<Namespace>, UnpackError> {
    let set: TxReadWriteSet = decode(results, parts::RWSET)?;
    set.ns_rwset
        .into_iter()
        .map(|namespace| {
            let collections = namespace.collection_hashed_rwset.iter().map(|collection| {
                Ok(Collection {
                    name: collection.collection_name.clone(),
                    rwset: decode(&collection.hashed_rwset, parts::RWSET)?,
                })
            });
            Ok(Namespace {
                name: namespace.namespace,
                rwset: decode(&namespace.rwset, parts::RWSET)?,
                private_collections: namespace.collection_hashed_rwset.len(),
                collections: collections.collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_the_codes_of_a_peer() {
        assert_eq!(decode_envelope(b"").unwrap_err().validation_code(), TxValidationCode::NilEnvelope);
        assert_eq!(
            decode_envelope(b"\xff").unwrap_err().validation_code(),
            TxValidationCode::BadPayload
        );
        let open_payload = |payload: Payload| {
            open(&Envelope {
                payload: payload.encode_to_vec(),
                signature: vec![],
            })
        };
        let no_header = open_payload(Payload {
            header: None,
            data: b"x".to_vec(),
        })
        .unwrap_err();
        assert_eq!(no_header.validation_code(), TxValidationCode::BadCommonHeader);
        let header = Header {
            channel_header: ChannelHeader {
                r#type: 3,
                ..ChannelHeader::default()
            }
            .encode_to_vec(),
            signature_header: SignatureHeader {
                creator: b"me".to_vec(),
                nonce: vec![1],
            }
            .encode_to_vec(),
        };
        let two = Transaction {
            actions: vec![Default::default(), Default::default()],
        };
        let opened = open_payload(Payload {
            header: Some(header),
            data: two.encode_to_vec(),
        })
        .unwrap();
        let error = endorsed(&opened).unwrap_err();
        assert!(matches!(error, UnpackError::Actions(2)));
        assert_eq!(error.validation_code(), TxValidationCode::InvalidEndorserTransaction);
        assert!(matches!(config(&opened), Err(UnpackError::Type { found: 3, .. })));
    }
}
