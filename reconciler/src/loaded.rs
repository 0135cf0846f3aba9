//! The two references that are functions of the ledger, loaded once for each commit.

use std::sync::Arc;
use std::thread;

use state::desired::DesiredState;
use state::event::Position;
use state::git::{CommitId, GitError, Store};
use state::ids::Channel;
use state::paths;
use state::reported::ReportedState;
use thiserror::Error;

use crate::view::{self, ViewError};

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
    /// A commit can't be read as the state that it holds.
    #[error("the state of channel {channel} can't be read")]
    View {
        /// The channel.
        channel: Channel,
        /// What is wrong with it.
        #[source]
        source: ViewError,
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
        let viewed = |source| LoadingError::View {
            channel: channel.clone(),
            source,
        };
        if let Some(before) = before.filter(|before| before.heads == heads) {
            return Ok(before.clone());
        }
        let desired = || match before.filter(|before| before.heads.desired == heads.desired) {
            Some(before) => Ok((Arc::clone(&before.desired), before.position)),
            None => {
                let commit = heads.desired;
                let cursor = view::cursor(store, commit).map_err(viewed)?;
                let cursor = cursor.filter(|cursor| cursor.channel == *channel);
                let position = cursor.ok_or(LoadingError::Cursor { commit })?.position;
                Ok((Arc::new(view::desired(store, channel, commit).map_err(viewed)?), position))
            }
        };
        let reported = || match (before.filter(|before| before.heads.reported == heads.reported), heads.reported) {
            (Some(before), _) => Ok(Arc::clone(&before.reported)),
            (None, None) => Ok(Arc::new(ReportedState::new(channel.clone()))),
            (None, Some(commit)) => view::reported(store, channel, commit).map(Arc::new).map_err(viewed),
        };
        // One is put together while the other is read.
        let (desired, reported) = thread::scope(|scope| {
            let reported = scope.spawn(reported);
            let desired = desired();
            let reported = reported.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (desired, reported)
        });
        let ((desired, position), reported) = (desired?, reported?);
        Ok(Self {
            heads,
            position,
            desired,
            reported,
        })
    }
}
