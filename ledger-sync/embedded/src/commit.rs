//! Making one block: order, validate, sign, and the state that it leaves.

use std::collections::BTreeMap;

use msp::channel::Membership;
use msp::{MspError, Signer};
use prost::Message;
use protos::common::{
    Block, BlockData, BlockHeader, BlockMetadata, BlockMetadataIndex, LastConfig, Metadata, MetadataSignature, OrdererBlockMetadata,
    SignatureHeader,
};
use protos::peer::TxValidationCode as Code;
use protos::{block, envelope, metadata as slots, txid};
use ring::rand::{SecureRandom, SystemRandom};

use crate::commit_hash::commit_hash;
use crate::validation;
use crate::world_state::{Updates, Version, WorldState};

/// Random bytes that make a header unique.
pub(crate) struct Nonce([u8; txid::NONCE_BYTES]);

impl Nonce {
    pub(crate) fn draw() -> Result<Self, MspError> {
        let mut bytes = [0; txid::NONCE_BYTES];
        let reason = || "the system gives no randomness".to_owned();
        SystemRandom::new().fill(&mut bytes).map_err(|_| MspError::Issue {
            action: "draw a nonce",
            reason: reason(),
        })?;
        Ok(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where a transaction was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) block: u64,
    /// Its place among the block's transactions.
    pub(crate) index: u32,
    pub(crate) code: Code,
}

/// The committed transactions of a channel, by id.
pub(crate) type TxIndex = std::collections::HashMap<String, Committed>;

/// The end of a chain: what the next block builds on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tip {
    pub(crate) height: u64,
    pub(crate) header_hash: Option<[u8; 32]>,
    pub(crate) previous_hash: Vec<u8>,
    pub(crate) commit_hash: Vec<u8>,
}

/// A block with what it changes.
pub(crate) struct Prepared {
    pub(crate) block: Block,
    pub(crate) updates: Updates,
    pub(crate) committed: BTreeMap<String, Committed>,
    pub(crate) tip: Tip,
}

/// What a block is prepared against.
pub(crate) struct Ground<'a> {
    pub(crate) channel: &'a str,
    pub(crate) program: &'a str,
    pub(crate) membership: &'a Membership,
    pub(crate) tip: &'a Tip,
}

/// Validates envelopes in their order and makes the next block of them.
pub(crate) fn prepare(
    ground: &Ground<'_>,
    envelopes: Vec<Vec<u8>>,
    state: &WorldState,
    known: impl Fn(&str) -> bool,
    orderer: &dyn Signer,
) -> Result<Prepared, MspError> {
    let number = ground.tip.height;
    let mut updates = Updates::new();
    let mut committed = BTreeMap::new();
    let mut flags = Vec::with_capacity(envelopes.len());
    for (index, bytes) in envelopes.iter().enumerate() {
        let checked = validation::check(bytes, ground.channel, ground.program, ground.membership);
        let duplicate = checked
            .tx_id
            .as_ref()
            .is_some_and(|tx_id| known(tx_id) || committed.contains_key(tx_id));
        let code = match &checked.transaction {
            // A fault of the envelope itself comes before the duplicate, as in a peer.
            _ if duplicate && !before_duplicates(checked.code) => Code::DuplicateTxid,
            Some(transaction) => {
                let version = Version {
                    block: number,
                    tx: index as u64,
                };
                validation::apply(transaction, version, state, &mut updates)
            }
            None => checked.code,
        };
        flags.push(code as u8);
        if let Some(tx_id) = checked.tx_id.filter(|_| !duplicate) {
            let index = index as u32;
            committed.insert(
                tx_id,
                Committed {
                    block: number,
                    index,
                    code,
                },
            );
        }
    }
    let header = BlockHeader {
        number,
        previous_hash: ground.tip.header_hash.map(|hash| hash.to_vec()).unwrap_or_default(),
        data_hash: block::data_hash(&envelopes).to_vec(),
    };
    let hash = commit_hash(ground.program, &flags, &updates, &ground.tip.commit_hash);
    let metadata = metadata(&header, orderer, flags, Some(&hash))?;
    let tip = next_tip(&header, hash.to_vec());
    let block = Block {
        header: Some(header),
        data: Some(BlockData { data: envelopes }),
        metadata: Some(metadata),
    };
    Ok(Prepared {
        block,
        updates,
        committed,
        tip,
    })
}

/// Tells whether a peer finds this fault before it looks for duplicates.
fn before_duplicates(code: Code) -> bool {
    matches!(code, Code::InvalidEndorserTransaction | Code::TargetChainNotFound)
}

/// Reads a stored block back: checks its place in the chain and its commit hash, and gives what it changed.
pub(crate) fn replay(tip: &Tip, program: &str, stored: &Block) -> Result<(Updates, BTreeMap<String, Committed>, Tip), String> {
    let previous = tip.header_hash;
    block::check_link(stored, tip.height, previous.as_ref().map(|hash| hash.as_slice())).map_err(|error| error.to_string())?;
    let (Some(header), Some(data)) = (&stored.header, &stored.data) else {
        return Err("it has no header or no data".into());
    };
    let flags = slots::validation_flags(stored).map_err(|error| error.to_string())?;
    if flags.len() != data.data.len() {
        return Err(format!(
            "it has {} transactions and {} validation flags",
            data.data.len(),
            flags.len()
        ));
    }
    if header.number == 0 {
        return Ok((Updates::new(), BTreeMap::new(), next_tip(header, Vec::new())));
    }
    let mut updates = Updates::new();
    let mut committed = BTreeMap::new();
    for (index, (bytes, flag)) in data.data.iter().zip(flags).enumerate() {
        let code = slots::validation_code(*flag);
        let opened = envelope::decode_envelope(bytes).and_then(|envelope| envelope::open(&envelope));
        let Ok(opened) = opened else { continue };
        if code == Code::Valid {
            let transaction = envelope::endorsed(&opened).map_err(|error| error.to_string())?;
            let version = Version {
                block: header.number,
                tx: index as u64,
            };
            validation::add_writes(&transaction, version, &mut updates);
        }
        let signed = &opened.signature;
        // The codes below are of transactions whose creator isn't known to have chosen the id.
        let anonymous = matches!(
            code,
            Code::NilEnvelope
                | Code::BadPayload
                | Code::BadCommonHeader
                | Code::BadCreatorSignature
                | Code::InvalidConfigTransaction
                | Code::UnsupportedTxPayload
                | Code::BadProposalTxid
                | Code::DuplicateTxid
        );
        if !anonymous && opened.channel.tx_id == txid::tx_id(&signed.nonce, &signed.creator) {
            committed.entry(opened.channel.tx_id).or_insert(Committed {
                block: header.number,
                index: index as u32,
                code,
            });
        }
    }
    let hash = commit_hash(program, flags, &updates, &tip.commit_hash).to_vec();
    if slots::commit_hash(stored).map_err(|error| error.to_string())?.as_ref() != Some(&hash) {
        return Err("its commit hash is not that of its writes".into());
    }
    Ok((updates, committed, next_tip(header, hash)))
}

fn next_tip(header: &BlockHeader, commit_hash: Vec<u8>) -> Tip {
    Tip {
        height: header.number + 1,
        header_hash: Some(block::header_hash(header)),
        previous_hash: header.previous_hash.clone(),
        commit_hash,
    }
}

/// Fills a block's metadata: the orderer's signature, the validation flags and the commit hash.
pub(crate) fn metadata(
    header: &BlockHeader,
    orderer: &dyn Signer,
    flags: Vec<u8>,
    commit_hash: Option<&[u8]>,
) -> Result<BlockMetadata, MspError> {
    let mut metadata = slots::empty();
    let last_config = Some(LastConfig { index: 0 });
    let value = OrdererBlockMetadata {
        last_config,
        consenter_metadata: Vec::new(),
    }
    .encode_to_vec();
    let signature_header = SignatureHeader {
        creator: orderer.identity(),
        nonce: Nonce::draw()?.bytes().to_vec(),
    }
    .encode_to_vec();
    let signature = orderer.sign(&slots::signed_bytes(&value, &signature_header, header))?;
    let signatures = vec![MetadataSignature {
        signature_header,
        signature,
        identifier_header: Vec::new(),
    }];
    let mut fill = |index: BlockMetadataIndex, bytes: Vec<u8>| metadata.metadata[index as usize] = bytes;
    fill(BlockMetadataIndex::Signatures, Metadata { value, signatures }.encode_to_vec());
    fill(BlockMetadataIndex::TransactionsFilter, flags);
    if let Some(hash) = commit_hash {
        let slot = Metadata {
            value: hash.to_vec(),
            signatures: Vec::new(),
        };
        fill(BlockMetadataIndex::CommitHash, slot.encode_to_vec());
    }
    Ok(metadata)
}
