//! Proposals and seek requests, signed by their member.

use msp::{MspError, Signer};
use prost::Message;
use protos::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader};
use protos::envelope::{self, UnpackError};
use protos::orderer::{SeekInfo, SeekPosition, SeekSpecified, seek_info, seek_position};
use protos::peer::{
    ChaincodeActionPayload, ChaincodeHeaderExtension, ChaincodeId, ChaincodeInput, ChaincodeInvocationSpec, ChaincodeProposalPayload,
    ChaincodeSpec, Proposal, SignedProposal, Transaction,
};
use protos::{prost_types, txid};
use ring::rand::{SecureRandom, SystemRandom};
use state::ids::Channel;
use thiserror::Error;

/// Random bytes that make a transaction's id unique.
pub(crate) fn nonce() -> Result<Vec<u8>, MspError> {
    let mut bytes = vec![0; txid::NONCE_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| MspError::Issue {
        action: "draw a nonce",
        reason: "the system gives no randomness".into(),
    })?;
    Ok(bytes)
}

/// A proposal before and after it is signed.
pub(crate) struct Proposed {
    pub(crate) tx_id: String,
    pub(crate) header: Header,
    /// The chaincode proposal payload's bytes, without transient data: as they stand in the transaction.
    pub(crate) payload: Vec<u8>,
}

impl Proposed {
    pub(crate) fn signed(&self, signer: &dyn Signer) -> Result<SignedProposal, MspError> {
        let proposal = Proposal {
            header: self.header.encode_to_vec(),
            payload: self.payload.clone(),
            extension: Vec::new(),
        };
        let proposal_bytes = proposal.encode_to_vec();
        let signature = signer.sign(&proposal_bytes)?;
        Ok(SignedProposal { proposal_bytes, signature })
    }

    /// Checks that a transaction was put together from this proposal and from endorsements of it, before it is signed: whoever
    /// put it together could have put anything there.
    pub(crate) fn check(&self, envelope: &Envelope) -> Result<(), NotProposed> {
        let opened = envelope::open(envelope)?;
        if opened.header != self.header {
            return Err(NotProposed::Header);
        }
        let endorsed = envelope::endorsed(&opened)?;
        // These bytes, not only what they decode to: the hash is over them.
        let (header, payload) = visible(&opened.data)?;
        if payload != self.payload {
            return Err(NotProposed::Invocation);
        }
        if header != self.header.signature_header {
            return Err(NotProposed::Header);
        }
        if endorsed.endorsed_proposal_hash != endorsed.invocation.proposal_hash {
            return Err(NotProposed::Endorsed);
        }
        Ok(())
    }
}

/// A transaction is not the one that was proposed.
#[derive(Debug, Error)]
pub enum NotProposed {
    /// It can't be read.
    #[error("it can't be read")]
    Unpack(#[from] UnpackError),
    /// It has another header.
    #[error("its header is another one")]
    Header,
    /// It invokes something else.
    #[error("it invokes something else")]
    Invocation,
    /// The endorsers saw another proposal.
    #[error("its endorsements are of another proposal")]
    Endorsed,
}

/// The header and the visible payload of a transaction's only action.
fn visible(transaction: &[u8]) -> Result<(Vec<u8>, Vec<u8>), UnpackError> {
    let undecodable = |source| UnpackError::Decode {
        part: "transaction",
        source,
    };
    let mut transaction = Transaction::decode(transaction).map_err(undecodable)?;
    let actions = transaction.actions.len();
    let Some(action) = transaction.actions.pop().filter(|_| actions == 1) else {
        return Err(UnpackError::Actions(actions));
    };
    let payload = ChaincodeActionPayload::decode(action.payload.as_slice()).map_err(undecodable)?;
    Ok((action.header, payload.chaincode_proposal_payload))
}

/// Builds a proposal to call a chaincode's function; `at` stands in the channel header.
pub(crate) fn propose(
    signer: &dyn Signer,
    channel: &Channel,
    chaincode: &str,
    args: Vec<Vec<u8>>,
    at: prost_types::Timestamp,
) -> Result<Proposed, MspError> {
    propose_in(signer, channel.as_str(), chaincode, args, at)
}

/// Builds a proposal that a peer answers by itself, without a channel.
pub(crate) fn propose_to_peer(
    signer: &dyn Signer,
    chaincode: &str,
    args: Vec<Vec<u8>>,
    at: prost_types::Timestamp,
) -> Result<Proposed, MspError> {
    propose_in(signer, "", chaincode, args, at)
}

fn propose_in(
    signer: &dyn Signer,
    channel_id: &str,
    chaincode: &str,
    args: Vec<Vec<u8>>,
    at: prost_types::Timestamp,
) -> Result<Proposed, MspError> {
    let nonce = nonce()?;
    let creator = signer.identity();
    let tx_id = txid::tx_id(&nonce, &creator);
    let chaincode = ChaincodeId {
        name: chaincode.to_owned(),
        ..ChaincodeId::default()
    };
    let extension = ChaincodeHeaderExtension {
        chaincode_id: Some(chaincode.clone()),
    };
    let channel_header = ChannelHeader {
        r#type: HeaderType::EndorserTransaction as i32,
        timestamp: Some(at),
        channel_id: channel_id.to_owned(),
        tx_id: tx_id.clone(),
        extension: extension.encode_to_vec(),
        ..ChannelHeader::default()
    };
    let spec = ChaincodeInvocationSpec {
        chaincode_spec: Some(ChaincodeSpec {
            r#type: protos::peer::chaincode_spec::Type::Golang as i32,
            chaincode_id: Some(chaincode),
            input: Some(ChaincodeInput {
                args,
                ..ChaincodeInput::default()
            }),
            timeout: 0,
        }),
    };
    let payload = ChaincodeProposalPayload {
        input: spec.encode_to_vec(),
        ..ChaincodeProposalPayload::default()
    };
    Ok(Proposed {
        tx_id,
        header: Header {
            channel_header: channel_header.encode_to_vec(),
            signature_header: SignatureHeader { creator, nonce }.encode_to_vec(),
        },
        payload: payload.encode_to_vec(),
    })
}

/// The part of a chain that is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Range {
    /// From a block on, for ever.
    From(u64),
    /// The newest block alone.
    Newest,
}

/// Builds a signed request for blocks. A peer that asks for a TLS client certificate wants its hash here, so that nobody else can
/// use the request.
pub(crate) fn seek(
    signer: &dyn Signer,
    channel: &Channel,
    range: Range,
    at: prost_types::Timestamp,
    tls_hash: &[u8],
) -> Result<Envelope, MspError> {
    let position = |kind| Some(SeekPosition { r#type: Some(kind) });
    let block = |number| position(seek_position::Type::Specified(SeekSpecified { number }));
    let (start, stop) = match range {
        Range::From(number) => (block(number), block(u64::MAX)),
        Range::Newest => (
            position(seek_position::Type::Newest(Default::default())),
            position(seek_position::Type::Newest(Default::default())),
        ),
    };
    let seek = SeekInfo {
        start,
        stop,
        behavior: seek_info::SeekBehavior::BlockUntilReady as i32,
        ..SeekInfo::default()
    };
    let channel_header = ChannelHeader {
        r#type: HeaderType::DeliverSeekInfo as i32,
        timestamp: Some(at),
        channel_id: channel.to_string(),
        tls_cert_hash: tls_hash.to_vec(),
        ..ChannelHeader::default()
    };
    let header = Header {
        channel_header: channel_header.encode_to_vec(),
        signature_header: SignatureHeader {
            creator: signer.identity(),
            nonce: nonce()?,
        }
        .encode_to_vec(),
    };
    let payload = Payload {
        header: Some(header),
        data: seek.encode_to_vec(),
    }
    .encode_to_vec();
    let signature = signer.sign(&payload)?;
    Ok(Envelope { payload, signature })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MemoryNetwork, START, prepared};
    use protos::peer::ProposalResponsePayload;

    fn proposed(signer: &dyn Signer, resource: &str) -> Proposed {
        let args = vec![b"retire".to_vec(), resource.as_bytes().to_vec()];
        let at = prost_types::Timestamp { seconds: START, nanos: 0 };
        propose(signer, &Channel::new("smart-city-1").unwrap(), "charter", args, at).unwrap()
    }

    /// The transaction with its only action changed.
    fn altered(envelope: &Envelope, change: impl FnOnce(&mut Vec<u8>, &mut ChaincodeActionPayload)) -> Envelope {
        let mut payload = Payload::decode(envelope.payload.as_slice()).unwrap();
        let mut transaction = Transaction::decode(payload.data.as_slice()).unwrap();
        let action = &mut transaction.actions[0];
        let mut inner = ChaincodeActionPayload::decode(action.payload.as_slice()).unwrap();
        change(&mut action.header, &mut inner);
        action.payload = inner.encode_to_vec();
        payload.data = transaction.encode_to_vec();
        Envelope {
            payload: payload.encode_to_vec(),
            signature: Vec::new(),
        }
    }

    #[test]
    fn only_the_transaction_that_was_proposed_is_signed() {
        let network = MemoryNetwork::new(&Channel::new("smart-city-1").unwrap(), &["CityMSP"]).unwrap();
        let signer = network.signer("CityMSP").unwrap();
        let (mine, other) = (proposed(signer.as_ref(), "a"), proposed(signer.as_ref(), "b"));
        let honest = prepared(signer.as_ref(), &mine).unwrap();
        mine.check(&honest).unwrap();
        // Another proposal of the same member, whole.
        let error = mine.check(&prepared(signer.as_ref(), &other).unwrap()).unwrap_err();
        assert!(matches!(error, NotProposed::Header), "{error}");
        // The same header around another invocation; the endorsements are of the honest one.
        let invocation = other.payload.clone();
        let swapped = altered(&honest, |_, action| action.chaincode_proposal_payload = invocation);
        let error = mine.check(&swapped).unwrap_err();
        assert!(matches!(error, NotProposed::Invocation), "{error}");
        // The same with endorsements that fit it.
        let fitting = Proposed {
            tx_id: mine.tx_id.clone(),
            header: mine.header.clone(),
            payload: other.payload.clone(),
        };
        let error = mine.check(&prepared(signer.as_ref(), &fitting).unwrap()).unwrap_err();
        assert!(matches!(error, NotProposed::Invocation), "{error}");
        // The proposed invocation with the result of another one.
        let foreign = altered(&honest, |_, action| {
            let endorsed = action.action.as_mut().unwrap();
            let mut response = ProposalResponsePayload::decode(endorsed.proposal_response_payload.as_slice()).unwrap();
            response.proposal_hash[0] ^= 1;
            endorsed.proposal_response_payload = response.encode_to_vec();
        });
        let error = mine.check(&foreign).unwrap_err();
        assert!(matches!(error, NotProposed::Endorsed), "{error}");
        // Another header inside the action.
        let inner = altered(&honest, |header, _| header.push(0));
        let error = mine.check(&inner).unwrap_err();
        assert!(matches!(error, NotProposed::Header), "{error}");
        let error = mine.check(&Envelope::default()).unwrap_err();
        assert!(matches!(error, NotProposed::Unpack(_)), "{error}");
    }
}
