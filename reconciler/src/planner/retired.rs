//! What is no longer wanted: retired resources, what makes room for another kind, and owned objects that nobody names.

use std::collections::BTreeSet;

use providers::Orphan;
use state::canonical::CanonicalError;
use state::desired::Ordered;
use state::event::Position;
use state::ids::ResourceName;
use state::inventory::{Entry, EntryState};
use state::observation::Observation;
use state::plan::{Action, Finding, Severity, Step};
use state::report::{Condition, ResourceStatus};
use state::resource::{OnDrift, OnRetire, Outputs, Resource};
use state::spec::Spec;

use super::alongside::Alongside;
use super::judge::asked;
use super::references::unreported;
use super::{Draft, Input, Mode};

/// Something of this member's that is no longer wanted.
struct Leaving<'a> {
    resource: &'a Resource,
    on_retire: OnRetire,
    protect: bool,
    why: String,
    tx: Option<Position>,
    entry: Option<&'a Entry>,
}

/// Plans the end of everything that is no longer wanted.
pub(super) fn all(input: &Input<'_>, draft: &mut Draft) -> Result<(), CanonicalError> {
    let mut ordered = Alongside::new(input.desired.resources());
    for (name, entry) in input.inventory.entries() {
        let wanted = ordered.get(name);
        if wanted.is_some_and(|ordered| ordered.resource.owner == *input.member()) {
            continue;
        }
        let leaving = match wanted.filter(|ordered| ordered.transferred.is_some() && ordered.resource.kind == entry.resource.kind) {
            Some(ordered) => given_away(ordered, entry),
            None => inventoried(input, entry),
        };
        leave(input, name, leaving, draft)?;
    }
    for (name, ordered) in unreported(input.desired, input.reported, input.member()) {
        if input.inventory.get(name).is_none() {
            leave(input, name, tombstone(ordered), draft)?;
        }
    }
    for orphan in input.orphans {
        if !is_wanted(input, orphan) {
            orphaned(input, orphan, draft)?;
        }
    }
    Ok(())
}

/// Plans the end of what stands under a name that was ordered anew as another kind.
pub(super) fn make_room(input: &Input<'_>, entry: &Entry, wanted: &Resource, draft: &mut Draft) -> Result<(), CanonicalError> {
    let mut leaving = inventoried(input, entry);
    leaving.why = format!("the name was ordered anew as {}", wanted.kind);
    leaving.tx = input.desired.resources().get(&wanted.name).map(|ordered| ordered.last().position);
    leave(input, &wanted.name, leaving, draft)?;
    if let Some(status) = draft.statuses.get_mut(&wanted.name) {
        status.kind = wanted.kind.clone();
        if matches!(status.condition, Condition::Deleting | Condition::Deleted | Condition::Retained) {
            status.condition = Condition::Pending;
            status.why = Some(format!("{} of the same name has to go first", entry.resource.kind));
        }
    }
    Ok(())
}

fn inventoried<'a>(input: &Input<'a>, entry: &'a Entry) -> Leaving<'a> {
    let gone = input
        .desired
        .retired()
        .get(&entry.resource.name)
        .filter(|gone| gone.resource.kind == entry.resource.kind && gone.resource.owner == *input.member());
    match gone {
        Some(gone) => Leaving {
            entry: Some(entry),
            ..tombstone(gone)
        },
        // Protection lives in what was recorded: it doesn't vanish with the order.
        None => Leaving {
            resource: &entry.resource,
            on_retire: entry.resource.on_retire,
            protect: entry.resource.protect,
            why: "it is no longer ordered of this member".to_owned(),
            tx: None,
            entry: Some(entry),
        },
    }
}

/// What was transferred to another member is let go of, and not destroyed.
fn given_away<'a>(ordered: &Ordered, entry: &'a Entry) -> Leaving<'a> {
    Leaving {
        resource: &entry.resource,
        on_retire: OnRetire::Retain,
        protect: false,
        why: format!("it was transferred to {}", ordered.resource.owner),
        tx: Some(ordered.last().position),
        entry: Some(entry),
    }
}

fn tombstone(gone: &Ordered) -> Leaving<'_> {
    Leaving {
        resource: &gone.resource,
        on_retire: gone.resource.on_retire,
        protect: gone.resource.protect,
        why: asked(gone),
        tx: Some(gone.last().position),
        entry: None,
    }
}

fn leave(input: &Input<'_>, name: &ResourceName, leaving: Leaving<'_>, draft: &mut Draft) -> Result<(), CanonicalError> {
    let entry = leaving.entry;
    let lasting = input.lasting.get(name);
    let on_retire = match lasting {
        Some(_) => OnRetire::Retain,
        None => leaving.on_retire,
    };
    let mut status = ResourceStatus {
        kind: leaving.resource.kind.clone(),
        condition: Condition::Deleting,
        applied: entry.map(|entry| entry.ordered),
        exports: Outputs::new(),
        drift: Vec::new(),
        why: None,
    };
    let step = |action, external: Option<String>, why: Vec<String>| -> Result<Step, CanonicalError> {
        Ok(Step {
            action,
            resource: leaving.resource.clone(),
            ordered: match entry {
                Some(entry) => entry.ordered,
                None => leaving.resource.digest()?,
            },
            external,
            why,
            tx: leaving.tx,
            changes: Vec::new(),
            after: BTreeSet::new(),
        })
    };
    let mut finding = None;
    let planned = match input.observed.get(name) {
        None | Some(Observation::Unknown { .. }) => {
            let why = match input.observed.get(name) {
                Some(Observation::Unknown { why }) => format!("it is retired and could not be observed: {why}"),
                _ => format!("it is retired, and no provider of this Charter makes {}", leaving.resource.kind),
            };
            status.condition = Condition::Unknown;
            finding = Some((Severity::Unknown, why));
            None
        }
        Some(Observation::Absent | Observation::Unmade { .. }) => {
            // Where it was left may not be known any more, and what is kept by agreement is never said to be destroyed on a guess.
            let released = on_retire == OnRetire::Retain && entry.is_none() && leaving.resource.spec.refers();
            status.condition = if released { Condition::Retained } else { Condition::Deleted };
            let why = vec!["its absence was observed".to_owned(), leaving.why.clone()];
            entry.map(|_| step(Action::Forget, None, why)).transpose()?
        }
        Some(Observation::Present { owned: false, .. }) => {
            status.condition = match on_retire {
                OnRetire::Retain => Condition::Retained,
                OnRetire::Delete => Condition::Deleted,
            };
            status.why = lasting.cloned();
            let why = vec!["what is there is not Charter's any more".to_owned(), leaving.why.clone()];
            entry.map(|_| step(Action::Forget, None, why)).transpose()?
        }
        Some(Observation::Pending { why, .. }) if entry.is_some_and(|entry| entry.state == EntryState::Deleting) => {
            status.why = Some(why.clone());
            None
        }
        Some(Observation::Present { external, .. } | Observation::Pending { external, .. }) => {
            status.why = entry.and_then(|entry| entry.failed.clone()).or_else(|| Some(leaving.why.clone()));
            if input.mode == Mode::Frozen {
                finding = Some((Severity::Notice, format!("{}, and a frozen channel deletes nothing", leaving.why)));
                None
            } else if leaving.protect {
                status.condition = Condition::Denied;
                finding = Some((Severity::Denied, is_protected(&leaving.why)));
                None
            } else if on_retire == OnRetire::Retain {
                let kept = lasting.cloned().unwrap_or_else(|| "it is kept where it is".to_owned());
                let why = vec![leaving.why.clone(), kept];
                Some(step(Action::Forget, Some(external.clone()), why)?)
            } else {
                Some(step(Action::Delete, Some(external.clone()), vec![leaving.why.clone()])?)
            }
        }
    };
    if let Some((severity, message)) = finding {
        status.why = Some(message.clone());
        draft.findings.push(Finding {
            severity,
            resource: name.clone(),
            kind: leaving.resource.kind.clone(),
            message,
        });
    }
    if let Some(step) = planned {
        draft.steps.insert(name.clone(), step);
    }
    draft.statuses.insert(name.clone(), status);
    Ok(())
}

fn is_protected(why: &str) -> String {
    format!("{why}, and it is protected: order it again and amend it with protect: false")
}

/// Whether what an orphan's label names is wanted as that kind, or recorded: then it was observed, and is judged there.
fn is_wanted(input: &Input<'_>, orphan: &Orphan) -> bool {
    let ordered = input.desired.resources().get(&orphan.name);
    let recorded = input.inventory.get(&orphan.name);
    ordered.is_some_and(|ordered| ordered.resource.kind == orphan.kind && ordered.resource.owner == *input.member())
        || recorded.is_some_and(|entry| entry.resource.kind == orphan.kind)
}

fn orphaned(input: &Input<'_>, orphan: &Orphan, draft: &mut Draft) -> Result<(), CanonicalError> {
    let notice = |message: &str| Finding {
        severity: Severity::Notice,
        resource: orphan.name.clone(),
        kind: orphan.kind.clone(),
        message: message.to_owned(),
    };
    if input.mode == Mode::Frozen {
        draft
            .findings
            .push(notice("nobody wants it any more, and a frozen channel deletes nothing"));
        return Ok(());
    }
    let stands = draft.steps.contains_key(&orphan.name) || draft.waits.contains_key(&orphan.name);
    if stands {
        draft
            .findings
            .push(notice("an older object of this name is there too; a later pass deletes it"));
        return Ok(());
    }
    let gone = input
        .desired
        .retired()
        .get(&orphan.name)
        .filter(|gone| gone.resource.kind == orphan.kind && gone.resource.owner == *input.member());
    let mut status = ResourceStatus {
        kind: orphan.kind.clone(),
        condition: Condition::Deleting,
        applied: None,
        exports: Outputs::new(),
        drift: Vec::new(),
        why: None,
    };
    // A label doesn't say that it is protected, and the tombstone does: a step would be denied with the whole plan.
    if let Some(gone) = gone.filter(|gone| gone.resource.protect) {
        let message = is_protected(&asked(gone));
        status.condition = Condition::Denied;
        status.why = Some(message.clone());
        draft.statuses.insert(orphan.name.clone(), status);
        draft.findings.push(Finding {
            severity: Severity::Denied,
            ..notice(&message)
        });
        return Ok(());
    }
    let resource = match gone {
        Some(gone) => gone.resource.clone(),
        None => Resource {
            name: orphan.name.clone(),
            kind: orphan.kind.clone(),
            owner: input.member().clone(),
            region: None,
            size: None,
            spec: Spec::default(),
            depends_on: BTreeSet::new(),
            exports: BTreeSet::new(),
            on_retire: orphan.on_retire,
            on_drift: OnDrift::default(),
            protect: false,
            adopt: false,
            origin: None,
        },
    };
    let mut why = vec!["it was found by its owner label, and nobody wants it any more".to_owned()];
    why.extend(gone.map(asked));
    let action = match orphan.on_retire {
        OnRetire::Delete => Action::Delete,
        OnRetire::Retain => Action::Forget,
    };
    status.why = why.first().cloned();
    draft.statuses.entry(orphan.name.clone()).or_insert(status);
    let step = Step {
        action,
        ordered: resource.digest()?,
        resource,
        external: Some(orphan.external.clone()),
        why,
        tx: gone.map(|gone| gone.last().position),
        changes: Vec::new(),
        after: BTreeSet::new(),
    };
    draft.steps.insert(orphan.name.clone(), step);
    Ok(())
}
