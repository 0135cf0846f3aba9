//! One pass over one channel for one member: load, observe, plan, check, execute, look again, record, report.
//!
//! A pass starts from state and never from an event, so a signal, a timer and a restart take the same way.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ledger_sync::Ledger;
use ledger_sync::reports::SignedReportError;
use policies::{Denial, LocalPolicy};
use providers::registry::Registry;
use providers::{Orphan, Scope};
use state::canonical::{CanonicalError, Digest};
use state::desired::{DesiredState, Rejection};
use state::git::{CommitId, Store};
use state::ids::{Channel, MemberId, ResourceName};
use state::observation::Observation;
use state::plan::{Base, Finding, Plan};
use state::report::{Condition, ResourceStatus};
use state::time::Timestamp;
use thiserror::Error;
use tokio::sync::Mutex;

use crate::actual::{Actual, ActualError, Author, CommitSigner};
use crate::executor::{Bounds, ExecuteError, Execution, StepResult};
use crate::loaded::{Heads, Loaded, LoadingError};
use crate::observe::{Seen, invalid, lasting, observe};
use crate::planner::{self, Input, Mode, PlanError, settled, wanted};
use crate::shutdown::Shutdown;

mod asked;
mod outbox;

pub use asked::{Looked, Preview, Rendered};

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
}

/// Whether everything is as it was ordered.
fn converged(plan: &Plan) -> bool {
    let settled = |status: &ResourceStatus| matches!(status.condition, Condition::InSync | Condition::Deleted | Condition::Retained);
    plan.steps.is_empty() && plan.waits.is_empty() && plan.statuses.values().all(settled)
}
