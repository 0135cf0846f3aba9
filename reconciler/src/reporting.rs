//! What a member has to report, and when: the difference between what it sees and what the ledger knows of it.

use std::collections::BTreeMap;

use state::canonical::{self, CanonicalError, Digest};
use state::event::Position;
use state::ids::{Channel, MemberId, ResourceName};
use state::plan::Step;
use state::report::{MAX_STEPS, Report, ResourceStatus, StepOutcome, StepReport, whole};
use state::reported::{MemberReports, ReportedState};
use state::time::Timestamp;

use crate::executor::StepResult;

/// The bytes of changes that one report carries; the rest goes into the next. A statement has a limit of 1 MiB.
const CHANGES: usize = 512 * 1024;
/// The bytes of steps that one report carries; the rest goes into the next.
const STEPS: usize = 256 * 1024;
/// The most fields that a report names of one step.
const FIELDS: usize = 16;

/// What a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// The channel.
    pub channel: &'a Channel,
    /// The member.
    pub member: &'a MemberId,
    /// The last transaction of the desired state.
    pub position: Position,
    /// The commit of the desired state, hexadecimal.
    pub commit: &'a str,
    /// The plan that was carried out last.
    pub plan: Digest,
    /// What was carried out and is in no report yet.
    pub steps: &'a [StepReport],
    /// The member's clock.
    pub now: Timestamp,
    /// The agreement's seconds between reports.
    pub heartbeat_seconds: u32,
}

/// Makes the next report of a member, if one is due: something changed, or the heartbeat.
///
/// A sentence that only says otherwise why, and a resource that is no longer the member's to report, wait for the next one.
pub fn due(
    basis: Basis<'_>,
    reported: &ReportedState,
    statuses: &BTreeMap<ResourceName, ResourceStatus>,
) -> Result<Option<Report>, CanonicalError> {
    let before = reported.members().get(basis.member);
    let nothing = BTreeMap::new();
    let known = before.map_or(&nothing, |reports| &reports.statuses);
    let changed = statuses
        .iter()
        .any(|(name, status)| !known.get(name).is_some_and(|known| tells(known, status)));
    if !changed && basis.steps.is_empty() && !heartbeat_due(before, basis) {
        return Ok(None);
    }
    let mut changes: BTreeMap<ResourceName, Option<ResourceStatus>> = BTreeMap::new();
    let mut after = known.clone();
    let mut bytes = 0;
    for name in known.keys().filter(|name| !statuses.contains_key(*name)) {
        bytes += name.as_str().len() + 8;
        if bytes > CHANGES {
            break;
        }
        changes.insert(name.clone(), None);
        after.remove(name);
    }
    for (name, status) in statuses.iter().filter(|(name, status)| known.get(*name) != Some(*status)) {
        bytes += name.as_str().len() + canonical::bytes(status)?.len() + 8;
        if bytes > CHANGES && !changes.is_empty() {
            break;
        }
        changes.insert(name.clone(), Some(status.clone()));
        after.insert(name.clone(), status.clone());
    }
    Ok(Some(Report {
        channel: basis.channel.clone(),
        member: basis.member.clone(),
        sequence: before.map_or(1, |reports| reports.head.sequence + 1),
        previous: before.map(|reports| reports.head.digest),
        desired: basis.position,
        commit: basis.commit.to_owned(),
        plan: basis.plan,
        observed_at: basis.now,
        steps: told(basis.steps)?,
        changes,
        whole: whole(&after)?,
    }))
}

/// The steps that fit into one report, oldest first.
fn told(steps: &[StepReport]) -> Result<Vec<StepReport>, CanonicalError> {
    let mut fitting = Vec::new();
    let mut bytes = 0;
    for step in steps.iter().take(MAX_STEPS) {
        bytes += canonical::bytes(step)?.len() + 1;
        if bytes > STEPS && !fitting.is_empty() {
            break;
        }
        fitting.push(step.clone());
    }
    Ok(fitting)
}

/// Whether a known status tells the same as a new one, but for the sentence.
fn tells(known: &ResourceStatus, status: &ResourceStatus) -> bool {
    known.kind == status.kind
        && known.condition == status.condition
        && known.applied == status.applied
        && known.exports == status.exports
        && known.drift == status.drift
}

fn heartbeat_due(before: Option<&MemberReports>, basis: Basis<'_>) -> bool {
    match before {
        None => true,
        // A clock that was ahead once must not silence the member until that moment comes.
        Some(reports) if basis.now < reports.head.observed_at => true,
        Some(reports) => basis.now.seconds() >= reports.head.observed_at.seconds() + i64::from(basis.heartbeat_seconds),
    }
}

/// What a report tells of a step: nothing if it was not begun.
pub fn carried_out(plan: Digest, step: &Step, result: &StepResult) -> Option<StepReport> {
    let outcome = match result {
        StepResult::Done => StepOutcome::Done,
        StepResult::Pending { .. } => StepOutcome::Begun,
        StepResult::Failed { .. } => StepOutcome::Failed,
        StepResult::Skipped { .. } => return None,
    };
    Some(StepReport {
        resource: step.resource.name.clone(),
        action: step.action,
        outcome,
        tx: step.tx,
        fields: step.changes.iter().take(FIELDS).map(|change| change.path.clone()).collect(),
        plan,
    })
}
