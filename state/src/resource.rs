//! What a member orders: one piece of infrastructure, named, owned and specified.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError, Digest};
use crate::ids::{Kind, MemberId, OutputName, Region, ResourceName};
use crate::spec::Spec;

pub use crate::outputs::Outputs;

/// What happens to the real thing when its resource is retired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnRetire {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays where it is, and is no longer Charter's.
    Retain,
}

/// What a member's Charter does when the real thing differs from what it applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// It is brought back, and reported.
    #[default]
    Heal,
    /// It is only reported.
    Report,
}

/// One ordered resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Its name, unique in the channel.
    pub name: ResourceName,
    /// Which provider makes it, and what it is.
    pub kind: Kind,
    /// The member on whose side it lives; only that member's Charter ever touches it.
    pub owner: MemberId,
    /// Where it has to live, in the agreement's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// What the provider is to make.
    #[serde(default)]
    pub spec: Spec,
    /// Resources that have to be ready first, beside those that the spec refers to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub depends_on: BTreeSet<ResourceName>,
    /// The outputs that other members may see; only these enter reports.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exports: BTreeSet<OutputName>,
    /// What happens to the real thing when the resource is retired.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_retire: OnRetire,
    /// What happens when the real thing drifts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_drift: OnDrift,
    /// Forbids retiring and replacing it until it is amended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protect: bool,
    /// Allows taking over an object of the same external name that Charter does not own yet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub adopt: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Resource {
    /// Everything that has to be ready before this resource: `depends_on` and the references of the spec.
    pub fn dependencies(&self) -> BTreeSet<ResourceName> {
        let mut all = self.depends_on.clone();
        all.extend(self.spec.references().into_iter().map(|reference| reference.resource));
        all
    }

    /// The digest of the resource as it was ordered.
    pub fn digest(&self) -> Result<Digest, CanonicalError> {
        canonical::digest(self)
    }
}
