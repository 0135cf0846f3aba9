//! Refs and paths of a member's store. Every path is a pure function of names that were checked.

use sha2::{Digest as _, Sha256};

use crate::event::Position;
use crate::ids::{Channel, Kind, MemberId, ResourceName};

/// What was ordered on a channel: a pure function of its ledger.
pub fn desired_ref(channel: &Channel) -> String {
    format!("refs/heads/desired/{channel}")
}

/// What every member of a channel says it sees: a pure function of its ledger.
pub fn reported_ref(channel: &Channel) -> String {
    format!("refs/heads/reported/{channel}")
}

/// What this member owns and saw: the only ref that is its own.
pub fn actual_ref(channel: &Channel) -> String {
    format!("refs/heads/actual/{channel}")
}

/// The place of the channel's position in `desired` and `reported`.
pub const CURSOR: &str = "cursor.json";
/// The agreement in `desired`.
pub const AGREEMENT: &str = "agreement.json";

/// A file of a resource: `<folder>/<provider>/<kind>/<x>/<y>/<name>.json`.
///
/// x and y are the first two hexadecimal digits of a hash of kind and name, so that 10,000 resources of one kind
/// make directories of about 40 files, and one change rewrites small trees.
pub fn resource(folder: &str, kind: &Kind, name: &ResourceName) -> String {
    let (x, y) = shard(&format!("{kind}/{name}"));
    format!("{folder}/{kind}/{x}/{y}/{name}.json")
}

/// A file by resource name alone: `<folder>/<x>/<y>/<name>.json`.
pub fn named(folder: &str, name: &ResourceName) -> String {
    record(folder, name.as_str())
}

/// A record's file: `<folder>/<x>/<y>/<id>.json`.
pub fn record(folder: &str, id: &str) -> String {
    let (x, y) = shard(id);
    format!("{folder}/{x}/{y}/{id}.json")
}

/// A member's file in `desired`.
pub fn member(member: &MemberId) -> String {
    format!("members/{member}.json")
}

/// An event that could not be taken in.
pub fn quarantine(position: Position) -> String {
    format!("quarantine/{:010}-{:05}.json", position.block, position.tx)
}

fn shard(text: &str) -> (char, char) {
    let first = Sha256::digest(text.as_bytes())[0];
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    (digit(first >> 4), digit(first & 15))
}

/// One file of a commit: its new bytes, or none when it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The path in the tree.
    pub path: String,
    /// The new content.
    pub bytes: Option<Vec<u8>>,
}
