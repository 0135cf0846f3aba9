//! The mirror on disk: a cache beside the store, which may be lost at any time.
//!
//! The file is a magic word, a header, the entries, and the SHA-256 of all that. It names the block that it stands after, by
//! number and hash. It is written next to the old one and renamed, and not flushed: what a power cut leaves of it is seen by the
//! checksum.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use chaincode::memory::{Version, Versioned};
use prost::Message;
use sha2::{Digest as _, Sha256};
use state::canonical::Digest;
use state::git::Store;
use state::ids::Channel;

use super::Mirror;
use super::commits::Chain;
use super::definition::Definitions;
use crate::limits;
use crate::verify::BlockId;

const MAGIC: &[u8] = b"charter mirror 1\n";
const CHECKSUM: u64 = 32;

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(bytes = "vec", tag = "2")]
    genesis: Vec<u8>,
    #[prost(uint64, tag = "3")]
    block: u64,
    #[prost(bytes = "vec", tag = "4")]
    hash: Vec<u8>,
    #[prost(uint64, tag = "5")]
    configuration: u64,
    #[prost(bytes = "vec", tag = "6")]
    configuration_hash: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "7")]
    commit_hash: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    definition: Option<Vec<u8>>,
    #[prost(uint64, tag = "9")]
    transactions: u64,
    #[prost(uint64, tag = "10")]
    undecided: u64,
    #[prost(uint64, tag = "11")]
    keys: u64,
    #[prost(uint64, tag = "12")]
    lifecycle: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    block: u64,
    #[prost(uint64, tag = "3")]
    tx: u64,
    #[prost(bytes = "vec", tag = "4")]
    value: Vec<u8>,
}

fn path(store: &Store, channel: &Channel) -> PathBuf {
    store.path().join("charter").join(format!("{channel}.mirror"))
}

/// Writes a mirror, with the block that gave the configuration in force. Returns the file's size.
pub fn write(store: &Store, mirror: &Mirror, configuration: BlockId) -> io::Result<u64> {
    let path = path(store, &mirror.channel);
    let folder = store.path().join("charter");
    std::fs::create_dir_all(&folder)?;
    // One name for all writers: what a killed one leaves is overwritten, and two at once leave what its checksum betrays.
    let new = folder.join(format!(".{}.mirror.new", mirror.channel));
    let written = write_to(File::create(&new)?, mirror, configuration);
    let renamed = written.and_then(|size| std::fs::rename(&new, &path).map(|()| size));
    if renamed.is_err() {
        // What is half written is of no use to anybody.
        let _ = std::fs::remove_file(&new);
    }
    renamed
}

fn write_to(file: File, mirror: &Mirror, configuration: BlockId) -> io::Result<u64> {
    let mut out = Hashed::new(BufWriter::new(file));
    let versions = mirror.definitions.versions();
    let header = Header {
        channel: mirror.channel.to_string(),
        genesis: mirror.genesis.as_bytes().to_vec(),
        block: mirror.at.number,
        hash: mirror.at.hash.as_bytes().to_vec(),
        configuration: configuration.number,
        configuration_hash: configuration.hash.as_bytes().to_vec(),
        commit_hash: match &mirror.chain {
            Chain::At(hash) => Some(hash.clone()),
            Chain::Unwritten => None,
        },
        definition: mirror.definitions.stated().map(<[u8]>::to_vec),
        transactions: mirror.transactions,
        undecided: mirror.undecided,
        keys: mirror.state.len() as u64,
        lifecycle: versions.len() as u64,
    };
    out.write_all(MAGIC)?;
    out.write_all(&header.encode_length_delimited_to_vec())?;
    let mut buffer = Vec::new();
    for (key, found) in mirror.state.range("", "") {
        buffer.clear();
        entry(key, found.version, &found.value)
            .encode_length_delimited(&mut buffer)
            .map_err(io::Error::other)?;
        out.write_all(&buffer)?;
    }
    for (key, version) in versions {
        out.write_all(&entry(key, *version, b"").encode_length_delimited_to_vec())?;
    }
    let (checksum, size, mut inner) = out.finish();
    inner.write_all(&checksum)?;
    inner.flush()?;
    Ok(size + CHECKSUM)
}

fn entry(key: &str, version: Version, value: &[u8]) -> Entry {
    Entry {
        key: key.to_owned(),
        block: version.block,
        tx: version.tx,
        value: value.to_vec(),
    }
}

/// Reads a channel's mirror, and the block that gave the configuration in force, if there is a whole one of this history. Lost,
/// torn and unreadable are the same here.
pub fn read(store: &Store, channel: &Channel, genesis: Digest) -> Option<(Mirror, BlockId)> {
    let file = File::open(path(store, channel)).ok()?;
    let size = file.metadata().ok()?.len();
    if size > limits::MIRROR_BYTES {
        tracing::warn!(%channel, size, "the mirror is larger than is read: it is made again from the blocks");
        return None;
    }
    let mut input = Hashed::new(BufReader::new(file.take(size.checked_sub(CHECKSUM)?)));
    let read = read_from(&mut input, channel, genesis, size).ok().flatten()?;
    let (checksum, _, inner) = input.finish();
    // What follows the entries is the checksum, and nothing else.
    let mut file = inner;
    let mut rest = Vec::new();
    if file.read_to_end(&mut rest).ok()? != 0 {
        return None;
    }
    let mut stored = [0; CHECKSUM as usize];
    let mut file = file.into_inner().into_inner();
    file.read_exact(&mut stored).ok()?;
    (stored == checksum).then_some(read)
}

fn read_from(input: &mut impl Read, channel: &Channel, genesis: Digest, size: u64) -> io::Result<Option<(Mirror, BlockId)>> {
    let mut magic = vec![0; MAGIC.len()];
    input.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Ok(None);
    }
    let header: Header = message(input, size)?;
    let digest = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map(Digest::from_bytes).map_err(io::Error::other);
    if header.channel != channel.as_str() || digest(&header.genesis)? != genesis {
        return Ok(None);
    }
    let mut values = Vec::new();
    for _ in 0..header.keys {
        let Entry { key, block, tx, value } = message(input, size)?;
        let version = Version { block, tx };
        values.push((key, Versioned { value, version }));
    }
    let mut versions = BTreeMap::new();
    for _ in 0..header.lifecycle {
        let Entry { key, block, tx, .. } = message(input, size)?;
        versions.insert(key, Version { block, tx });
    }
    let mirror = Mirror {
        channel: channel.clone(),
        genesis,
        at: BlockId {
            number: header.block,
            hash: digest(&header.hash)?,
        },
        state: values.into_iter().collect(),
        definitions: Definitions::new(versions, header.definition),
        chain: header.commit_hash.map_or(Chain::Unwritten, Chain::At),
        transactions: header.transactions,
        undecided: header.undecided,
    };
    let configuration = BlockId {
        number: header.configuration,
        hash: digest(&header.configuration_hash)?,
    };
    Ok(Some((mirror, configuration)))
}

/// Reads one message after its length. Nothing is longer than the file.
fn message<M: Message + Default>(input: &mut impl Read, size: u64) -> io::Result<M> {
    let mut length = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        length |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            if length > size {
                break;
            }
            let mut bytes = Vec::new();
            if input.take(length).read_to_end(&mut bytes)? as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return M::decode(bytes.as_slice()).map_err(io::Error::other);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Hashes what goes through.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
    size: u64,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }

    fn seen(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn finish(self) -> ([u8; 32], u64, T) {
        (self.hash.finalize().into(), self.size, self.inner)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.seen(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.seen(&buffer[..count]);
        Ok(count)
    }
}
