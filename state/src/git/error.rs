use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::CommitId;

/// Reports why the git store refused or failed at something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// Reports that the file system refused an operation of the store.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb: `write`, `flush`.
        action: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// Reports that a directory is not a store, or one of a format this version doesn't read.
    #[error("{} is not a git store: {why}", path.display())]
    NotAStore {
        /// The directory that was opened.
        path: PathBuf,
        /// What is missing or unknown, and what to do next.
        why: String,
    },
    /// Reports that an object can't be read, is missing, or fails its own checksum.
    #[error("cannot read object {id} of the store; check it with `git fsck`, or rebuild the store from the ledger")]
    Object {
        /// The object's id.
        id: String,
        /// What the git library answered.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Reports bytes in the store that are not what git's formats say.
    #[error("{what} is damaged: {why}; check it with `git fsck`, or rebuild the store from the ledger")]
    Damaged {
        /// The object, reference or file.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Reports a reference name that the store doesn't accept.
    #[error("reference name {name:?} is refused: {why}")]
    ReferenceName {
        /// The name as given.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Reports a path inside a tree that the store doesn't accept.
    #[error("path {path:?} is refused: {why}")]
    Path {
        /// The path as given.
        path: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Reports a path whose parent is a file, or a file put where a directory is.
    #[error("path {path:?} is refused: a file and a directory can't have the same name; remove the other one first")]
    PathConflict {
        /// The path as given.
        path: String,
    },
    /// Reports an author, committer or message that git would refuse.
    #[error("commit {field} is refused: {why}")]
    CommitField {
        /// Which part of the commit: `name`, `email`, `time`, `message`, `signature`.
        field: &'static str,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Reports that somebody else moved a reference since the batch was started.
    #[error(
        "{reference} was moved by somebody else: expected {}, found {}; read it again and start a new batch",
        shown(expected),
        shown(found)
    )]
    Moved {
        /// The reference.
        reference: String,
        /// The commit that the batch started from.
        expected: Option<CommitId>,
        /// The commit that the reference names now.
        found: Option<CommitId>,
    },
    /// Reports a lock of another git program that was not released in time.
    #[error("{} is held by another git program; wait for it, or remove the file when none is running", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Reports that another process writes to the store for longer than the store waits.
    #[error("another process is writing to the store ({}); try again when it has finished", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// Reports batches that can't be finished together.
    #[error("batches can't be finished together: {why}")]
    Batches {
        /// Which rule they break.
        why: &'static str,
    },
    /// Reports that a commit's signature could not be made.
    #[error("cannot sign the commit")]
    Sign {
        /// What the signer answered.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Reports that libgit2 failed outside of one object.
    #[error("libgit2 cannot {action}")]
    Library {
        /// What was being done.
        action: &'static str,
        /// What libgit2 answered.
        source: git2::Error,
    },
}

impl GitError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GitError {
        let path = path.to_path_buf();
        move |source| GitError::Io { action, path, source }
    }

    pub(super) fn damaged(what: impl Into<String>, why: impl Into<String>) -> GitError {
        GitError::Damaged {
            what: what.into(),
            why: why.into(),
        }
    }
}

fn shown(commit: &Option<CommitId>) -> String {
    match commit {
        Some(id) => id.to_string(),
        None => "no commit".to_owned(),
    }
}
