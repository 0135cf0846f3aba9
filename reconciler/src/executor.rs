//! Walks a plan, and decides nothing: what comes before what, and what is done, stands in the plan.
//!
//! Steps run in waves. Before a wave runs, what it is about to do is durable in `actual/<channel>`; its results are made durable
//! together with the next wave's intentions. So a killed pass leaves at most intentions that the next one looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream;
use futures::{FutureExt, StreamExt};
use providers::registry::Registry;
use providers::{Applied, Deleted, Provider, Scope};
use state::canonical::CanonicalError;
use state::desired::DesiredState;
use state::errors;
use state::ids::ResourceName;
use state::inventory::{Entry, EntryState};
use state::observation::Observation;
use state::plan::{Action, Plan, Step};
use state::report::StepReport;
use state::reported::ReportedState;
use state::resource::{OnDrift, Outputs, Resource};
use thiserror::Error as ThisError;

use crate::actual::{Actual, ActualError, Author, names};
use crate::planner::{Known, PlanError, recorded, sequence};
use crate::reporting::carried_out;
use crate::shutdown::Shutdown;

/// The bounds of an execution.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many steps run at once.
    pub at_once: usize,
    /// How long one call to a provider may take.
    pub step: Duration,
    /// How long one bulk observation may take.
    pub observe: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            at_once: 8,
            step: Duration::from_secs(60),
            observe: Duration::from_secs(60),
        }
    }
}

/// The longest error that the inventory and reports keep, in characters.
const LONGEST_ERROR: usize = 500;

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// It was done.
    Done,
    /// It was begun, and is not ready or not gone yet. The next pass looks again.
    Pending {
        /// What it waits for.
        why: String,
    },
    /// It failed. The next pass tries again.
    Failed {
        /// The error with its causes.
        why: String,
    },
    /// It was not begun.
    Skipped {
        /// Why not.
        why: String,
    },
}

/// An execution had to stop.
#[derive(Debug, ThisError)]
pub enum ExecuteError {
    /// What happens could not be recorded; nothing more was begun.
    #[error("the pass was stopped, because it can't be recorded")]
    Actual(#[from] ActualError),
    /// The steps have no order.
    #[error("the plan can't be walked")]
    Plan(#[from] PlanError),
    /// Something has no canonical form.
    #[error("a step can't be recorded")]
    Encode(#[from] CanonicalError),
}

/// What an execution works with.
pub struct Execution<'a> {
    /// For whom, and on which channel.
    pub scope: &'a Scope,
    /// The plan.
    pub plan: &'a Plan,
    /// The providers.
    pub registry: &'a Registry,
    /// What was ordered: it says whose value a reference means.
    pub desired: &'a DesiredState,
    /// The others' exports.
    pub reported: &'a ReportedState,
    /// What the plan was made from.
    pub observed: &'a BTreeMap<ResourceName, Observation>,
    /// Who writes the commits.
    pub author: &'a Author<'a>,
    /// The bounds.
    pub bounds: Bounds,
    /// Whether somebody wishes to stop.
    pub shutdown: &'a Shutdown,
}

/// One call to a provider, ready to be made.
enum Call {
    Apply(Box<Resource>),
    Delete { external: String },
    Release { external: String },
}

/// What a call answered.
enum Answer {
    Applied(Applied),
    Deleted(Deleted),
    Released,
    Failed(String),
    NotBegun,
}

impl Execution<'_> {
    /// Walks the plan. Results, and what a report has to tell of them, stay staged in `actual` until its next commit.
    pub async fn run(&self, actual: &mut Actual) -> Result<BTreeMap<ResourceName, StepResult>, ExecuteError> {
        let mut fresh: BTreeMap<ResourceName, Outputs> = BTreeMap::new();
        // Deleted in this pass, to be made anew in the next wave.
        let mut cleared: BTreeSet<&ResourceName> = BTreeSet::new();
        let mut walk = Walk::new(self.plan)?;
        actual.execute(self.plan)?;
        loop {
            if self.shutdown.requested() {
                walk.stop();
            }
            let wave = walk.wave();
            if wave.is_empty() {
                return Ok(walk.results);
            }
            let mut calls = Vec::new();
            let mut told: Vec<StepReport> = Vec::new();
            for (name, step) in wave {
                let result = match self.prepare(step, cleared.contains(name), actual, &fresh)? {
                    Prepared::Call(provider, call) => {
                        calls.push((name, step, provider, call));
                        continue;
                    }
                    Prepared::Recorded(outputs) => {
                        fresh.insert(name.clone(), outputs);
                        StepResult::Done
                    }
                    Prepared::Forgotten => StepResult::Done,
                    Prepared::Failed(why) => StepResult::Failed { why },
                };
                told.extend(carried_out(self.plan.digest, step, &result));
                walk.settle(name, result);
            }
            actual.carried_out(std::mem::take(&mut told))?;
            if calls.is_empty() {
                continue;
            }
            let intent = self.intent(calls.iter().map(|(name, step, ..)| (*name, step.action)));
            actual.commit(self.author, intent).await?;
            // Boxed here: a pass is spawned, and the compiler can't see that a stream of these futures may move between threads.
            let mut running: Vec<BoxFuture<'_, (&ResourceName, &Step, Answer)>> = Vec::new();
            for (name, step, provider, call) in calls {
                running.push(async move { (name, step, self.call(provider, step, call).await) }.boxed());
            }
            let at_once = self.bounds.at_once.max(1);
            let mut answers: Vec<(&ResourceName, &Step, Answer)> = stream::iter(running).buffer_unordered(at_once).collect().await;
            answers.sort_by_key(|(name, ..)| *name);
            for (name, step, answer) in answers {
                match self.settle(step, answer, actual, &mut fresh)? {
                    Some(result) => {
                        told.extend(carried_out(self.plan.digest, step, &result));
                        walk.settle(name, result);
                    }
                    None => {
                        cleared.insert(name);
                        walk.again(name);
                    }
                }
            }
            actual.carried_out(told)?;
        }
    }

    /// Records what a step is about to do, and makes the call ready.
    fn prepare(
        &self,
        step: &Step,
        cleared: bool,
        actual: &mut Actual,
        fresh: &BTreeMap<ResourceName, Outputs>,
    ) -> Result<Prepared<'_>, CanonicalError> {
        let resource = &step.resource;
        if step.action == Action::Forget && step.external.is_none() {
            actual.forget(&resource.kind, &resource.name);
            return Ok(Prepared::Forgotten);
        }
        let Some(provider) = self.registry.for_kind(&resource.kind) else {
            return Ok(Prepared::Failed(format!("no provider of this Charter makes {}", resource.kind)));
        };
        let provider: &dyn Provider = provider.as_ref();
        let before = actual.inventory().get(&resource.name).cloned();
        match (step.action, &step.external) {
            (Action::Forget, Some(external)) => {
                let external = external.clone();
                Ok(Prepared::Call(provider, Call::Release { external }))
            }
            (Action::Delete, external) | (Action::Replace, external) if !cleared => {
                let external = match (external, &before) {
                    (Some(external), _) => external.clone(),
                    (None, Some(entry)) => entry.external.clone(),
                    (None, None) => provider.external(self.scope, resource),
                };
                let entry = match before {
                    Some(entry) => Entry {
                        state: EntryState::Deleting,
                        ..entry
                    },
                    None => Entry {
                        state: EntryState::Deleting,
                        resource: resource.clone(),
                        ordered: step.ordered,
                        external: external.clone(),
                        outputs: Outputs::new(),
                        failed: None,
                    },
                };
                actual.record(entry)?;
                Ok(Prepared::Call(provider, Call::Delete { external }))
            }
            _ => self.prepare_making(step, provider, before, actual, fresh),
        }
    }

    fn prepare_making<'s>(
        &'s self,
        step: &Step,
        provider: &'s dyn Provider,
        before: Option<Entry>,
        actual: &mut Actual,
        fresh: &BTreeMap<ResourceName, Outputs>,
    ) -> Result<Prepared<'s>, CanonicalError> {
        let known = Known {
            member: &self.scope.member,
            desired: self.desired,
            inventory: actual.inventory(),
            reported: self.reported,
            observed: Some(self.observed),
            fresh: Some(fresh),
        };
        let spec = match known.resolve(&step.resource.spec) {
            Ok(spec) => spec,
            Err(error) => return Ok(Prepared::Failed(chain(&error))),
        };
        let mut resource = recorded(&step.resource, spec);
        let entry = |state, outputs| Entry {
            state,
            resource: resource.clone(),
            ordered: step.ordered,
            external: match &step.external {
                Some(external) => external.clone(),
                None => provider.external(self.scope, &step.resource),
            },
            outputs,
            failed: None,
        };
        // An adoption that changes nothing outside is only recorded.
        if step.action == Action::Adopt && step.changes.is_empty() {
            let seen = self.observed.get(&step.resource.name).and_then(Observation::outputs);
            let outputs = seen.cloned().unwrap_or_default();
            let entry = entry(EntryState::Applied, outputs.clone());
            actual.record(entry)?;
            return Ok(Prepared::Recorded(outputs));
        }
        let scripts = match provider.render(self.scope, &resource) {
            Ok(scripts) => scripts,
            Err(refused) => return Ok(Prepared::Failed(chain(&refused))),
        };
        let outputs = before.map(|before| before.outputs).unwrap_or_default();
        let entry = entry(EntryState::Intended, outputs);
        actual.record(entry)?;
        actual.keep_scripts(&resource.kind, &resource.name, scripts);
        resource.depends_on = step.resource.depends_on.clone();
        Ok(Prepared::Call(provider, Call::Apply(Box::new(resource))))
    }

    async fn call(&self, provider: &dyn Provider, step: &Step, call: Call) -> Answer {
        if self.shutdown.requested() {
            return Answer::NotBegun;
        }
        let (kind, name) = (&step.resource.kind, &step.resource.name);
        let made = async {
            match &call {
                Call::Apply(resource) => {
                    let applied = match step.tx {
                        Some(order) => provider.apply_ordered(self.scope, resource, order).await,
                        None => provider.apply(self.scope, resource).await,
                    };
                    applied.map(Answer::Applied)
                }
                Call::Delete { external } => provider.delete(self.scope, kind, name, external).await.map(Answer::Deleted),
                Call::Release { external } => provider.release(self.scope, kind, name, external).await.map(|()| Answer::Released),
            }
        };
        match tokio::time::timeout(self.bounds.step, made).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Failed(chain(&error)),
            Err(_) => Answer::Failed(format!(
                "no answer within {} s; it may have been done, the next pass looks",
                self.bounds.step.as_secs()
            )),
        }
    }

    /// Records what a call answered. None: the step goes on in the next wave.
    fn settle(
        &self,
        step: &Step,
        answer: Answer,
        actual: &mut Actual,
        fresh: &mut BTreeMap<ResourceName, Outputs>,
    ) -> Result<Option<StepResult>, CanonicalError> {
        let name = &step.resource.name;
        let entry = actual.inventory().get(name).cloned();
        let mut record = |change: &dyn Fn(Entry) -> Entry| match entry.clone() {
            Some(entry) => actual.record(change(entry)),
            None => Ok(()),
        };
        Ok(Some(match answer {
            Answer::Applied(Applied::Done { external, outputs }) => {
                record(&|entry| Entry {
                    state: EntryState::Applied,
                    external: external.clone(),
                    outputs: outputs.clone(),
                    ..entry
                })?;
                fresh.insert(name.clone(), outputs);
                StepResult::Done
            }
            Answer::Applied(Applied::Pending { external, why }) => {
                // What is not finished is no drift: the next pass goes on with it, and an observation confirms it. Healing goes on
                // as healing: its order was applied whole before.
                let healing = step.tx.is_none() && step.resource.on_drift == OnDrift::Heal;
                let state = if healing { EntryState::Applied } else { EntryState::Intended };
                record(&|entry| Entry {
                    state,
                    external: external.clone(),
                    ..entry
                })?;
                StepResult::Pending { why: bounded(&why) }
            }
            Answer::Deleted(Deleted::Gone) if step.action == Action::Replace => return Ok(None),
            // It is forgotten when its absence was observed.
            Answer::Deleted(Deleted::Gone) => StepResult::Done,
            Answer::Deleted(Deleted::Pending { why }) => StepResult::Pending { why: bounded(&why) },
            Answer::Released => {
                actual.forget(&step.resource.kind, name);
                StepResult::Done
            }
            Answer::Failed(why) => {
                record(&|entry| Entry {
                    failed: Some(why.clone()),
                    ..entry
                })?;
                StepResult::Failed { why }
            }
            Answer::NotBegun => StepResult::Skipped {
                why: "Charter is stopping; the next pass goes on".to_owned(),
            },
        }))
    }

    fn intent<'n>(&self, wave: impl Iterator<Item = (&'n ResourceName, Action)>) -> String {
        let mut by_action: BTreeMap<Action, Vec<&ResourceName>> = BTreeMap::new();
        for (name, action) in wave {
            by_action.entry(action).or_default().push(name);
        }
        let parts: Vec<String> = by_action
            .into_iter()
            .map(|(action, all)| format!("{action} {}", names(all)))
            .collect();
        message(&format!("intent: {}", parts.join("; ")), self.plan)
    }
}

/// What became of a step before any call.
enum Prepared<'a> {
    Call(&'a dyn Provider, Call),
    Recorded(Outputs),
    Forgotten,
    Failed(String),
}

/// Where an execution stands in its plan. Each step and each edge is looked at once.
struct Walk<'a> {
    plan: &'a Plan,
    /// How many steps each step still comes after.
    open: BTreeMap<&'a ResourceName, usize>,
    later: BTreeMap<&'a ResourceName, Vec<&'a ResourceName>>,
    ready: BTreeSet<&'a ResourceName>,
    results: BTreeMap<ResourceName, StepResult>,
}

impl<'a> Walk<'a> {
    /// Refuses a plan whose steps wait for each other, before anything of it is done.
    fn new(plan: &'a Plan) -> Result<Self, PlanError> {
        sequence(plan)?;
        let mut open = BTreeMap::new();
        let mut later: BTreeMap<&ResourceName, Vec<&ResourceName>> = BTreeMap::new();
        for (name, step) in &plan.steps {
            let before = step.after.iter().filter(|before| plan.steps.contains_key(*before));
            let mut count = 0;
            for before in before {
                later.entry(before).or_default().push(name);
                count += 1;
            }
            open.insert(name, count);
        }
        let ready = open.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
        Ok(Self {
            plan,
            open,
            later,
            ready,
            results: BTreeMap::new(),
        })
    }

    /// Takes the steps whose turn has come.
    fn wave(&mut self) -> Vec<(&'a ResourceName, &'a Step)> {
        let ready = std::mem::take(&mut self.ready);
        ready
            .into_iter()
            .filter_map(|name| Some((name, self.plan.steps.get(name)?)))
            .collect()
    }

    /// Puts a step that goes on into the next wave.
    fn again(&mut self, name: &'a ResourceName) {
        self.ready.insert(name);
    }

    /// Takes a step's result: what comes after it gets nearer to its turn, or is skipped.
    fn settle(&mut self, name: &'a ResourceName, result: StepResult) {
        let mut settled = vec![(name, result)];
        while let Some((name, result)) = settled.pop() {
            let hindrance = match &result {
                StepResult::Done => None,
                StepResult::Pending { .. } => Some(format!("{name} is not ready yet")),
                StepResult::Failed { .. } => Some(format!("{name} failed")),
                StepResult::Skipped { .. } => Some(format!("{name} was not begun")),
            };
            if self.results.insert(name.clone(), result).is_some() {
                continue;
            }
            // A step is settled once, so what waits for it is told once.
            for next in self.later.remove(name).unwrap_or_default() {
                match &hindrance {
                    Some(why) if !self.results.contains_key(next) => {
                        settled.push((next, StepResult::Skipped { why: why.clone() }));
                    }
                    Some(_) => {}
                    None => self.nearer(next),
                }
            }
        }
    }

    fn nearer(&mut self, name: &'a ResourceName) {
        if let Some(count) = self.open.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 && !self.results.contains_key(name) {
                self.ready.insert(name);
            }
        }
    }

    /// Skips whatever was not begun.
    fn stop(&mut self) {
        self.ready.clear();
        for name in self.plan.steps.keys() {
            let why = "Charter is stopping; the next pass goes on".to_owned();
            self.results.entry(name.clone()).or_insert(StepResult::Skipped { why });
        }
    }
}

/// A commit's message: a title, and trailers that lead back to plan and order.
pub(crate) fn message(title: &str, plan: &Plan) -> String {
    format!("{title}\n\nPlan: {}\nDesired: {}\n", plan.digest, plan.base.desired)
}

/// An error with its causes on one line, bounded.
pub(crate) fn chain(error: &dyn Error) -> String {
    bounded(&errors::chain(error))
}

fn bounded(text: &str) -> String {
    let one_line = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().map(one_line).take(LONGEST_ERROR).collect();
    if text.chars().count() > LONGEST_ERROR {
        short.push('…');
    }
    short
}
