//! Ordering, amending and retiring resources.

use serde_json::json;
use state::acts;
use state::acts::approvals::Wanted;
use state::acts::handovers::HandOver;
use state::acts::transfers::Succession;
use state::agreement::Agreement;
use state::desired::Succeeded;
use state::event::EventBody;
use state::ids::{MemberId, ResourceName};
use state::resource::Resource;
use state::rules::{self, Refusal, Verdict};
use state::size::Totals;

use crate::arguments::{self, MAX_ARGUMENT_BYTES, Names};
use crate::effect::{Call, Effect};
use crate::error::Refused;
use crate::records::{self, AGREEMENT, INDEXED, OrderedRecord, USAGE, Usage};
use crate::snapshot::Snapshot;

/// Orders new resources.
pub(crate) fn order(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("order", rest, MAX_ARGUMENT_BYTES)?;
    let resources = arguments::resources("order", argument)?;
    change(snapshot, call, Wanted::Order { resources })
}

/// Changes resources in force.
pub(crate) fn amend(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("amend", rest, MAX_ARGUMENT_BYTES)?;
    let resources = arguments::resources("amend", argument)?;
    change(snapshot, call, Wanted::Amend { resources })
}

/// Retires resources in force.
pub(crate) fn retire(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("retire", rest, MAX_ARGUMENT_BYTES)?;
    let Names { resources } = arguments::json("retire", argument)?;
    change(snapshot, call, Wanted::Retire { resources })
}

/// Hands resources over to another version of the DAO.
pub(crate) fn hand_over(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("hand_over", rest, MAX_ARGUMENT_BYTES)?;
    let hand_over: HandOver = arguments::json("hand_over", argument)?;
    change(snapshot, call, Wanted::HandOver { hand_over })
}

/// Holds a change to the rules. It is in force with this transaction, or stands as a proposal until it is approved.
fn change(snapshot: &mut Snapshot<'_>, call: &Call<'_>, wanted: Wanted) -> Result<Effect, Refused> {
    let by = snapshot.submitter(&call.msp)?;
    let agreement = snapshot.in_force()?;
    let count = wanted.names().len();
    if let Verdict::Awaits(_) = rules::check(snapshot, agreement.as_ref(), &by, call.at, wanted.change())? {
        let answer = json!({ "resources": count, "proposal": call.tx_id });
        return crate::acts::take(snapshot, call, EventBody::ChangeProposed(wanted), &answer);
    }
    let (body, done) = match wanted {
        Wanted::Order { resources } => (
            EventBody::ResourcesOrdered {
                resources: resources.clone(),
            },
            acts::Effect::Order(by.clone(), resources),
        ),
        Wanted::Amend { resources } => (
            EventBody::ResourcesAmended {
                resources: resources.clone(),
            },
            acts::Effect::Amend(by.clone(), resources),
        ),
        Wanted::Retire { resources } => (
            EventBody::ResourcesRetired {
                resources: resources.clone(),
            },
            acts::Effect::Retire(by.clone(), resources),
        ),
        Wanted::HandOver { hand_over } => {
            return crate::acts::take(snapshot, call, EventBody::HandedOver(hand_over), &json!({ "resources": count }));
        }
    };
    let mut effect = Effect::new(by, body, &json!({ "resources": count }))?;
    put_into_force(snapshot, call, vec![done], &mut effect)?;
    Ok(effect)
}

/// Writes what changes of resources that the rules allow make of the state. Within one transaction no resource stands in two of them.
pub(crate) fn put_into_force(
    snapshot: &mut Snapshot<'_>,
    call: &Call<'_>,
    changes: Vec<acts::Effect>,
    effect: &mut Effect,
) -> Result<(), Refused> {
    if changes.is_empty() {
        return Ok(());
    }
    let quotas = has_quotas(snapshot.in_force()?.as_ref());
    // A change that counts nothing doesn't read the count either: it would conflict with every order beside it.
    let counts = quotas || changes.iter().any(|change| !matches!(change, acts::Effect::Amend(..)));
    let before = if counts { snapshot.usage()? } else { Usage::default() };
    let mut usage = before.clone();
    if usage.totals.is_none() && quotas {
        usage.totals = Some(Totals::default());
    }
    for change in changes {
        match change {
            acts::Effect::Order(by, resources) => {
                for resource in resources {
                    usage.resources += 1;
                    usage.totals.iter_mut().for_each(|totals| totals.add(&resource));
                    put_new(snapshot, call, &by, resource, effect)?;
                }
            }
            acts::Effect::Amend(by, resources) => {
                for resource in resources {
                    if let Some(totals) = &mut usage.totals {
                        totals.remove(&present(snapshot, &resource.name)?.resource);
                        totals.add(&resource);
                    }
                    put_changed(snapshot, call, &by, resource, effect)?;
                }
            }
            acts::Effect::Retire(by, names) => {
                for name in &names {
                    leave(snapshot, name, &mut usage)?;
                    put_retired(snapshot, call, &by, name, Leaving::AsOrdered, effect)?;
                }
            }
            acts::Effect::Release(by, names) => {
                for name in &names {
                    leave(snapshot, name, &mut usage)?;
                    put_retired(snapshot, call, &by, name, Leaving::Kept, effect)?;
                }
            }
            acts::Effect::Transfer(to, names) => {
                for name in &names {
                    let mut record = present(snapshot, name)?.clone();
                    usage.totals.iter_mut().for_each(|totals| totals.remove(&record.resource));
                    record.resource.owner = to.clone();
                    usage.totals.iter_mut().for_each(|totals| totals.add(&record.resource));
                    record.transferred = Some(call.submitted(&effect.by));
                    record.orderer = None;
                    effect.put(records::resource(name), &record)?;
                }
            }
            acts::Effect::Succeed(succession) => succeed(snapshot, call, *succession, &mut usage, effect)?,
        }
    }
    if usage != before {
        effect.put(USAGE.into(), &usage)?;
    }
    Ok(())
}

/// Puts a newcomer in a party's place.
fn succeed(
    snapshot: &mut Snapshot<'_>,
    call: &Call<'_>,
    succession: Succession,
    usage: &mut Usage,
    effect: &mut Effect,
) -> Result<(), Refused> {
    let by = call.submitted(&effect.by);
    let mut agreement = snapshot.standing()?.ok_or(Refused::NoAgreement)?;
    agreement.succeeded.push(Succeeded {
        from: succession.from.clone(),
        to: succession.to.clone(),
        before: agreement.digest,
        by: by.clone(),
    });
    agreement.digest = succession.agreement.digest()?;
    agreement.agreement = succession.agreement;
    agreement.accepted.remove(&succession.from);
    agreement.accepted.insert(succession.to, by.clone());
    effect.put(AGREEMENT.into(), &agreement)?;
    for (name, (owner, orderer)) in succession.resources {
        let mut record = present(snapshot, &name)?.clone();
        if record.resource.owner != owner {
            usage.totals.iter_mut().for_each(|totals| totals.remove(&record.resource));
            record.resource.owner = owner;
            usage.totals.iter_mut().for_each(|totals| totals.add(&record.resource));
            record.transferred = Some(by.clone());
        }
        record.orderer = Some(orderer);
        effect.put(records::resource(&name), &record)?;
    }
    Ok(())
}

/// What becomes of something that is retired.
#[derive(Clone, Copy)]
enum Leaving {
    AsOrdered,
    Kept,
}

/// Counts a resource out.
fn leave(snapshot: &mut Snapshot<'_>, name: &ResourceName, usage: &mut Usage) -> Result<(), Refused> {
    let damaged = || Refused::Damaged(USAGE.into());
    usage.resources = usage.resources.checked_sub(1).ok_or_else(damaged)?;
    if let Some(totals) = &mut usage.totals {
        totals.remove(&present(snapshot, name)?.resource);
    }
    Ok(())
}

fn has_quotas(agreement: Option<&Agreement>) -> bool {
    let clauses = agreement.and_then(|agreement| agreement.clauses.as_ref());
    clauses.is_some_and(|clauses| !clauses.quotas.is_empty())
}

fn put_new(snapshot: &mut Snapshot<'_>, call: &Call<'_>, by: &MemberId, resource: Resource, effect: &mut Effect) -> Result<(), Refused> {
    let name = resource.name.clone();
    if snapshot.retired(&name)?.is_some() {
        effect.delete(records::retired(&name));
    }
    for on in resource.dependencies() {
        effect.put_bytes(records::dependent(&on, &name), INDEXED);
    }
    let record = OrderedRecord {
        resource,
        ordered: call.submitted(by),
        amended: None,
        transferred: None,
        orderer: None,
        retired: None,
    };
    Ok(effect.put(records::resource(&name), &record)?)
}

fn put_changed(
    snapshot: &mut Snapshot<'_>,
    call: &Call<'_>,
    by: &MemberId,
    resource: Resource,
    effect: &mut Effect,
) -> Result<(), Refused> {
    let name = resource.name.clone();
    let present = present(snapshot, &name)?;
    let before = present.resource.dependencies();
    let after = resource.dependencies();
    for on in before.difference(&after) {
        effect.delete(records::dependent(on, &name));
    }
    for on in after.difference(&before) {
        effect.put_bytes(records::dependent(on, &name), INDEXED);
    }
    let record = OrderedRecord {
        resource,
        ordered: present.ordered.clone(),
        amended: Some(call.submitted(by)),
        transferred: present.transferred.clone(),
        orderer: present.orderer.clone(),
        retired: None,
    };
    Ok(effect.put(records::resource(&name), &record)?)
}

fn put_retired(
    snapshot: &mut Snapshot<'_>,
    call: &Call<'_>,
    by: &MemberId,
    name: &ResourceName,
    leaving: Leaving,
    effect: &mut Effect,
) -> Result<(), Refused> {
    let mut record = present(snapshot, name)?.clone();
    if let Leaving::Kept = leaving {
        record.resource.release();
    }
    for on in record.resource.dependencies() {
        effect.delete(records::dependent(&on, name));
    }
    record.retired = Some(call.submitted(by));
    effect.delete(records::resource(name));
    Ok(effect.put(records::retired(name), &record)?)
}

fn present<'a>(snapshot: &'a mut Snapshot<'_>, name: &ResourceName) -> Result<&'a OrderedRecord, Refused> {
    snapshot.resource(name)?.ok_or_else(|| Refusal::Missing(name.clone()).into())
}
