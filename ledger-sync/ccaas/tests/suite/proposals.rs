//! Proposals as a client makes them. Their signatures are empty: a peer has checked them before a chaincode sees them.

use chaincode::stub::{Creator, Invocation};
use prost::Message;
use protos::common::{ChannelHeader, Header, HeaderType, SignatureHeader};
use protos::msp::SerializedIdentity;
use protos::peer::{
    ChaincodeHeaderExtension, ChaincodeId, ChaincodeInput, ChaincodeInvocationSpec, ChaincodeProposalPayload, ChaincodeSpec, Proposal,
    SignedProposal,
};
use protos::prost_types::Timestamp;
use protos::txid;

pub(crate) const CHANNEL: &str = "air";
pub(crate) const NOW: i64 = 1_800_000_000;

/// A proposal with what a peer knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Proposed {
    pub(crate) channel: String,
    pub(crate) tx_id: String,
    pub(crate) seconds: i64,
    pub(crate) creator: Creator,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) signed: SignedProposal,
}

impl Proposed {
    pub(crate) fn new(number: u64, creator: &Creator, args: &[Vec<u8>]) -> Self {
        Self::of_chaincode(chaincode::NAME, number, NOW, creator, args)
    }

    pub(crate) fn of_chaincode(name: &str, number: u64, seconds: i64, creator: &Creator, args: &[Vec<u8>]) -> Self {
        let identity = SerializedIdentity {
            mspid: creator.msp_id.clone(),
            id_bytes: creator.certificate.clone(),
        };
        let signature = SignatureHeader {
            creator: identity.encode_to_vec(),
            nonce: number.to_be_bytes().to_vec(),
        };
        let tx_id = txid::tx_id(&signature.nonce, &signature.creator);
        let id = Some(ChaincodeId {
            name: name.into(),
            ..ChaincodeId::default()
        });
        let channel = ChannelHeader {
            r#type: HeaderType::EndorserTransaction.into(),
            timestamp: Some(Timestamp { seconds, nanos: 5 }),
            channel_id: CHANNEL.into(),
            tx_id: tx_id.clone(),
            extension: ChaincodeHeaderExtension { chaincode_id: id.clone() }.encode_to_vec(),
            ..ChannelHeader::default()
        };
        let header = Header {
            channel_header: channel.encode_to_vec(),
            signature_header: signature.encode_to_vec(),
        };
        let spec = ChaincodeSpec {
            chaincode_id: id,
            input: Some(ChaincodeInput {
                args: args.to_vec(),
                ..ChaincodeInput::default()
            }),
            ..ChaincodeSpec::default()
        };
        let payload = ChaincodeProposalPayload {
            input: ChaincodeInvocationSpec {
                chaincode_spec: Some(spec),
            }
            .encode_to_vec(),
            ..ChaincodeProposalPayload::default()
        };
        let proposal = Proposal {
            header: header.encode_to_vec(),
            payload: payload.encode_to_vec(),
            extension: Vec::new(),
        };
        Self {
            channel: CHANNEL.into(),
            tx_id,
            seconds,
            creator: creator.clone(),
            args: args.to_vec(),
            signed: SignedProposal {
                proposal_bytes: proposal.encode_to_vec(),
                signature: Vec::new(),
            },
        }
    }

    pub(crate) fn invocation(&self) -> Invocation<'_> {
        Invocation {
            channel: &self.channel,
            tx_id: &self.tx_id,
            seconds: self.seconds,
            creator: &self.creator,
            args: &self.args,
        }
    }
}

/// Somebody who needs no certificate.
pub(crate) fn somebody() -> Creator {
    Creator {
        msp_id: "CityMSP".into(),
        certificate: b"a certificate".to_vec(),
    }
}

pub(crate) fn args(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}
