//! What keeps a channel frozen until a person has looked: a record beside the store, with the block that was not believed.
//!
//! Whoever follows the channel looks for it first, so a restart changes nothing. It goes only by [`thaw`], or with the whole store
//! when that is made again from the ledger.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use protos::common::Block;
use serde::{Deserialize, Serialize};
use state::git::Store;
use state::ids::Channel;

use crate::limits::{self, FROZEN_BYTES};

/// Why a channel is frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {
    /// The channel.
    pub channel: Channel,
    /// Why, with everything below it.
    pub reason: String,
    /// The block that was not believed, where it is one block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
}

fn record(store: &Store, channel: &Channel) -> PathBuf {
    store.path().join("charter").join(format!("{channel}.frozen"))
}

/// Where the block that was not believed is kept, as the peer sent it.
pub fn kept_block(store: &Store, channel: &Channel) -> PathBuf {
    store.path().join("charter").join(format!("{channel}.frozen.block"))
}

/// Reads why a channel is frozen, if it is. A record that can't be read freezes too.
pub fn read(store: &Store, channel: &Channel) -> Option<Frozen> {
    let path = record(store, channel);
    let unreadable = |why: &dyn std::fmt::Display| Frozen {
        channel: channel.clone(),
        reason: format!("the record {} can't be read ({why}), so the reason is lost", path.display()),
        block: None,
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(unreadable(&error)),
    };
    let mut bytes = Vec::new();
    if let Err(error) = file.take(FROZEN_BYTES).read_to_end(&mut bytes) {
        return Some(unreadable(&error));
    }
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| unreadable(&error)))
}

/// Freezes a channel. What froze it first stays: the rest may only follow from it. Durable on return.
pub fn freeze(store: &Store, channel: &Channel, reason: &str, block: Option<&Block>) -> io::Result<()> {
    let path = record(store, channel);
    if path.exists() {
        return Ok(());
    }
    if let Some(block) = block {
        replace(&kept_block(store, channel), &block.encode_to_vec())?;
    }
    let frozen = Frozen {
        channel: channel.clone(),
        reason: limits::quoted(reason),
        block: block.and_then(|block| block.header.as_ref()).map(|header| header.number),
    };
    replace(&path, &serde_json::to_vec_pretty(&frozen).map_err(io::Error::other)?)
}

/// Ends a channel's freezing, and returns why it was frozen. The block that was not believed stays, for the record, until another
/// one takes its place.
pub fn thaw(store: &Store, channel: &Channel) -> io::Result<Option<Frozen>> {
    let found = read(store, channel);
    match fs::remove_file(record(store, channel)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(found),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = folder.join(name);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_frozen_until_somebody_thaws_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::init(&folder.path().join("store.git")).unwrap();
        let (one, two) = (Channel::new("one").unwrap(), Channel::new("two").unwrap());
        assert_eq!(read(&store, &one), None);
        freeze(&store, &one, "a lie", Some(&Block::default())).unwrap();
        freeze(&store, &one, "what follows from it", None).unwrap();
        assert_eq!(read(&store, &one).unwrap().reason, "a lie");
        assert_eq!(read(&store, &two), None);
        assert_eq!(thaw(&store, &one).unwrap().unwrap().reason, "a lie");
        assert_eq!(read(&store, &one), None);
        assert_eq!(thaw(&store, &one).unwrap(), None);
        assert!(kept_block(&store, &one).exists());
    }

    #[test]
    fn a_record_that_is_torn_still_freezes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::init(&folder.path().join("store.git")).unwrap();
        let channel = Channel::new("one").unwrap();
        freeze(&store, &channel, "a lie", None).unwrap();
        fs::write(record(&store, &channel), b"{").unwrap();
        assert!(read(&store, &channel).unwrap().reason.contains("can't be read"));
    }
}
