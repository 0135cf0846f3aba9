//! References: which values are known, and what a resource is with the values in place.

use std::borrow::Cow;
use std::collections::BTreeMap;

use providers::Wanted;
use serde_json::{Map, Value};
use state::canonical::CanonicalError;
use state::desired::{DesiredState, Ordered};
use state::ids::{Kind, MemberId, OutputName, ResourceName};
use state::inventory::{Entry, Inventory};
use state::observation::Observation;
use state::report::Condition;
use state::reported::ReportedState;
use state::resource::{Origin, Outputs, Resource};
use state::spec::{Reference, Spec, Unresolved};

use super::alongside::Alongside;

/// Where values of references come from: this member's own inventory and observations, and the others' reports.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The member whose Charter this is.
    pub member: &'a MemberId,
    /// What was ordered: it says who owns what, and what was imported.
    pub desired: &'a DesiredState,
    /// What this member owns outside.
    pub inventory: &'a Inventory,
    /// What the others report.
    pub reported: &'a ReportedState,
    /// What was observed in this pass, once it was.
    pub observed: Option<&'a BTreeMap<ResourceName, Observation>>,
    /// Outputs of steps that this pass has finished: they are newer than everything else.
    pub fresh: Option<&'a BTreeMap<ResourceName, Outputs>>,
}

impl Known<'_> {
    /// The value of a reference, if it is known.
    pub fn value(&self, reference: &Reference) -> Option<Value> {
        self.output(reference.resource.as_str(), reference.output.as_str()).cloned()
    }

    /// One output of one resource, if it is known.
    pub fn output(&self, resource: &str, output: &str) -> Option<&Value> {
        if let Some(outputs) = self.fresh.and_then(|fresh| fresh.get(resource)) {
            return outputs.get(output);
        }
        let Some(ordered) = self.desired.resources().get(resource) else {
            return self.desired.imported(resource)?.import.outputs.get(output);
        };
        if ordered.resource.owner == *self.member {
            match self.observed.and_then(|observed| observed.get(resource)) {
                Some(Observation::Present { owned: true, outputs, .. }) => outputs.get(output),
                Some(Observation::Absent | Observation::Unmade { .. } | Observation::Present { .. }) => None,
                Some(Observation::Pending { .. } | Observation::Unknown { .. }) | None => {
                    self.inventory.get(&ordered.resource.name)?.outputs.get(output)
                }
            }
        } else {
            let status = self.reported.status(&ordered.resource.owner, &ordered.resource.name)?;
            (status.condition == Condition::InSync).then(|| status.exports.get(output))?
        }
    }

    /// The specification with values in the place of its references.
    pub fn resolve(&self, spec: &Spec) -> Result<Spec, Unresolved> {
        spec.resolve(&|reference| self.value(reference))
    }
}

/// A resource to observe, with its references replaced as far as they are known.
#[derive(Clone, Debug)]
pub struct OwnedWanted<'a> {
    /// Its name.
    pub name: &'a ResourceName,
    /// What it is outside: for something that was ordered anew as another kind, still the old one.
    pub kind: &'a Kind,
    /// Where it was ordered first, if it was carried here.
    pub origin: Option<&'a Origin>,
    /// What to compare with; none when values are not known yet, and for what is going.
    pub resource: Option<Cow<'a, Resource>>,
}

impl OwnedWanted<'_> {
    /// The form that a provider takes.
    pub fn as_wanted(&self) -> Wanted<'_> {
        Wanted {
            name: self.name,
            kind: self.kind,
            origin: self.origin,
            resource: self.resource.as_deref(),
        }
    }
}

/// Names everything that this member has to observe before it can plan.
///
/// These are its own resources; what is in its inventory and no longer wanted; and what was retired before its absence was
/// reported, so that a lost store can't turn «not in my inventory» into «gone».
pub fn wanted<'a>(
    desired: &'a DesiredState,
    inventory: &'a Inventory,
    reported: &ReportedState,
    member: &MemberId,
) -> Result<Vec<OwnedWanted<'a>>, CanonicalError> {
    let known = Known {
        member,
        desired,
        inventory,
        reported,
        observed: None,
        fresh: None,
    };
    let mut all = Vec::with_capacity(desired.resources().len());
    let mut entries = Alongside::new(inventory.entries());
    for (name, ordered) in desired.resources() {
        if ordered.resource.owner != *member {
            continue;
        }
        let entry = entries.get(name);
        all.push(match entry {
            Some(entry) if entry.resource.kind != ordered.resource.kind => going(entry),
            _ => OwnedWanted {
                name,
                kind: &ordered.resource.kind,
                origin: ordered.resource.origin.as_deref(),
                resource: comparable(&ordered.resource, entry, &known)?,
            },
        });
    }
    let mut ordered = Alongside::new(desired.resources());
    for (name, entry) in inventory.entries() {
        if ordered.get(name).is_none_or(|ordered| ordered.resource.owner != *member) {
            all.push(going(entry));
        }
    }
    for (name, ordered) in unreported(desired, reported, member) {
        if inventory.get(name).is_none() {
            // What was released has no record any more: only its order says where it was left.
            all.push(OwnedWanted {
                name,
                kind: &ordered.resource.kind,
                origin: ordered.resource.origin.as_deref(),
                resource: comparable(&ordered.resource, None, &known)?,
            });
        }
    }
    Ok(all)
}

/// What was retired, and neither its absence nor its release was reported yet.
pub(super) fn unreported<'a>(
    desired: &'a DesiredState,
    reported: &ReportedState,
    member: &MemberId,
) -> impl Iterator<Item = (&'a ResourceName, &'a Ordered)> {
    desired.retired().iter().filter(move |(name, ordered)| {
        ordered.resource.owner == *member
            && reported
                .status(member, name)
                .is_some_and(|status| !matches!(status.condition, Condition::Deleted | Condition::Retained))
    })
}

fn going(entry: &Entry) -> OwnedWanted<'_> {
    OwnedWanted {
        name: &entry.resource.name,
        kind: &entry.resource.kind,
        origin: entry.resource.origin.as_deref(),
        resource: None,
    }
}

fn comparable<'a>(
    resource: &'a Resource,
    entry: Option<&'a Entry>,
    known: &Known<'_>,
) -> Result<Option<Cow<'a, Resource>>, CanonicalError> {
    if !resource.spec.refers() {
        return Ok(Some(Cow::Borrowed(resource)));
    }
    if let Some(entry) = entry
        && same_frame(resource, &entry.resource)
        && follows(&resource.spec, &entry.resource.spec, known) == Follows::Surely
    {
        return Ok(Some(Cow::Borrowed(&entry.resource)));
    }
    Ok(match known.resolve(&resource.spec) {
        Ok(spec) => Some(Cow::Owned(with_spec(resource, spec))),
        // The last values that are known to have been right go on being healed.
        Err(_) => match entry {
            Some(entry) if entry.ordered == resource.digest()? => Some(Cow::Borrowed(&entry.resource)),
            _ => None,
        },
    })
}

/// The resource with another specification.
pub(super) fn with_spec(resource: &Resource, spec: Spec) -> Resource {
    Resource {
        name: resource.name.clone(),
        kind: resource.kind.clone(),
        owner: resource.owner.clone(),
        region: resource.region.clone(),
        size: resource.size.clone(),
        spec,
        depends_on: resource.depends_on.clone(),
        exports: resource.exports.clone(),
        on_retire: resource.on_retire,
        on_drift: resource.on_drift,
        protect: resource.protect,
        adopt: resource.adopt,
        origin: resource.origin.clone(),
    }
}

/// The form of a resource that the inventory keeps: values in the place of references, and the dependencies that the references
/// were among `depends_on`, so that a later deletion still knows its order.
pub fn recorded(ordered: &Resource, spec: Spec) -> Resource {
    let mut resource = with_spec(ordered, spec);
    resource.depends_on = ordered.dependencies();
    resource
}

/// Whether the order is the one that the entry was made from.
pub(super) fn unchanged(resource: &Resource, entry: &Entry) -> Result<bool, CanonicalError> {
    // Without references the inventory holds the order itself, and no digest is needed to compare.
    if !resource.spec.refers() {
        return Ok(*resource == entry.resource);
    }
    Ok(resource.digest()? == entry.ordered)
}

fn same_frame(a: &Resource, b: &Resource) -> bool {
    a.region == b.region
        && a.size == b.size
        && a.exports == b.exports
        && a.on_retire == b.on_retire
        && a.on_drift == b.on_drift
        && a.protect == b.protect
        && a.adopt == b.adopt
        && a.origin == b.origin
}

/// How an applied specification stands to an order with references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Follows {
    /// It is not the order with the known values in place.
    No,
    /// It is, as far as values are known.
    Perhaps,
    /// It is, and every value is known.
    Surely,
}

/// Compares an order with what was applied, with the known values in the place of references.
pub(super) fn follows(ordered: &Spec, applied: &Spec, known: &Known<'_>) -> Follows {
    let value = |reference: &Reference| known.output(reference.resource.as_str(), reference.output.as_str());
    match ordered.becomes(applied, &value) {
        Some(true) => Follows::Surely,
        Some(false) => Follows::No,
        None => map_follows(ordered.as_map(), applied.as_map(), known),
    }
}

fn map_follows(ordered: &Map<String, Value>, applied: &Map<String, Value>, known: &Known<'_>) -> Follows {
    if ordered.len() != applied.len() {
        return Follows::No;
    }
    let mut all = Follows::Surely;
    for ((key, ordered), (name, applied)) in ordered.iter().zip(applied) {
        if key != name {
            return Follows::No;
        }
        all = all.min(value_follows(ordered, applied, known));
        if all == Follows::No {
            break;
        }
    }
    all
}

fn value_follows(ordered: &Value, applied: &Value, known: &Known<'_>) -> Follows {
    if let Some((resource, output)) = reference(ordered) {
        return match known.output(resource, output) {
            Some(value) if value == applied => Follows::Surely,
            Some(_) => Follows::No,
            None => Follows::Perhaps,
        };
    }
    match (ordered, applied) {
        (Value::Object(ordered), Value::Object(applied)) => map_follows(ordered, applied, known),
        (Value::Array(ordered), Value::Array(applied)) if ordered.len() == applied.len() => ordered
            .iter()
            .zip(applied)
            .map(|(ordered, applied)| value_follows(ordered, applied, known))
            .min()
            .unwrap_or(Follows::Surely),
        _ if ordered == applied => Follows::Surely,
        _ => Follows::No,
    }
}

/// The resource and output that a value refers to. The specification was checked when it was made.
pub(super) fn reference(value: &Value) -> Option<(&str, &str)> {
    let text = value.as_object()?.get("$ref")?.as_str()?;
    text.split_once(".outputs.")
}

/// The outputs that a report shows.
pub(super) fn exported(resource: &Resource, outputs: &Outputs) -> Outputs {
    let shown = |output: &OutputName| Some((output.clone(), outputs.get(output.as_str())?.clone()));
    resource.exports.iter().filter_map(shown).collect()
}
