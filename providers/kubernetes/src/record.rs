//! What was made for each resource, remembered beside Charter: written before anything is made, so that nothing is lost sight of.
//!
//! It is no owner label: those are on the objects. Lost, it is found again by looking at every kind once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use state::ids::ResourceName;

use providers::Scope;
use providers::records::Folder;

use crate::object::ObjectId;

/// The version of the records' format.
const FORMAT: u32 = 1;
/// The largest record that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What was made for one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    /// A random text that makes the digests of no use to others.
    pub(crate) salt: String,
    /// Every object that was made or is about to be, and not seen gone.
    pub(crate) objects: BTreeSet<ObjectId>,
    /// By object in words: what was applied last, and the version of what was seen to be the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sent: BTreeMap<String, Last>,
}

/// What was applied last to an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Last {
    /// The digest of what was sent: all its fields were ours then, so a change of one is drift and no contest.
    pub(crate) digest: String,
    /// The version of the object that was the same; empty: it is not known to be.
    pub(crate) clean: String,
}

impl Record {
    pub(crate) fn new() -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self {
            format: FORMAT,
            salt: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            objects: BTreeSet::new(),
            sent: BTreeMap::new(),
        })
    }
}

/// The records of one scope, as they are on the disk and in memory.
#[derive(Debug)]
pub(crate) struct Records {
    folder: Folder,
    all: BTreeMap<ResourceName, Record>,
    /// Whether there was a folder: without one, nobody knows what was made.
    pub(crate) known: bool,
    /// Where all of it is, while nothing of it changes.
    places: Option<Arc<Places>>,
}

/// The kinds and namespaces of objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// By apiVersion and kind: an object that is of it.
    pub(crate) kinds: BTreeMap<(String, String), ObjectId>,
    pub(crate) namespaces: BTreeSet<String>,
}

impl Places {
    pub(crate) fn add(&mut self, id: &ObjectId) {
        if let Some(namespace) = id.namespace.as_ref().filter(|namespace| !self.namespaces.contains(*namespace)) {
            self.namespaces.insert(namespace.clone());
        }
        self.kinds.entry((id.api_version(), id.kind.clone())).or_insert_with(|| id.clone());
    }
}

impl Records {
    /// Reads what there is. A record that can't be read counts as lost.
    pub(crate) fn open(folder: &Path, scope: &Scope) -> io::Result<Self> {
        let folder = folder.join(scope.channel.as_str()).join(scope.member.as_str());
        let folder = Folder::new(&folder, MAX_BYTES);
        let found = folder.read()?;
        let mut all = BTreeMap::new();
        let mut known = found.is_some();
        for (name, bytes) in found.unwrap_or_default() {
            let Ok(name) = ResourceName::new(name) else { continue };
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) if record.format == FORMAT => {
                    all.insert(name, record);
                }
                _ => {
                    tracing::warn!(resource = %name, "what was made for it is not remembered: every kind is looked at once");
                    known = false;
                }
            }
        }
        Ok(Self {
            folder,
            all,
            known,
            places: None,
        })
    }

    pub(crate) fn get(&self, name: &ResourceName) -> Option<&Record> {
        self.all.get(name)
    }

    /// Where everything is that was made and not seen gone.
    pub(crate) fn places(&mut self) -> Arc<Places> {
        let find = || {
            let mut places = Places::default();
            self.all.values().flat_map(|record| &record.objects).for_each(|id| places.add(id));
            Arc::new(places)
        };
        Arc::clone(self.places.get_or_insert_with(find))
    }

    /// The versions of objects that were seen to be in sync.
    pub(crate) fn clean(&self) -> HashSet<String> {
        let all = self.all.values().flat_map(|record| record.sent.values());
        all.filter(|last| !last.clean.is_empty()).map(|last| last.clean.clone()).collect()
    }

    /// Writes a record, if it is another one, durably.
    pub(crate) fn put(&mut self, name: &ResourceName, record: Record) -> io::Result<()> {
        if self.all.get(name) == Some(&record) {
            return Ok(());
        }
        self.folder.write(name.as_str(), &serde_json::to_vec(&record)?)?;
        self.all.insert(name.clone(), record);
        self.places = None;
        Ok(())
    }

    /// Forgets a resource of which nothing is left.
    pub(crate) fn remove(&mut self, name: &ResourceName) -> io::Result<()> {
        if self.all.remove(name).is_none() {
            return Ok(());
        }
        self.places = None;
        self.folder.remove(name.as_str())
    }

    /// Takes what every kind was looked at for as known.
    pub(crate) fn set_known(&mut self) -> io::Result<()> {
        self.known = true;
        self.folder.make()
    }
}
