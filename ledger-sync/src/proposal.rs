//! Proposals and seek requests, signed by their member.

use msp::{MspError, Signer};
use prost::Message;
use protos::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader};
use protos::orderer::{SeekInfo, SeekPosition, SeekSpecified, seek_info, seek_position};
use protos::peer::{
    ChaincodeHeaderExtension, ChaincodeId, ChaincodeInput, ChaincodeInvocationSpec, ChaincodeProposalPayload, ChaincodeSpec, Proposal,
    SignedProposal,
};
use protos::{prost_types, txid};
use ring::rand::{SecureRandom, SystemRandom};
use state::ids::Channel;

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
}

/// Builds a proposal to call a chaincode's function; `at` stands in the channel header.
pub(crate) fn propose(
    signer: &dyn Signer,
    channel: &Channel,
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
        channel_id: channel.to_string(),
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

/// Builds a signed request for blocks.
pub(crate) fn seek(signer: &dyn Signer, channel: &Channel, range: Range, at: prost_types::Timestamp) -> Result<Envelope, MspError> {
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
