//! Being told of changes, by a process that listens to the daemon for as long as anybody waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use providers::Scope;

use crate::client::Helper;

/// How long after the end of a process another one is started, at first and at most.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How much has happened, and what of it each scope's last look knew.
pub(crate) struct Listener {
    helper: Helper,
    uri: String,
    /// Where a daemon on this machine keeps definitions and what runs: it tells nothing of smaller changes, and writes each of them down.
    folders: Vec<PathBuf>,
    count: watch::Sender<u64>,
    looked: Mutex<BTreeMap<Scope, u64>>,
    task: OnceLock<(AbortHandle, Option<RecommendedWatcher>)>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((task, _)) = self.task.get() {
            task.abort();
        }
    }
}

impl Listener {
    pub(crate) fn new(helper: Helper, uri: String, folders: Vec<PathBuf>) -> Self {
        Self {
            helper,
            uri,
            folders,
            count: watch::Sender::new(0),
            looked: Mutex::default(),
            task: OnceLock::new(),
        }
    }

    /// Takes that a scope is looked at now: what happens from here on is news.
    pub(crate) fn looks(&self, scope: &Scope) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.insert(scope.clone(), *self.count.borrow());
    }

    /// Waits until something has happened since the last look.
    pub(crate) async fn changed(&self, scope: &Scope) {
        self.task.get_or_init(|| {
            let listening = listen(self.helper.clone(), self.uri.clone(), self.count.clone());
            (tokio::spawn(listening).abort_handle(), watch(&self.folders, self.count.clone()))
        });
        let known = {
            let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            looked.get(scope).copied().unwrap_or_default()
        };
        let mut count = self.count.subscribe();
        // It ends with this, which is borrowed: there is always somebody who could tell.
        let _ = count.wait_for(|count| *count != known).await;
    }
}

/// Watches folders: what is written there counts as something that has happened. Those that can't be watched are left out.
fn watch(folders: &[PathBuf], count: watch::Sender<u64>) -> Option<RecommendedWatcher> {
    let told = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            count.send_modify(|count| *count += 1);
        }
    });
    let mut watcher = told
        .inspect_err(|error| tracing::debug!(%error, "nobody watches libvirt's folders"))
        .ok()?;
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::Recursive) {
            tracing::debug!(folder = %folder.display(), %error, "libvirt's folder is not watched");
        }
    }
    Some(watcher)
}

async fn listen(helper: Helper, uri: String, count: watch::Sender<u64>) {
    let mut pause = PAUSE;
    loop {
        match hear(&helper, &uri, &count).await {
            Ok(true) => pause = PAUSE,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "nobody listens to libvirt"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Listens by one process until it ends; whether it has ever said anything.
async fn hear(helper: &Helper, uri: &str, count: &watch::Sender<u64>) -> std::io::Result<bool> {
    let mut child = helper.command(&["--events"], uri).stderr(std::process::Stdio::null()).spawn()?;
    let mut heard = false;
    if let Some(out) = child.stdout.take() {
        let mut lines = BufReader::new(out).lines();
        while lines.next_line().await?.is_some() {
            heard = true;
            count.send_modify(|count| *count += 1);
        }
    }
    Ok(heard)
}
