//! A hand-over between versions of a DAO: what its member orders on the one channel and lets go of on the other, checked before a word is said.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use state::acts::handovers::{HandOver, HandOverRecord};
use state::desired::{DesiredState, Present};
use state::ids::{Channel, MemberId, ResourceName};
use state::report::Condition;
use state::resource::Resource;
use state::rules::{self, Change, CheckError, Refusal};
use state::spec::SpecError;
use state::time::Timestamp;
use thiserror::Error;

use crate::view::ChannelView;

/// What a member asks for: names of its resources on the earlier channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What goes on as it is, each with its name on the later channel.
    pub carry: BTreeMap<ResourceName, ResourceName>,
    /// What the later version has another resource for, and which.
    pub replace: BTreeMap<ResourceName, ResourceName>,
    /// What the later version does without.
    pub retire: BTreeSet<ResourceName>,
}

/// What is left to be said for a hand-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What is ordered on the later channel first, with its origin. Empty when it was.
    pub orders: Vec<Resource>,
    /// What is handed over on the earlier channel then. Empty when it was.
    pub hand_over: HandOver,
}

/// A hand-over can't be prepared. Nothing was said.
#[derive(Debug, Error)]
pub enum HandOverError {
    /// It is not there.
    #[error("{resource} is not ordered on {channel}")]
    NotOrdered {
        /// The resource.
        resource: ResourceName,
        /// The channel.
        channel: Channel,
    },
    /// It stands in two lists.
    #[error("{0} can't become two things")]
    Twice(ResourceName),
    /// What would replace it is not in sync.
    #[error("{resource} can't be replaced by {by} yet: on {channel} {by} is {how}")]
    NotReady {
        /// What would go.
        resource: ResourceName,
        /// What would stand in its place.
        by: ResourceName,
        /// The later channel.
        channel: Channel,
        /// How it stands.
        how: String,
    },
    /// The later channel has something else of that name.
    #[error("{channel} has another resource {name} already: carry it under another name (--carry {resource}=NAME)")]
    Taken {
        /// What would be carried.
        resource: ResourceName,
        /// The name there.
        name: ResourceName,
        /// The later channel.
        channel: Channel,
    },
    /// It needs something that isn't there.
    #[error("{resource} needs {on}, which goes over with none of these words and is not on {channel}: carry it too, or replace it")]
    Needs {
        /// What would be carried.
        resource: ResourceName,
        /// What it needs.
        on: ResourceName,
        /// The later channel.
        channel: Channel,
    },
    /// Its specification does not take the new names.
    #[error("{resource} can't be written with the names of the later channel")]
    Spec {
        /// The resource.
        resource: ResourceName,
        /// Why.
        #[source]
        source: SpecError,
    },
    /// A rule of a channel forbids it.
    #[error("{channel} would refuse it")]
    Refused {
        /// The channel.
        channel: Channel,
        /// Why.
        #[source]
        source: Refusal,
    },
}

/// Works out what has to be said on both channels. What was said already is left out, so that it can be asked for again after anything.
pub fn prepare(member: &MemberId, from: &ChannelView, to: &ChannelView, asked: &Asked, now: Timestamp) -> Result<Prepared, HandOverError> {
    let (earlier, later) = (&from.desired, &to.desired);
    let channel = later.channel();
    let mut seen = BTreeSet::new();
    for name in asked.carry.keys().chain(asked.replace.keys()).chain(&asked.retire) {
        if !seen.insert(name) {
            return Err(HandOverError::Twice(name.clone()));
        }
    }
    let mut orders = Vec::new();
    for (name, new) in &asked.carry {
        if !done(earlier, channel, name) {
            orders.extend(carried(from, to, asked, name, new)?);
        }
    }
    for (resource, by) in &asked.replace {
        if let Some(how) = unready(to, by).filter(|_| !done(earlier, channel, resource)) {
            return Err(HandOverError::NotReady {
                resource: resource.clone(),
                by: by.clone(),
                channel: channel.clone(),
                how,
            });
        }
    }
    let open = |names: &BTreeMap<ResourceName, ResourceName>| {
        let mut open = names.clone();
        open.retain(|name, _| !done(earlier, channel, name));
        open
    };
    let hand_over = HandOver {
        to: channel.clone(),
        carried: open(&asked.carry),
        replaced: open(&asked.replace),
        retired: asked.retire.iter().filter(|name| !done(earlier, channel, name)).cloned().collect(),
    };
    if hand_over.leaving().next().is_some() {
        allowed(earlier, member, now, Change::HandOver(&hand_over))?;
    }
    if !orders.is_empty() {
        allowed(later, member, now, Change::Order(&orders))?;
    }
    Ok(Prepared { orders, hand_over })
}

/// Whether a resource was handed over to a channel, and not ordered again since.
fn done(earlier: &DesiredState, to: &Channel, name: &ResourceName) -> bool {
    let mut records = earlier.records().all::<HandOverRecord>();
    !earlier.resources().contains_key(name) && records.any(|record| record.hand_over.to == *to && record.hand_over.becomes(name).is_some())
}

/// The order of something that is carried, with the names of the later channel; none when it stands there.
fn carried(
    from: &ChannelView,
    to: &ChannelView,
    asked: &Asked,
    name: &ResourceName,
    new: &ResourceName,
) -> Result<Option<Resource>, HandOverError> {
    let (earlier, later) = (&from.desired, &to.desired);
    let ordered = earlier.resources().get(name).ok_or_else(|| HandOverError::NotOrdered {
        resource: name.clone(),
        channel: earlier.channel().clone(),
    })?;
    let origin = ordered.resource.origin(earlier.channel());
    if let Some(present) = later.resources().get(new) {
        if present.resource.origin.as_deref() == Some(&origin) {
            return Ok(None);
        }
        return Err(HandOverError::Taken {
            resource: name.clone(),
            name: new.clone(),
            channel: later.channel().clone(),
        });
    }
    let there = |on: &ResourceName| {
        let named = asked.carry.get(on).or_else(|| asked.replace.get(on)).unwrap_or(on);
        let known = asked.carry.contains_key(on) || later.resources().contains_key(named) || later.imported(named.as_str()).is_some();
        known.then(|| named.clone())
    };
    let mut names = BTreeMap::new();
    for on in ordered.resource.dependencies() {
        let named = there(&on).ok_or_else(|| HandOverError::Needs {
            resource: name.clone(),
            on: on.clone(),
            channel: later.channel().clone(),
        })?;
        names.insert(on, named);
    }
    let mut resource = ordered.resource.clone();
    resource.spec = resource.spec.renamed(&names).map_err(|source| HandOverError::Spec {
        resource: name.clone(),
        source,
    })?;
    resource.depends_on = resource.depends_on.iter().filter_map(|on| names.get(on)).cloned().collect();
    resource.name = new.clone();
    resource.adopt = false;
    resource.origin = Some(Box::new(origin));
    Ok(Some(resource))
}

/// How something stands that is not in sync; none when it is.
fn unready(to: &ChannelView, by: &ResourceName) -> Option<String> {
    let Some(ordered) = to.desired.resources().get(by) else {
        return Some("not ordered".to_owned());
    };
    match to.reported.status(&ordered.resource.owner, by) {
        Some(status) if status.condition == Condition::InSync => None,
        Some(status) => Some(format!("{} by its owner's last report", status.condition)),
        None => Some("in no report of its owner".to_owned()),
    }
}

fn allowed(desired: &DesiredState, by: &MemberId, at: Timestamp, change: Change<'_>) -> Result<(), HandOverError> {
    match rules::check(&mut Present::new(desired), desired.in_force(), by, at, change) {
        Ok(_) => Ok(()),
        Err(CheckError::Refused(source)) => Err(HandOverError::Refused {
            channel: desired.channel().clone(),
            source,
        }),
        Err(CheckError::View(never)) => {
            let never: Infallible = never;
            match never {}
        }
    }
}
