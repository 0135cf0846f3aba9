//! One member's Charter as a long-lived service: a follower and a reconcile loop for each channel.
//!
//! A new commit, a timer, a word from a command and a changed configuration all take one path: they wake the loop, which reads
//! the state anew.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger_sync::Ledger;
use notify::{RecursiveMode, Watcher};
use providers::Scope;
use providers::registry::Registry;
use state::ids::{Channel, MemberId, ResourceName};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::following::Following;
use crate::clock::now;
use crate::config::Config;
use crate::control::{Control, ControlError, Held, ServiceStatus};
use crate::shutdown::{self, Shutdown, Trigger};
use crate::workplace::{Workplace, WorkplaceError};

mod following;
mod passes;

/// A service can't start or go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// What the member brings to work can't be used.
    #[error(transparent)]
    Workplace(#[from] WorkplaceError),
    /// Another Charter of this member runs.
    #[error("{member} can't be served")]
    Control {
        /// The member.
        member: MemberId,
        /// Why.
        #[source]
        source: ControlError,
    },
    /// Files can't be watched.
    #[error("the control files of {member} can't be watched")]
    Watch {
        /// The member.
        member: MemberId,
        /// Why.
        #[source]
        source: notify::Error,
    },
}

/// A running service.
pub struct Service {
    member: MemberId,
    status: watch::Receiver<ServiceStatus>,
    stop: Trigger,
    held: Held,
    registry: Arc<Registry>,
    tasks: JoinSet<()>,
}

impl Service {
    /// Starts a member's Charter. It holds the right to apply for the member until it has stopped. `listen` is only told.
    pub fn start(config: &Config, ledger: &Arc<dyn Ledger>, listen: Option<SocketAddr>) -> Result<Self, ServiceError> {
        Self::start_at(config, ledger, listen, Workplace::open)
    }

    /// The same, at a workplace that is opened in another way, once the right to apply is held.
    pub fn start_at(
        config: &Config,
        ledger: &Arc<dyn Ledger>,
        listen: Option<SocketAddr>,
        open: impl FnOnce(&Config) -> Result<Workplace, WorkplaceError>,
    ) -> Result<Self, ServiceError> {
        let member = config.member.clone();
        let control = Control::new(config.folder());
        let failed = |source| ServiceError::Control {
            member: config.member.clone(),
            source,
        };
        let held = control.hold().map_err(failed)?;
        let watched = control.watched().map_err(failed)?;
        let place = open(config)?;
        let registry = Arc::clone(&place.registry);
        let (stop, stopping) = shutdown::channel();
        let (wake, woken) = watch::channel(0u64);
        let first = ServiceStatus {
            pid: std::process::id(),
            started_at: now(),
            listen: listen.map(|address| address.to_string()),
            certificate_until: Some(place.certificate_until()),
            channels: BTreeMap::new(),
            undiscovered: None,
        };
        let (publish, status) = watch::channel(first);
        let mut tasks = JoinSet::new();
        let following = Following {
            place,
            ledger: ledger.clone(),
            control: control.clone(),
            publish,
            stopping: stopping.clone(),
            woken,
        };
        let channels = config.channels();
        for channel in &channels {
            following.begin(channel, &mut tasks);
        }
        if !config.discover().is_empty() {
            tasks.spawn(following.discover(channels));
        }
        tasks.spawn(keep_status(control, status.clone(), stopping.clone()));
        let watcher = watch_files(&watched, wake).map_err(|source| ServiceError::Watch {
            member: member.clone(),
            source,
        })?;
        let watching = until(stopping);
        tasks.spawn(async move {
            watching.await;
            drop(watcher);
        });
        Ok(Self {
            member,
            status,
            stop,
            held,
            registry,
            tasks,
        })
    }

    /// The member.
    pub fn member(&self) -> &MemberId {
        &self.member
    }

    /// What the service says of itself, as it changes.
    pub fn status(&self) -> watch::Receiver<ServiceStatus> {
        self.status.clone()
    }

    /// What goes on right now on a channel, by resource, in its providers' words.
    pub fn going_on(&self, channel: &Channel) -> BTreeMap<ResourceName, String> {
        self.registry.going_on(&Scope::new(channel.clone(), self.member.clone()))
    }

    /// Ends cleanly: running steps are finished, nothing new is begun.
    pub async fn stop(mut self) {
        self.stop.stop();
        while self.tasks.join_next().await.is_some() {}
        // Only now may another Charter of this member apply.
        drop(self.held);
    }
}

async fn until(mut stopping: Shutdown) {
    stopping.wait().await;
}

/// Wakes the service when a file in a folder changes.
fn watch_files(folder: &Path, wake: watch::Sender<u64>) -> Result<notify::RecommendedWatcher, notify::Error> {
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            wake.send_modify(|count| *count += 1);
        }
    })?;
    watcher.watch(folder, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Writes `status.json` when the status changes.
async fn keep_status(control: Control, mut status: watch::Receiver<ServiceStatus>, stopping: Shutdown) {
    let ended = until(stopping);
    tokio::pin!(ended);
    loop {
        let present = status.borrow_and_update().clone();
        if let Err(error) = control.write_status(&present) {
            tracing::warn!(error = %error, "the status can't be written");
        }
        tokio::select! {
            () = &mut ended => break,
            changed = status.changed() => if changed.is_err() { break },
        }
        // Many changes come at once; a reader needs no more than a few a second.
        tokio::select! {
            () = &mut ended => break,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
