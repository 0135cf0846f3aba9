//! What this member owns outside: recorded before it is made, forgotten only after its absence was seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::CanonicalError;
use crate::canonical::Digest;
use crate::desired::{LoadError, file, parse};
use crate::ids::ResourceName;
use crate::paths::{self, FileChange};
use crate::resource::{Outputs, Resource};
use crate::sorted;

/// How far Charter got with one thing that it owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryState {
    /// It is about to be made or changed; nobody knows yet whether it was.
    Intended,
    /// It was made or changed as recorded.
    Applied,
    /// It is about to be deleted, or going.
    Deleting,
}

/// One thing that this member owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// How far Charter got.
    pub state: EntryState,
    /// The resource as it was applied last, with its references replaced by values; secrets stay references.
    pub resource: Resource,
    /// The digest of the resource as it was ordered.
    pub ordered: Digest,
    /// Its name outside: a function of the channel and the resource.
    pub external: String,
    /// What it gave to others when it was seen last.
    #[serde(default, skip_serializing_if = "Outputs::is_empty")]
    pub outputs: Outputs,
    /// The error of the last try, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// All that this member owns on one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    entries: BTreeMap<ResourceName, Entry>,
}

impl Inventory {
    /// The entries by resource.
    pub fn entries(&self) -> &BTreeMap<ResourceName, Entry> {
        &self.entries
    }

    /// One entry.
    pub fn get(&self, name: &ResourceName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Records an entry, and gives the file that changes; none when nothing does.
    pub fn record(&mut self, entry: Entry) -> Result<Option<FileChange>, CanonicalError> {
        let name = entry.resource.name.clone();
        if self.entries.get(&name) == Some(&entry) {
            return Ok(None);
        }
        let change = file(path(&name), &entry)?;
        self.entries.insert(name, entry);
        Ok(Some(change))
    }

    /// Forgets an entry whose absence was seen, and gives the file that goes.
    pub fn forget(&mut self, name: &ResourceName) -> Option<FileChange> {
        self.entries.remove(name).map(|_| FileChange {
            path: path(name),
            bytes: None,
        })
    }
}

/// Reads one entry of a commit on `actual/<channel>`, from its file below [`FOLDER`]: files can be read side by side.
pub fn read(path: &str, bytes: &[u8]) -> Result<Entry, LoadError> {
    let entry: Entry = parse(path, bytes)?;
    if self::path(&entry.resource.name) != path {
        return Err(LoadError::Misplaced(path.to_owned()));
    }
    Ok(entry)
}

impl FromIterator<Entry> for Inventory {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let named = entries.into_iter().map(|entry| (entry.resource.name.clone(), entry));
        Self {
            entries: sorted::map(named.collect()),
        }
    }
}

/// The folder of the entries in `actual`.
pub const FOLDER: &str = "inventory";

fn path(name: &ResourceName) -> String {
    paths::named(FOLDER, name)
}
