//! One channel's blocks in one append-only file.
//!
//! A record is a marker, the body's length, the block's number, a checksum over all of these and the body, and the body: the
//! encoded block. A record is flushed before the next is written, so only the last can be torn by a crash. Damage before
//! an intact record is therefore not a crash's, and is refused.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use protos::common::Block;
use sha2::{Digest, Sha256};

use crate::LedgerError;

const MARKER: &[u8; 4] = b"BLK1";
const HEADER_BYTES: usize = 24;
/// The largest body that a record may have, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Where a block's body stands in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    length: u32,
}

/// An open block file.
#[derive(Debug)]
pub(crate) struct BlockFile {
    path: PathBuf,
    file: Arc<File>,
    places: Vec<Place>,
    end: u64,
}

impl BlockFile {
    /// Opens a file, or makes it, and hands every block in it to `each`, in order.
    ///
    /// A torn last record is cut off with a warning.
    pub(crate) fn open(path: &Path, each: impl FnMut(&Block) -> Result<(), String>) -> Result<Self, LedgerError> {
        let mut opened = Self::unread(path)?;
        opened.read_on(each)?;
        Ok(opened)
    }

    /// Opens a file, or makes it, and reads nothing of it yet.
    pub(crate) fn unread(path: &Path) -> Result<Self, LedgerError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LedgerError::io("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            places: Vec::new(),
            end: 0,
        })
    }

    /// Takes it that the file begins with blocks of these lengths. Returns whether it is long enough for them.
    pub(crate) fn skip(&mut self, lengths: &[u32]) -> Result<bool, LedgerError> {
        for length in lengths {
            self.push(*length as usize);
        }
        Ok(self.end <= self.size()?)
    }

    /// Reads a block that stands in the file already, if its record is there and intact.
    pub(crate) fn stored(&self, number: u64) -> Result<Option<Block>, LedgerError> {
        let place = usize::try_from(number).ok().and_then(|number| self.places.get(number));
        let Some(offset) = place.and_then(|place| place.offset.checked_sub(HEADER_BYTES as u64)) else {
            return Ok(None);
        };
        let size = self.size()?;
        if offset > size {
            return Ok(None);
        }
        let record = self.record_at(offset, size)?.filter(|(found, _)| *found == number);
        Ok(record.and_then(|(_, body)| Block::decode(body.as_slice()).ok()))
    }

    /// Hands the blocks behind those that are known to `each`, in order.
    pub(crate) fn read_on(&mut self, mut each: impl FnMut(&Block) -> Result<(), String>) -> Result<(), LedgerError> {
        let size = self.size()?;
        while self.end < size {
            let number = self.height();
            match self.record_at(self.end, size)? {
                Some((found, body)) if found == number => {
                    let block = Block::decode(body.as_slice()).map_err(|error| self.corrupt(error.to_string()))?;
                    each(&block).map_err(|reason| self.corrupt(reason))?;
                    self.push(body.len());
                }
                Some((found, _)) => return Err(self.corrupt(format!("block {found} stands in its place"))),
                None => {
                    self.cut_tail(size)?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, LedgerError> {
        Ok(self.file.metadata().map_err(LedgerError::io("read", &self.path))?.len())
    }

    /// Returns where the next record will begin.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the lengths of the blocks, in order.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = u32> {
        self.places.iter().map(|place| place.length)
    }

    /// Returns the number of blocks.
    pub(crate) fn height(&self) -> u64 {
        self.places.len() as u64
    }

    /// Appends a block and flushes it. On an error nothing was appended as far as a later [`open`](Self::open) can tell,
    /// or the whole block was; the caller must not append again.
    pub(crate) fn append(&mut self, block: &Block) -> Result<(), LedgerError> {
        let body = block.encode_to_vec();
        let length = u32::try_from(body.len()).expect("blocks are cut far below 4 GiB");
        let number = self.height();
        let mut record = Vec::with_capacity(HEADER_BYTES + body.len());
        record.extend_from_slice(MARKER);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&number.to_le_bytes());
        record.extend_from_slice(&checksum(length, number, &body));
        record.extend_from_slice(&body);
        let written = self.file.write_all_at(&record, self.end).and_then(|()| self.file.sync_data());
        written.map_err(LedgerError::io("append to", &self.path))?;
        self.push(body.len());
        Ok(())
    }

    /// Makes a second handle that reads the blocks written so far.
    pub(crate) fn reader(&self) -> Reader {
        Reader {
            path: self.path.clone(),
            file: Arc::clone(&self.file),
            places: self.places.clone(),
        }
    }

    /// Returns where the last block's body stands, for [`Reader::extend`].
    pub(crate) fn last_place(&self) -> Option<(u64, u32)> {
        self.places.last().map(|place| (place.offset, place.length))
    }

    fn push(&mut self, body: usize) {
        self.places.push(Place {
            offset: self.end + HEADER_BYTES as u64,
            length: body as u32,
        });
        self.end += (HEADER_BYTES + body) as u64;
    }

    /// Reads the record at an offset: its block's number and its body, if it is intact.
    fn record_at(&self, offset: u64, size: u64) -> Result<Option<(u64, Vec<u8>)>, LedgerError> {
        let mut header = [0; HEADER_BYTES];
        if size - offset < HEADER_BYTES as u64 {
            return Ok(None);
        }
        self.file
            .read_exact_at(&mut header, offset)
            .map_err(LedgerError::io("read", &self.path))?;
        let field = |range: std::ops::Range<usize>| &header[range];
        let length = u32::from_le_bytes(field(4..8).try_into().expect("the range has four bytes"));
        let number = u64::from_le_bytes(field(8..16).try_into().expect("the range has eight bytes"));
        let fits = u64::from(length) <= size - offset - HEADER_BYTES as u64 && length as usize <= MAX_BODY_BYTES;
        if field(0..4) != MARKER || !fits {
            return Ok(None);
        }
        let mut body = vec![0; length as usize];
        self.file
            .read_exact_at(&mut body, offset + HEADER_BYTES as u64)
            .map_err(LedgerError::io("read", &self.path))?;
        Ok((field(16..24) == checksum(length, number, &body)).then_some((number, body)))
    }

    /// Cuts off what a crash left of an unfinished record; refuses if an intact record follows.
    fn cut_tail(&mut self, size: u64) -> Result<(), LedgerError> {
        let mut tail = Vec::new();
        let mut file = self.file.as_ref();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(self.end))
            .and_then(|_| file.take(size - self.end).read_to_end(&mut tail))
            .map_err(LedgerError::io("read", &self.path))?;
        let markers = tail
            .windows(MARKER.len())
            .enumerate()
            .skip(1)
            .filter(|(_, window)| window == MARKER);
        for (ahead, _) in markers {
            if self
                .record_at(self.end + ahead as u64, size)?
                .is_some_and(|(number, _)| number > self.height())
            {
                return Err(self.corrupt("its record is damaged, and intact records follow it".into()));
            }
        }
        tracing::warn!(
            file = %self.path.display(),
            bytes = size - self.end,
            height = self.height(),
            "cut off an unfinished block that a crash left behind; it was never confirmed to anybody"
        );
        self.file
            .set_len(self.end)
            .and_then(|()| self.file.sync_all())
            .map_err(LedgerError::io("truncate", &self.path))
    }

    fn corrupt(&self, reason: String) -> LedgerError {
        LedgerError::Corrupt {
            path: self.path.clone(),
            offset: self.end,
            block: self.height(),
            reason,
        }
    }
}

/// Reads committed blocks, while another thread appends.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    file: Arc<File>,
    places: Vec<Place>,
}

impl Reader {
    /// Takes note of a block that was appended and flushed.
    pub(crate) fn extend(&mut self, (offset, length): (u64, u32)) {
        self.places.push(Place { offset, length });
    }

    /// Returns where blocks from number `from` on stand, at most `count` and about `bytes` of them; at least one if there
    /// is one.
    pub(crate) fn plan(&self, from: u64, count: usize, bytes: u64) -> ReadPlan {
        let start = usize::try_from(from).unwrap_or(usize::MAX).min(self.places.len());
        let mut total = 0;
        let mut places = Vec::new();
        for place in self.places[start..].iter().take(count) {
            total += u64::from(place.length);
            if !places.is_empty() && total > bytes {
                break;
            }
            places.push(*place);
        }
        ReadPlan {
            path: self.path.clone(),
            file: Arc::clone(&self.file),
            first: start as u64,
            places,
        }
    }
}

/// Blocks that are about to be read; needs no lock.
#[derive(Debug)]
pub(crate) struct ReadPlan {
    path: PathBuf,
    file: Arc<File>,
    first: u64,
    places: Vec<Place>,
}

impl ReadPlan {
    /// Reads the blocks; it blocks on the disk.
    pub(crate) fn read(&self) -> Result<Vec<Block>, LedgerError> {
        let mut blocks = Vec::with_capacity(self.places.len());
        for (ahead, place) in self.places.iter().enumerate() {
            let number = self.first + ahead as u64;
            let corrupt = |reason: String| LedgerError::Corrupt {
                path: self.path.clone(),
                offset: place.offset,
                block: number,
                reason,
            };
            // With its header: a start from a snapshot has not looked at this block.
            let mut record = vec![0; HEADER_BYTES + place.length as usize];
            self.file
                .read_exact_at(&mut record, place.offset - HEADER_BYTES as u64)
                .map_err(LedgerError::io("read", &self.path))?;
            let (header, body) = record.split_at(HEADER_BYTES);
            if header[16..24] != checksum(place.length, number, body) {
                return Err(corrupt("its record is damaged".into()));
            }
            blocks.push(Block::decode(body).map_err(|error| corrupt(error.to_string()))?);
        }
        Ok(blocks)
    }
}

fn checksum(length: u32, number: u64, body: &[u8]) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    hash.update(number.to_le_bytes());
    hash.update(body);
    let digest = hash.finalize();
    digest[..8].try_into().expect("a SHA-256 digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use protos::common::BlockHeader;

    fn block(number: u64) -> Block {
        let header = BlockHeader {
            number,
            previous_hash: vec![7; 32],
            data_hash: vec![8; 32],
        };
        Block {
            header: Some(header),
            ..Block::default()
        }
    }

    fn numbers(path: &Path) -> Result<Vec<u64>, LedgerError> {
        let mut numbers = Vec::new();
        BlockFile::open(path, |block| {
            numbers.push(block.header.as_ref().ok_or("no header")?.number);
            Ok(())
        })?;
        Ok(numbers)
    }

    fn three(path: &Path) -> Vec<u8> {
        let mut file = BlockFile::open(path, |_| Ok(())).unwrap();
        for number in 0..3 {
            file.append(&block(number)).unwrap();
        }
        std::fs::read(path).unwrap()
    }

    /// Where the record of a block begins.
    fn start(number: u64) -> usize {
        (0..number).map(|before| HEADER_BYTES + block(before).encoded_len()).sum()
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_length() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("blocks");
        let whole = three(&path);
        for length in start(2) + 1..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(numbers(&path).unwrap(), [0, 1], "cut to {length}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), start(2) as u64);
        }
    }

    #[test]
    fn a_tail_of_zeros_is_cut() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("blocks");
        let mut whole = three(&path);
        whole.extend([0; 500]);
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(numbers(&path).unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_flipped_bit_before_the_last_block_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("blocks");
        let whole = three(&path);
        for at in 0..start(2) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let error = numbers(&path).unwrap_err();
            assert!(
                matches!(error, LedgerError::Corrupt { block, .. } if block == u64::from(at >= start(1))),
                "{at}: {error}"
            );
            assert_eq!(std::fs::read(&path).unwrap(), damaged, "nothing was cut off");
        }
    }
}
