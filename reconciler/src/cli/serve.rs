//! `serve`: a member's Charter until it is told to stop, with a configuration that may change while it runs.

use std::path::Path;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::error::{CliError, Doing, Exit};
use super::{Global, access, output, targets};
use crate::config::{Config, FILE_NAME};
use crate::service::Service;
use crate::{shutdown, telemetry};

/// How long a file has to be quiet before it is read again: editors write in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or Ctrl-C.
pub(crate) async fn run(global: &Global) -> Result<Exit, CliError> {
    let mut config = targets::one(global)?;
    let path = match &global.config {
        Some(path) => std::path::absolute(path).doing("cannot find the configuration")?,
        None => config.folder().join(FILE_NAME),
    };
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = watch(&path, changed)?;
    // Listening for signals begins here, so that none is lost between two configurations.
    let told = told_to_stop();
    tokio::pin!(told);
    loop {
        let ledger = access::connect(&config, None)?;
        let listener = telemetry::bind(config.service.listen)
            .await
            .doing(format!("cannot listen on {}", config.service.listen))?;
        let listen = listener.local_addr().doing("cannot listen")?;
        let service = Service::start(&config, &ledger, Some(listen)).doing(format!("{} can't be served", config.member))?;
        let (trigger, stopping) = shutdown::channel();
        let telemetry = tokio::spawn(telemetry::serve(listener, service.status(), stopping));
        let channels: Vec<&str> = config.ledger.channels.iter().map(AsRef::as_ref).collect();
        output::note(&format!(
            "{} serves {} from {}; http://{listen}/healthz, http://{listen}/metrics",
            config.member,
            channels.join(", "),
            config.ledger.endpoint
        ));
        let next = tokio::select! {
            () = &mut told => None,
            next = reread(&path, &config, &mut changes) => Some(next),
        };
        service.stop().await;
        trigger.stop();
        let _ = telemetry.await;
        match next {
            Some(next) => config = next,
            None => {
                output::note("stopped; what runs goes on, and the next start picks it up");
                return Ok(Exit::Clean);
            }
        }
    }
}

fn watch(path: &Path, changed: mpsc::Sender<()>) -> Result<notify::RecommendedWatcher, CliError> {
    let name = path.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        let ours = |event: &notify::Event| event.paths.iter().any(|path| path.file_name() == name.as_deref());
        if event.is_ok_and(|event| !event.kind.is_access() && ours(&event)) {
            // Full means that a change is waiting to be read already.
            let _ = changed.try_send(());
        }
    })
    .doing("the configuration can't be watched")?;
    // The folder, not the file: editors replace files.
    let folder = path.parent().unwrap_or(Path::new("."));
    watcher
        .watch(folder, RecursiveMode::NonRecursive)
        .doing("the configuration can't be watched")?;
    Ok(watcher)
}

/// Waits for a configuration that is valid and says something else.
async fn reread(path: &Path, present: &Config, changes: &mut mpsc::Receiver<()>) -> Config {
    loop {
        if changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|more| more.is_some()) {}
        match Config::read(path) {
            Ok(next) if next == *present => {}
            Ok(next) if next.member != present.member => {
                output::note(&format!(
                    "{} names another member now; {} goes on with what it has",
                    path.display(),
                    present.member
                ));
            }
            Ok(next) => {
                output::note(&format!("{} has changed: starting again with it", path.display()));
                return next;
            }
            Err(error) => output::note(&format!(
                "{} is not taken; the present configuration goes on\n  because {}",
                path.display(),
                ledger_sync::whole(&error)
            )),
        }
    }
}

/// Waits for SIGTERM or Ctrl-C.
pub(crate) async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
