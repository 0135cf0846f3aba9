//! The soft cursor: how far a channel was read, when the last blocks held nothing of ours. It may be lost at any time.
//!
//! It names the commits of both references, and counts only while they are what it names. Then both stand at one position.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::canonical::Digest;
use state::git::{CommitId, Store};
use state::ids::Channel;
use state::paths;

use crate::limits::SOFT_BYTES;
use crate::verify::BlockId;

/// How far both references of a channel have taken in its blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftCursor {
    /// The last block.
    pub block: u64,
    /// Its header's hash.
    pub block_hash: Digest,
    /// The commit of `desired`, if there is one.
    pub desired: Option<CommitId>,
    /// The commit of `reported`, if there is one.
    pub reported: Option<CommitId>,
    /// The block that gave the configuration in force.
    pub configuration: BlockId,
}

fn path(store: &Store, channel: &Channel) -> PathBuf {
    store.path().join("charter").join(format!("{channel}.json"))
}

/// Reads a channel's soft cursor, if there is one and both references are what it names.
pub fn read(store: &Store, channel: &Channel) -> Option<SoftCursor> {
    let path = path(store, channel);
    if fs::metadata(&path).ok()?.len() > SOFT_BYTES {
        return None;
    }
    // Lost, torn and unreadable are the same here.
    let soft: SoftCursor = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let stands = |reference: String, commit: Option<CommitId>| store.head(&reference).is_ok_and(|head| head == commit);
    let both = stands(paths::desired_ref(channel), soft.desired) && stands(paths::reported_ref(channel), soft.reported);
    both.then_some(soft)
}

/// Replaces a channel's soft cursor in one step. It is not flushed: a power cut may lose it.
pub fn write(store: &Store, channel: &Channel, soft: &SoftCursor) -> io::Result<()> {
    let path = path(store, channel);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = folder.join(format!(".{channel}.json.{}", std::process::id()));
    let mut file = fs::File::create(&new)?;
    file.write_all(&serde_json::to_vec(soft).map_err(io::Error::other)?)?;
    drop(file);
    fs::rename(&new, &path)
}
