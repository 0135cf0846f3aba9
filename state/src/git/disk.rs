//! Durable steps on the file system: nothing here returns before the disk has it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::GitError;

/// Flushes a directory, so that names made or changed in it survive a power cut.
pub(super) fn sync_directory(path: &Path) -> Result<(), GitError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(GitError::io("flush", path))
}

/// Makes a directory and those above it down from `root`, durably; one that is there already is fine.
pub(super) fn make_directories(root: &Path, path: &Path) -> Result<(), GitError> {
    if path == root || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(root);
    make_directories(root, parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(GitError::io("create", path)(error));
        }
        _ => {}
    }
    sync_directory(parent)
}

/// Writes a file under another name and flushes it; the caller renames it into place.
pub(super) fn write_flushed(path: &Path, bytes: &[u8]) -> Result<(), GitError> {
    let mut file = File::create(path).map_err(GitError::io("create", path))?;
    file.write_all(bytes).map_err(GitError::io("write", path))?;
    file.sync_all().map_err(GitError::io("flush", path))
}

/// Replaces a file as a whole: after a crash it is the old one or the new one.
pub(super) fn replace(through: &Path, path: &Path, bytes: &[u8]) -> Result<(), GitError> {
    write_flushed(through, bytes)?;
    fs::rename(through, path).map_err(GitError::io("rename", path))?;
    match path.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Removes a file; one that is gone already is fine.
pub(super) fn remove(path: &Path) -> Result<(), GitError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(GitError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
