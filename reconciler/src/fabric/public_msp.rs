//! The public part of an organisation's MSP folder: what it hands to the others, and what a channel's configuration is made from.

use std::path::{Path, PathBuf};

use msp::{Certificate, MspError};
use serde::Deserialize;
use thiserror::Error;

/// The largest `config.yaml` that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;

/// An organisation's public MSP folder, checked.
#[derive(Clone, Debug)]
pub struct PublicMsp {
    /// The folder.
    pub folder: PathBuf,
    /// The authorities of its identities, DER, sorted.
    pub roots: Vec<Vec<u8>>,
    /// The file with the authority of its nodes' TLS certificates.
    pub tls_ca: PathBuf,
}

/// A folder is no public MSP that a channel can be made from.
#[derive(Debug, Error)]
pub enum PublicMspError {
    /// A part of it can't be read.
    #[error("{} can't be read", .folder.display())]
    Read {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: MspError,
    },
    /// It holds something else than it has to.
    #[error("{}: {message}", .folder.display())]
    Content {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
}

#[derive(Deserialize)]
struct MspConfigFile {
    #[serde(rename = "NodeOUs", default)]
    node_ous: Option<NodeOus>,
}

#[derive(Deserialize)]
struct NodeOus {
    #[serde(rename = "Enable", default)]
    enable: bool,
}

impl PublicMsp {
    /// Reads and checks a folder.
    pub fn read(folder: &Path) -> Result<Self, PublicMspError> {
        let content = |message: String| PublicMspError::Content {
            folder: folder.to_owned(),
            message,
        };
        let unreadable = |source| PublicMspError::Read {
            folder: folder.to_owned(),
            source,
        };
        if !folder.is_dir() {
            return Err(content(
                "there is no such folder; ask the organisation for its public MSP folder".into(),
            ));
        }
        let holds_keys = std::fs::read_dir(folder.join("keystore")).is_ok_and(|mut entries| entries.next().is_some());
        if holds_keys {
            return Err(content(
                "keystore/ holds a private key, which must never leave its organisation: use the organisation's own msp folder, with \
                 cacerts/, tlscacerts/ and config.yaml only"
                    .into(),
            ));
        }
        let mut roots = Vec::new();
        for pem in msp::folder::read_certificates(&folder.join("cacerts")).map_err(unreadable)? {
            roots.push(Certificate::from_pem(&pem).map_err(unreadable)?.der().to_vec());
        }
        if roots.is_empty() {
            return Err(content("cacerts/ is empty: the organisation's authority is missing".into()));
        }
        roots.sort();
        let config = folder.join("config.yaml");
        let text = match std::fs::metadata(&config) {
            Ok(metadata) if metadata.len() <= MAX_CONFIG_BYTES => std::fs::read_to_string(&config).ok(),
            _ => None,
        };
        let node_ous = text.and_then(|text| serde_saphyr::from_str::<MspConfigFile>(&text).ok());
        if !node_ous.and_then(|file| file.node_ous).is_some_and(|units| units.enable) {
            return Err(content(
                "config.yaml doesn't enable NodeOUs; the channel's policies tell peers, clients and administrators apart by them".into(),
            ));
        }
        Ok(Self {
            folder: folder.to_owned(),
            roots,
            tls_ca: tls_ca(folder)?,
        })
    }
}

/// The one file in `tlscacerts/`.
fn tls_ca(folder: &Path) -> Result<PathBuf, PublicMspError> {
    let content = |message: String| PublicMspError::Content {
        folder: folder.to_owned(),
        message,
    };
    let place = folder.join("tlscacerts");
    let entries = std::fs::read_dir(&place).map_err(|error| content(format!("tlscacerts/ can't be read: {error}")))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    match files.as_slice() {
        [file] => Ok(file.clone()),
        files => Err(content(format!(
            "tlscacerts/ holds {} files, exactly one is expected; several authorities may stand in one file",
            files.len()
        ))),
    }
}
