//! One pass over one channel for one member: load, observe, plan, check, execute, look again, record, report.
//!
//! A pass starts from state and never from an event, so a signal, a timer and a restart take the same way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ledger_sync::Ledger;
use ledger_sync::reports::{self, Recording, SignedReportError};
use policies::{Denial, LocalPolicy};
use providers::{Orphan, Scope, Script, Tool, Wanted};
use state::agreement::Agreement;
use state::canonical::{CanonicalError, Digest};
use state::desired::{DesiredState, Rejection};
use state::event::{EventBody, LedgerEvent, Position, Provenance};
use state::git::{CommitId, Store};
use state::ids::{Channel, Kind, MemberId, ResourceName, TxId};
use state::inventory::Inventory;
use state::observation::Observation;
use state::plan::{Action, Base, Finding, Plan};
use state::report::{Condition, ResourceStatus};
use state::resource::Resource;
use state::rules::Verdict;
use state::time::Timestamp;
use thiserror::Error;
use tokio::sync::Mutex;

use crate::actual::{Actual, ActualError, Author, CommitSigner, Outgoing};
use crate::executor::{Bounds, ExecuteError, Execution, StepResult, chain, message};
use crate::loaded::{Heads, Loaded, LoadingError};
use crate::observe::{Seen, invalid, lasting, observe, observe_wanted};
use crate::overdue::{self, Due};
use crate::planner::{self, Input, Mode, PlanError, settled, wanted};
use crate::reporting::{self, Basis};
use crate::shutdown::Shutdown;
use providers::registry::Registry;

/// How long sending a report may take; it stays in the outbox when it takes longer.
const SUBMISSION: Duration = Duration::from_secs(30);

/// Tells the time: the member's own clock.
pub type Clock = dyn Fn() -> Timestamp + Send + Sync;

/// What a controller works with.
pub struct Settings {
    /// The member whose Charter this is.
    pub member: MemberId,
    /// The channel.
    pub channel: Channel,
    /// The member's store.
    pub store: Store,
    /// The providers.
    pub registry: Arc<Registry>,
    /// The member's local policy: the last word.
    pub policy: LocalPolicy,
    /// The member's ledger key: it signs reports and commits.
    pub signer: Arc<dyn msp::Signer>,
    /// The member's clock.
    pub clock: Arc<Clock>,
    /// The ledger that reports go to.
    pub ledger: Arc<dyn Ledger>,
    /// The file whose presence pauses the channel.
    pub paused: PathBuf,
    /// The bounds of a pass.
    pub bounds: Bounds,
}

/// What is asked of one pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    /// What it may do.
    pub mode: Mode,
    /// Where both references have taken in the same blocks, as the follower says; none: as they stand.
    pub heads: Option<Heads>,
    /// The only plan that may be executed; none: any.
    pub approved: Option<Digest>,
}

/// What a pass came to.
#[derive(Clone, Debug)]
pub struct PassOutcome {
    /// The plan that it made first.
    pub plan: Plan,
    /// What its steps came to; empty when nothing was executed.
    pub executed: BTreeMap<ResourceName, StepResult>,
    /// How each resource stands after it.
    pub statuses: BTreeMap<ResourceName, ResourceStatus>,
    /// What is left undone after it, and why.
    pub findings: Vec<Finding>,
    /// Why the plan was not executed, if policy forbids it.
    pub denials: Vec<Denial>,
    /// The number of the report that it put on the ledger.
    pub reported: Option<u64>,
    /// Why a report is still in the outbox.
    pub unsent: Option<String>,
    /// Whether everything is as it was ordered, and nothing is left to do.
    pub converged: bool,
}

/// A pass could not be finished.
#[derive(Debug, Error)]
pub enum PassError {
    /// The channel's state could not be loaded.
    #[error("the state can't be loaded")]
    Load(#[from] LoadingError),
    /// The member's own record could not be read or written.
    #[error("the pass can't be recorded")]
    Actual(#[from] ActualError),
    /// No plan could be made.
    #[error("no plan can be made")]
    Plan(#[from] PlanError),
    /// The execution had to stop.
    #[error("the plan can't be executed")]
    Execute(#[from] ExecuteError),
    /// Something has no canonical form.
    #[error("the pass can't be encoded")]
    Encode(#[from] CanonicalError),
    /// A report could not be signed.
    #[error("the report can't be signed")]
    Sign(#[from] SignedReportError),
    /// The plan that was approved is no longer the plan.
    #[error("the plan is {found} by now, not {approved} as approved: look at it anew with 'charter plan'")]
    Changed {
        /// What was approved.
        approved: Digest,
        /// What it would be.
        found: Digest,
    },
    /// An order that is not submitted yet would be refused.
    #[error("the ledger would refuse this")]
    Refused(#[source] Rejection),
    /// This member is not registered on the channel.
    #[error("member {0} is not registered on this channel: submit its registration first")]
    Stranger(MemberId),
    /// Loading was interrupted.
    #[error("loading was interrupted")]
    Interrupted,
}

/// One thing that is owned, as it is seen against what was applied last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Its resource.
    pub name: ResourceName,
    /// What it is.
    pub kind: Kind,
    /// What is seen.
    pub observation: Observation,
}

/// Reconciles one channel for one member.
pub struct Controller {
    settings: Settings,
    scope: Scope,
    sign: Arc<CommitSigner>,
    // Held for a whole pass: one at a time.
    memory: Mutex<Memory>,
}

/// What one pass leaves in memory for the next. All of it can be loaded again.
#[derive(Default)]
struct Memory {
    loaded: Option<Loaded>,
    actual: Option<Actual>,
}

/// One look at everything: the plan, and what it was made from.
struct Look {
    plan: Plan,
    observed: BTreeMap<ResourceName, Observation>,
    orphans: Vec<Orphan>,
}

impl Controller {
    /// Makes a controller; nothing is read before its first pass.
    pub fn new(settings: Settings) -> Self {
        let signer = Arc::clone(&settings.signer);
        let sign: Arc<CommitSigner> =
            Arc::new(move |bytes: &[u8]| msp::sshsig::sign(signer.as_ref(), msp::sshsig::GIT_NAMESPACE, bytes).map_err(Into::into));
        Self {
            scope: Scope::new(settings.channel.clone(), settings.member.clone()),
            settings,
            sign,
            memory: Mutex::default(),
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Channel {
        &self.settings.channel
    }

    /// Waits until what the last pass saw is no longer so, as far as a provider tells that without looking.
    pub async fn changed(&self) {
        self.settings.registry.changed(&self.scope).await;
    }

    /// Whether a person paused the channel.
    pub fn is_paused(&self) -> bool {
        self.settings.paused.exists()
    }

    /// Makes one pass.
    ///
    /// A failed step, an unreachable ledger or a denial is part of the outcome; an error means that the pass could not be made or
    /// recorded. In [`Mode::ObserveOnly`] nothing is written anywhere.
    pub async fn reconcile_once(&self, pass: Pass, shutdown: &Shutdown) -> Result<PassOutcome, PassError> {
        let mut memory = self.memory.lock().await;
        let (loaded, mut actual) = self.load(&mut memory, pass.heads).await?;
        let outcome = self.pass(pass, shutdown, &loaded, &mut actual).await;
        // After an error what is in memory may not be what is on disk: it is loaded anew, and so is what was only looked at.
        if outcome.is_ok() {
            memory.actual = Some(actual).filter(|actual| !actual.is_dirty());
        }
        outcome
    }

    async fn load(&self, memory: &mut Memory, heads: Option<Heads>) -> Result<(Loaded, Actual), PassError> {
        let (store, channel) = (self.settings.store.clone(), self.settings.channel.clone());
        let (before, kept) = (memory.loaded.take(), memory.actual.take());
        // The two have nothing to do with each other: they are read side by side.
        let ledger = {
            let (store, channel) = (store.clone(), channel.clone());
            tokio::task::spawn_blocking(move || Loaded::load(&store, &channel, heads, before.as_ref()))
        };
        let own = tokio::task::spawn_blocking(move || -> Result<Actual, ActualError> {
            let head = store
                .head(&state::paths::actual_ref(&channel))
                .map_err(|source| ActualError::Store {
                    channel: channel.clone(),
                    source,
                })?;
            match kept.filter(|kept| kept.head() == head && !kept.is_dirty()) {
                Some(kept) => Ok(kept),
                None => Actual::load(&store, &channel),
            }
        });
        let (ledger, own) = tokio::join!(ledger, own);
        let loaded = ledger.map_err(|_| PassError::Interrupted)??;
        let actual = own.map_err(|_| PassError::Interrupted)??;
        memory.loaded = Some(loaded.clone());
        Ok((loaded, actual))
    }

    async fn pass(&self, pass: Pass, shutdown: &Shutdown, loaded: &Loaded, actual: &mut Actual) -> Result<PassOutcome, PassError> {
        let mode = match pass.mode {
            Mode::Normal if self.is_paused() => Mode::Paused,
            mode => mode,
        };
        let executes = match mode {
            Mode::Normal => true,
            Mode::Frozen => !self.is_paused(),
            Mode::Paused | Mode::ObserveOnly => false,
        };
        let Look {
            plan,
            mut observed,
            mut orphans,
        } = self.look(mode, loaded, &loaded.desired, actual).await?;
        if let Some(approved) = pass.approved.filter(|approved| *approved != plan.digest) {
            return Err(PassError::Changed {
                approved,
                found: plan.digest,
            });
        }
        let denials = policies::check(&plan, actual.inventory(), &self.settings.policy);
        let mut executed = BTreeMap::new();
        if executes && denials.is_empty() && !plan.is_empty() {
            executed = self.execute(&plan, loaded, &observed, actual, shutdown).await?;
        }
        let touched = |name: &ResourceName| {
            executed
                .get(name)
                .is_some_and(|result| !matches!(result, StepResult::Skipped { .. }))
        };
        let after = if executed.keys().any(touched) {
            let seen = self.look_again(loaded, actual, &touched).await?;
            observed.extend(seen.resources);
            let still = |orphan: &Orphan| !(executed.get(&orphan.name) == Some(&StepResult::Done));
            orphans.retain(still);
            self.settle(&loaded.desired, &observed, actual)?;
            Some(self.plan(mode, loaded, &loaded.desired, actual, &observed, &orphans)?)
        } else {
            None
        };
        let last = after.as_ref().unwrap_or(&plan);
        let mut outcome = PassOutcome {
            statuses: last.statuses.clone(),
            findings: last.findings.clone(),
            converged: denials.is_empty() && converged(last),
            executed,
            denials,
            reported: None,
            unsent: None,
            plan,
        };
        if mode != Mode::ObserveOnly {
            // What is gone from the inventory and from desire needs no observation any more.
            observed.retain(|name, _| outcome.statuses.contains_key(name));
            actual.observe(&observed)?;
            self.report(loaded, actual, shutdown, &mut outcome).await?;
        }
        Ok(outcome)
    }

    /// Observes everything and plans.
    async fn look(&self, mode: Mode, loaded: &Loaded, desired: &DesiredState, actual: &mut Actual) -> Result<Look, PassError> {
        let member = &self.settings.member;
        let seen = {
            let all = wanted(desired, actual.inventory(), &loaded.reported, member)?;
            observe(&self.settings.registry, &self.scope, &all, self.settings.bounds.observe).await
        };
        self.settle(desired, &seen.resources, actual)?;
        let plan = self.plan(mode, loaded, desired, actual, &seen.resources, &seen.orphans)?;
        Ok(Look {
            plan,
            observed: seen.resources,
            orphans: seen.orphans,
        })
    }

    /// Observes what a pass has changed. Orphans can't be told from a part of what is wanted, and are left out.
    async fn look_again(
        &self,
        loaded: &Loaded,
        actual: &Actual,
        touched: &(dyn Fn(&ResourceName) -> bool + Sync),
    ) -> Result<Seen, PassError> {
        let mut some = wanted(&loaded.desired, actual.inventory(), &loaded.reported, &self.settings.member)?;
        some.retain(|one| touched(one.name));
        Ok(observe(&self.settings.registry, &self.scope, &some, self.settings.bounds.observe).await)
    }

    fn settle(&self, desired: &DesiredState, observed: &BTreeMap<ResourceName, Observation>, actual: &mut Actual) -> Result<(), PassError> {
        for entry in settled(desired, &self.settings.member, actual.inventory(), observed)? {
            actual.record(entry)?;
        }
        Ok(())
    }

    fn plan(
        &self,
        mode: Mode,
        loaded: &Loaded,
        desired: &DesiredState,
        actual: &Actual,
        observed: &BTreeMap<ResourceName, Observation>,
        orphans: &[Orphan],
    ) -> Result<Plan, PassError> {
        let member = &self.settings.member;
        let text = |commit: CommitId| commit.to_string();
        Ok(planner::plan(Input {
            base: Base {
                channel: self.settings.channel.clone(),
                member: member.clone(),
                desired: text(loaded.heads.desired),
                reported: loaded.heads.reported.map(text),
                actual: actual.head().map(text),
                position: loaded.position,
            },
            mode,
            desired,
            reported: &loaded.reported,
            inventory: actual.inventory(),
            observed,
            orphans,
            forbidden: &policies::forbidden(desired, member, &self.settings.policy),
            invalid: &invalid(&self.settings.registry, desired, member),
            lasting: &lasting(&self.settings.registry, desired, actual.inventory(), member),
        })?)
    }

    async fn execute(
        &self,
        plan: &Plan,
        loaded: &Loaded,
        observed: &BTreeMap<ResourceName, Observation>,
        actual: &mut Actual,
        shutdown: &Shutdown,
    ) -> Result<BTreeMap<ResourceName, StepResult>, PassError> {
        let execution = Execution {
            scope: &self.scope,
            plan,
            registry: &self.settings.registry,
            desired: &loaded.desired,
            reported: &loaded.reported,
            observed,
            author: &self.author(),
            bounds: self.settings.bounds,
            shutdown,
        };
        Ok(execution.run(actual).await?)
    }

    fn author(&self) -> Author<'_> {
        Author {
            member: &self.settings.member,
            at: (self.settings.clock)(),
            sign: Some(Arc::clone(&self.sign)),
        }
    }

    /// Commits what the pass did and saw together with the report that is due, then sends the report.
    async fn report(&self, loaded: &Loaded, actual: &mut Actual, shutdown: &Shutdown, outcome: &mut PassOutcome) -> Result<(), PassError> {
        self.clear_seen(loaded, actual)?;
        if let Some(outgoing) = self.signed_anew(actual)? {
            actual.send(outgoing)?;
        }
        let refused = actual.outbox().is_some_and(|outgoing| actual.is_refused(outgoing.sequence));
        if (actual.outbox().is_none() || refused)
            && let Some(outgoing) = self.next_report(loaded, actual, outcome)?
        {
            let before = actual.outbox().and_then(|before| before.envelope.report().ok());
            let news = match (before, outgoing.envelope.report()) {
                (Some((before, _)), Ok((report, _))) => before.changes != report.changes || before.desired != report.desired,
                _ => true,
            };
            if news {
                actual.send(outgoing)?;
            }
        }
        let title = title(outcome, actual);
        actual.commit(&self.author(), message(&title, &outcome.plan)).await?;
        let Some(outgoing) = actual.outbox().filter(|_| !shutdown.requested()) else {
            return Ok(());
        };
        let keeps_time = loaded.desired.in_force().is_some_and(Agreement::keeps_time);
        let recording = if keeps_time { Recording::Heartbeat } else { Recording::Report };
        let sending = reports::submit_report(self.settings.ledger.as_ref(), &self.settings.channel, &outgoing.envelope, recording);
        match tokio::time::timeout(SUBMISSION, sending).await {
            Ok(Ok(_)) => outcome.reported = Some(outgoing.sequence),
            Ok(Err(error)) => {
                outcome.unsent = Some(chain(&error));
                if !error.transient() {
                    let sequence = outgoing.sequence;
                    actual.refuse(sequence);
                }
            }
            Err(_) => outcome.unsent = Some(format!("the ledger did not answer within {} s", SUBMISSION.as_secs())),
        }
        Ok(())
    }

    /// Drops the report in the outbox once the ledger has it, or when the chain went on without it.
    fn clear_seen(&self, loaded: &Loaded, actual: &mut Actual) -> Result<(), PassError> {
        let head = loaded.reported.members().get(&self.settings.member).map(|reports| &reports.head);
        let next = head.map_or(1, |head| head.sequence + 1);
        match actual.outbox() {
            Some(outgoing) if head.is_some_and(|head| head.digest == outgoing.digest) => actual.recorded()?,
            Some(outgoing) if outgoing.sequence != next => actual.clear_outbox(),
            _ => {}
        }
        Ok(())
    }

    /// The report in the outbox with a new signature, where the certificate was renewed since: the ledger takes a report only with
    /// the certificate that it was signed with. It stays the same report, also when the one before reached the ledger.
    fn signed_anew(&self, actual: &Actual) -> Result<Option<Outgoing>, PassError> {
        let Some(outgoing) = actual.outbox() else { return Ok(None) };
        let signer = self.settings.signer.as_ref();
        let present = msp::key_id(signer.msp_id(), signer.certificate());
        let signed = outgoing.envelope.signature().map_err(SignedReportError::from)?.0;
        if signed == present {
            return Ok(None);
        }
        let (report, _) = outgoing.envelope.report().map_err(SignedReportError::from)?;
        Ok(Some(Outgoing {
            sequence: outgoing.sequence,
            digest: Digest::of(&report.payload()?),
            envelope: reports::sign(&report, signer)?,
        }))
    }

    fn next_report(&self, loaded: &Loaded, actual: &Actual, outcome: &PassOutcome) -> Result<Option<Outgoing>, PassError> {
        let member = &self.settings.member;
        // Nobody listens before there is an agreement, and whoever takes no part has nothing to say.
        let Some(record) = loaded.desired.agreement().filter(|record| record.in_force) else {
            return Ok(None);
        };
        // Who gave its place away still says what became of what it had.
        let told = loaded.reported.members().get(member).is_none_or(|told| told.statuses.is_empty());
        let had_something = !(told && outcome.statuses.is_empty() && actual.unreported().is_empty());
        let leaving = || had_something && record.succeeded.iter().any(|one| one.from == *member);
        if record.agreement.party(member).is_none() && !leaving() {
            return Ok(None);
        }
        let basis = Basis {
            channel: &self.settings.channel,
            member,
            position: loaded.position,
            commit: &loaded.heads.desired.to_string(),
            plan: actual.plan()?.unwrap_or(outcome.plan.digest),
            steps: actual.unreported(),
            now: (self.settings.clock)(),
            heartbeat_seconds: record.agreement.heartbeat_seconds,
        };
        let Some(report) = reporting::due(basis, &loaded.reported, &outcome.statuses)? else {
            return Ok(None);
        };
        let envelope = reports::sign(&report, self.settings.signer.as_ref())?;
        Ok(Some(Outgoing {
            sequence: report.sequence,
            digest: Digest::of(&report.payload()?),
            envelope,
        }))
    }

    /// Looks at everything that this member owns against what was applied last. Never writes.
    pub async fn drift(&self) -> Result<Vec<Looked>, PassError> {
        let inventory = self.inventory().await?;
        let all: Vec<Wanted<'_>> = inventory.entries().values().map(|entry| Wanted::of(&entry.resource)).collect();
        let mut seen = observe_wanted(&self.settings.registry, &self.scope, &all, self.settings.bounds.observe).await;
        Ok(all
            .iter()
            .filter_map(|one| {
                Some(Looked {
                    name: one.name.clone(),
                    kind: one.kind.clone(),
                    observation: seen.resources.remove(one.name)?,
                })
            })
            .collect())
    }

    /// What this member owns on the channel, as recorded last.
    pub async fn inventory(&self) -> Result<Inventory, PassError> {
        let (store, channel) = (self.settings.store.clone(), self.settings.channel.clone());
        let actual = tokio::task::spawn_blocking(move || Actual::load(&store, &channel))
            .await
            .map_err(|_| PassError::Interrupted)??;
        Ok(actual.inventory().clone())
    }

    /// What has become due on the channel by a moment, as the last pass saw it.
    pub async fn due(&self, now: Timestamp) -> Vec<Due> {
        let memory = self.memory.lock().await;
        let loaded = memory.loaded.as_ref();
        loaded.map_or_else(Vec::new, |loaded| {
            overdue::due(&loaded.desired, &loaded.reported, &self.settings.member, now)
        })
    }

    /// Plans what would be done if this event were on the ledger, submitted by this member now, and approved. Never writes.
    pub async fn preview(&self, body: EventBody) -> Result<Preview, PassError> {
        let mut memory = self.memory.lock().await;
        let (loaded, mut actual) = self.load(&mut memory, None).await?;
        let mut desired = DesiredState::clone(&loaded.desired);
        let member = &self.settings.member;
        let msp = match desired.members().get(member) {
            Some(record) => record.msp.clone(),
            None => return Err(PassError::Stranger(member.clone())),
        };
        let event = LedgerEvent {
            channel: self.settings.channel.clone(),
            source: Provenance {
                position: Position {
                    block: loaded.position.block + 1,
                    tx: 0,
                },
                tx_id: TxId::new(planner::NOT_SUBMITTED).expect("64 zeros are hexadecimal digits"),
                at: (self.settings.clock)(),
                by: member.clone(),
            },
            msp,
            body,
        };
        let verdict = desired.foresee(&event).map_err(PassError::Refused)?;
        let plan = self.look(Mode::ObserveOnly, &loaded, &desired, &mut actual).await?.plan;
        Ok(Preview { plan, verdict })
    }
}

impl Controller {
    /// Renders what is run for each of the member's resources, with the values that are known now. Nothing outside is looked at.
    pub async fn render(&self) -> Result<Vec<Rendered>, PassError> {
        let mut memory = self.memory.lock().await;
        let (loaded, actual) = self.load(&mut memory, None).await?;
        let known = planner::Known {
            member: &self.settings.member,
            desired: &loaded.desired,
            inventory: actual.inventory(),
            reported: &loaded.reported,
            observed: None,
            fresh: None,
        };
        let mine = loaded.desired.resources().iter();
        let mine = mine.filter(|(_, ordered)| ordered.resource.owner == self.settings.member);
        Ok(mine
            .map(|(name, ordered)| {
                let (resource, open) = match known.resolve(&ordered.resource.spec) {
                    Ok(spec) => (planner::recorded(&ordered.resource, spec), None),
                    Err(unresolved) => (ordered.resource.clone(), Some(unresolved.to_string())),
                };
                Rendered {
                    name: name.clone(),
                    scripts: match self.settings.registry.for_kind(&resource.kind) {
                        Some(provider) => provider.render(&self.scope, &resource).map_err(|invalid| invalid.to_string()),
                        None => Err(format!("no provider of this Charter makes {}: configure one", resource.kind)),
                    },
                    resource,
                    open,
                }
            })
            .collect())
    }

    /// The same resources in the words of another tool, as far as it can make them.
    pub fn translate(&self, tool: Tool, resources: &[Resource]) -> Vec<Result<Script, String>> {
        let mut by_provider: BTreeMap<&str, Vec<Resource>> = BTreeMap::new();
        for resource in resources {
            by_provider.entry(resource.kind.provider()).or_default().push(resource.clone());
        }
        let translated = by_provider.values().filter_map(|all| {
            let provider = self.settings.registry.for_kind(&all.first()?.kind)?;
            provider.translate(tool, &self.scope, all)
        });
        translated.map(|script| script.map_err(|invalid| invalid.to_string())).collect()
    }
}

/// What is run for one resource.
#[derive(Debug)]
pub struct Rendered {
    /// The resource.
    pub name: ResourceName,
    /// What it asks for, with the values that are known.
    pub resource: Resource,
    /// The scripts, or why there are none.
    pub scripts: Result<Vec<Script>, String>,
    /// Which value is not known yet, in words.
    pub open: Option<String>,
}

/// What a change would do that is not submitted yet.
#[derive(Debug)]
pub struct Preview {
    /// What would be done once it is in force.
    pub plan: Plan,
    /// Whether it would be in force at once.
    pub verdict: Verdict,
}

/// Whether everything is as it was ordered.
fn converged(plan: &Plan) -> bool {
    let settled = |status: &ResourceStatus| matches!(status.condition, Condition::InSync | Condition::Deleted | Condition::Retained);
    plan.steps.is_empty() && plan.waits.is_empty() && plan.statuses.values().all(settled)
}

/// The title of a pass's commit.
fn title(outcome: &PassOutcome, actual: &Actual) -> String {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (name, result) in &outcome.executed {
        let Some(step) = outcome.plan.steps.get(name) else { continue };
        let word = match (result, step.action, step.tx) {
            (StepResult::Failed { .. }, ..) => "failed",
            (StepResult::Skipped { .. }, ..) => "skipped",
            (StepResult::Pending { .. }, ..) => "pending",
            (StepResult::Done, Action::Create | Action::Update | Action::Replace, None) => "healed",
            (StepResult::Done, Action::Create, Some(_)) => "created",
            (StepResult::Done, Action::Update, Some(_)) => "changed",
            (StepResult::Done, Action::Replace, Some(_)) => "replaced",
            (StepResult::Done, Action::Delete, _) => "deleted",
            (StepResult::Done, Action::Adopt, _) => "adopted",
            (StepResult::Done, Action::Forget, _) => "forgotten",
        };
        *counts.entry(word).or_default() += 1;
    }
    if !counts.is_empty() {
        let words: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        return format!("pass: {}", words.join(", "));
    }
    match actual.outbox() {
        Some(outgoing) => format!("report {}", outgoing.sequence),
        None => "observed".to_owned(),
    }
}
