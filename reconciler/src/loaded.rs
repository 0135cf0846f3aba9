//! The two references that are functions of the ledger, loaded once for each commit.

use std::sync::Arc;

use state::cursor::Cursor;
use state::desired::{self, DesiredState, LoadError};
use state::event::Position;
use state::git::{CommitId, GitError, Store};
use state::ids::Channel;
use state::paths;
use state::reported::{self, ReportedState};
use thiserror::Error;

/// The commits of `desired` and `reported` at which both have taken in the same blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The commit of `desired`.
    pub desired: CommitId,
    /// The commit of `reported`; none before the first report.
    pub reported: Option<CommitId>,
}

/// A channel's state could not be loaded.
#[derive(Debug, Error)]
pub enum LoadingError {
    /// Nothing was materialised yet.
    #[error("channel {0} has no desired state in this store yet: its ledger was not followed so far; run 'charter up' or 'charter serve'")]
    Nothing(Channel),
    /// The store failed.
    #[error("the state of channel {channel} can't be read")]
    Store {
        /// The channel.
        channel: Channel,
        /// What the store answered.
        #[source]
        source: GitError,
    },
    /// A file is not what Charter writes.
    #[error("the state of channel {channel} is damaged")]
    Damaged {
        /// The channel.
        channel: Channel,
        /// Which file, and how.
        #[source]
        source: LoadError,
    },
    /// The cursor of a commit is missing or unreadable.
    #[error(
        "commit {commit} has no readable {}; rebuild the store from the ledger with 'charter replay'",
        paths::CURSOR
    )]
    Cursor {
        /// The commit.
        commit: CommitId,
    },
}

/// What one commit of each reference says.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The commits.
    pub heads: Heads,
    /// The last transaction of the desired state.
    pub position: Position,
    /// What was ordered.
    pub desired: Arc<DesiredState>,
    /// What every member says it sees.
    pub reported: Arc<ReportedState>,
}

/// Either error of a visitor of files.
enum Reading {
    Store(GitError),
    File(LoadError),
}

impl From<GitError> for Reading {
    fn from(source: GitError) -> Self {
        Reading::Store(source)
    }
}

impl Loaded {
    /// Loads both references, and takes over from an earlier load what is still the same commit.
    ///
    /// Without `heads` the references are taken as they stand.
    pub fn load(store: &Store, channel: &Channel, heads: Option<Heads>, before: Option<&Loaded>) -> Result<Self, LoadingError> {
        let stored = |source| LoadingError::Store {
            channel: channel.clone(),
            source,
        };
        let heads = match heads {
            Some(heads) => heads,
            None => Heads {
                desired: store
                    .head(&paths::desired_ref(channel))
                    .map_err(stored)?
                    .ok_or_else(|| LoadingError::Nothing(channel.clone()))?,
                reported: store.head(&paths::reported_ref(channel)).map_err(stored)?,
            },
        };
        let failed = |reading| match reading {
            Reading::Store(source) => stored(source),
            Reading::File(source) => LoadingError::Damaged {
                channel: channel.clone(),
                source,
            },
        };
        let (desired, position) = match before.filter(|before| before.heads.desired == heads.desired) {
            Some(before) => (Arc::clone(&before.desired), before.position),
            None => {
                let mut loader = desired::Loader::new(channel.clone());
                let mut cursor = None;
                store
                    .read_all(heads.desired, "", |path, bytes| {
                        if path == paths::CURSOR {
                            cursor = serde_json::from_slice::<Cursor>(bytes).ok();
                            return Ok(());
                        }
                        loader.take(path, bytes).map_err(Reading::File)
                    })
                    .map_err(failed)?;
                let commit = heads.desired;
                let cursor = cursor.filter(|cursor| cursor.channel == *channel);
                let position = cursor.ok_or(LoadingError::Cursor { commit })?.position;
                (Arc::new(loader.finish().map_err(Reading::File).map_err(failed)?), position)
            }
        };
        let reported = match (before.filter(|before| before.heads.reported == heads.reported), heads.reported) {
            (Some(before), _) => Arc::clone(&before.reported),
            (None, None) => Arc::new(ReportedState::new(channel.clone())),
            (None, Some(commit)) => {
                let mut loader = reported::Loader::new(channel.clone());
                store
                    .read_all(commit, "", |path, bytes| loader.take(path, bytes).map_err(Reading::File))
                    .map_err(failed)?;
                Arc::new(loader.finish().map_err(Reading::File).map_err(failed)?)
            }
        };
        Ok(Self {
            heads,
            position,
            desired,
            reported,
        })
    }
}
