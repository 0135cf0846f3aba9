//! One resource at a time: what is ordered against what is seen.

use std::collections::BTreeMap;

use state::canonical::CanonicalError;
use state::desired::Ordered;
use state::event::Position;
use state::ids::{Kind, ResourceName};
use state::inventory::{Entry, EntryState};
use state::observation::{FieldDrift, Observation};
use state::plan::{Action, FieldChange, Finding, Severity};
use state::report::{Condition, ResourceStatus};
use state::resource::{OnDrift, OnRetire, Outputs, Resource};

use super::alongside::Alongside;
use super::fields;
use super::references::{Follows, Known, exported, follows, unchanged};
use super::{Draft, Input, Mode, PlanError, retired};

/// What has to be done for one resource, before it is known what it waits for.
#[derive(Debug)]
pub(super) struct Need<'a> {
    pub(super) ordered: &'a Ordered,
    pub(super) action: Action,
    pub(super) external: Option<String>,
    pub(super) why: Vec<String>,
    pub(super) tx: Option<Position>,
    pub(super) changes: Vec<FieldChange>,
    /// How the resource stands until it is done.
    pub(super) condition: Condition,
}

/// All of the member's resources, judged.
pub(super) struct Judged<'a> {
    pub(super) needs: BTreeMap<&'a ResourceName, Need<'a>>,
}

/// What one look at a resource says.
enum Verdict<'a> {
    /// It is what was ordered.
    InSync,
    /// Something has to be done.
    Need(Need<'a>, Vec<FieldDrift>),
    /// Nothing can be decided or done now.
    Left(Condition, String, Option<Severity>, Vec<FieldDrift>),
}

/// The field of an adoption that changes for certain: the owner label.
const LABEL: &str = "owner label";

/// Judges every resource that this member owns, and writes their statuses.
pub(super) fn all<'a>(input: &Input<'a>, draft: &mut Draft) -> Result<Judged<'a>, PlanError> {
    let member = input.member().clone();
    let known = Known {
        member: &member,
        desired: input.desired,
        inventory: input.inventory,
        reported: input.reported,
        observed: Some(input.observed),
        fresh: None,
    };
    let mut needs = BTreeMap::new();
    let mut statuses = Vec::with_capacity(input.desired.resources().len());
    let mut entries = Alongside::new(input.inventory.entries());
    let mut seen = Alongside::new(input.observed);
    for (name, ordered) in input.desired.resources() {
        let resource = &ordered.resource;
        if resource.owner != member {
            continue;
        }
        let entry = entries.get(name);
        if let Some(entry) = entry
            && entry.resource.kind != resource.kind
        {
            retired::make_room(input, entry, resource, draft)?;
            continue;
        }
        let mut status = ResourceStatus {
            kind: resource.kind.clone(),
            condition: Condition::InSync,
            applied: entry.filter(|entry| entry.state != EntryState::Intended).map(|entry| entry.ordered),
            exports: Outputs::new(),
            drift: Vec::new(),
            why: None,
        };
        let observation = seen.get(name);
        match judge(input, ordered, entry, observation, &known)? {
            Verdict::InSync => {
                // An intention whose result was observed is as good as applied.
                status.applied = entry.map(|entry| entry.ordered);
                if let Some(outputs) = observation.and_then(Observation::outputs) {
                    status.exports = exported(resource, outputs);
                }
            }
            Verdict::Left(condition, why, severity, drift) => {
                if let Some(severity) = severity {
                    draft.findings.push(Finding {
                        severity,
                        resource: name.clone(),
                        kind: resource.kind.clone(),
                        message: why.clone(),
                    });
                }
                status.condition = condition;
                status.why = Some(why);
                status.drift = paths(&drift);
            }
            Verdict::Need(need, drift) => {
                let failed = entry.and_then(|entry| entry.failed.clone());
                status.condition = match &failed {
                    Some(_) => Condition::Failed,
                    None => need.condition,
                };
                status.why = failed.or_else(|| need.why.first().cloned());
                status.drift = paths(&drift);
                needs.insert(name, need);
            }
        }
        statuses.push((name.clone(), status));
    }
    let mut statuses: BTreeMap<ResourceName, ResourceStatus> = statuses.into_iter().collect();
    draft.statuses.append(&mut statuses);
    Ok(Judged { needs })
}

fn paths(drift: &[FieldDrift]) -> Vec<String> {
    drift.iter().map(|field| field.path.clone()).collect()
}

fn judge<'a>(
    input: &Input<'a>,
    ordered: &'a Ordered,
    entry: Option<&'a Entry>,
    observation: Option<&Observation>,
    known: &Known<'_>,
) -> Result<Verdict<'a>, CanonicalError> {
    let resource = &ordered.resource;
    let name = &resource.name;
    if let Some(why) = input.forbidden.get(name).or_else(|| input.invalid.get(name)) {
        return Ok(denied(why.clone()));
    }
    Ok(match observation {
        None => unseen(&resource.kind),
        Some(Observation::Unknown { why }) => Verdict::Left(
            Condition::Unknown,
            format!("it could not be observed: {why}"),
            Some(Severity::Unknown),
            Vec::new(),
        ),
        Some(Observation::Pending { why, .. }) => Verdict::Left(Condition::Pending, why.clone(), None, Vec::new()),
        Some(Observation::Absent) => absent(ordered, entry, known, &[])?,
        Some(Observation::Unmade { changes }) => absent(ordered, entry, known, changes)?,
        Some(Observation::Present {
            blocked: Some(why), drift, ..
        }) => Verdict::Left(Condition::Denied, why.clone(), Some(Severity::Denied), drift.clone()),
        Some(Observation::Present {
            external,
            owned: false,
            drift,
            replace,
            ..
        }) => foreign(ordered, external, drift, replace.as_deref()),
        Some(Observation::Present {
            external, drift, replace, ..
        }) => present(input, ordered, entry, known, external, drift, replace.as_deref())?,
    })
}

fn denied<'a>(why: String) -> Verdict<'a> {
    Verdict::Left(Condition::Denied, why, Some(Severity::Denied), Vec::new())
}

fn unseen<'a>(kind: &Kind) -> Verdict<'a> {
    let why = format!("no provider of this Charter makes {kind}: configure one");
    Verdict::Left(Condition::Unknown, why, Some(Severity::Unknown), Vec::new())
}

fn absent<'a>(
    ordered: &'a Ordered,
    entry: Option<&Entry>,
    known: &Known<'_>,
    outside: &[FieldDrift],
) -> Result<Verdict<'a>, CanonicalError> {
    let mut changes = fields::created(&ordered.resource, known);
    changes.extend(fields::drifted(outside));
    let mut tx = Some(ordered.last().position);
    let mut condition = Condition::Pending;
    let why = match entry {
        Some(entry) if entry.state == EntryState::Applied => {
            if unchanged(&ordered.resource, entry)? {
                tx = None;
                condition = Condition::Drifted;
            }
            "it is gone".to_owned()
        }
        Some(entry) if entry.state == EntryState::Intended && entry.failed.is_none() => {
            "it was about to be made, and is not there".to_owned()
        }
        _ => asked(ordered),
    };
    Ok(Verdict::Need(
        Need {
            ordered,
            action: Action::Create,
            external: entry.map(|entry| entry.external.clone()),
            why: vec![why],
            tx,
            changes,
            condition,
        },
        Vec::new(),
    ))
}

fn foreign<'a>(ordered: &'a Ordered, external: &str, drift: &[FieldDrift], replace: Option<&str>) -> Verdict<'a> {
    // What came with a transfer or from another version is taken over: who had it let go of it.
    let resource = &ordered.resource;
    if !resource.adopt && resource.origin.is_none() && ordered.transferred.is_none() {
        return denied(format!(
            "{external} exists and is not Charter's: remove it, or amend the resource with adopt: true"
        ));
    }
    if let Some(why) = replace {
        return denied(format!(
            "{external} can't be adopted as it was ordered ({why}): it would have to be deleted"
        ));
    }
    let mut changes = vec![FieldChange {
        path: LABEL.to_owned(),
        from: None,
        to: Some(serde_json::Value::String(ordered.resource.owner.to_string())),
    }];
    changes.extend(fields::drifted(drift));
    Verdict::Need(
        Need {
            ordered,
            action: Action::Adopt,
            external: Some(external.to_owned()),
            why: vec![taken_over(ordered), asked(ordered)],
            tx: Some(ordered.last().position),
            changes,
            condition: Condition::Pending,
        },
        Vec::new(),
    )
}

/// Why what is there and nobody's may be taken over.
fn taken_over(ordered: &Ordered) -> String {
    match &ordered.resource.origin {
        Some(origin) => format!("it is carried on from {origin}, which has let go of it"),
        None if ordered.transferred.is_some() => "it is there, and its former owner has let go of it".to_owned(),
        None => "it is there, is not Charter's, and the order says adopt".to_owned(),
    }
}

fn present<'a>(
    input: &Input<'_>,
    ordered: &'a Ordered,
    entry: Option<&Entry>,
    known: &Known<'_>,
    external: &str,
    drift: &[FieldDrift],
    replace: Option<&str>,
) -> Result<Verdict<'a>, CanonicalError> {
    let resource = &ordered.resource;
    let differs = !drift.is_empty() || replace.is_some();
    let need = |action, why, tx, changes, condition| {
        let need = Need {
            ordered,
            action,
            external: Some(external.to_owned()),
            why,
            tx,
            changes,
            condition,
        };
        Verdict::Need(need, drift.to_vec())
    };
    let Some(entry) = entry else {
        let mut why = vec!["it was found by its owner label, and is not in the inventory".to_owned()];
        if !differs {
            return Ok(need(Action::Adopt, why, None, Vec::new(), Condition::Pending));
        }
        why.push("it differs from what was ordered".to_owned());
        return Ok(match replace {
            Some(reason) => replaced(input, resource, reason).unwrap_or_else(|| {
                why.push(reason.to_owned());
                need(
                    Action::Replace,
                    why,
                    Some(ordered.last().position),
                    fields::drifted(drift),
                    Condition::Pending,
                )
            }),
            None => need(
                Action::Update,
                why,
                Some(ordered.last().position),
                fields::drifted(drift),
                Condition::Pending,
            ),
        });
    };
    let amended = !unchanged(resource, entry)?;
    let moved = !amended && moved(resource, &entry.resource, known);
    if !amended && !moved && !differs {
        return Ok(Verdict::InSync);
    }
    // Only a resource that was applied whole can drift: until then the difference is the work that is left.
    let mut changes = if differs { fields::drifted(drift) } else { Vec::new() };
    let (reason, tx, condition) = if amended {
        if differs {
            fields::own_fields(&entry.resource, resource, &mut changes)?;
        } else {
            changes = fields::amended(&entry.resource, resource, known)?;
        }
        (asked(ordered), Some(ordered.last().position), Condition::Pending)
    } else if moved {
        if changes.is_empty() {
            changes = fields::amended(&entry.resource, resource, known)?;
        }
        ("a value that it refers to changed".to_owned(), None, Condition::Pending)
    } else if entry.state != EntryState::Applied {
        (
            "its last change was not finished".to_owned(),
            Some(ordered.last().position),
            Condition::Pending,
        )
    } else if resource.on_drift == OnDrift::Report {
        let why = format!("{}; by its order that is only reported", drift_in_words(drift, replace));
        return Ok(Verdict::Left(Condition::Drifted, why, Some(Severity::Drift), drift.to_vec()));
    } else {
        (drift_in_words(drift, replace), None, Condition::Drifted)
    };
    let mut why = vec![reason];
    Ok(match replace {
        Some(reason) => replaced(input, resource, reason).unwrap_or_else(|| {
            why.push(reason.to_owned());
            need(Action::Replace, why, tx, changes, condition)
        }),
        None => need(Action::Update, why, tx, changes, condition),
    })
}

/// Why a resource may not be replaced, if it may not: replacing needs what deleting needs.
fn replaced<'a>(input: &Input<'_>, resource: &Resource, reason: &str) -> Option<Verdict<'a>> {
    if input.mode == Mode::Frozen {
        return Some(Verdict::Left(
            Condition::Drifted,
            format!("it would have to be replaced ({reason}), and a frozen channel deletes nothing"),
            Some(Severity::Notice),
            Vec::new(),
        ));
    }
    let hindrance = if resource.protect {
        "it is protected: amend it with protect: false first"
    } else if resource.on_retire == OnRetire::Retain {
        "it is to be kept when retired: amend it with on_retire: delete first"
    } else {
        return None;
    };
    Some(denied(format!("it would have to be replaced ({reason}), and {hindrance}")))
}

/// Whether a value that the resource refers to is another one than when it was applied.
fn moved(resource: &Resource, applied: &Resource, known: &Known<'_>) -> bool {
    resource.spec.refers() && follows(&resource.spec, &applied.spec, known) == Follows::No
}

fn drift_in_words(drift: &[FieldDrift], replace: Option<&str>) -> String {
    const SHOWN: usize = 3;
    let mut paths: Vec<&str> = drift.iter().map(|field| field.path.as_str()).take(SHOWN).collect();
    let more = format!("and {} more", drift.len().saturating_sub(SHOWN));
    if drift.len() > SHOWN {
        paths.push(&more);
    }
    match (paths.is_empty(), replace) {
        (false, _) => format!("it drifted in {}", paths.join(", ")),
        (true, Some(why)) => format!("it drifted: {why}"),
        (true, None) => "it drifted".to_owned(),
    }
}

/// The transaction id that stands for a transaction that was not submitted yet. No real one is all zeros.
pub(crate) const NOT_SUBMITTED: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What the last transaction did, in words.
pub(super) fn asked(ordered: &Ordered) -> String {
    let last = ordered.last();
    let verb = match (&ordered.retired, &ordered.transferred, &ordered.amended) {
        (Some(_), _, _) => "retired",
        (None, Some(transferred), _) if transferred == last => "transferred",
        (None, _, Some(_)) => "amended",
        (None, _, None) => "ordered",
    };
    if last.tx_id.as_str() == NOT_SUBMITTED {
        return format!("would be {verb} by {}: not submitted yet", last.by);
    }
    format!(
        "{verb} by {} in block {}, transaction {}",
        last.by, last.position.block, last.position.tx
    )
}
