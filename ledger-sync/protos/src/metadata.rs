//! A block's metadata: the orderer's signatures, the validation flags and the commit hash.

use prost::Message;

use crate::common::{Block, BlockHeader, BlockMetadata, BlockMetadataIndex, Metadata, OrdererBlockMetadata};
use crate::peer::TxValidationCode;

/// The number of slots in a block's metadata.
pub const SLOTS: usize = 5;

/// A slot that is absent or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The block has no such slot.
    #[error("the block has no metadata slot {0}")]
    Absent(usize),
    /// The slot's bytes are not the message they should be.
    #[error("metadata slot {slot} cannot be decoded")]
    Decode {
        /// The slot's index.
        slot: usize,
        /// What the decoder found.
        #[source]
        source: prost::DecodeError,
    },
}

fn slot(block: &Block, index: BlockMetadataIndex) -> Result<&[u8], MetadataError> {
    let index = index as usize;
    let slots: &[Vec<u8>] = block
        .metadata
        .as_ref()
        .map(|metadata| metadata.metadata.as_slice())
        .unwrap_or_default();
    slots.get(index).map(Vec::as_slice).ok_or(MetadataError::Absent(index))
}

/// Makes empty metadata with all its slots.
pub fn empty() -> BlockMetadata {
    BlockMetadata {
        metadata: vec![Vec::new(); SLOTS],
    }
}

/// Returns the peer's validation code of each transaction, one byte each, in the block's order.
pub fn validation_flags(block: &Block) -> Result<&[u8], MetadataError> {
    slot(block, BlockMetadataIndex::TransactionsFilter)
}

/// Returns the validation code of one transaction; a byte that names no known code reads as `INVALID_OTHER_REASON`.
pub fn validation_code(flag: u8) -> TxValidationCode {
    TxValidationCode::try_from(i32::from(flag)).unwrap_or(TxValidationCode::InvalidOtherReason)
}

/// Decodes the orderer's signatures and the value they sign.
pub fn signatures(block: &Block) -> Result<Metadata, MetadataError> {
    decode(block, BlockMetadataIndex::Signatures)
}

/// Decodes the number of the last configuration block from what the orderer signed.
pub fn last_config(block: &Block) -> Result<Option<u64>, MetadataError> {
    let metadata = signatures(block)?;
    let value = OrdererBlockMetadata::decode(metadata.value.as_slice()).map_err(|source| MetadataError::Decode {
        slot: BlockMetadataIndex::Signatures as usize,
        source,
    })?;
    Ok(value.last_config.map(|last| last.index))
}

/// Returns the commit hash, if the peer wrote one (the first block of a channel has none).
pub fn commit_hash(block: &Block) -> Result<Option<Vec<u8>>, MetadataError> {
    let metadata: Metadata = decode(block, BlockMetadataIndex::CommitHash)?;
    Ok(Some(metadata.value).filter(|value| !value.is_empty()))
}

/// Puts together the bytes that an orderer's signature covers: the metadata's value, the signature header and the
/// encoded block header.
pub fn signed_bytes(value: &[u8], signature_header: &[u8], header: &BlockHeader) -> Vec<u8> {
    [value, signature_header, &crate::block::header_bytes(header)].concat()
}

fn decode<M: Message + Default>(block: &Block, index: BlockMetadataIndex) -> Result<M, MetadataError> {
    M::decode(slot(block, index)?).map_err(|source| MetadataError::Decode {
        slot: index as usize,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_or_refused() {
        let mut block = Block {
            metadata: Some(empty()),
            ..Block::default()
        };
        assert_eq!(commit_hash(&block).unwrap(), None);
        let metadata = block.metadata.as_mut().unwrap();
        metadata.metadata[BlockMetadataIndex::CommitHash as usize] = Metadata {
            value: b"hash".to_vec(),
            signatures: vec![],
        }
        .encode_to_vec();
        metadata.metadata[BlockMetadataIndex::Signatures as usize] = b"\xff".to_vec();
        assert_eq!(commit_hash(&block).unwrap(), Some(b"hash".to_vec()));
        assert!(matches!(signatures(&block), Err(MetadataError::Decode { slot: 0, .. })));
        block.metadata = None;
        assert!(matches!(validation_flags(&block), Err(MetadataError::Absent(2))));
        assert_eq!(validation_code(11), TxValidationCode::MvccReadConflict);
        assert_eq!(validation_code(200), TxValidationCode::InvalidOtherReason);
    }
}
