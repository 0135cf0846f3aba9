//! A channel's first block: reading it, and telling in what two of them differ.
//!
//! Two runs of `configtxgen` never give the same bytes, because each draws a nonce and takes the time. What has to be the same is the
//! channel's configuration in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message;
use protos::common::{Block, ConfigGroup};
use protos::{block, envelope};
use state::ids::Channel;
use thiserror::Error;

use super::error::FabricError;

/// The largest first block that is read, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// The deepest nesting of a configuration's groups.
const MAX_DEPTH: usize = 8;
/// The most differences that one message lists.
const MAX_DIFFERENCES: usize = 8;

/// A block is not the first one of the channel that was expected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlockFault {
    /// It can't be read as a block.
    #[error("it is no block: {0}")]
    Undecodable(String),
    /// It is not block 0 with exactly one configuration, or its data are not those of its header.
    #[error("it is no first block: {0}")]
    NotFirst(&'static str),
    /// It is another channel's.
    #[error("it is of channel {0:?}")]
    OtherChannel(String),
    /// Its configuration differs from that of the document.
    #[error("its configuration is another one than your document and MSP folders give, at {}", .0.join(", "))]
    Differs(Vec<String>),
}

/// A channel's first block.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstBlock {
    group: ConfigGroup,
    hash: [u8; 32],
}

impl FirstBlock {
    /// Reads a channel's first block from its file.
    pub fn read(path: &Path, channel: &Channel) -> Result<Self, FabricError> {
        let failed = |source| FabricError::File {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let unusable = |source| FabricError::Block {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > MAX_BYTES {
            return Err(unusable(BlockFault::Undecodable(format!(
                "it has {bytes} bytes, at most {MAX_BYTES} are read"
            ))));
        }
        Self::parse(&std::fs::read(path).map_err(failed)?, channel).map_err(unusable)
    }

    /// Reads a channel's first block.
    pub fn parse(bytes: &[u8], channel: &Channel) -> Result<Self, BlockFault> {
        let undecodable = |reason: String| BlockFault::Undecodable(reason);
        let decoded = Block::decode(bytes).map_err(|error| undecodable(error.to_string()))?;
        let header = decoded.header.ok_or(BlockFault::NotFirst("it has no header"))?;
        if header.number != 0 || !header.previous_hash.is_empty() {
            return Err(BlockFault::NotFirst("its number is not 0"));
        }
        let data = decoded.data.unwrap_or_default().data;
        if block::data_hash(&data).as_slice() != header.data_hash {
            return Err(BlockFault::NotFirst("its data are not those of its header"));
        }
        let [configuration] = data.as_slice() else {
            return Err(BlockFault::NotFirst("it doesn't hold exactly one configuration"));
        };
        let opened = envelope::decode_envelope(configuration).and_then(|envelope| envelope::open(&envelope));
        let opened = opened.map_err(|error| undecodable(error.to_string()))?;
        if opened.channel.channel_id != channel.as_str() {
            return Err(BlockFault::OtherChannel(opened.channel.channel_id.chars().take(80).collect()));
        }
        let config = envelope::config(&opened).map_err(|error| undecodable(error.to_string()))?;
        let group = config.channel_group.ok_or(BlockFault::NotFirst("its configuration is empty"))?;
        Ok(Self {
            group,
            hash: block::header_hash(&header),
        })
    }

    /// The hash of its header in hexadecimal digits: what members compare with each other, and what the next block names.
    pub fn fingerprint(&self) -> String {
        hex::encode(self.hash)
    }

    /// Compares the configuration with that of another block of the same channel.
    pub fn compare(&self, expected: &FirstBlock) -> Result<(), BlockFault> {
        let mut found = Vec::new();
        groups("Channel", &self.group, &expected.group, 0, &mut found);
        if found.is_empty() {
            return Ok(());
        }
        if found.len() > MAX_DIFFERENCES {
            let more = found.len() - MAX_DIFFERENCES;
            found.truncate(MAX_DIFFERENCES);
            found.push(format!("and {more} more"));
        }
        Err(BlockFault::Differs(found))
    }
}

/// Lists in what two groups differ, each by its path.
fn groups(path: &str, present: &ConfigGroup, expected: &ConfigGroup, depth: usize, found: &mut Vec<String>) {
    if depth > MAX_DEPTH {
        found.push(format!("{path} (nested too deep)"));
        return;
    }
    if present.mod_policy != expected.mod_policy {
        found.push(format!("{path} (mod_policy)"));
    }
    entries(path, &present.values, &expected.values, found);
    entries(&format!("{path}/Policies"), &present.policies, &expected.policies, found);
    for name in names(&present.groups, &expected.groups) {
        let path = format!("{path}/{}", shown(name));
        match (present.groups.get(name), expected.groups.get(name)) {
            (Some(present), Some(expected)) => groups(&path, present, expected, depth + 1, found),
            (Some(_), None) => found.push(format!("{path} (only in the block)")),
            _ => found.push(format!("{path} (missing in the block)")),
        }
    }
}

fn entries<T: PartialEq>(path: &str, present: &BTreeMap<String, T>, expected: &BTreeMap<String, T>, found: &mut Vec<String>) {
    for name in names(present, expected) {
        match (present.get(name), expected.get(name)) {
            (Some(present), Some(expected)) if present == expected => {}
            (Some(_), None) => found.push(format!("{path}/{} (only in the block)", shown(name))),
            (None, _) => found.push(format!("{path}/{} (missing in the block)", shown(name))),
            _ => found.push(format!("{path}/{}", shown(name))),
        }
    }
}

fn names<'a, T>(one: &'a BTreeMap<String, T>, other: &'a BTreeMap<String, T>) -> BTreeSet<&'a str> {
    one.keys().chain(other.keys()).map(String::as_str).collect()
}

/// Somebody else's name, bounded.
fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::testing;

    fn channel() -> Channel {
        Channel::new("smart-city-1").unwrap()
    }

    fn differences(change: impl FnOnce(&mut ConfigGroup)) -> Result<(), BlockFault> {
        let expected = testing::configuration(&["BreezeMSP", "CityMSP"]);
        let mut changed = expected.clone();
        change(&mut changed);
        let read = |group, nonce| FirstBlock::parse(&testing::first_block(channel().as_str(), group, nonce), &channel()).unwrap();
        read(changed, 1).compare(&read(expected, 2))
    }

    #[test]
    fn the_same_configuration_made_twice_is_the_same() {
        assert_eq!(differences(|_| {}), Ok(()));
    }

    #[test]
    fn every_difference_is_named_by_its_path() {
        let BlockFault::Differs(found) = differences(|group| {
            let application = group.groups.get_mut("Application").unwrap();
            application.groups.insert("EvilMSP".into(), ConfigGroup::default());
            application.groups.get_mut("CityMSP").unwrap().values.clear();
            application.policies.get_mut("Endorsement").unwrap().mod_policy = "Readers".into();
            group.mod_policy = "Readers".into();
        })
        .unwrap_err() else {
            panic!("another fault")
        };
        assert_eq!(
            found,
            [
                "Channel (mod_policy)",
                "Channel/Application/Policies/Endorsement",
                "Channel/Application/CityMSP/MSP (missing in the block)",
                "Channel/Application/EvilMSP (only in the block)",
            ]
        );
    }

    #[test]
    fn what_is_no_first_block_of_the_channel_is_refused() {
        let bytes = testing::first_block("smart-city-1", testing::configuration(&["CityMSP"]), 1);
        let other = Channel::new("smart-city-2").unwrap();
        assert_eq!(
            FirstBlock::parse(&bytes, &other).unwrap_err(),
            BlockFault::OtherChannel("smart-city-1".into())
        );
        assert!(matches!(
            FirstBlock::parse(&bytes[..bytes.len() / 2], &channel()),
            Err(BlockFault::Undecodable(_))
        ));
        assert!(FirstBlock::parse(b"", &channel()).is_err());
        let mut block = Block::decode(bytes.as_slice()).unwrap();
        block.data.as_mut().unwrap().data[0].push(0);
        assert!(matches!(
            FirstBlock::parse(&block.encode_to_vec(), &channel()),
            Err(BlockFault::NotFirst(_))
        ));
        block = Block::decode(bytes.as_slice()).unwrap();
        block.header.as_mut().unwrap().number = 1;
        assert!(matches!(
            FirstBlock::parse(&block.encode_to_vec(), &channel()),
            Err(BlockFault::NotFirst(_))
        ));
    }
}
