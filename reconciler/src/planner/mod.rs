//! The planner: every decision of a pass, made before anything is done.
//!
//! It is a pure function of what was ordered, reported, recorded and observed: no clock, no randomness, no I/O. The plan says
//! what, why and in which order; the executor only walks it.

mod alongside;
mod edges;
mod fields;
mod judge;
mod references;
pub mod render;
mod retired;
mod sequence;
mod settle;

use std::collections::BTreeMap;

use providers::Orphan;
use state::canonical::CanonicalError;
use state::desired::DesiredState;
use state::ids::{MemberId, ResourceName};
use state::inventory::Inventory;
use state::observation::Observation;
use state::plan::{Base, Finding, Plan, Step, Wait};
use state::report::ResourceStatus;
use state::reported::ReportedState;
use thiserror::Error;

pub(crate) use judge::NOT_SUBMITTED;
pub use references::{Known, OwnedWanted, recorded, wanted};
pub use sequence::sequence;
pub use settle::settled;

/// What a pass is allowed to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    #[default]
    Normal,
    /// The channel is frozen: the last verified state is healed, and nothing is deleted.
    Frozen,
    /// A person paused it: it observes, plans and reports, and executes nothing.
    Paused,
    /// It observes and plans for somebody who only looks: nothing is executed, written or reported.
    ObserveOnly,
}

/// What a plan is made from.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The channel, the member, and the commits that the rest was loaded from.
    pub base: Base,
    /// What the pass may do.
    pub mode: Mode,
    /// What was ordered.
    pub desired: &'a DesiredState,
    /// What every member says it sees.
    pub reported: &'a ReportedState,
    /// What this member owns outside.
    pub inventory: &'a Inventory,
    /// What the providers see of everything that [`wanted`] names.
    pub observed: &'a BTreeMap<ResourceName, Observation>,
    /// Owned objects that nobody wants any more.
    pub orphans: &'a [Orphan],
    /// Resources that the member's local policy forbids, with the reason.
    pub forbidden: &'a BTreeMap<ResourceName, String>,
    /// Resources that the providers refuse as they were ordered, with the reason.
    pub invalid: &'a BTreeMap<ResourceName, String>,
    /// Resources that would be let go of where others are deleted, with the reason: their providers can't undo what was done.
    pub lasting: &'a BTreeMap<ResourceName, String>,
}

impl Input<'_> {
    fn member(&self) -> &MemberId {
        &self.base.member
    }
}

/// A plan could not be made.
#[derive(Debug, Error)]
pub enum PlanError {
    /// A part of it has no canonical form.
    #[error("the plan can't be encoded")]
    Encode(#[from] CanonicalError),
    /// What has to be done forms a circle, so there is no order to do it in.
    #[error("the steps of the plan wait for each other in a circle through {0}; please report this with the output of 'charter graph'")]
    Circle(ResourceName),
}

/// What the parts of the planner write into.
#[derive(Debug, Default)]
struct Draft {
    steps: BTreeMap<ResourceName, Step>,
    waits: BTreeMap<ResourceName, Wait>,
    findings: Vec<Finding>,
    statuses: BTreeMap<ResourceName, ResourceStatus>,
}

/// Plans one pass.
///
/// The same input gives the same plan; what has converged gives a plan without steps.
pub fn plan(input: Input<'_>) -> Result<Plan, PlanError> {
    let mut draft = Draft::default();
    let judged = judge::all(&input, &mut draft)?;
    edges::weave(&input, judged, &mut draft)?;
    retired::all(&input, &mut draft)?;
    edges::weave_deletions(&input, &mut draft);
    draft.findings.sort();
    let plan = Plan::new(input.base, draft.steps, draft.waits, draft.findings, draft.statuses)?;
    // A plan that can't be walked is refused here, not discovered half-way through.
    if !plan.is_empty() {
        sequence(&plan)?;
    }
    Ok(plan)
}
