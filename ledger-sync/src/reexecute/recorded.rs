//! What a block says of the state, read without any state: the transactions of the chaincode with everything that running them
//! again needs, and what others write.
//!
//! It is read where signatures are verified, on all cores.

use std::sync::Arc;

use chaincode::stub::Creator;
use msp::channel::Membership;
use prost::Message;
use protos::common::{Block, HeaderType};
use protos::envelope::{self, EndorsedTransaction, Namespace, Opened};
use protos::msp::SerializedIdentity;
use protos::peer::TxValidationCode;
use protos::{metadata, txid};

use super::endorsement::{self, Endorsed};

/// What a block says of the state.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Each transaction's validation code, as the block carries it.
    pub(super) flags: Vec<u8>,
    /// The peer's commit hash, if it wrote one.
    pub(super) commit_hash: Option<Vec<u8>>,
    /// Every valid transaction that writes something, and each of our chaincode's that can be read.
    pub(super) transactions: Vec<Transaction>,
    /// Who the members are; none of a block that was not decoded.
    pub(super) membership: Option<Arc<Membership>>,
    /// About how large the block is, in bytes.
    pub(super) bytes: u64,
}

/// One transaction.
#[derive(Clone, Debug)]
pub(super) enum Transaction {
    /// One of our chaincode.
    Ours(Box<Ours>),
    /// A valid one of another chaincode.
    Other(Box<Other>),
}

/// A transaction of our chaincode.
#[derive(Clone, Debug)]
pub(super) struct Ours {
    pub(super) tx: u32,
    pub(super) tx_id: String,
    pub(super) code: TxValidationCode,
    pub(super) seconds: i64,
    pub(super) creator: Creator,
    pub(super) transaction: EndorsedTransaction,
    /// Whether the members' own policy is met, as far as it was looked at; not of invalid ones.
    pub(super) endorsed: Option<Endorsed>,
    /// The envelope of an invalid one, whose creator was not verified.
    pub(super) envelope: Vec<u8>,
}

/// A valid transaction of another chaincode.
#[derive(Clone, Debug)]
pub(super) struct Other {
    pub(super) tx: u32,
    pub(super) tx_id: String,
    pub(super) chaincode: String,
    pub(super) namespaces: Vec<Namespace>,
}

impl Recorded {
    /// Begins with what stands in a block's metadata.
    pub(crate) fn of(block: &Block, flags: &[u8], membership: &Arc<Membership>) -> Self {
        Self {
            flags: flags.to_vec(),
            // A slot that can't be read is none: the hash is then not compared.
            commit_hash: metadata::commit_hash(block).ok().flatten(),
            transactions: Vec::new(),
            membership: Some(Arc::clone(membership)),
            bytes: block.encoded_len() as u64,
        }
    }

    /// Takes a valid transaction of our chaincode whose creator and id were verified.
    pub(crate) fn ours(&mut self, tx: u32, opened: &Opened, transaction: EndorsedTransaction) {
        let endorsed = self
            .membership
            .as_ref()
            .map(|membership| endorsement::by_channel(membership, &transaction));
        self.transactions.push(Transaction::Ours(Box::new(Ours {
            tx,
            tx_id: opened.channel.tx_id.clone(),
            code: TxValidationCode::Valid,
            seconds: opened.seconds().unwrap_or_default(),
            creator: creator(opened),
            transaction,
            endorsed,
            envelope: Vec::new(),
        })));
    }

    /// Takes a valid transaction of another chaincode.
    pub(crate) fn other(&mut self, tx: u32, opened: &Opened, transaction: EndorsedTransaction) {
        self.transactions.push(Transaction::Other(Box::new(Other {
            tx,
            tx_id: opened.channel.tx_id.clone(),
            chaincode: transaction.invocation.chaincode.name,
            namespaces: transaction.namespaces,
        })));
    }

    /// Takes a transaction that is called invalid, if it is one of our chaincode and can be read.
    pub(crate) fn invalid(&mut self, tx: u32, channel: &str, bytes: &[u8], code: TxValidationCode) {
        let Ok(opened) = envelope::decode_envelope(bytes).and_then(|envelope| envelope::open(&envelope)) else {
            return;
        };
        if !opened.is(HeaderType::EndorserTransaction) || opened.channel.channel_id != channel {
            return;
        }
        let Ok(transaction) = envelope::endorsed(&opened) else { return };
        if transaction.invocation.chaincode.name != chaincode::NAME {
            return;
        }
        self.transactions.push(Transaction::Ours(Box::new(Ours {
            tx,
            tx_id: opened.channel.tx_id.clone(),
            code,
            seconds: opened.seconds().unwrap_or_default(),
            creator: creator(&opened),
            transaction,
            endorsed: None,
            envelope: bytes.to_vec(),
        })));
    }
}

impl Ours {
    /// Verifies the creator and the id of a transaction that is called invalid.
    pub(super) fn is_made_by_its_creator(&self, membership: &Membership) -> bool {
        let Ok(signed) = envelope::decode_envelope(&self.envelope) else {
            return false;
        };
        let Ok(opened) = envelope::open(&signed) else { return false };
        let verified = membership
            .authenticate(&opened.signature.creator)
            .and_then(|identity| identity.verify(&signed.payload, &signed.signature));
        verified.is_ok() && txid::tx_id(&opened.signature.nonce, &opened.signature.creator) == opened.channel.tx_id
    }
}

fn creator(opened: &Opened) -> Creator {
    // Where this can't be decoded nobody authenticated it either.
    let identity = SerializedIdentity::decode(opened.signature.creator.as_slice()).unwrap_or_default();
    Creator {
        msp_id: identity.mspid,
        certificate: identity.id_bytes,
    }
}
