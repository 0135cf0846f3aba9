//! Who may write: one process at a time for the store, and git's own lock file for a reference.
//!
//! The store's lock is the operating system's lock on `charter/lock`: it ends with the process that
//! holds it, so a killed writer leaves nothing to wait for. A reference's lock is the file that every
//! git program honours, `<reference>.lock`. Charter makes it as a hard link to `charter/marker`, so
//! whoever holds the store's lock and meets a reference lock with the marker's content knows that its
//! writer is dead, and removes it. One with any other content belongs to another git program: it is
//! waited for, and never removed.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::GitError;
use super::disk::{make_directories, remove, replace};
use crate::locked::Locked;

/// The store's own folder in the repository; git ignores it.
pub(super) const FOLDER: &str = "charter";
const MARKER: &[u8] = b"a reference lock of charter\n";
/// How often a lock is tried, and how long after each try: ten seconds in all for the store.
const STORE_TRIES: u32 = 1_000;
/// Two seconds for a reference, whose holder only renames a file.
const REFERENCE_TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// The right to write to a store, until dropped.
pub(super) struct StoreLock {
    _lock: Locked,
    root: PathBuf,
}

impl StoreLock {
    /// Waits for the right to write, at most ten seconds.
    pub(super) fn take(root: &Path) -> Result<StoreLock, GitError> {
        let folder = root.join(FOLDER);
        make_directories(root, &folder)?;
        let path = folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(GitError::io("open", &path))?;
        for _ in 0..STORE_TRIES {
            match file.try_lock() {
                Ok(()) => {
                    return Ok(StoreLock {
                        _lock: Locked::new(file),
                        root: root.to_path_buf(),
                    });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
                Err(TryLockError::Error(source)) => return Err(GitError::io("lock", &path)(source)),
            }
        }
        Err(GitError::Busy { path })
    }

    /// A file of the store's folder; only the holder of the lock writes there.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(FOLDER).join(name)
    }

    /// Locks a reference against every other git program.
    pub(super) fn reference(&self, reference: &Path) -> Result<ReferenceLock, GitError> {
        let marker = self.file("marker");
        if fs::read(&marker).ok().as_deref() != Some(MARKER) {
            replace(&self.file("marker.new"), &marker, MARKER)?;
        }
        let mut name = reference.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        for _ in 0..REFERENCE_TRIES {
            match fs::hard_link(&marker, &path) {
                Ok(()) => return Ok(ReferenceLock { path }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if fs::read(&path).ok().as_deref() == Some(MARKER) {
                        remove(&path)?;
                    } else {
                        thread::sleep(PAUSE);
                    }
                }
                Err(error) => return Err(GitError::io("create", &path)(error)),
            }
        }
        Err(GitError::Locked { path })
    }
}

/// The right to move one reference, until dropped.
pub(super) struct ReferenceLock {
    path: PathBuf,
}

impl Drop for ReferenceLock {
    fn drop(&mut self) {
        // One that stays is recognised by its content the next time.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a reference lock could not be removed");
        }
    }
}
