//! `serve`: a member's Charter until it is told to stop, with a configuration that may change while it runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger_sync::Ledger;
use notify::{RecursiveMode, Watcher};
use state::git::Store;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::{CliError, Doing, Exit};
use super::{Global, access, output, targets};
use crate::config::{Config, FILE_NAME};
use crate::service::Service;
use crate::shutdown::Trigger;
use crate::workplace::registry;
use crate::{shutdown, telemetry};

/// How long a file has to be quiet before it is read again: editors write in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or Ctrl-C.
pub(crate) async fn run(global: &Global) -> Result<Exit, CliError> {
    let config = targets::one(global)?;
    let path = match &global.config {
        Some(path) => std::path::absolute(path).doing("cannot find the configuration")?,
        None => config.folder().join(FILE_NAME),
    };
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = watch(&path, changed)?;
    // Listening for signals begins here, so that none is lost between two configurations.
    let told = told_to_stop();
    tokio::pin!(told);
    let mut setup = Setup::new(config, None).await?;
    let mut running = setup.start()?;
    loop {
        let next = tokio::select! {
            () = &mut told => None,
            next = replaced(&path, &setup, &mut changes) => Some(next),
        };
        running.stop().await;
        let Some(next) = next else {
            output::note("stopped; what runs goes on, and the next start picks it up");
            return Ok(Exit::Clean);
        };
        match next.start() {
            Ok(started) => (setup, running) = (next, started),
            Err(error) => {
                not_taken(&path, &error);
                running = setup.start()?;
            }
        }
    }
}

/// What a configuration needs to be served with. All of it is there before a service that runs is stopped for it.
struct Setup {
    config: Config,
    ledger: Arc<dyn Ledger>,
    listener: std::net::TcpListener,
}

impl Setup {
    /// Makes a connection, tries the identity, the providers and the store, and listens. Where the present setup listens already, its
    /// socket is shared.
    async fn new(config: Config, present: Option<&Setup>) -> Result<Self, CliError> {
        let ledger = access::connect(&config, None)?;
        let cannot = || format!("{} can't be served", config.member);
        registry(&config).doing(cannot())?;
        // One that is not there yet is made at the start.
        if config.store().exists() {
            Store::open(&config.store()).doing(cannot())?;
        }
        let listen = config.service.listen;
        let listener = match present.filter(|present| present.config.service.listen == listen) {
            Some(present) => present.listener.try_clone(),
            None => telemetry::bind(listen).await.and_then(tokio::net::TcpListener::into_std),
        }
        .doing(format!("cannot listen on {listen}"))?;
        Ok(Self { config, ledger, listener })
    }

    /// Starts the service, and says so.
    fn start(&self) -> Result<Running, CliError> {
        let config = &self.config;
        // The socket itself is kept: who asks between two services waits for the next.
        let listener = self.listener.try_clone().and_then(tokio::net::TcpListener::from_std);
        let listener = listener.doing("cannot listen")?;
        let listen = listener.local_addr().doing("cannot listen")?;
        let service = Service::start(config, &self.ledger, Some(listen)).doing(format!("{} can't be served", config.member))?;
        let (trigger, stopping) = shutdown::channel();
        let telemetry = tokio::spawn(telemetry::serve(listener, service.status(), stopping));
        let mut channels: Vec<String> = config.channels().iter().map(ToString::to_string).collect();
        let found: Vec<String> = config.discover().iter().map(ToString::to_string).collect();
        if !found.is_empty() {
            channels.push(format!("what its peer joins ({})", found.join(", ")));
        }
        output::note(&format!(
            "{} serves {} from {}; http://{listen}/healthz, http://{listen}/metrics",
            config.member,
            channels.join(", "),
            config.ledger.endpoint
        ));
        Ok(Running {
            service,
            trigger,
            telemetry,
        })
    }
}

/// A service, and what tells of it.
struct Running {
    service: Service,
    trigger: Trigger,
    telemetry: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.service.stop().await;
        self.trigger.stop();
        let _ = self.telemetry.await;
    }
}

/// Waits for a configuration that says something else and can be served.
async fn replaced(path: &Path, present: &Setup, changes: &mut mpsc::Receiver<()>) -> Setup {
    loop {
        let next = reread(path, &present.config, changes).await;
        match Setup::new(next, Some(present)).await {
            Ok(next) => {
                output::note(&format!("{} has changed: starting again with it", path.display()));
                return next;
            }
            Err(error) => not_taken(path, &error),
        }
    }
}

fn not_taken(path: &Path, error: &CliError) {
    output::note(&format!(
        "{} is not taken; the present configuration goes on\n{}",
        path.display(),
        error.render().trim_end()
    ));
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
            Ok(next) => return next,
            Err(error) => not_taken(path, &CliError::new("the configuration can't be used").because(error)),
        }
    }
}

/// Waits for SIGTERM or Ctrl-C. It listens from the call on, also before it is awaited.
pub(crate) fn told_to_stop() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let asked = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    async move {
        match asked {
            [Ok(mut terminate), Ok(mut interrupt)] => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            _ => {
                let _ = tokio::signal::ctrl_c().await;
            }
        }
    }
}
