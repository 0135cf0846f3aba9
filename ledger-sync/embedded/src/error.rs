//! The crate's error.

use std::path::{Path, PathBuf};

/// Why the ledger could not be opened, changed or served.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file or directory could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the ledger's directory open.
    #[error("the ledger in {} is already open in another process: stop that one first", .0.display())]
    Locked(PathBuf),
    /// The directory holds no ledger.
    #[error("there is no ledger in {}: initialise it first", .0.display())]
    Absent(PathBuf),
    /// The ledger's own description cannot be read.
    #[error("the ledger's description {} is not usable: {reason}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name is not one that may reach a path or a certificate.
    #[error("«{name}» is not a valid {what}: {rule}")]
    Name {
        /// What the name is for.
        what: &'static str,
        /// The name.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A member is asked for that the ledger doesn't have.
    #[error("the ledger has no member {0}: add it to the network first")]
    UnknownMember(String),
    /// A channel is asked for that the ledger doesn't have.
    #[error("the ledger has no channel {0}: create it first")]
    UnknownChannel(String),
    /// Something exists already, and differently.
    #[error("{what} exists already with {existing}, {asked} was asked for")]
    Differs {
        /// What exists.
        what: String,
        /// How it is.
        existing: String,
        /// How it was asked for.
        asked: String,
    },
    /// A block file is damaged where no crash can damage it.
    #[error("the block file {} is corrupt at byte {offset} (block {block}): {reason}; restore it from a backup", path.display())]
    Corrupt {
        /// The block file.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// The number of the block that is damaged.
        block: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Keys or certificates could not be made or read.
    #[error("the ledger's identities are not usable")]
    Msp(#[from] msp::MspError),
    /// The server could not listen.
    #[error("cannot serve the ledger on {address}")]
    Serve {
        /// The address.
        address: String,
        /// What the system or the transport said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl LedgerError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
