//! What a pass will do, decided before anything is done: a graph of steps with their reasons.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::action::Action;
use crate::canonical::{self, CanonicalError, Digest};
use crate::event::Position;
use crate::ids::{Channel, Kind, MemberId, ResourceName};
use crate::report::ResourceStatus;
use crate::resource::Resource;

/// One field that a step changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldChange {
    /// The field, as a JSON pointer into the specification.
    pub path: String,
    /// What it is now; none: not there, or not to be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What it will be; none: not there, not known yet, or not to be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// The resource as ordered: with references, and for a deletion as it was applied last.
    pub resource: Resource,
    /// The digest of the resource as ordered.
    pub ordered: Digest,
    /// The name outside, where the inventory or an observation knows it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// Why, one sentence each, for people.
    pub why: Vec<String>,
    /// The transaction that asked for it; none when only the world outside changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<Position>,
    /// The fields that it changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// The steps of this plan that have to be done before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub after: BTreeSet<ResourceName>,
}

/// A resource that can't be worked on yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// The resources that it waits for, with what is known of each.
    pub on: BTreeMap<ResourceName, String>,
    /// Why, one sentence.
    pub why: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Notice,
    /// The resource could not be observed: nothing is decided on it.
    Unknown,
    /// The real thing drifted and is not healed, by agreement.
    Drift,
    /// A rule forbids what was ordered.
    Denied,
}

/// Something that the plan leaves undone, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// The resource that it is about.
    pub resource: ResourceName,
    /// What it is.
    pub kind: Kind,
    /// One sentence.
    pub message: String,
}

/// What the plan was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The channel.
    pub channel: Channel,
    /// The member whose resources it is about.
    pub member: MemberId,
    /// The commit of `desired/<channel>`, hexadecimal.
    pub desired: String,
    /// The commit of `reported/<channel>`, if there is one.
    pub reported: Option<String>,
    /// The commit of `actual/<channel>`, if there is one.
    pub actual: Option<String>,
    /// The last desired-state transaction.
    pub position: Position,
}

/// What a pass will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it was made from.
    pub base: Base,
    /// The steps, one a resource.
    pub steps: BTreeMap<ResourceName, Step>,
    /// What can't be worked on yet.
    pub waits: BTreeMap<ResourceName, Wait>,
    /// What is left undone.
    pub findings: Vec<Finding>,
    /// How each of the member's resources stands before the steps.
    pub statuses: BTreeMap<ResourceName, ResourceStatus>,
    /// The digest of channel, member and steps: the same content has the same digest, from whichever commits it was made.
    pub digest: Digest,
}

impl Plan {
    /// Puts a plan together and digests it.
    pub fn new(
        base: Base,
        steps: BTreeMap<ResourceName, Step>,
        waits: BTreeMap<ResourceName, Wait>,
        findings: Vec<Finding>,
        statuses: BTreeMap<ResourceName, ResourceStatus>,
    ) -> Result<Self, CanonicalError> {
        let digest = digest(&base, &steps)?;
        Ok(Self {
            base,
            steps,
            waits,
            findings,
            statuses,
            digest,
        })
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether the digest is that of the content: a plan from a file may have been edited.
    pub fn verify(&self) -> Result<bool, CanonicalError> {
        Ok(digest(&self.base, &self.steps)? == self.digest)
    }
}

fn digest(base: &Base, steps: &BTreeMap<ResourceName, Step>) -> Result<Digest, CanonicalError> {
    #[derive(Serialize)]
    struct Content<'a> {
        channel: &'a Channel,
        member: &'a MemberId,
        steps: &'a BTreeMap<ResourceName, Step>,
    }
    canonical::digest(&Content {
        channel: &base.channel,
        member: &base.member,
        steps,
    })
}
