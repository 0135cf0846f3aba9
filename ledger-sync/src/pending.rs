//! Signed transactions whose outcome is not known yet, on disk before they are sent.
//!
//! A file holds the envelope itself, under a name that is a function of what it asks for: whoever asks for the same again finds
//! it, and sends the same envelope instead of a second one. It goes when its outcome is known.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use msp::folder::{Readers, create_directories, write_file};
use prost::Message;
use protos::common::Envelope;
use protos::envelope::{self, MAX_ENVELOPE_BYTES, UnpackError};
use sha2::{Digest as _, Sha256};
use state::canonical::Digest;
use state::ids::Channel;
use thiserror::Error;

use crate::limits;

const ENDING: &str = "tx";

/// A pending transaction could not be read or written. Nothing of it was sent.
#[derive(Debug, Error)]
pub enum PendingError {
    /// A file operation failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be made durable.
    #[error("a signed transaction can't be kept")]
    Write(#[source] msp::MspError),
    /// A file is no transaction.
    #[error("{} is no signed transaction; if it was damaged, see whether what it asked for is on the ledger, and remove it", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: UnpackError,
    },
    /// A file stands where another transaction belongs.
    #[error("{} is another transaction than its place says; remove it", .path.display())]
    Misplaced {
        /// The file.
        path: PathBuf,
    },
    /// The work was interrupted.
    #[error("keeping a signed transaction was interrupted")]
    Interrupted,
}

/// A signed transaction whose outcome is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingTransaction {
    /// Its channel.
    pub channel: Channel,
    /// What it asks for.
    pub key: Digest,
    /// Its id.
    pub tx_id: String,
    /// The chaincode's function.
    pub function: String,
    /// When it was proposed, Unix seconds.
    pub at: i64,
    /// The envelope, signed.
    pub envelope: Envelope,
}

/// Names what a transaction asks for: the same function with the same arguments on the same channel.
pub fn key(channel: &Channel, function: &str, args: &[Vec<u8>]) -> Digest {
    let mut hash = Sha256::new();
    for part in [channel.as_str().as_bytes(), function.as_bytes()]
        .into_iter()
        .chain(args.iter().map(Vec::as_slice))
    {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Digest::from_bytes(hash.finalize().into())
}

impl PendingTransaction {
    /// Reads what a signed transaction asks for.
    pub(crate) fn read(channel: &Channel, envelope: Envelope) -> Result<Self, UnpackError> {
        let opened = envelope::open(&envelope)?;
        if envelope.signature.is_empty() {
            return Err(UnpackError::Missing("signature"));
        }
        let mut args = envelope::endorsed(&opened)?.invocation.args;
        if args.is_empty() {
            return Err(UnpackError::Missing("function"));
        }
        let function = String::from_utf8_lossy(&args.remove(0)).into_owned();
        Ok(Self {
            key: key(channel, &function, &args),
            channel: channel.clone(),
            tx_id: opened.channel.tx_id.clone(),
            function,
            at: opened.seconds().unwrap_or_default(),
            envelope,
        })
    }
}

/// The folder of one member's pending transactions. Several processes of the member may use it at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    folder: PathBuf,
}

impl Pending {
    /// Names the folder; it is made when there is something to keep.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, channel: &Channel, key: Digest) -> PathBuf {
        self.folder.join(channel.as_str()).join(format!("{}.{ENDING}", key.hex()))
    }

    /// Finds the transaction that asks for something already.
    pub fn find(&self, channel: &Channel, key: Digest) -> Result<Option<PendingTransaction>, PendingError> {
        let path = self.path(channel, key);
        let Some(found) = read(channel, &path)? else { return Ok(None) };
        if found.key != key {
            return Err(PendingError::Misplaced { path });
        }
        Ok(Some(found))
    }

    /// Keeps a transaction; durable on return. Gives the one that stands: another process may have asked for the same before.
    pub fn put(&self, transaction: PendingTransaction) -> Result<PendingTransaction, PendingError> {
        let path = self.path(&transaction.channel, transaction.key);
        let _lock = self.lock()?;
        if let Some(standing) = self.find(&transaction.channel, transaction.key)? {
            return Ok(standing);
        }
        write_file(&path, &transaction.envelope.encode_to_vec(), Readers::Owner).map_err(PendingError::Write)?;
        Ok(transaction)
    }

    /// Forgets a transaction whose outcome is known, if it is still the one that stands.
    pub fn settled(&self, transaction: &PendingTransaction) -> Result<(), PendingError> {
        let path = self.path(&transaction.channel, transaction.key);
        let _lock = self.lock()?;
        match self.find(&transaction.channel, transaction.key)? {
            Some(standing) if standing.tx_id == transaction.tx_id => fs::remove_file(&path).map_err(failed("remove", &path)),
            _ => Ok(()),
        }
    }

    /// Lists the pending transactions of a channel, the oldest first.
    pub fn list(&self, channel: &Channel) -> Result<Vec<PendingTransaction>, PendingError> {
        let folder = self.folder.join(channel.as_str());
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("list", &folder))?,
        };
        let mut paths = Vec::new();
        for entry in entries.take(limits::PENDING) {
            let path = entry.map_err(failed("list", &folder))?.path();
            // What a writer left half-written was never sent: it begins with a dot.
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|ending| ending == ENDING) {
                paths.push(path);
            }
        }
        let mut all = Vec::with_capacity(paths.len());
        for path in paths {
            all.extend(read(channel, &path)?);
        }
        all.sort_by(|one, other| (one.at, &one.tx_id).cmp(&(other.at, &other.tx_id)));
        Ok(all)
    }

    fn lock(&self) -> Result<File, PendingError> {
        let path = self.folder.join("lock");
        // Never replaced: two processes that start together have to lock one file.
        create_directories(&self.folder).map_err(PendingError::Write)?;
        let file = File::options()
            .write(true)
            .create(true)
            .mode(0o600)
            .truncate(false)
            .open(&path)
            .map_err(failed("open", &path))?;
        // It is held for a file operation, by a process that may be killed: the system frees it then.
        file.lock().map_err(failed("lock", &path))?;
        Ok(file)
    }
}

fn read(channel: &Channel, path: &Path) -> Result<Option<PendingTransaction>, PendingError> {
    let damaged = |source| PendingError::Damaged {
        path: path.to_owned(),
        source,
    };
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed("read", path))?.len(),
    };
    if size > MAX_ENVELOPE_BYTES as u64 {
        return Err(damaged(UnpackError::TooLarge {
            bytes: usize::try_from(size).unwrap_or(usize::MAX),
        }));
    }
    let bytes = match fs::read(path) {
        // Settled by another process meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(failed("read", path))?,
    };
    let envelope = envelope::decode_envelope(&bytes).map_err(damaged)?;
    PendingTransaction::read(channel, envelope).map(Some).map_err(damaged)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PendingError {
    let path = path.to_owned();
    move |source| PendingError::Io { action, path, source }
}
