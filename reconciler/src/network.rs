//! An example's `network.yaml`: its members, its channels, and what the members say there, in order.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use state::ids::{Channel, MemberId, MspId};
use thiserror::Error;

use crate::document::{self, API_VERSION, Document, DocumentError};

/// The name of the file in an example's folder.
pub const FILE_NAME: &str = "network.yaml";

/// The example that is part of the binary, for those who run it outside a checkout.
const BUILT_IN: &[(&str, &str)] = &[
    (FILE_NAME, include_str!("../../examples/smart-city/network.yaml")),
    (
        "market/readings.yaml",
        include_str!("../../examples/smart-city/market/readings.yaml"),
    ),
    (
        "market/forecast.yaml",
        include_str!("../../examples/smart-city/market/forecast.yaml"),
    ),
    ("story.yaml", include_str!("../../examples/smart-city/story.yaml")),
    ("story/terms-1.yaml", include_str!("../../examples/smart-city/story/terms-1.yaml")),
    (
        "story/counter-1.yaml",
        include_str!("../../examples/smart-city/story/counter-1.yaml"),
    ),
    ("story/terms-2.yaml", include_str!("../../examples/smart-city/story/terms-2.yaml")),
    ("v1/agreement.yaml", include_str!("../../examples/smart-city/v1/agreement.yaml")),
    (
        "v1/breeze-kubernetes.yaml",
        include_str!("../../examples/smart-city/v1/breeze-kubernetes.yaml"),
    ),
    (
        "v1/breeze-libvirt.yaml",
        include_str!("../../examples/smart-city/v1/breeze-libvirt.yaml"),
    ),
    ("v1/breeze.yaml", include_str!("../../examples/smart-city/v1/breeze.yaml")),
    ("v1/city.yaml", include_str!("../../examples/smart-city/v1/city.yaml")),
    ("v2/agreement.yaml", include_str!("../../examples/smart-city/v2/agreement.yaml")),
    ("v2/breeze.yaml", include_str!("../../examples/smart-city/v2/breeze.yaml")),
    ("v2/city.yaml", include_str!("../../examples/smart-city/v2/city.yaml")),
    ("v2/tram.yaml", include_str!("../../examples/smart-city/v2/tram.yaml")),
];

/// A member of an example.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkMember {
    /// Its name.
    pub name: MemberId,
    /// Its MSP.
    pub msp: MspId,
}

/// One thing that a member says on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Who says it.
    pub by: MemberId,
    /// The file, relative to the example, for messages.
    pub file: String,
    /// What it says.
    pub document: Document,
}

/// A channel of an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkChannel {
    /// Its name.
    pub name: Channel,
    /// Its members.
    pub members: Vec<MemberId>,
    /// What they say, in order.
    pub transactions: Vec<Transaction>,
}

/// An example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The folder that it is in; none: it is part of the binary.
    pub folder: Option<PathBuf>,
    /// Its members.
    pub members: Vec<NetworkMember>,
    /// Its channels.
    pub channels: Vec<NetworkChannel>,
}

/// An example can't be read. Nothing was started.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// One of its documents.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// `network.yaml` itself.
    #[error("{}: {message}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Gives the text of one of an example's files, and the path that messages name.
pub(crate) type Reader<'a> = dyn Fn(&Path) -> Result<(PathBuf, String), DocumentError> + 'a;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    members: Vec<NetworkMember>,
    channels: Vec<FileChannel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileChannel {
    name: Channel,
    members: Vec<MemberId>,
    transactions: Vec<FileTransaction>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTransaction {
    by: MemberId,
    submit: PathBuf,
}

/// Reads files of an example that is in a folder.
pub(crate) fn below(folder: &Path) -> impl Fn(&Path) -> Result<(PathBuf, String), DocumentError> {
    let folder = folder.to_owned();
    move |relative| {
        let path = folder.join(relative);
        let text = std::fs::read_to_string(&path).map_err(|source| DocumentError::Read {
            path: path.clone(),
            source,
        })?;
        Ok((path, text))
    }
}

/// Reads a file of the example that is part of the binary.
pub(crate) fn built_in_file(relative: &Path) -> Result<(PathBuf, String), DocumentError> {
    let path = Path::new("smart-city").join(relative);
    match BUILT_IN.iter().find(|(name, _)| Path::new(name) == relative) {
        Some((_, text)) => Ok((path, (*text).to_owned())),
        None => Err(DocumentError::Read {
            path,
            source: std::io::ErrorKind::NotFound.into(),
        }),
    }
}

/// Every file of the example that is part of the binary: its path below the example, and its text.
pub(crate) fn built_in_files() -> &'static [(&'static str, &'static str)] {
    BUILT_IN
}

impl Network {
    /// Reads the example in a folder.
    pub fn read(folder: &Path) -> Result<Self, NetworkError> {
        let network = Self::build(&folder.join(FILE_NAME), &below(folder))?;
        Ok(Self {
            folder: Some(folder.to_owned()),
            ..network
        })
    }

    /// Reads the example that is part of the binary.
    pub fn built_in() -> Result<Self, NetworkError> {
        Self::build(Path::new(FILE_NAME), &built_in_file)
    }

    fn build(at: &Path, read: &Reader<'_>) -> Result<Self, NetworkError> {
        let invalid = |message: String| NetworkError::Invalid {
            path: at.to_owned(),
            message,
        };
        let (path, text) = read(Path::new(FILE_NAME))?;
        let value = document::yaml(&path, &text)?;
        let file: File = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
        if file.api_version != API_VERSION || file.kind != "Network" {
            return Err(invalid(format!("it has to start with apiVersion: {API_VERSION} and kind: Network")));
        }
        let known: BTreeSet<&MemberId> = file.members.iter().map(|member| &member.name).collect();
        let msps: BTreeSet<&MspId> = file.members.iter().map(|member| &member.msp).collect();
        if known.len() != file.members.len() || msps.len() != file.members.len() {
            return Err(invalid("a member or an MSP stands twice".into()));
        }
        let mut channels = Vec::new();
        let mut names = BTreeSet::new();
        for channel in file.channels {
            if !names.insert(channel.name.clone()) {
                return Err(invalid(format!("channel {} stands twice", channel.name)));
            }
            if let Some(stranger) = channel.members.iter().find(|member| !known.contains(member)) {
                return Err(invalid(format!("channel {}: {stranger} is not among the members", channel.name)));
            }
            let mut transactions = Vec::new();
            for transaction in channel.transactions {
                if !channel.members.contains(&transaction.by) {
                    return Err(invalid(format!(
                        "channel {}: {} is not one of its members",
                        channel.name, transaction.by
                    )));
                }
                if !transaction.submit.components().all(|part| matches!(part, Component::Normal(_))) {
                    return Err(invalid(format!(
                        "{} has to be a path inside the example",
                        transaction.submit.display()
                    )));
                }
                let (path, text) = read(&transaction.submit)?;
                let document = Document::parse(&path, &text)?;
                transactions.push(Transaction {
                    by: transaction.by,
                    file: transaction.submit.display().to_string(),
                    document,
                });
            }
            channels.push(NetworkChannel {
                name: channel.name,
                members: channel.members,
                transactions,
            });
        }
        Ok(Self {
            folder: None,
            members: file.members,
            channels,
        })
    }

    /// The channels that a member takes part in.
    pub fn channels_of(&self, member: &MemberId) -> BTreeSet<Channel> {
        self.channels
            .iter()
            .filter(|channel| channel.members.contains(member))
            .map(|channel| channel.name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_example_offers_are_offers() {
        for name in ["market/readings.yaml", "market/forecast.yaml"] {
            let (path, text) = built_in_file(Path::new(name)).unwrap();
            assert!(matches!(Document::parse(&path, &text), Ok(Document::Offer(_))), "{name}");
        }
    }

    #[test]
    fn the_example_and_its_built_in_copy_are_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/smart-city");
        let network = Network::read(&folder).unwrap();
        assert_eq!(network.channels, Network::built_in().unwrap().channels);
        assert_eq!(network.channels_of(&"tram".parse().unwrap()).len(), 1);
        assert_eq!(network.channels_of(&"city".parse().unwrap()).len(), 2);
    }
}
