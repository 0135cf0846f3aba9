//! How the channels of a service begin to be followed: those that are named, and those that a peer joins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ledger_sync::reports::Recording;
use ledger_sync::{Follower, Ledger, Options, Progress, frozen};
use state::git::Store;
use state::ids::Channel;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::passes::Loop;
use super::until;
use crate::control::{Control, ServiceStatus};
use crate::discovery;
use crate::shutdown::Shutdown;
use crate::workplace::Workplace;

/// What every channel that is followed is given.
pub(super) struct Following {
    pub(super) place: Workplace,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) control: Control,
    pub(super) publish: watch::Sender<ServiceStatus>,
    pub(super) stopping: Shutdown,
    pub(super) woken: watch::Receiver<u64>,
}

impl Following {
    /// Begins to follow a channel and to keep it in order.
    pub(super) fn begin(&self, channel: &Channel, tasks: &mut JoinSet<()>) {
        let (progress, follow) = watch::channel(Progress::default());
        tasks.spawn(settle_reports(
            self.ledger.clone(),
            channel.clone(),
            follow.clone(),
            until(self.stopping.clone()),
        ));
        tasks.spawn(followed(
            self.ledger.clone(),
            self.place.store.clone(),
            channel.clone(),
            self.place.config.interval(),
            progress,
            self.woken.clone(),
            self.stopping.clone(),
        ));
        let reconcile = Loop {
            controller: self.place.controller(channel, self.ledger.clone()),
            ledger: self.ledger.clone(),
            channel: channel.clone(),
            control: self.control.clone(),
            store: self.place.store.path().to_owned(),
            interval: self.place.config.interval(),
            publish: self.publish.clone(),
            shutdown: self.stopping.clone(),
        };
        tasks.spawn(reconcile.run(follow, self.woken.clone()));
    }

    /// Begins to follow every channel that this member's peers join from now on.
    pub(super) async fn discover(self, known: BTreeSet<Channel>) {
        let mut tasks = JoinSet::new();
        let config = &self.place.config;
        let found = |channel: &Channel| {
            // A warning, so that it is seen: from now on this member acts on a channel that nobody named.
            tracing::warn!("found {channel}: a peer has joined it, and it is followed from now on");
            self.begin(channel, &mut tasks);
        };
        let missed = |why: Option<String>| {
            self.publish.send_if_modified(|status| {
                let news = status.undiscovered != why;
                status.undiscovered = why;
                news
            });
        };
        let looking = discovery::look(self.ledger.clone(), config.discover(), known, config.interval(), found, missed);
        tokio::select! {
            () = looking => {}
            () = until(self.stopping.clone()) => {}
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Finds out what became of reports that a process before this one sent without an answer: none of them is sent by a pass any more
/// once it was seen on the ledger.
async fn settle_reports(ledger: Arc<dyn Ledger>, channel: Channel, mut follow: watch::Receiver<Progress>, ended: impl Future<Output = ()>) {
    let settle = async {
        if follow.wait_for(|progress| progress.caught_up).await.is_err() {
            return;
        }
        for recording in Recording::ALL {
            if let Err(error) = ledger.resolve(&channel, Some(recording.function())).await {
                tracing::warn!(%channel, error = state::errors::chain(&error), "the pending transactions can't be read");
            }
        }
    };
    tokio::select! {
        () = settle => {}
        () = ended => {}
    }
}

/// Follows a channel until the service stops or an error ends it, which is in its progress. What was frozen is followed again when
/// somebody has thawed it.
async fn followed(
    ledger: Arc<dyn Ledger>,
    store: Store,
    channel: Channel,
    interval: Duration,
    progress: watch::Sender<Progress>,
    mut woken: watch::Receiver<u64>,
    stopping: Shutdown,
) {
    loop {
        let follower = Follower {
            ledger: ledger.clone(),
            store: store.clone(),
            channel: channel.clone(),
            options: Options::default(),
        };
        match follower.run(progress.clone(), until(stopping.clone())).await {
            Err(error) if error.freezes() => {}
            _ => return,
        }
        loop {
            tokio::select! {
                () = until(stopping.clone()) => return,
                _ = woken.changed() => {}
                () = tokio::time::sleep(interval) => {}
            }
            if frozen::read(&store, &channel).is_none() {
                break;
            }
        }
        tracing::info!(%channel, "the channel was thawed: it is followed again");
        progress.send_modify(|progress| progress.last_error = None);
    }
}
