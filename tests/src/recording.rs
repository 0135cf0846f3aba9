//! Recorded ledgers: blocks in a file, a [`Ledger`] that plays them back, and the commits that they lead to.
//!
//! A recording is the blocks of one channel, each as its length (four bytes, little-endian) and its encoding. No key is in it.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use ledger_sync::ledger::{Fault, Stage};
use ledger_sync::{BlockStream, Committed, EvaluateError, FollowError, Ledger, Options, StreamError, SubmitError, catch_up};
use prost::Message;
use protos::common::Block;
use state::git::Store;
use state::ids::Channel;
use state::paths;

/// The marker of a record in the embedded ledger's block file.
const MARKER: &[u8; 4] = b"BLK1";
/// The bytes before a block in that file: the marker, the length, the number and the checksum.
const HEADER: usize = 24;

/// The blocks of one channel, as a ledger that is never written to.
#[derive(Clone, Debug)]
pub struct Recording {
    blocks: Arc<Vec<Block>>,
}

impl Recording {
    /// Takes blocks as they are.
    pub fn new(blocks: Vec<Block>) -> Self {
        Self { blocks: Arc::new(blocks) }
    }

    /// Reads the block file of an embedded ledger.
    ///
    /// # Panics
    /// When it is none.
    pub fn of_embedded(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("the block file can be read");
        let mut rest = bytes.as_slice();
        let mut blocks = Vec::new();
        while !rest.is_empty() {
            assert!(rest.starts_with(MARKER), "no record at {} bytes from the end", rest.len());
            let (length, _) = number(&rest[MARKER.len()..]);
            let (record, after) = rest.split_at(HEADER + length);
            blocks.push(Block::decode(&record[HEADER..]).expect("a record holds a block"));
            rest = after;
        }
        Self::new(blocks)
    }

    /// Reads a recording.
    ///
    /// # Panics
    /// When it is none.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut rest = bytes.as_slice();
        let mut blocks = Vec::new();
        while !rest.is_empty() {
            let (length, after) = number(rest);
            let (block, after) = after.split_at(length);
            blocks.push(Block::decode(block).expect("a recording holds blocks"));
            rest = after;
        }
        Self::new(blocks)
    }

    /// Writes a recording.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, path: &Path) {
        let mut bytes = Vec::new();
        for block in self.blocks.iter() {
            let block = block.encode_to_vec();
            let length = u32::try_from(block.len()).expect("a block is far below 4 GiB");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&block);
        }
        std::fs::write(path, bytes).expect("the recording can be written");
    }

    /// The blocks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The number of blocks.
    pub fn height(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Follows the recording into a store, from where the store stands to the end.
    ///
    /// # Errors
    /// When a block is not to be believed, or the store has taken other ones.
    pub async fn replay(&self, channel: &Channel, store: &Store, options: Options) -> Result<(), FollowError> {
        catch_up(Arc::new(self.clone()), store.clone(), channel.clone(), options).await?;
        Ok(())
    }
}

/// A length, and what comes after it.
fn number(bytes: &[u8]) -> (usize, &[u8]) {
    let (length, rest) = bytes.split_first_chunk::<4>().expect("a length has four bytes");
    (u32::from_le_bytes(*length) as usize, rest)
}

/// Every commit of both references, oldest first, one on a line with its title.
///
/// # Panics
/// When the store can't be read.
pub fn commits(store: &Store, channel: &Channel) -> String {
    let mut text = String::new();
    for reference in [paths::desired_ref(channel), paths::reported_ref(channel)] {
        text.push_str(&format!("# {reference}\n"));
        // Nobody reports on a market.
        let Some(head) = store.head(&reference).expect("the store can be read") else {
            continue;
        };
        let mut all = store.log(head, None, usize::MAX).expect("the store can be read");
        all.reverse();
        for commit in all {
            text.push_str(&format!("{} {}\n", commit.id, commit.title()));
        }
    }
    text
}

fn closed(stage: Stage) -> Fault {
    Fault::from_status(stage, "a recording", &tonic::Status::unimplemented("a recording takes nothing new"))
}

#[async_trait]
impl Ledger for Recording {
    async fn submit(&self, _: &Channel, _: &str, _: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        Err(SubmitError::Endorse(closed(Stage::Endorse)))
    }

    async fn evaluate(&self, _: &Channel, _: &str, _: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        Err(EvaluateError::Call(closed(Stage::Evaluate)))
    }

    async fn blocks(&self, _: &Channel, from: u64) -> Result<BlockStream, StreamError> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let all: Vec<Block> = self.blocks.iter().skip(from).cloned().collect();
        let recorded = futures::stream::iter(all.into_iter().map(Ok));
        // A ledger's stream never ends by itself.
        Ok(recorded.chain(futures::stream::pending()).boxed())
    }

    async fn height(&self, _: &Channel) -> Result<u64, StreamError> {
        Ok(self.height())
    }
}
