//! Pack files on disk: written durably, merged so that they stay few, set aside when torn.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use git2::Oid;

use super::GitError;
use super::disk::{remove, sync_directory, write_flushed};
use super::lock::StoreLock;
use super::pack::{
    Body, Entry, HEADER, OFFSET_DELTA, PackWriter, TRAILER, index_bytes, push_distance, push_header, read_distance, read_header, read_index,
};

/// Packs are merged when there are more of them than this, the large ones apart.
const FEW: usize = 16;
/// Packs from this size on are left alone, so that merging never holds up a writer for long.
const LARGE: u64 = 256 * 1024 * 1024;

/// The folder of a store's packs.
pub(super) fn folder(root: &Path) -> PathBuf {
    root.join("objects").join("pack")
}

/// Writes the objects of several batches as one pack: pack and index flushed, then their directory.
pub(super) fn write(_lock: &StoreLock, root: &Path, bodies: &[&Body]) -> Result<(), GitError> {
    let folder = folder(root);
    let sources = bodies
        .iter()
        .map(|body| Source {
            name: PathBuf::from("a batch"),
            entries: body.entries.clone(),
            end: body.bytes.len() as u64,
            bytes: Box::new(body.bytes.as_slice()),
        })
        .collect();
    store(&folder, sources)?;
    // Even with nothing to write: a pack that a killed process left is not yet flushed into its directory.
    sync_directory(&folder)
}

/// Entries that stand one after the other, and where to read them.
struct Source<'a> {
    name: PathBuf,
    entries: Vec<Entry>,
    end: u64,
    bytes: Box<dyn Read + 'a>,
}

/// Writes sources as one pack and puts it in place; `None` if there was no object to write.
fn store(folder: &Path, sources: Vec<Source<'_>>) -> Result<Option<String>, GitError> {
    let all: HashSet<Oid> = sources
        .iter()
        .flat_map(|source| source.entries.iter().map(|entry| entry.id))
        .collect();
    if all.is_empty() {
        return Ok(None);
    }
    let count = u32::try_from(all.len()).map_err(|_| GitError::damaged("a pack", "it has more objects than a pack can hold"))?;
    drop(all);
    // Only the holder of the store's lock writes these two, so a leftover is simply written over.
    // Git's own clean-up knows the prefix.
    let (pack, index) = (folder.join("tmp_charter_pack"), folder.join("tmp_charter_idx"));
    let written = fill(&pack, &index, count, sources).and_then(|name| {
        let place = |from: &Path, ending: &str| {
            let to = folder.join(format!("{name}.{ending}"));
            fs::rename(from, &to).map_err(GitError::io("rename", &to))
        };
        // Git looks for indexes: the pack has to be there first.
        place(&pack, "pack")?;
        place(&index, "idx")?;
        Ok(name)
    });
    match written {
        Ok(name) => Ok(Some(name)),
        Err(error) => {
            // The disk may be full: what is left over would keep it so.
            let _ = remove(&pack);
            let _ = remove(&index);
            Err(error)
        }
    }
}

fn fill(pack: &Path, index: &Path, count: u32, sources: Vec<Source<'_>>) -> Result<String, GitError> {
    let failed = || GitError::io("write", pack);
    let file = File::create(pack).map_err(GitError::io("create", pack))?;
    let mut merge = Merge {
        writer: PackWriter::start(BufWriter::with_capacity(1 << 18, file), count).map_err(failed())?,
        entries: Vec::with_capacity(count as usize),
        offsets: HashMap::new(),
        entry: Vec::new(),
    };
    for source in sources {
        merge.append(source, pack)?;
    }
    let (file, sum) = merge.writer.finish().map_err(failed())?;
    let file = file.into_inner().map_err(|error| failed()(error.into_error()))?;
    file.sync_all().map_err(GitError::io("flush", pack))?;
    write_flushed(index, &index_bytes(&mut merge.entries, sum))?;
    Ok(format!("pack-{}", hex::encode(sum)))
}

/// A pack that is put together from the entries of others.
struct Merge<W> {
    writer: PackWriter<W>,
    entries: Vec<Entry>,
    offsets: HashMap<Oid, u64>,
    entry: Vec<u8>,
}

impl<W: Write> Merge<W> {
    /// Copies the entries that are not there yet. A delta keeps its bytes; only the distance to its base changes.
    fn append(&mut self, mut source: Source<'_>, pack: &Path) -> Result<(), GitError> {
        let damaged = |why: &str| GitError::damaged(source.name.display().to_string(), why);
        source.entries.sort_unstable_by_key(|entry| entry.offset);
        let mut moved: Vec<u64> = Vec::with_capacity(source.entries.len());
        for (at, old) in source.entries.iter().enumerate() {
            let end = source.entries.get(at + 1).map_or(source.end, |next| next.offset);
            let length = end
                .checked_sub(old.offset)
                .ok_or_else(|| damaged("its index has offsets behind its end"))?;
            self.entry.clear();
            let read = source
                .bytes
                .by_ref()
                .take(length)
                .read_to_end(&mut self.entry)
                .map_err(GitError::io("read", &source.name))?;
            let mut crc = Crc::new();
            crc.update(&self.entry);
            if read as u64 != length || crc.sum() != old.crc {
                return Err(damaged("an entry's checksum is wrong"));
            }
            if let Some(&there) = self.offsets.get(&old.id) {
                moved.push(there);
                continue;
            }
            let offset = self.writer.offset();
            moved.push(offset);
            self.offsets.insert(old.id, offset);
            let (kind, size, header) = read_header(&self.entry).ok_or_else(|| damaged("an entry has no header"))?;
            let mut crc = old.crc;
            let failed = GitError::io("write", pack);
            if kind == OFFSET_DELTA {
                let (distance, digits) = read_distance(&self.entry[header..]).ok_or_else(|| damaged("a delta names no base"))?;
                let base = old
                    .offset
                    .checked_sub(distance)
                    .and_then(|base| source.entries[..at].binary_search_by_key(&base, |entry| entry.offset).ok())
                    .ok_or_else(|| damaged("a delta's base is missing"))?;
                let mut head = Vec::with_capacity(24);
                push_header(&mut head, kind, size);
                push_distance(&mut head, offset - moved[base]);
                let rest = &self.entry[header + digits..];
                let mut sum = Crc::new();
                sum.update(&head);
                sum.update(rest);
                crc = sum.sum();
                self.writer.write(&head).and_then(|()| self.writer.write(rest)).map_err(failed)?;
            } else {
                self.writer.write(&self.entry).map_err(failed)?;
            }
            self.entries.push(Entry { id: old.id, offset, crc });
        }
        Ok(())
    }
}

/// Merges small packs when there are many, so that reading stays fast and files stay few for years.
///
/// The rule keeps every pack at least twice as large as all smaller ones together, so an object is
/// copied a logarithmic number of times. Objects are never dropped: that is for `git gc`.
pub(super) fn consolidate(lock: &StoreLock, root: &Path) -> Result<(), GitError> {
    let folder = folder(root);
    let mut packs = list(&folder)?;
    packs.retain(|pack| pack.size < LARGE && !pack.kept);
    if packs.len() <= FEW {
        return Ok(());
    }
    packs.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    let (mut total, mut merged) = (0, 0);
    for (at, pack) in packs.iter().enumerate() {
        if pack.size < 2 * total && total + pack.size <= LARGE {
            merged = at + 1;
        }
        total += pack.size;
    }
    packs.truncate(merged);
    let mut sources = Vec::with_capacity(packs.len());
    for pack in &packs {
        sources.push(pack.open(&folder)?);
    }
    let Some(name) = store(&folder, sources)? else {
        return Ok(());
    };
    sync_directory(&folder)?;
    // Other handles see this and open the object database anew, which lets go of the removed files. After a
    // power cut there are no other handles, so it needs no flush.
    let (through, path) = (lock.file("packs.new"), generation(root));
    fs::write(&through, &name).map_err(GitError::io("write", &through))?;
    fs::rename(&through, &path).map_err(GitError::io("rename", &path))?;
    for pack in packs.iter().filter(|pack| pack.name != name) {
        for ending in ["idx", "rev", "pack"] {
            remove(&folder.join(format!("{}.{ending}", pack.name)))?;
        }
    }
    Ok(())
}

/// The file that changes when packs were merged.
pub(super) fn generation(root: &Path) -> PathBuf {
    root.join(super::lock::FOLDER).join("packs")
}

/// A pack in the store's folder.
struct Pack {
    name: String,
    size: u64,
    /// Another program has a say in it: `git gc` with bitmaps, a partial clone, an operator's `.keep`.
    kept: bool,
}

impl Pack {
    fn open(&self, folder: &Path) -> Result<Source<'static>, GitError> {
        let index = folder.join(format!("{}.idx", self.name));
        let bytes = fs::read(&index).map_err(GitError::io("read", &index))?;
        let (entries, _) =
            read_index(&bytes).ok_or_else(|| GitError::damaged(index.display().to_string(), "it is no index of version 2"))?;
        let name = folder.join(format!("{}.pack", self.name));
        let file = File::open(&name).map_err(GitError::io("open", &name))?;
        let mut bytes = BufReader::with_capacity(1 << 16, file);
        bytes.seek(SeekFrom::Start(HEADER)).map_err(GitError::io("read", &name))?;
        Ok(Source {
            name,
            entries,
            end: self.size.saturating_sub(TRAILER),
            bytes: Box::new(bytes),
        })
    }
}

fn list(folder: &Path) -> Result<Vec<Pack>, GitError> {
    let failed = |source| GitError::io("list", folder)(source);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.insert(name);
        }
    }
    let mut packs = Vec::new();
    for index in &names {
        let Some(name) = index.strip_suffix(".idx") else {
            continue;
        };
        let has = |ending: &str| names.contains(&format!("{name}.{ending}"));
        if !name.starts_with("pack-") || !has("pack") {
            continue;
        }
        let path = folder.join(format!("{name}.pack"));
        packs.push(Pack {
            name: name.to_owned(),
            size: fs::metadata(&path).map_err(GitError::io("read", &path))?.len(),
            kept: ["keep", "bitmap", "promisor", "mtimes"].into_iter().any(has),
        });
    }
    Ok(packs)
}

/// Sets packs aside that don't end as their index says, under `<name>.torn`, and returns their names.
///
/// A power cut can leave one on a disk that lies about flushing. Left in place, its index would claim
/// objects that can't be read.
pub(super) fn set_torn_aside(_lock: &StoreLock, root: &Path) -> Result<Vec<String>, GitError> {
    let folder = folder(root);
    let mut torn = Vec::new();
    for pack in list(&folder)? {
        let path = folder.join(format!("{}.pack", pack.name));
        let index = folder.join(format!("{}.idx", pack.name));
        let said = tail(&index, 40).map(|tail| tail[..20].to_vec());
        if said.ok() == tail(&path, 20).ok() && said_is_whole(&pack) {
            continue;
        }
        for path in [index, path] {
            let mut aside = path.clone().into_os_string();
            aside.push(".torn");
            fs::rename(&path, &aside).map_err(GitError::io("rename", &path))?;
        }
        torn.push(pack.name);
    }
    if !torn.is_empty() {
        sync_directory(&folder)?;
    }
    Ok(torn)
}

fn said_is_whole(pack: &Pack) -> bool {
    pack.size >= HEADER + TRAILER
}

fn tail(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.seek(SeekFrom::End(-(length as i64)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
