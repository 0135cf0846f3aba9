//! A peer's TRANSACTION message, taken apart and held against its proposal.

use chaincode::stub::{Creator, Invocation};
use prost::Message;
use protos::common::HeaderType;
use protos::envelope;
use protos::msp::SerializedIdentity;
use protos::peer::{ChaincodeInput, ChaincodeMessage};

use crate::stub::bounded;

/// Why a transaction can't be run. Its text goes to the peer, and from there to the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the transaction's input cannot be decoded")]
    Input(#[source] prost::DecodeError),
    #[error("the transaction has no signed proposal: Charter's chaincode has to know who submits")]
    NoProposal,
    #[error("the transaction's proposal cannot be read")]
    Proposal(#[source] envelope::UnpackError),
    #[error("the proposal's creator cannot be decoded")]
    Creator(#[source] prost::DecodeError),
    #[error("the proposal is of header type {0}, not of an endorser transaction")]
    Type(i32),
    #[error("the proposal has no timestamp")]
    Timestamp,
    #[error("the proposal is for transaction {proposed} on channel {channel}, not for this one")]
    Other { channel: String, proposed: String },
    /// A chaincode that is called by another one can set no event, so its followers would miss what it wrote.
    #[error(
        "the transaction is one of chaincode {0}, which called this one: submit it to {name} itself",
        name = chaincode::NAME
    )]
    Called(String),
}

impl Unfit {
    /// The error with its causes on one line.
    pub(crate) fn sentence(&self) -> String {
        state::errors::chain(self)
    }
}

/// One transaction, as the program takes it.
#[derive(Debug)]
pub(crate) struct Transaction {
    channel: String,
    tx_id: String,
    seconds: i64,
    creator: Creator,
    args: Vec<Vec<u8>>,
}

impl Transaction {
    /// Reads a TRANSACTION message. Who signed the proposal, and that it was signed, is the peer's word: it has checked that.
    pub(crate) fn read(message: ChaincodeMessage) -> Result<Self, Unfit> {
        let input = ChaincodeInput::decode(message.payload.as_slice()).map_err(Unfit::Input)?;
        let signed = message.proposal.ok_or(Unfit::NoProposal)?;
        let (opened, invocation) = envelope::open_proposal(&signed.proposal_bytes).map_err(Unfit::Proposal)?;
        if !opened.is(HeaderType::EndorserTransaction) {
            return Err(Unfit::Type(opened.channel.r#type));
        }
        if invocation.chaincode.name != chaincode::NAME || invocation.args != input.args {
            return Err(Unfit::Called(bounded(&invocation.chaincode.name, 80)));
        }
        if opened.channel.channel_id != message.channel_id || opened.channel.tx_id != message.txid {
            return Err(Unfit::Other {
                channel: bounded(&opened.channel.channel_id, 80),
                proposed: bounded(&opened.channel.tx_id, 80),
            });
        }
        let identity = SerializedIdentity::decode(opened.signature.creator.as_slice()).map_err(Unfit::Creator)?;
        Ok(Self {
            seconds: opened.seconds().ok_or(Unfit::Timestamp)?,
            channel: message.channel_id,
            tx_id: message.txid,
            creator: Creator {
                msp_id: identity.mspid,
                certificate: identity.id_bytes,
            },
            args: input.args,
        })
    }

    /// The transaction for the program.
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
