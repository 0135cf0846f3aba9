//! What a member orders: one piece of infrastructure, named, owned and specified.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError, Digest};
use crate::ids::{Channel, Kind, MemberId, NameError, OutputName, Region, ResourceName};
use crate::size::Size;
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

/// Where something was ordered first: a resource of a channel. Its name outside is a function of that, wherever it is carried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The channel.
    pub channel: Channel,
    /// The resource there.
    pub resource: ResourceName,
}

impl Origin {
    /// Where a resource of a channel was ordered first.
    pub fn of(channel: &Channel, resource: &ResourceName, origin: Option<&Origin>) -> Self {
        origin.cloned().unwrap_or_else(|| Self {
            channel: channel.clone(),
            resource: resource.clone(),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.channel, self.resource)
    }
}

impl FromStr for Origin {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (channel, resource) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self {
            channel: Channel::new(channel)?,
            resource: ResourceName::new(resource)?,
        })
    }
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
    /// How large it is, where the agreement has quotas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Box<Size>>,
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
    /// Of something that an earlier version of the DAO had already: where it was ordered first. It is carried over as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Resource {
    /// Everything that has to be ready before this resource: `depends_on` and the references of the spec.
    pub fn dependencies(&self) -> BTreeSet<ResourceName> {
        let mut all = self.depends_on.clone();
        all.extend(self.spec.referred().cloned());
        all
    }

    /// How large it is, as far as that is stated.
    pub fn size(&self) -> Size {
        self.size.as_deref().copied().unwrap_or_default()
    }

    /// Has it kept where it is when it is retired, whatever was ordered.
    pub fn release(&mut self) {
        self.on_retire = OnRetire::Retain;
        self.protect = false;
    }

    /// Where it was ordered first: on this channel, unless it was carried here.
    pub fn origin(&self, channel: &Channel) -> Origin {
        Origin::of(channel, &self.name, self.origin.as_deref())
    }

    /// The digest of the resource as it was ordered.
    pub fn digest(&self) -> Result<Digest, CanonicalError> {
        // RFC 8785 sorts keys by UTF-16: for ASCII that is the order of the specification's text.
        if self.spec.as_str().is_ascii() {
            Ok(Digest::of(self.canonical().as_bytes()))
        } else {
            canonical::digest(self)
        }
    }

    /// The canonical bytes, written directly: a pass digests every order that refers to another.
    fn canonical(&self) -> String {
        let mut out = String::with_capacity(256 + self.spec.as_str().len());
        // Names have no characters that JSON escapes.
        let list = |out: &mut String, key: &str, names: &mut dyn Iterator<Item = &str>| {
            let mut before = "";
            for name in names {
                out.push_str(if before.is_empty() { key } else { before });
                out.push_str(name);
                before = "\",\"";
            }
            if !before.is_empty() {
                out.push_str("\"],");
            }
        };
        let field = |out: &mut String, key: &str, value: &str| {
            out.push_str(key);
            out.push_str(value);
            out.push_str("\",");
        };
        out.push('{');
        if self.adopt {
            out.push_str("\"adopt\":true,");
        }
        list(
            &mut out,
            "\"depends_on\":[\"",
            &mut self.depends_on.iter().map(ResourceName::as_str),
        );
        list(&mut out, "\"exports\":[\"", &mut self.exports.iter().map(OutputName::as_str));
        field(&mut out, "\"kind\":\"", self.kind.as_str());
        field(&mut out, "\"name\":\"", self.name.as_str());
        if self.on_drift == OnDrift::Report {
            field(&mut out, "\"on_drift\":\"", "report");
        }
        if self.on_retire == OnRetire::Retain {
            field(&mut out, "\"on_retire\":\"", "retain");
        }
        if let Some(origin) = &self.origin {
            out.push_str("\"origin\":{");
            field(&mut out, "\"channel\":\"", origin.channel.as_str());
            out.push_str("\"resource\":\"");
            out.push_str(origin.resource.as_str());
            out.push_str("\"},");
        }
        field(&mut out, "\"owner\":\"", self.owner.as_str());
        if self.protect {
            out.push_str("\"protect\":true,");
        }
        if let Some(region) = &self.region {
            field(&mut out, "\"region\":\"", region.as_str());
        }
        if let Some(size) = &self.size {
            let amounts = [
                ("cpu_millis", size.cpu_millis),
                ("memory_mib", size.memory_mib),
                ("monthly_cost", size.monthly_cost),
                ("storage_mib", size.storage_mib),
            ];
            let stated = amounts
                .iter()
                .filter_map(|(name, amount)| amount.map(|amount| format!("\"{name}\":{amount}")));
            out.push_str("\"size\":{");
            out.push_str(&stated.collect::<Vec<_>>().join(","));
            out.push_str("},");
        }
        out.push_str("\"spec\":");
        out.push_str(self.spec.as_str());
        out.push('}');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_directly_is_the_canonical_form() {
        for value in [
            json!({ "name": "a", "kind": "memory/object", "owner": "city" }),
            json!({ "name": "a", "kind": "memory/object", "owner": "city", "size": {} }),
            json!({ "name": "a", "kind": "memory/object", "owner": "city", "size": { "memory_mib": 0 } }),
            json!({
                "name": "a", "kind": "memory/object", "owner": "city", "region": "eu",
                "size": { "storage_mib": 4, "cpu_millis": 500, "monthly_cost": 10_000_000_000_u64 }, "depends_on": ["b", "c"], "exports": ["id", "port"],
                "on_retire": "retain", "on_drift": "report", "protect": true, "adopt": true,
                "origin": { "channel": "smart-city-1", "resource": "first" },
                "spec": { "z": [1, -2, null, true, { "$ref": "b.outputs.id" }], "a": "q\"\\\n\u{1f}\u{7f}/", "B": {}, "n": 9_007_199_254_740_991_u64 }
            }),
            json!({ "name": "a", "kind": "memory/object", "owner": "city", "exports": ["id"], "spec": { "é": "\u{e000}", "\u{1f600}": 1, "\u{e000}": 2 } }),
        ] {
            let resource: Resource = serde_json::from_value(value).unwrap();
            assert_eq!(resource.digest().unwrap(), canonical::digest(&resource).unwrap());
        }
    }
}
