//! Ordering, amending and retiring resources.

use serde_json::json;
use state::acts;
use state::event::EventBody;
use state::ids::{MemberId, ResourceName};
use state::resource::Resource;
use state::rules::{self, Change, Refusal};

use crate::arguments::{self, MAX_ARGUMENT_BYTES, Names};
use crate::effect::{Call, Effect};
use crate::error::Refused;
use crate::records::{self, INDEXED, OrderedRecord, USAGE, Usage};
use crate::snapshot::Snapshot;

/// Orders new resources.
pub(crate) fn order(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("order", rest, MAX_ARGUMENT_BYTES)?;
    let resources = arguments::resources("order", argument)?;
    let by = allowed(snapshot, call, Change::Order(&resources))?;
    let body = EventBody::ResourcesOrdered {
        resources: resources.clone(),
    };
    let mut effect = Effect::new(by.clone(), body, &json!({ "resources": resources.len() }))?;
    put_into_force(snapshot, call, vec![acts::Effect::Order(by, resources)], &mut effect)?;
    Ok(effect)
}

/// Changes resources in force.
pub(crate) fn amend(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("amend", rest, MAX_ARGUMENT_BYTES)?;
    let resources = arguments::resources("amend", argument)?;
    let by = allowed(snapshot, call, Change::Amend(&resources))?;
    let body = EventBody::ResourcesAmended {
        resources: resources.clone(),
    };
    let mut effect = Effect::new(by.clone(), body, &json!({ "resources": resources.len() }))?;
    put_into_force(snapshot, call, vec![acts::Effect::Amend(by, resources)], &mut effect)?;
    Ok(effect)
}

/// Retires resources in force.
pub(crate) fn retire(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("retire", rest, MAX_ARGUMENT_BYTES)?;
    let Names { resources: names } = arguments::json("retire", argument)?;
    let by = allowed(snapshot, call, Change::Retire(&names))?;
    let body = EventBody::ResourcesRetired { resources: names.clone() };
    let mut effect = Effect::new(by.clone(), body, &json!({ "resources": names.len() }))?;
    put_into_force(snapshot, call, vec![acts::Effect::Retire(by, names)], &mut effect)?;
    Ok(effect)
}

/// Writes what changes of resources that the rules allow make of the state. Within one transaction no resource stands in two of them.
pub(crate) fn put_into_force(
    snapshot: &mut Snapshot<'_>,
    call: &Call<'_>,
    changes: Vec<acts::Effect>,
    effect: &mut Effect,
) -> Result<(), Refused> {
    let mut used = None;
    for change in changes {
        match change {
            acts::Effect::Order(by, resources) => {
                let before = count(snapshot, used)?;
                used = Some(before + resources.len() as u64);
                for resource in resources {
                    put_new(snapshot, call, &by, resource, effect)?;
                }
            }
            acts::Effect::Amend(by, resources) => {
                for resource in resources {
                    put_changed(snapshot, call, &by, resource, effect)?;
                }
            }
            acts::Effect::Retire(by, names) => {
                let before = count(snapshot, used)?;
                let left = before.checked_sub(names.len() as u64);
                used = Some(left.ok_or_else(|| Refused::Damaged(USAGE.into()))?);
                for name in &names {
                    put_retired(snapshot, call, &by, name, effect)?;
                }
            }
        }
    }
    if let Some(resources) = used {
        effect.put(USAGE.into(), &Usage { resources })?;
    }
    Ok(())
}

fn count(snapshot: &mut Snapshot<'_>, so_far: Option<u64>) -> Result<u64, Refused> {
    match so_far {
        Some(count) => Ok(count),
        None => Ok(snapshot.usage()?.resources),
    }
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
        retired: None,
    };
    Ok(effect.put(records::resource(&name), &record)?)
}

fn put_retired(
    snapshot: &mut Snapshot<'_>,
    call: &Call<'_>,
    by: &MemberId,
    name: &ResourceName,
    effect: &mut Effect,
) -> Result<(), Refused> {
    let mut record = present(snapshot, name)?.clone();
    for on in record.resource.dependencies() {
        effect.delete(records::dependent(&on, name));
    }
    record.retired = Some(call.submitted(by));
    effect.delete(records::resource(name));
    Ok(effect.put(records::retired(name), &record)?)
}

/// Holds a change to the rules, and tells who asks for it.
fn allowed(snapshot: &mut Snapshot<'_>, call: &Call<'_>, change: Change<'_>) -> Result<MemberId, Refused> {
    let by = snapshot.submitter(&call.msp)?;
    let standing = snapshot.agreement()?.filter(|record| record.in_force);
    let agreement = standing.as_ref().map(|record| &record.agreement);
    rules::check(snapshot, agreement, &by, call.at, change)?;
    Ok(by)
}

fn present<'a>(snapshot: &'a mut Snapshot<'_>, name: &ResourceName) -> Result<&'a OrderedRecord, Refused> {
    snapshot.resource(name)?.ok_or_else(|| Refusal::Missing(name.clone()).into())
}
