//! What is remembered of a workspace beside its state: whose it is, and when it was last seen to be as ordered.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use state::ids::SecretName;
use state::resource::{Outputs, Resource};

use providers::Scope;
use providers::made::Made;
use providers::records::Folder;

use crate::cloud::CloudRecord;

/// The largest record that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A workspace of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) made: Made,
    /// A digest of what was applied last; none: nothing was, wholly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) applied: Option<String>,
    /// A digest of the configuration that the working directory was made ready for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ready_for: Option<String>,
    /// When it was last seen to be as it was applied, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checked: Option<u64>,
    /// The version of the state that was seen then, where its place says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// What it gave then, without what is sensitive.
    #[serde(default, skip_serializing_if = "Outputs::is_empty")]
    pub(crate) outputs: Outputs,
    /// Whether what is there already may be taken over.
    #[serde(default)]
    pub(crate) adopts: bool,
    /// What is remembered of it on a server.
    #[serde(default)]
    pub(crate) cloud: CloudRecord,
    /// The variables that are secrets, by these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) secrets: BTreeMap<String, SecretName>,
}

impl Record {
    pub(crate) fn new(scope: &Scope, resource: &Resource) -> Self {
        Self {
            made: Made::new(scope, resource),
            applied: None,
            ready_for: None,
            checked: None,
            version: None,
            outputs: Outputs::new(),
            adopts: providers::adopts(resource),
            cloud: CloudRecord::new(&crate::external(&resource.origin(&scope.channel))),
            secrets: BTreeMap::new(),
        }
    }
}

/// All records, on the disk and in memory.
#[derive(Debug)]
pub(crate) struct Records {
    folder: Folder,
    all: Mutex<Option<BTreeMap<String, Record>>>,
}

impl Records {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: Folder::new(folder, MAX_BYTES),
            all: Mutex::default(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Record>) -> io::Result<T>) -> io::Result<T> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let all = match &mut *all {
            Some(all) => all,
            none => none.insert(self.read()?),
        };
        work(all)
    }

    /// A record that can't be read counts as lost: what it was of is nobody's.
    fn read(&self) -> io::Result<BTreeMap<String, Record>> {
        let mut all = BTreeMap::new();
        for (name, bytes) in self.folder.read()?.unwrap_or_default() {
            match serde_json::from_slice(&bytes) {
                Ok(record) => {
                    all.insert(name, record);
                }
                Err(error) => tracing::warn!(name, %error, "whose it is can't be read any more: it counts as nobody's"),
            }
        }
        Ok(all)
    }

    pub(crate) fn get(&self, external: &str) -> io::Result<Option<Record>> {
        self.with(|all| Ok(all.get(external).cloned()))
    }

    /// Those of a scope, by external name.
    pub(crate) fn of(&self, scope: &Scope) -> io::Result<Vec<(String, Record)>> {
        self.with(|all| {
            let own = all.iter().filter(|(_, record)| record.made.is_of(scope));
            Ok(own.map(|(name, record)| (name.clone(), record.clone())).collect())
        })
    }

    /// Writes one, if it is another one, durably.
    pub(crate) fn put(&self, external: &str, record: &Record) -> io::Result<()> {
        self.with(|all| {
            if all.get(external) == Some(record) {
                return Ok(());
            }
            self.folder.write(external, &serde_json::to_vec(record)?)?;
            all.insert(external.to_owned(), record.clone());
            Ok(())
        })
    }

    pub(crate) fn remove(&self, external: &str) -> io::Result<()> {
        self.with(|all| match all.remove(external) {
            Some(_) => self.folder.remove(external),
            None => Ok(()),
        })
    }
}
