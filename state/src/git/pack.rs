//! Pack files: entries in memory, and the pack and index bytes on disk.
//!
//! The store writes packs itself for two reasons. It knows which line of a tree changed, so a delta
//! costs a copy instead of a search; and what is on disk when can be said exactly.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use git2::{ObjectType, Oid};
use sha1::{Digest, Sha1};

use super::GitError;
use super::object::id_of;

/// Bytes before the first entry: signature, version, count.
pub(super) const HEADER: u64 = 12;
/// Length of the checksum at the end.
pub(super) const TRAILER: u64 = 20;
/// Longest chain of deltas. Every chain is read from its start, so this bounds what a read costs.
const CHAIN: u8 = 16;
/// Deltas up to this size are stored without compression: they are ids, which don't compress.
const STORED: usize = 96;
/// Whole objects up to this size are stored too: compression takes a quarter off a resource's few hundred bytes, and every read would
/// pay for it with building its code anew.
const STORED_WHOLE: usize = 1_024;
/// Type number of an entry that is a delta to an earlier entry of the same pack.
pub(super) const OFFSET_DELTA: u8 = 6;

/// Where an object stands in a body, and how many deltas lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    offset: u64,
    depth: u8,
}

/// One object of a pack: its id, where its entry starts, and the entry's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Oid,
    pub(super) offset: u64,
    pub(super) crc: u32,
}

/// The entries of a pack that is still in memory. Offsets count from the first entry.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    places: HashMap<Oid, Place>,
    deflate: Compress,
    delta: Vec<u8>,
}

impl Body {
    pub(super) fn new() -> Body {
        Body {
            bytes: Vec::new(),
            entries: Vec::new(),
            places: HashMap::new(),
            deflate: Compress::new(Compression::new(1), true),
            delta: Vec::new(),
        }
    }

    /// Adds an object, as a delta to `base` where that is clearly smaller, and returns its id and place.
    pub(super) fn add(&mut self, kind: ObjectType, bytes: &[u8], base: Option<(Place, &[u8])>) -> Result<(Oid, Place), GitError> {
        let id = id_of(kind, bytes)?;
        if let Some(&place) = self.places.get(&id) {
            return Ok((id, place));
        }
        let offset = self.bytes.len() as u64;
        let mut depth = 0;
        match base {
            Some((place, old)) if place.depth < CHAIN && self.fill_delta(old, bytes) => {
                depth = place.depth + 1;
                push_header(&mut self.bytes, OFFSET_DELTA, self.delta.len() as u64);
                push_distance(&mut self.bytes, offset - place.offset);
                if self.delta.len() <= STORED {
                    push_stored(&mut self.bytes, &self.delta);
                } else {
                    push_deflated(&mut self.deflate, &mut self.bytes, &self.delta)?;
                }
            }
            _ => {
                push_header(&mut self.bytes, kind_number(kind), bytes.len() as u64);
                if bytes.len() <= STORED_WHOLE {
                    push_stored(&mut self.bytes, bytes);
                } else {
                    push_deflated(&mut self.deflate, &mut self.bytes, bytes)?;
                }
            }
        }
        let mut crc = Crc::new();
        crc.update(&self.bytes[offset as usize..]);
        self.entries.push(Entry {
            id,
            offset,
            crc: crc.sum(),
        });
        let place = Place { offset, depth };
        self.places.insert(id, place);
        Ok((id, place))
    }

    /// Makes the delta of two versions that share a beginning and an end; tells whether it is worth it.
    fn fill_delta(&mut self, old: &[u8], new: &[u8]) -> bool {
        let start = common_prefix(old, new);
        let end = common_suffix(&old[start..], &new[start..]);
        let middle = &new[start..new.len() - end];
        if middle.len() + 24 > new.len() / 2 {
            return false;
        }
        let delta = &mut self.delta;
        delta.clear();
        push_size(delta, old.len() as u64);
        push_size(delta, new.len() as u64);
        push_copy(delta, 0, start);
        for piece in middle.chunks(127) {
            delta.push(piece.len() as u8);
            delta.extend_from_slice(piece);
        }
        push_copy(delta, old.len() - end, end);
        true
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    for (x, y) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        if x != y {
            break;
        }
        at += 16;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(x, y)| x == y).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let mut at = 0;
    for (x, y) in a.rchunks_exact(16).zip(b.rchunks_exact(16)) {
        if x != y {
            break;
        }
        at += 16;
    }
    at + a[..a.len() - at]
        .iter()
        .rev()
        .zip(b[..b.len() - at].iter().rev())
        .take_while(|(x, y)| x == y)
        .count()
}

fn kind_number(kind: ObjectType) -> u8 {
    match kind {
        ObjectType::Commit => 1,
        ObjectType::Tree => 2,
        ObjectType::Tag => 4,
        _ => 3,
    }
}

/// Writes an entry's type and the length of what it inflates to.
pub(super) fn push_header(out: &mut Vec<u8>, kind: u8, size: u64) {
    let mut byte = (kind << 4) | (size & 15) as u8;
    let mut rest = size >> 4;
    while rest > 0 {
        out.push(byte | 0x80);
        byte = (rest & 0x7f) as u8;
        rest >>= 7;
    }
    out.push(byte);
}

/// Writes how far before this entry its base starts, in git's own variable-length form.
pub(super) fn push_distance(out: &mut Vec<u8>, distance: u64) {
    let mut digits = [0u8; 10];
    let mut at = digits.len() - 1;
    digits[at] = (distance & 0x7f) as u8;
    let mut rest = distance >> 7;
    while rest > 0 {
        rest -= 1;
        at -= 1;
        digits[at] = 0x80 | (rest & 0x7f) as u8;
        rest >>= 7;
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_size(out: &mut Vec<u8>, mut size: u64) {
    while size >= 0x80 {
        out.push(0x80 | (size & 0x7f) as u8);
        size >>= 7;
    }
    out.push(size as u8);
}

fn push_copy(out: &mut Vec<u8>, mut from: usize, mut length: usize) {
    while length > 0 {
        let now = length.min(0xffff);
        let at = out.len();
        let mut op = 0x80u8;
        out.push(op);
        for (bit, byte) in (from as u32).to_le_bytes().into_iter().enumerate() {
            if byte != 0 {
                op |= 1 << bit;
                out.push(byte);
            }
        }
        for (bit, byte) in (now as u16).to_le_bytes().into_iter().enumerate() {
            if byte != 0 {
                op |= 0x10 << bit;
                out.push(byte);
            }
        }
        out[at] = op;
        from += now;
        length -= now;
    }
}

/// Writes a zlib stream of one stored block.
fn push_stored(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = bytes.len() as u16;
    out.extend_from_slice(&[0x78, 0x01, 0x01]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    let (mut a, mut b) = (1u32, 0u32);
    // 5,552 bytes are the most whose sums fit before they have to be reduced.
    for chunk in bytes.chunks(5_552) {
        for &byte in chunk {
            a += u32::from(byte);
            b += a;
        }
        (a, b) = (a % 65_521, b % 65_521);
    }
    out.extend_from_slice(&((b << 16) | a).to_be_bytes());
}

fn push_deflated(deflate: &mut Compress, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), GitError> {
    let failed = |why: &str| GitError::Io {
        action: "compress an object for",
        path: "a pack".into(),
        source: io::Error::other(why.to_owned()),
    };
    deflate.reset();
    loop {
        let taken = deflate.total_in() as usize;
        out.reserve((bytes.len() - taken) / 2 + 128);
        let status = deflate
            .compress_vec(&bytes[taken..], out, FlushCompress::Finish)
            .map_err(|error| failed(&error.to_string()))?;
        match status {
            Status::StreamEnd => return Ok(()),
            Status::Ok | Status::BufError => {}
        }
    }
}

/// Writes a pack piece by piece and computes its checksum on the way.
pub(super) struct PackWriter<W> {
    out: W,
    hash: Sha1,
    written: u64,
}

impl<W: Write> PackWriter<W> {
    /// Writes the header of a pack of `count` objects.
    pub(super) fn start(out: W, count: u32) -> io::Result<PackWriter<W>> {
        let mut writer = PackWriter {
            out,
            hash: Sha1::new(),
            written: 0,
        };
        writer.write(b"PACK")?;
        writer.write(&2u32.to_be_bytes())?;
        writer.write(&count.to_be_bytes())?;
        Ok(writer)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Where the next entry starts.
    pub(super) fn offset(&self) -> u64 {
        self.written
    }

    /// Writes the checksum and returns it with the writer.
    pub(super) fn finish(mut self) -> io::Result<(W, [u8; 20])> {
        let sum: [u8; 20] = self.hash.finalize().into();
        self.out.write_all(&sum)?;
        Ok((self.out, sum))
    }
}

/// Builds the index, version 2, of a pack.
pub(super) fn index_bytes(entries: &mut [Entry], pack_sum: [u8; 20]) -> Vec<u8> {
    entries.sort_unstable_by_key(|entry| entry.id);
    let mut out = Vec::with_capacity(8 + 1024 + entries.len() * 28 + 40);
    out.extend_from_slice(&INDEX_MAGIC);
    let mut at = 0;
    for first in 0..=255u8 {
        while at < entries.len() && entries[at].id.as_bytes()[0] <= first {
            at += 1;
        }
        out.extend_from_slice(&(at as u32).to_be_bytes());
    }
    for entry in entries.iter() {
        out.extend_from_slice(entry.id.as_bytes());
    }
    for entry in entries.iter() {
        out.extend_from_slice(&entry.crc.to_be_bytes());
    }
    let mut far = Vec::new();
    for entry in entries.iter() {
        let offset = if entry.offset < FAR {
            entry.offset as u32
        } else {
            far.push(entry.offset);
            FAR as u32 | (far.len() - 1) as u32
        };
        out.extend_from_slice(&offset.to_be_bytes());
    }
    for offset in far {
        out.extend_from_slice(&offset.to_be_bytes());
    }
    out.extend_from_slice(&pack_sum);
    let sum = Sha1::digest(&out);
    out.extend_from_slice(&sum);
    out
}

/// Signature and version of the index.
const INDEX_MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
/// Offsets from here on stand in the table of long ones.
const FAR: u64 = 1 << 31;

/// Reads an index, version 2; `None` if it is of another version or its length or checksum is wrong.
pub(super) fn read_index(bytes: &[u8]) -> Option<(Vec<Entry>, [u8; 20])> {
    let body = bytes.len().checked_sub(20)?;
    if !bytes.starts_with(&INDEX_MAGIC) || Sha1::digest(&bytes[..body])[..] != bytes[body..] {
        return None;
    }
    let word = |at: usize| -> Option<u32> { Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    let count = word(8 + 255 * 4)? as usize;
    let ids = 8 + 1024;
    let crcs = ids + count.checked_mul(20)?;
    let offsets = crcs + count * 4;
    let far = offsets + count * 4;
    let mut entries = Vec::with_capacity(count.min(bytes.len() / 28));
    for at in 0..count {
        let id = Oid::from_bytes(bytes.get(ids + at * 20..ids + at * 20 + 20)?).ok()?;
        let near = word(offsets + at * 4)?;
        let offset = if u64::from(near) < FAR {
            u64::from(near)
        } else {
            let place = far + (near as usize & (FAR as usize - 1)) * 8;
            u64::from_be_bytes(bytes.get(place..place + 8)?.try_into().ok()?)
        };
        entries.push(Entry {
            id,
            offset,
            crc: word(crcs + at * 4)?,
        });
    }
    let sum = bytes.get(body - 20..body)?.try_into().ok()?;
    Some((entries, sum))
}

/// Reads an entry's type, the size it inflates to, and the length of these two.
pub(super) fn read_header(entry: &[u8]) -> Option<(u8, u64, usize)> {
    let first = *entry.first()?;
    let mut size = u64::from(first & 15);
    let (mut at, mut shift, mut more) = (1, 4, first & 0x80 != 0);
    while more {
        let byte = *entry.get(at)?;
        size |= u64::from(byte & 0x7f).checked_shl(shift)?;
        more = byte & 0x80 != 0;
        (at, shift) = (at + 1, shift + 7);
    }
    Some(((first >> 4) & 7, size, at))
}

/// Reads the distance of a delta's base, and the length it is written in.
pub(super) fn read_distance(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let mut distance = u64::from(first & 0x7f);
    let (mut at, mut more) = (1, first & 0x80 != 0);
    while more {
        let byte = *bytes.get(at)?;
        distance = distance.checked_add(1)?.checked_mul(128)? | u64::from(byte & 0x7f);
        more = byte & 0x80 != 0;
        at += 1;
    }
    Some((distance, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back() {
        for value in [0, 1, 15, 16, 127, 128, 16_511, 16_512, 1 << 31, 1 << 40] {
            let mut bytes = Vec::new();
            push_header(&mut bytes, 3, value);
            assert_eq!(read_header(&bytes), Some((3, value, bytes.len())));
            bytes.clear();
            push_distance(&mut bytes, value);
            assert_eq!(read_distance(&bytes), Some((value, bytes.len())));
        }
        assert_eq!(read_header(&[0xff; 40]), None);
        assert_eq!(read_distance(&[0xff; 40]), None);
    }

    #[test]
    fn an_index_reads_back_and_a_flipped_bit_is_seen() {
        let mut entries: Vec<Entry> = (0..300u64)
            .map(|n| Entry {
                id: id_of(ObjectType::Blob, &n.to_be_bytes()).unwrap(),
                offset: 12 + n * (1 << 24),
                crc: n as u32,
            })
            .collect();
        let mut bytes = index_bytes(&mut entries, [7; 20]);
        assert_eq!(read_index(&bytes), Some((entries, [7; 20])));
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert_eq!(read_index(&bytes), None);
        assert_eq!(read_index(&bytes[..30]), None);
    }
}
