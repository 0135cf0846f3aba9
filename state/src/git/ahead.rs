//! Reading ahead: one thread reads files, the caller's checks and takes them.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use git2::{ObjectType, Oid};

use super::GitError;
use super::objects::{Objects, check_id};

/// Files that are handed over together, and how many bytes are enough whatever their number.
const FILES: usize = 64;
const BYTES: usize = 256 * 1024;
/// How many such hands the reader may be ahead.
const AHEAD: usize = 4;

/// A file as it was read, not checked yet.
struct File {
    path: String,
    id: Oid,
    bytes: Vec<u8>,
}

/// Why reading ended early.
pub(super) enum Ended {
    /// The store failed.
    Failed(GitError),
    /// Nobody wants more.
    Unwanted,
}

impl From<GitError> for Ended {
    fn from(error: GitError) -> Self {
        Ended::Failed(error)
    }
}

/// The reading side.
pub(super) struct Reader {
    to: SyncSender<Result<Vec<File>, GitError>>,
    files: Vec<File>,
    held: usize,
}

impl Reader {
    /// Reads a file and hands it over, sooner or later.
    pub(super) fn blob(&mut self, objects: &Objects, path: &str, id: Oid) -> Result<(), Ended> {
        let object = objects.read_unchecked(id, ObjectType::Blob)?;
        let bytes = object.data().to_vec();
        self.held += bytes.len();
        let path = path.to_owned();
        self.files.push(File { path, id, bytes });
        if self.files.len() >= FILES || self.held >= BYTES {
            self.hand_over()?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Ended> {
        self.held = 0;
        let files = std::mem::replace(&mut self.files, Vec::with_capacity(FILES));
        self.to.send(Ok(files)).map_err(|_| Ended::Unwanted)
    }

    fn finish(mut self, outcome: Result<(), Ended>) {
        let outcome = outcome.and_then(|()| self.hand_over());
        if let Err(Ended::Failed(error)) = outcome {
            // A visitor that failed already doesn't listen any more.
            drop(self.to.send(Err(error)));
        }
    }
}

/// Calls `visit` with every file that `read` reads, in the same order, each checked against its id.
pub(super) fn read<E: From<GitError>>(
    read: impl FnOnce(&mut Reader) -> Result<(), Ended> + Send,
    visit: impl FnMut(&str, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (to, from) = sync_channel(AHEAD);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut reader = Reader {
                to,
                files: Vec::with_capacity(FILES),
                held: 0,
            };
            let outcome = read(&mut reader);
            reader.finish(outcome);
        });
        take(from, visit)
    })
}

fn take<E: From<GitError>>(
    from: Receiver<Result<Vec<File>, GitError>>,
    mut visit: impl FnMut(&str, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    for files in from {
        for file in files? {
            check_id(file.id, ObjectType::Blob, &file.bytes)?;
            visit(&file.path, &file.bytes)?;
        }
    }
    Ok(())
}
