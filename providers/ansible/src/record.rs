//! What is remembered of a playbook: whose it is, when it ran clean and where, and what goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use state::canonical::Digest;
use state::ids::{OutputName, SecretName};
use state::resource::{Outputs, Resource};

use providers::Scope;
use providers::made::Made;
use providers::records::Folder;

use crate::events::Look;

/// The largest record that is read.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Whose a playbook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    /// It was looked at, and never run.
    Seen,
    /// It was begun.
    Ours,
    /// It was let go of.
    Released,
    /// It was undone.
    Undone,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    /// To see what would change.
    Check,
    /// To change it.
    Apply,
    /// To undo it.
    Retire,
}

impl Purpose {
    /// In words, for whoever waits.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Check => "the check",
            Self::Apply => "the run",
            Self::Retire => "the retiring run",
        }
    }
}

/// These inputs ran clean at this time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Clean {
    /// Of playbook, inventory, variables, and whatever else a run is made from.
    pub(crate) digest: Digest,
    /// In seconds since 1970.
    pub(crate) at: u64,
}

/// What a look has shown of these inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    pub(crate) digest: Digest,
    pub(crate) at: u64,
    pub(crate) look: Look,
}

/// A run that was begun, and whose end was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Begun {
    pub(crate) purpose: Purpose,
    pub(crate) digest: Digest,
    /// Tasks that may be unknown.
    pub(crate) unknown: BTreeSet<String>,
    /// What is given to others.
    pub(crate) outputs: BTreeSet<OutputName>,
}

/// A run that came to nothing, and of which nobody was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failed {
    pub(crate) purpose: Purpose,
    pub(crate) why: String,
}

/// What a retiring run needs, when nobody orders it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retiring {
    pub(crate) playbook: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) secrets: BTreeMap<String, SecretName>,
    pub(crate) keys: BTreeMap<String, SecretName>,
}

/// A playbook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) made: Made,
    pub(crate) standing: Standing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clean: Option<Clean>,
    /// The same for each host: where one fails, the others are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) hosts: BTreeMap<String, Clean>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seen: Option<Seen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begun: Option<Begun>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<Failed>,
    #[serde(default, skip_serializing_if = "Outputs::is_empty")]
    pub(crate) outputs: Outputs,
    /// Host keys that are pinned or were learnt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) host_keys: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retiring: Option<Retiring>,
    /// A digest of the roles and collections that are installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) installed: Option<Digest>,
}

impl Record {
    pub(crate) fn new(scope: &Scope, resource: &Resource) -> Self {
        Self {
            made: Made::new(scope, resource),
            standing: Standing::Seen,
            clean: None,
            hosts: BTreeMap::new(),
            seen: None,
            begun: None,
            failed: None,
            outputs: Outputs::new(),
            host_keys: BTreeMap::new(),
            retiring: None,
            installed: None,
        }
    }
}

/// All records, by external names.
#[derive(Clone, Debug)]
pub(crate) struct Records(Folder);

impl Records {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(Folder::new(folder, MAX_BYTES))
    }

    /// The playbooks of a scope that were begun.
    pub(crate) fn of(&self, scope: &Scope) -> io::Result<BTreeMap<String, Record>> {
        let mut all = BTreeMap::new();
        for (external, bytes) in self.0.read()?.unwrap_or_default() {
            let record: Record = match serde_json::from_slice(&bytes) {
                Ok(record) => record,
                Err(error) => {
                    tracing::warn!(name = external, %error, "what is remembered of it can't be read");
                    continue;
                }
            };
            if record.made.is_of(scope) && matches!(record.standing, Standing::Ours | Standing::Undone) {
                all.insert(external, record);
            }
        }
        Ok(all)
    }

    pub(crate) fn get(&self, external: &str) -> io::Result<Option<Record>> {
        self.0.one(external)?.map(|bytes| Ok(serde_json::from_slice(&bytes)?)).transpose()
    }

    pub(crate) fn put(&self, external: &str, record: &Record) -> io::Result<()> {
        self.0.write(external, &serde_json::to_vec(record)?)
    }

    pub(crate) fn remove(&self, external: &str) -> io::Result<()> {
        self.0.remove(external)
    }
}
