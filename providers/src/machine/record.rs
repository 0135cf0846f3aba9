//! The durable record of what was made for one resource: its owner label, written before the thing is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use state::canonical::{self, Digest};
use state::ids::{Channel, Kind, MemberId, ResourceName, SecretName};
use state::resource::{OnRetire, Origin};
use thiserror::Error;

use super::path::{Below, OWN};
use super::tree::{Tree, TreeError};
use crate::Scope;

/// The version of the records' format.
const FORMAT: u32 = 1;
/// The largest record that is read.
const MAX_BYTES: u64 = 1024 * 1024;
const ENDING: &str = ".json";

/// How far the thing got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// It is about to be made for the first time; nobody knows yet whether it was.
    Intended,
    /// It was made, at least once.
    Made,
    /// It stays where it is and is no longer ours. Only a running process needs this: the label in its environment can't be taken off.
    Released,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The version of the format.
    pub(crate) format: u32,
    /// The resource.
    pub(crate) name: ResourceName,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its external name.
    pub(crate) external: String,
    /// What happens to it when it is retired.
    pub(crate) on_retire: OnRetire,
    /// How far it got.
    pub(crate) stage: Stage,
    /// What was made.
    pub(crate) thing: Thing,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Thing {
    /// A directory.
    Directory { path: Below },
    /// A file.
    File { path: Below, digest: Digest },
    /// A process.
    Service(Started),
}

/// What a process was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Started {
    /// A random text that is in the environment of this start's processes and of no others.
    pub(crate) start: String,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// The environment of the specification.
    pub(crate) env: BTreeMap<String, Given>,
    /// The working directory.
    pub(crate) directory: Below,
    /// The port, chosen or given.
    pub(crate) port: Option<u16>,
    /// How long it may take to stop, in seconds.
    pub(crate) grace: u64,
    /// The process, once it was started.
    pub(crate) process: Option<ProcessId>,
    /// When it was started, in milliseconds since 1970.
    pub(crate) started: u64,
    /// How often in a row it ended right after its start.
    pub(crate) quick_ends: u32,
    /// When its processes were told to stop, in milliseconds since 1970.
    pub(crate) stopping: Option<u64>,
    /// When leftovers of earlier starts were told to stop, in milliseconds since 1970.
    pub(crate) clearing: Option<u64>,
}

/// The value of an environment variable, as it may be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Given {
    /// A plain text.
    Text(String),
    /// A secret: its name, and a digest salted with the start's random text, to see when it changed.
    Secret { name: SecretName, digest: Digest },
}

/// A process, in a way that survives the reuse of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessId {
    /// When it started, in clock ticks since boot.
    pub(crate) ticks: u64,
    /// Its number.
    pub(crate) pid: i32,
}

/// A record could not be read or written.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    /// The file system refused.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// It does not read as a record.
    #[error("the record {OWN}/{path} is damaged: {why}; put it right, or move it away to give up the ownership of what it stands for")]
    Damaged { path: String, why: String },
}

impl Record {
    /// A first record.
    pub(crate) fn intended(name: &ResourceName, kind: &Kind, external: String, on_retire: OnRetire, thing: Thing) -> Self {
        Self {
            format: FORMAT,
            name: name.clone(),
            kind: kind.clone(),
            external,
            on_retire,
            stage: Stage::Intended,
            thing,
        }
    }

    /// Where the thing is, if it is a file or a directory.
    pub(crate) fn path(&self) -> Option<&Below> {
        match &self.thing {
            Thing::Directory { path } | Thing::File { path, .. } => Some(path),
            Thing::Service(_) => None,
        }
    }
}

/// The folder of a scope's records.
pub(crate) fn folder(scope: &Scope) -> Vec<String> {
    vec![OWN.to_owned(), scope.channel.to_string(), scope.member.to_string()]
}

/// The folder of the logs of what a member ordered first at a place.
pub(crate) fn log_folder(scope: &Scope, origin: &Origin) -> Vec<String> {
    vec![OWN.to_owned(), origin.channel.to_string(), scope.member.to_string()]
}

fn file(name: &ResourceName) -> String {
    format!("{name}{ENDING}")
}

/// Reads one record.
pub(crate) fn load(tree: &Tree, scope: &Scope, name: &ResourceName) -> Result<Option<Record>, RecordError> {
    let folder = folder(scope);
    read(tree, &folder, name)
}

fn read(tree: &Tree, folder: &[String], name: &ResourceName) -> Result<Option<Record>, RecordError> {
    let damaged = |why: String| RecordError::Damaged {
        path: format!("{}/{}", folder[1..].join("/"), file(name)),
        why,
    };
    let Some(bytes) = tree.read_own(folder, &file(name), MAX_BYTES)? else {
        return Ok(None);
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if record.format != FORMAT {
        return Err(damaged(format!("its format {} is not one that this version knows", record.format)));
    }
    if record.name != *name {
        return Err(damaged(format!("it is about {}", record.name)));
    }
    Ok(Some(record))
}

/// Reads all records of a scope; a damaged one is an error of its own.
pub(crate) fn load_all(tree: &Tree, scope: &Scope) -> Result<BTreeMap<ResourceName, Result<Record, RecordError>>, TreeError> {
    load_folder(tree, &folder(scope))
}

fn load_folder(tree: &Tree, folder: &[String]) -> Result<BTreeMap<ResourceName, Result<Record, RecordError>>, TreeError> {
    let mut all = BTreeMap::new();
    for entry in tree.list(folder)? {
        let Some(name) = entry.strip_suffix(ENDING).and_then(|name| ResourceName::new(name).ok()) else {
            continue;
        };
        match read(tree, folder, &name) {
            Ok(Some(record)) => all.insert(name, Ok(record)),
            Ok(None) => None,
            Err(error) => all.insert(name, Err(error)),
        };
    }
    Ok(all)
}

/// What another channel has left of something, as the records say.
#[derive(Debug)]
pub(crate) enum Left<'a> {
    /// It still has it; its own name of it.
    Held(String),
    /// It is nobody's. A process that runs on has a record.
    Released(Option<&'a Record>),
}

/// Finds what other resources' records say of the thing that was ordered first at a place.
pub(crate) fn left<'a>(all: &'a [(Scope, Record)], scope: &Scope, name: &ResourceName, origin: &Origin) -> Left<'a> {
    let external = origin.to_string();
    let mut released = None;
    for (holder, record) in all {
        if record.external != external || (holder, &record.name) == (scope, name) || holder.member != scope.member {
            continue;
        }
        if record.stage != Stage::Released {
            return Left::Held(format!("{}/{}", holder.channel, record.name));
        }
        // Of several that had it one after the other, the one that started it last knows its process.
        let newer = |before: &&Record| started(before) >= started(record);
        released = released.filter(newer).or(Some(record));
    }
    Left::Released(released)
}

fn started(record: &Record) -> u64 {
    match &record.thing {
        Thing::Service(started) => started.started,
        Thing::Directory { .. } | Thing::File { .. } => 0,
    }
}

/// Reads what can be read of all records below the root, with the scope of each.
pub(crate) fn load_everywhere(tree: &Tree) -> Result<Vec<(Scope, Record)>, TreeError> {
    let mut all = Vec::new();
    let own = OWN.to_owned();
    for channel in tree.list(std::slice::from_ref(&own))? {
        let Ok(name) = Channel::new(channel.as_str()) else { continue };
        for folder in tree.list(&[own.clone(), channel.clone()])? {
            let Ok(member) = MemberId::new(folder.as_str()) else { continue };
            let scope = Scope::new(name.clone(), member);
            let records = load_folder(tree, &[own.clone(), channel.clone(), folder])?;
            all.extend(records.into_values().flatten().map(|record| (scope.clone(), record)));
        }
    }
    Ok(all)
}

/// Writes a record, durably.
pub(crate) fn save(tree: &Tree, scope: &Scope, record: &Record) -> Result<(), RecordError> {
    let bytes = canonical::document(record).map_err(|error| RecordError::Damaged {
        path: file(&record.name),
        why: error.to_string(),
    })?;
    Ok(tree.write_own(&folder(scope), &file(&record.name), &bytes)?)
}

/// Removes a record.
pub(crate) fn forget(tree: &Tree, scope: &Scope, name: &ResourceName) -> Result<(), TreeError> {
    tree.remove_own(&folder(scope), &file(name))
}
