//! References: files below `refs/`, and `packed-refs` where an operator packed them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::disk::{make_directories, replace, sync_directory, write_flushed};
use super::lock::StoreLock;
use super::names::{check_reference, parse_oid};
use super::{CommitId, GitError};

/// Deepest nesting of reference directories that is looked into.
const NESTING: usize = 16;

/// Reads what a reference names now.
pub(super) fn read(root: &Path, reference: &str) -> Result<Option<CommitId>, GitError> {
    check_reference(reference)?;
    // Git packs a reference before it removes its file: this order never misses one.
    match read_loose(&root.join(reference), reference)? {
        Some(id) => Ok(Some(id)),
        None => Ok(packed(root)?.remove(reference)),
    }
}

/// Lists the references whose name starts with `prefix`, by name.
pub(super) fn list(root: &Path, prefix: &str) -> Result<BTreeMap<String, CommitId>, GitError> {
    let mut loose = BTreeMap::new();
    collect(root, "refs/heads", &mut loose, NESTING)?;
    let mut all = packed(root)?;
    all.append(&mut loose);
    all.retain(|name, _| name.starts_with(prefix) && check_reference(name).is_ok());
    Ok(all)
}

fn collect(root: &Path, directory: &str, found: &mut BTreeMap<String, CommitId>, nesting: usize) -> Result<(), GitError> {
    let path = root.join(directory);
    if nesting == 0 {
        return Ok(());
    }
    let failed = |source| GitError::io("list", &path)(source);
    for entry in fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let reference = format!("{directory}/{name}");
        if entry.file_type().map_err(failed)?.is_dir() {
            collect(root, &reference, found, nesting - 1)?;
        } else if check_reference(&reference).is_ok()
            && let Some(id) = read_loose(&entry.path(), &reference)?
        {
            found.insert(reference, id);
        }
    }
    Ok(())
}

fn read_loose(path: &Path, reference: &str) -> Result<Option<CommitId>, GitError> {
    match fs::read(path) {
        Ok(bytes) => match parse_oid(bytes.trim_ascii_end()) {
            Some(id) => Ok(Some(CommitId(id))),
            None => Err(GitError::damaged(reference, "its file doesn't hold a commit id")),
        },
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(GitError::io("read", path)(error)),
    }
}

/// A name that is missing, below a file, or a directory of further references names no commit.
fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    )
}

fn packed(root: &Path) -> Result<BTreeMap<String, CommitId>, GitError> {
    let path = root.join("packed-refs");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(GitError::io("read", &path)(error)),
    };
    let mut found = BTreeMap::new();
    // `#` starts the header, `^` what the tag above points to.
    for line in text.lines().filter(|line| !line.starts_with(['#', '^'])) {
        let parsed = line.split_once(' ').and_then(|(id, name)| Some((parse_oid(id.as_bytes())?, name)));
        match parsed {
            Some((id, name)) => found.insert(name.to_owned(), CommitId(id)),
            None => return Err(GitError::damaged("packed-refs", "a line can't be read")),
        };
    }
    Ok(found)
}

/// Checks that a reference still names what is expected.
pub(super) fn expect(root: &Path, reference: &str, expected: Option<CommitId>) -> Result<(), GitError> {
    let found = read(root, reference)?;
    if found == expected {
        Ok(())
    } else {
        Err(GitError::Moved {
            reference: reference.to_owned(),
            expected,
            found,
        })
    }
}

/// Moves a reference from what is expected to a new commit; durable on return.
pub(super) fn swap(lock: &StoreLock, root: &Path, reference: &str, expected: Option<CommitId>, new: CommitId) -> Result<(), GitError> {
    check_reference(reference)?;
    let path = root.join(reference);
    let directory = path.parent().unwrap_or(root);
    make_directories(root, directory)?;
    let held = lock.reference(&path)?;
    expect(root, reference, expected)?;
    let through = lock.file("reference");
    write_flushed(&through, format!("{new}\n").as_bytes())?;
    fs::rename(&through, &path).map_err(GitError::io("move", &path))?;
    sync_directory(directory)?;
    drop(held);
    Ok(())
}

/// Lets `HEAD` name a branch that exists, so that a plain `git clone` checks something out.
pub(super) fn settle_head(lock: &StoreLock, root: &Path, reference: &str) -> Result<(), GitError> {
    let path = root.join("HEAD");
    let text = fs::read_to_string(&path).map_err(GitError::io("read", &path))?;
    let Some(target) = text.trim_end().strip_prefix("ref: ") else {
        return Ok(());
    };
    let unborn = check_reference(target).is_err() || read(root, target)?.is_none();
    if unborn {
        replace(&lock.file("head"), &path, format!("ref: {reference}\n").as_bytes())?;
    }
    Ok(())
}
