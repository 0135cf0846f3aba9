//! One member's Charter as a long-lived service: a follower and a reconcile loop for each channel.
//!
//! A new commit, a timer, a word from a command and a changed configuration all take one path: they wake the loop, which reads
//! the state anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ansible::Ansible;
use kubernetes::Kubernetes;
use ledger_sync::reports::Recording;
use ledger_sync::{FollowError, Follower, Ledger, Options, Progress, SubmitError, frozen};
use libvirt::Libvirt;
use msp::{MspError, Signer};
use notify::{RecursiveMode, Watcher};
use providers::machine::Machine;
use providers::registry::Registry;
use providers::{Provider, Scope};
use state::clauses::Closing;
use state::git::{GitError, Store};
use state::ids::{Channel, MemberId, ResourceName};
use state::time::Timestamp;
use terraform::Terraform;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::now;
use crate::config::Config;
use crate::control::{ChannelStatus, Control, ControlError, Held, PassStatus, ServiceStatus};
use crate::controller::{Controller, Pass, PassOutcome, Settings};
use crate::discovery;
use crate::executor::{Bounds, StepResult};
use crate::hypervisor;
use crate::identity;
use crate::loaded::Heads;
use crate::overdue::Due;
use crate::planner::Mode;
use crate::shutdown::{self, Shutdown, Trigger};

/// How long a failed or unfinished pass waits before the next look, at first; it doubles up to the configured interval.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How long after a change others are awaited, so that one pass looks at all of them.
const CROWD: Duration = Duration::from_millis(200);

/// How long before a certificate's end that is said at each start: four weeks.
const SOON_SECONDS: i64 = 28 * 86_400;

/// A service can't start or go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The store can't be used.
    #[error("the store of {member} can't be used")]
    Store {
        /// The member.
        member: MemberId,
        /// Why.
        #[source]
        source: GitError,
    },
    /// Another Charter of this member runs.
    #[error("{member} can't be served")]
    Control {
        /// The member.
        member: MemberId,
        /// Why.
        #[source]
        source: ControlError,
    },
    /// The identity can't be used.
    #[error("the identity of {member} can't be used")]
    Identity {
        /// The member.
        member: MemberId,
        /// Why.
        #[source]
        source: MspError,
    },
    /// A provider can't be set up.
    #[error("the provider {provider} of {member} can't be set up")]
    Provider {
        /// The member.
        member: MemberId,
        /// The provider.
        provider: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
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

/// What a member brings to work: its store, its identity, its providers.
#[derive(Clone)]
pub struct Workplace {
    /// The configuration.
    pub config: Config,
    /// The store.
    pub store: Store,
    /// The identity.
    pub signer: Arc<dyn Signer>,
    /// The providers.
    pub registry: Arc<Registry>,
}

impl Workplace {
    /// Opens what a configuration names. The store is made when it is not there.
    pub fn open(config: &Config) -> Result<Self, ServiceError> {
        let member = || config.member.clone();
        let store = Store::init(&config.store()).map_err(|source| ServiceError::Store { member: member(), source })?;
        let place = Self::with_store(config, store)?;
        place.prepare_machine()?;
        place.let_git_verify()?;
        Ok(place)
    }

    /// Opens what a configuration names, with a store that is open already.
    pub fn with_store(config: &Config, store: Store) -> Result<Self, ServiceError> {
        let member = || config.member.clone();
        let signer = identity::open(config).map_err(|source| ServiceError::Identity { member: member(), source })?;
        Ok(Self {
            config: config.clone(),
            store,
            signer,
            registry: Arc::new(registry(config)?),
        })
    }

    /// Makes the machine's root for a member that has never owned anything. A root that is gone later may be a disk that is not
    /// mounted, and is only observed.
    fn prepare_machine(&self) -> Result<(), ServiceError> {
        let Some(config) = &self.config.machine else { return Ok(()) };
        let failed = |source| ServiceError::Provider {
            member: self.config.member.clone(),
            provider: "machine",
            source,
        };
        let store = |source| ServiceError::Store {
            member: self.config.member.clone(),
            source,
        };
        let machine = Machine::new(config.clone()).map_err(|error| failed(error.into()))?;
        let owned = self.store.references("refs/heads/actual/").map_err(store)?;
        if !machine.has_root() && !config.root.exists() && owned.is_empty() {
            machine.init_root().map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// Tells plain git which key signs this member's commits, so that `git log --show-signature` says Good in its store.
    fn let_git_verify(&self) -> Result<(), ServiceError> {
        let member = &self.config.member;
        let failed = |source| ServiceError::Identity {
            member: member.clone(),
            source,
        };
        identity::keep_allowed_signers(&self.config, self.signer.as_ref(), self.last_signed()).map_err(failed)?;
        self.store
            .trust_signers(&self.config.allowed_signers())
            .map_err(|source| ServiceError::Store {
                member: member.clone(),
                source,
            })
    }

    /// When the certificate expires. Where that is soon, it is said.
    fn certificate_until(&self) -> Timestamp {
        let until = Timestamp::clamped(self.signer.certificate().not_after());
        let left = until.seconds() - now().seconds();
        if left < SOON_SECONDS {
            let days = left.div_euclid(86_400);
            tracing::warn!(member = %self.config.member, %until, days, "the certificate expires soon, or has: renew it, and start Charter again");
        }
        until
    }

    /// A moment that no commit of `actual` is after: a key that ends signed all of them. The clock may have been set back.
    fn last_signed(&self) -> Timestamp {
        // A store that can't be read says so when it is worked with.
        let heads = self.store.references("refs/heads/actual/").unwrap_or_default();
        let newest = heads
            .iter()
            .flat_map(|(_, head)| self.store.log(*head, None, 1).unwrap_or_default());
        let last = newest.map(|info| info.committer.seconds).fold(now().seconds(), i64::max);
        Timestamp::clamped(last)
    }

    /// Takes in everything that the ledger has of a channel now, for a command that works once.
    pub async fn catch_up(&self, channel: &Channel, ledger: Arc<dyn Ledger>) -> Result<Progress, FollowError> {
        let progress = ledger_sync::catch_up(ledger, self.store.clone(), channel.clone(), Options::default()).await?;
        remember_level(self.store.path(), channel);
        Ok(progress)
    }

    /// The controller of one channel.
    pub fn controller(&self, channel: &Channel, ledger: Arc<dyn Ledger>) -> Controller {
        Controller::new(Settings {
            member: self.config.member.clone(),
            channel: channel.clone(),
            store: self.store.clone(),
            registry: self.registry.clone(),
            policy: self.config.policy.clone(),
            signer: self.signer.clone(),
            clock: Arc::new(now),
            ledger,
            paused: Control::new(self.config.folder()).paused_file(channel),
            bounds: Bounds::default(),
        })
    }
}

/// Remembers that a store has had everything once. Where that fails, less is planned while the ledger is away, and nothing else.
fn remember_level(store: &Path, channel: &Channel) {
    if let Err(error) = Control::set_level(store, channel) {
        tracing::warn!(%channel, error = %error, "the store's standing can't be remembered");
    }
}

/// The providers that a configuration names.
pub fn registry(config: &Config) -> Result<Registry, ServiceError> {
    let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
    if let Some(machine) = &config.machine {
        let machine = Machine::new(machine.clone()).map_err(|source| ServiceError::Provider {
            member: config.member.clone(),
            provider: "machine",
            source: source.into(),
        })?;
        providers.push(Arc::new(machine));
    }
    if let Some(kubernetes) = &config.kubernetes {
        providers.push(Arc::new(Kubernetes::new(kubernetes.clone())));
    }
    if let Some(libvirt) = &config.libvirt {
        let program = std::env::current_exe().map_err(|source| ServiceError::Provider {
            member: config.member.clone(),
            provider: "libvirt",
            source: source.into(),
        })?;
        providers.push(Arc::new(Libvirt::new(libvirt.clone(), hypervisor::helper(program))));
    }
    if let Some(terraform) = &config.terraform {
        let terraform = Terraform::new(terraform.clone()).map_err(|source| ServiceError::Provider {
            member: config.member.clone(),
            provider: "terraform",
            source: source.into(),
        })?;
        providers.push(Arc::new(terraform));
    }
    if let Some(ansible) = &config.ansible {
        providers.push(Arc::new(Ansible::new(ansible.clone())));
    }
    Registry::new(providers).map_err(|source| ServiceError::Provider {
        member: config.member.clone(),
        provider: "registry",
        source: source.into(),
    })
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
        open: impl FnOnce(&Config) -> Result<Workplace, ServiceError>,
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

/// Finds out what became of reports that a process before this one sent without an answer: none of them is sent by a pass any more
/// once it was seen on the ledger.
async fn settle_reports(ledger: Arc<dyn Ledger>, channel: Channel, mut follow: watch::Receiver<Progress>, ended: impl Future<Output = ()>) {
    let settle = async {
        if follow.wait_for(|progress| progress.caught_up).await.is_err() {
            return;
        }
        for recording in Recording::ALL {
            if let Err(error) = ledger.resolve(&channel, Some(recording.function())).await {
                tracing::warn!(%channel, error = ledger_sync::whole(&error), "the pending transactions can't be read");
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

/// What every channel that is followed is given.
struct Following {
    place: Workplace,
    ledger: Arc<dyn Ledger>,
    control: Control,
    publish: watch::Sender<ServiceStatus>,
    stopping: Shutdown,
    woken: watch::Receiver<u64>,
}

impl Following {
    /// Begins to follow a channel and to keep it in order.
    fn begin(&self, channel: &Channel, tasks: &mut JoinSet<()>) {
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
    async fn discover(self, known: BTreeSet<Channel>) {
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

/// Waits until there is something new to look at. After a failure only a new order is: the member's own report of the failure
/// comes back by the ledger, and must not be a reason to try again at once.
async fn moved(follow: &mut watch::Receiver<Progress>, last: &Progress, strained: bool) {
    while follow.changed().await.is_ok() {
        if !strained || follow.borrow().desired != last.desired {
            return;
        }
    }
    // The follower has ended: the last verified state is kept in order, at the interval.
    std::future::pending().await
}

/// The reconcile loop of one channel.
struct Loop {
    controller: Controller,
    ledger: Arc<dyn Ledger>,
    channel: Channel,
    control: Control,
    store: PathBuf,
    interval: Duration,
    publish: watch::Sender<ServiceStatus>,
    shutdown: Shutdown,
}

impl Loop {
    async fn run(self, mut follow: watch::Receiver<Progress>, mut woken: watch::Receiver<u64>) {
        let ended = until(self.shutdown.clone());
        tokio::pin!(ended);
        let mut pause = FIRST_PAUSE;
        let mut offered = BTreeSet::new();
        loop {
            let progress = follow.borrow_and_update().clone();
            woken.mark_unchanged();
            let paused = self.control.paused(&self.channel);
            self.tell(|status| take(status, &progress, paused));
            let mut wait = self.interval;
            // While it is catching up, what was desired yesterday is not made today. When the ledger is away, the last state that
            // was taken in is kept in order.
            if progress.caught_up {
                remember_level(&self.store, &self.channel);
            }
            let away = progress.frozen.is_some() || progress.last_error.is_some();
            let ready = progress.caught_up || away && Control::is_level(&self.store, &self.channel);
            let mut strained = false;
            let mut looked = false;
            if let (true, Some(desired)) = (ready, progress.desired) {
                let mode = if progress.frozen.is_some() { Mode::Frozen } else { Mode::Normal };
                let heads = Heads {
                    desired,
                    reported: progress.reported,
                };
                let pass = self
                    .pass(Pass {
                        mode,
                        heads: Some(heads),
                        approved: None,
                    })
                    .await;
                if mode == Mode::Normal && !paused && pass.error.is_none() {
                    self.due(&mut offered).await;
                }
                let settled = pass.converged && pass.error.is_none();
                strained = pass.failed > 0 || pass.error.is_some();
                looked = true;
                self.tell(|status| status.pass = Some(pass.clone()));
                if settled {
                    pause = FIRST_PAUSE;
                } else {
                    wait = pause.min(self.interval);
                }
            }
            tokio::select! {
                () = &mut ended => return,
                () = moved(&mut follow, &progress, strained) => {
                    // Who is ordered something new is looked at as closely as at first.
                    if follow.borrow().desired != progress.desired {
                        pause = FIRST_PAUSE;
                    }
                }
                () = self.changed(), if looked && !strained => {}
                _ = woken.changed() => {}
                // Only looks that nobody has asked for grow rarer.
                () = tokio::time::sleep(wait) => pause = (pause * 2).min(self.interval),
            }
        }
    }

    /// Waits until something that a pass has seen is no longer so, and a moment longer: changes come in crowds.
    async fn changed(&self) {
        self.controller.changed().await;
        tokio::time::sleep(CROWD).await;
    }

    async fn pass(&self, pass: Pass) -> PassStatus {
        match self.controller.reconcile_once(pass, &self.shutdown).await {
            Ok(PassOutcome {
                plan,
                executed,
                converged,
                denials,
                unsent,
                ..
            }) => {
                let count = |wanted: fn(&StepResult) -> bool| executed.values().filter(|result| wanted(result)).count();
                let done = count(|result| matches!(result, StepResult::Done | StepResult::Pending { .. }));
                let failed = count(|result| matches!(result, StepResult::Failed { .. }));
                for (name, result) in &executed {
                    if let StepResult::Failed { why } = result {
                        tracing::warn!(channel = %self.channel, resource = %name, error = why, "a step failed");
                    }
                }
                let error = match denials.as_slice() {
                    [] => unsent.map(|why| format!("the report is not sent yet: {why}")),
                    denials => Some(denials.iter().map(|denial| denial.message.clone()).collect::<Vec<_>>().join("; ")),
                };
                if let Some(error) = &error {
                    tracing::warn!(channel = %self.channel, error, "the pass is not complete");
                }
                PassStatus {
                    at: now(),
                    plan: Some(plan.digest),
                    done,
                    failed,
                    converged,
                    error,
                }
            }
            Err(error) => {
                let text = ledger_sync::whole(&error);
                tracing::warn!(channel = %self.channel, error = text, "the pass ended early");
                PassStatus {
                    at: now(),
                    plan: None,
                    done: 0,
                    failed: 0,
                    converged: false,
                    error: Some(text),
                }
            }
        }
    }

    /// Says what has become due by ledger time, where the agreement leaves that to Charters, and offers it to a person where it doesn't.
    async fn due(&self, offered: &mut BTreeSet<MemberId>) {
        for due in self.controller.due(now()).await {
            let (function, argument) = match &due {
                Due::Expired => ("expire", serde_json::json!({})),
                Due::Abandoned {
                    member,
                    closing: Closing::Submitted,
                    ..
                } => ("close_abandoned", serde_json::json!({ "member": member })),
                Due::Abandoned { member, deadline, .. } => {
                    if offered.insert(member.clone()) {
                        tracing::warn!(
                            "{member} was heard of last at {} on {}: charter close {member} --channel {} closes its part",
                            deadline.since,
                            self.channel,
                            self.channel
                        );
                    }
                    continue;
                }
            };
            match self
                .ledger
                .submit(&self.channel, function, vec![argument.to_string().into_bytes()])
                .await
            {
                Ok(committed) => tracing::warn!(channel = %self.channel, tx = committed.tx_id, "said {function}: {due:?}"),
                // Somebody else was faster, or the ledger knows better.
                Err(SubmitError::Refused { message, .. }) => tracing::info!(channel = %self.channel, message, "{function} was not taken"),
                Err(error) => tracing::warn!(channel = %self.channel, error = ledger_sync::whole(&error), "{function} was not sent"),
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut ChannelStatus)) {
        self.publish
            .send_modify(|status| change(status.channels.entry(self.channel.clone()).or_default()));
    }
}

fn take(status: &mut ChannelStatus, progress: &Progress, paused: bool) {
    status.block = progress.block;
    status.lag = progress.lag().unwrap_or(0);
    status.endpoint.clone_from(&progress.endpoint);
    status.connected = progress.connected;
    status.caught_up = progress.caught_up;
    status.ledger_error.clone_from(&progress.last_error);
    status.frozen.clone_from(&progress.frozen);
    status.rerun = progress.rerun;
    status.testimony.clone_from(&progress.testimony);
    status.paused = paused;
}
