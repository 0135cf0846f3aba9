//! Reads what a store says of a channel: desired, reported, and this member's own inventory, each at a commit.

use state::cursor::Cursor;
use state::desired::{self, DesiredState, LoadError};
use state::git::{CommitId, GitError, Store};
use state::ids::Channel;
use state::inventory::{self, Inventory};
use state::paths;
use state::reported::{self, ReportedState};
use thiserror::Error;

/// A commit can't be read as the state that it holds.
#[derive(Debug, Error)]
pub enum ViewError {
    /// The repository failed.
    #[error("cannot read the store")]
    Git(#[from] GitError),
    /// A file is not what Charter writes.
    #[error("the store holds something that Charter did not write")]
    Load(#[from] LoadError),
    /// The cursor is not one.
    #[error("the commit's cursor is damaged; rebuild the store with 'charter replay'")]
    Cursor(#[source] serde_json::Error),
}

/// Reads the desired state at a commit.
pub fn desired(store: &Store, channel: &Channel, commit: CommitId) -> Result<DesiredState, ViewError> {
    let mut loader = desired::Loader::new(channel.clone());
    let read = |path: &str, bytes: &[u8]| desired::File::read(path, bytes).map_err(ViewError::from);
    store.read_each(commit, "", read)?.into_iter().for_each(|file| loader.take(file));
    Ok(loader.finish()?)
}

/// Reads the reported state at a commit.
pub fn reported(store: &Store, channel: &Channel, commit: CommitId) -> Result<ReportedState, ViewError> {
    let mut loader = reported::Loader::new(channel.clone());
    let read = |path: &str, bytes: &[u8]| reported::File::read(path, bytes).map_err(ViewError::from);
    store
        .read_each(commit, "members", read)?
        .into_iter()
        .for_each(|file| loader.take(file));
    Ok(loader.finish())
}

/// Reads a member's inventory at a commit.
pub fn inventory(store: &Store, commit: CommitId) -> Result<Inventory, ViewError> {
    let read = |path: &str, bytes: &[u8]| inventory::read(path, bytes).map_err(ViewError::from);
    Ok(store.read_each(commit, inventory::FOLDER, read)?.into_iter().collect())
}

/// Reads where a commit of `desired` or `reported` stands in its channel.
pub fn cursor(store: &Store, commit: CommitId) -> Result<Option<Cursor>, ViewError> {
    let bytes = store.read(commit, paths::CURSOR)?;
    bytes
        .map(|bytes| serde_json::from_slice(&bytes).map_err(ViewError::Cursor))
        .transpose()
}

/// What a store says of one channel now.
#[derive(Clone, Debug)]
pub struct ChannelView {
    /// What was ordered.
    pub desired: DesiredState,
    /// The commit of `desired`, if there is one.
    pub desired_commit: Option<CommitId>,
    /// What members report.
    pub reported: ReportedState,
    /// The commit of `reported`, if there is one.
    pub reported_commit: Option<CommitId>,
    /// What this member owns outside.
    pub inventory: Inventory,
    /// The commit of `actual`, if there is one.
    pub actual_commit: Option<CommitId>,
}

impl ChannelView {
    /// Reads all three refs of a channel.
    pub fn load(store: &Store, channel: &Channel) -> Result<Self, ViewError> {
        let desired_commit = store.head(&paths::desired_ref(channel))?;
        let reported_commit = store.head(&paths::reported_ref(channel))?;
        let actual_commit = store.head(&paths::actual_ref(channel))?;
        Ok(Self {
            desired: match desired_commit {
                Some(commit) => desired(store, channel, commit)?,
                None => DesiredState::new(channel.clone()),
            },
            reported: match reported_commit {
                Some(commit) => reported(store, channel, commit)?,
                None => ReportedState::new(channel.clone()),
            },
            inventory: match actual_commit {
                Some(commit) => inventory(store, commit)?,
                None => Inventory::default(),
            },
            desired_commit,
            reported_commit,
            actual_commit,
        })
    }
}
