//! A channel's state at one height in a file beside its blocks, so that opening it doesn't depend on how long its history is.
//!
//! It is a cache. One that is lost, torn, of another chaincode, or not of these blocks is passed over, and the state is rebuilt
//! from the first block on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use msp::folder::{self, Readers};
use prost::Message;
use protos::peer::TxValidationCode as Code;
use sha2::{Digest, Sha256};

use crate::LedgerError;
use crate::commit::{Committed, Tip};
use crate::view::View;
use crate::world_state::{Updates, Version, WorldState};

const MARKER: &[u8; 4] = b"SNP1";
const HASH_BYTES: usize = 32;
/// The largest snapshot that is read, in bytes.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

#[derive(Clone, PartialEq, Message)]
struct Saved {
    /// The chaincode whose state this is.
    #[prost(string, tag = "1")]
    program: String,
    #[prost(bytes = "vec", tag = "2")]
    previous_hash: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    commit_hash: Vec<u8>,
    /// The hashes of all blocks' headers, one after the other.
    #[prost(bytes = "vec", tag = "4")]
    header_hashes: Vec<u8>,
    /// The lengths of all blocks in their file.
    #[prost(uint32, repeated, tag = "5")]
    lengths: Vec<u32>,
    #[prost(message, repeated, tag = "6")]
    entries: Vec<Entry>,
    #[prost(message, repeated, tag = "7")]
    transactions: Vec<Transaction>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(uint64, tag = "3")]
    block: u64,
    #[prost(uint64, tag = "4")]
    tx: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Transaction {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    block: u64,
    #[prost(uint32, tag = "3")]
    index: u32,
    #[prost(int32, tag = "4")]
    code: i32,
}

/// Where a block file's snapshot is.
pub(crate) fn path_of(blocks: &Path) -> PathBuf {
    blocks.with_file_name("snapshot")
}

/// Writes a snapshot of a view, and returns its size in bytes. `lengths` are those of the blocks that led to it.
pub(crate) fn save(path: &Path, program: &str, view: &View, lengths: Vec<u32>) -> Result<u64, LedgerError> {
    let mut header_hashes = vec![0; view.hashes.len() * HASH_BYTES];
    for (hash, number) in &view.hashes {
        let start = *number as usize * HASH_BYTES;
        header_hashes[start..start + HASH_BYTES].copy_from_slice(hash);
    }
    let entries = view.state.range("", "").map(|(key, found)| Entry {
        key: key.to_owned(),
        value: found.value.to_vec(),
        block: found.version.block,
        tx: found.version.tx,
    });
    let transactions = view.index.iter().map(|(id, committed)| Transaction {
        id: id.clone(),
        block: committed.block,
        index: committed.index,
        code: committed.code as i32,
    });
    let saved = Saved {
        program: program.to_owned(),
        previous_hash: view.tip.previous_hash.clone(),
        commit_hash: view.tip.commit_hash.clone(),
        header_hashes,
        lengths,
        entries: entries.collect(),
        transactions: transactions.collect(),
    };
    let body = saved.encode_to_vec();
    let bytes = [MARKER.as_slice(), &Sha256::digest(&body), &body].concat();
    folder::write_file(path, &bytes, Readers::Owner)?;
    Ok(bytes.len() as u64)
}

/// A snapshot that is whole. Whether it is of these blocks is still to be found out.
pub(crate) struct Loaded {
    pub(crate) view: View,
    /// The lengths of the blocks that led to it.
    pub(crate) lengths: Vec<u32>,
    /// Its own size in bytes.
    pub(crate) size: u64,
}

/// Reads a snapshot, if there is one that is whole and of this chaincode.
pub(crate) fn load(path: &Path, program: &str) -> Option<Loaded> {
    if fs::metadata(path).ok()?.len() > MAX_BYTES {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (marker, rest) = bytes.split_at_checked(MARKER.len())?;
    let (digest, body) = rest.split_at_checked(HASH_BYTES)?;
    if marker != MARKER || Sha256::digest(body).as_slice() != digest {
        return None;
    }
    let saved = Saved::decode(body).ok().filter(|saved| saved.program == program)?;
    let (hashes, []) = saved.header_hashes.as_chunks::<HASH_BYTES>() else {
        return None;
    };
    if hashes.len() != saved.lengths.len() {
        return None;
    }
    let tip = Tip {
        height: hashes.len() as u64,
        header_hash: Some(*hashes.last()?),
        previous_hash: saved.previous_hash,
        commit_hash: saved.commit_hash,
    };
    let mut view = View {
        tip,
        hashes: hashes.iter().copied().zip(0..).collect(),
        ..View::default()
    };
    for transaction in saved.transactions {
        let committed = Committed {
            block: transaction.block,
            index: transaction.index,
            code: Code::try_from(transaction.code).ok()?,
        };
        view.index.insert(transaction.id, committed);
    }
    let mut entries = Updates::new();
    for entry in saved.entries {
        let version = Version {
            block: entry.block,
            tx: entry.tx,
        };
        entries.insert(entry.key, (Some(Arc::from(entry.value)), version));
    }
    let mut state = WorldState::default();
    state.apply(entries);
    view.state = Arc::new(state);
    Some(Loaded {
        view,
        lengths: saved.lengths,
        size: bytes.len() as u64,
    })
}
