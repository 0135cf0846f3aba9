//! Reading many files on all cores: a directory is cut into parts, and each thread reads, checks and parses one after the other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use git2::{ObjectType, Oid};

use super::GitError;
use super::names::DEPTH_LIMIT;
use super::object::{DIRECTORY, lines};
use super::objects::{Objects, SUBMODULE, enter};
use super::reader::Reader;

/// So many parts are enough for every core to stay busy until the end.
const PARTS: usize = 64;
const THREADS: usize = 8;
/// Room for so many files of a part: growing means moving them.
const EXPECTED: usize = 48;

/// A directory or a file, and where it stands.
struct Part {
    path: String,
    mode: u32,
    id: Oid,
}

/// Parses every file below a directory; the values come back in git's order of paths.
///
/// Of several files that fail, the first in that order is the one whose error is returned.
pub(super) fn read<T: Send, E: From<GitError> + Send>(
    objects: &Objects,
    directory: Oid,
    path: &str,
    parse: &(impl Fn(&str, &[u8]) -> Result<T, E> + Sync),
) -> Result<Vec<T>, E> {
    let parts = cut(objects, directory, path)?;
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(parts.len());
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let reader = Reader::open(objects.directory())?;
        let mut done = Vec::new();
        // Parts are taken in order and always read to their end, so every part before one that failed has its result.
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(at) else { break };
            let values = read_part(&reader, part, parse);
            failed.fetch_or(values.is_err(), Ordering::Relaxed);
            done.push((at, values));
        }
        Ok::<_, GitError>(done)
    };
    let mut all = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work()?;
        for other in others {
            match other.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, GitError>(all)
    })?;
    all.sort_unstable_by_key(|(at, _)| *at);
    let count = all.iter().map(|(_, part)| part.as_ref().map_or(0, Vec::len)).sum();
    let mut values = Vec::with_capacity(count);
    for (_, part) in all {
        values.append(&mut part?);
    }
    Ok(values)
}

/// Cuts a directory into enough parts, in order.
fn cut(objects: &Objects, directory: Oid, path: &str) -> Result<Vec<Part>, GitError> {
    let mut parts = vec![Part {
        path: path.to_owned(),
        mode: DIRECTORY,
        id: directory,
    }];
    for _ in 0..DEPTH_LIMIT {
        if parts.len() >= PARTS || parts.iter().all(|part| part.mode != DIRECTORY) {
            break;
        }
        let mut finer = Vec::with_capacity(PARTS);
        for part in parts {
            if part.mode == DIRECTORY {
                open(objects, part, &mut finer)?;
            } else {
                finer.push(part);
            }
        }
        parts = finer;
    }
    Ok(parts)
}

fn open(objects: &Objects, directory: Part, inside: &mut Vec<Part>) -> Result<(), GitError> {
    let object = objects.read(directory.id, ObjectType::Tree)?;
    for line in lines(directory.id, object.data()) {
        let line = line?;
        let mut path = directory.path.clone();
        enter(&mut path, line.name);
        if line.mode != SUBMODULE {
            let (mode, id) = (line.mode, line.id);
            inside.push(Part { path, mode, id });
        }
    }
    Ok(())
}

fn read_part<T, E: From<GitError>>(reader: &Reader, part: &Part, parse: &impl Fn(&str, &[u8]) -> Result<T, E>) -> Result<Vec<T>, E> {
    let mut buffer = Vec::new();
    if part.mode != DIRECTORY {
        let bytes = reader.read(part.id, ObjectType::Blob, &mut buffer)?;
        return Ok(vec![parse(&part.path, bytes)?]);
    }
    let mut values = Vec::with_capacity(EXPECTED);
    let mut path = part.path.clone();
    reader.files(DEPTH_LIMIT, part.id, &mut path, &mut buffer, &mut |path, bytes| {
        values.push(parse(path, bytes)?);
        Ok::<_, E>(())
    })?;
    Ok(values)
}
