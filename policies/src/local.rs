//! A member's local policy: the last word on what its Charter does for the channels that it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use state::desired::{DesiredState, Ordered};
use state::ids::{Kind, MemberId, NameError, Region, ResourceName};
use state::resource::Resource;
use state::rules;
use thiserror::Error;

/// The deletions of one pass that nobody allowed otherwise.
const DELETIONS: u32 = 10;

/// The `[policy]` table of `charter.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalPolicy {
    /// The kinds that may be made here, as `provider/kind` or `provider/*`; none: every kind that a provider is configured for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_kinds: Option<BTreeSet<KindPattern>>,
    /// The regions where a resource may live; none: anywhere. Where this is set, a resource that names no region is forbidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<BTreeSet<Region>>,
    /// How many resources one pass may delete or replace (default 10); a plan with more is not begun.
    pub max_deletions_per_pass: u32,
    /// How many resources the member takes on in one channel; none: as many as the agreement allows. Later orders are
    /// forbidden first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_resources: Option<u32>,
}

impl Default for LocalPolicy {
    fn default() -> Self {
        Self {
            allow_kinds: None,
            regions: None,
            max_deletions_per_pass: DELETIONS,
            max_resources: None,
        }
    }
}

/// A kind, or every kind of a provider: `machine/file` or `machine/*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KindPattern {
    /// One kind.
    Exactly(Kind),
    /// Every kind of the provider. The name is a DNS label.
    Provider(String),
}

/// A text is not a pattern of kinds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the pattern of kinds is not valid; write provider/kind or provider/*, for example \"machine/*\"")]
pub struct KindPatternError(#[source] NameError);

impl KindPattern {
    /// Whether a kind fits.
    pub fn fits(&self, kind: &Kind) -> bool {
        match self {
            KindPattern::Exactly(exactly) => exactly == kind,
            KindPattern::Provider(provider) => provider == kind.provider(),
        }
    }
}

impl FromStr for KindPattern {
    type Err = KindPatternError;
    fn from_str(text: &str) -> Result<Self, KindPatternError> {
        match text.strip_suffix("/*") {
            // Any kind of the provider shows whether the provider's name is one.
            Some(provider) => {
                let probe = Kind::new(format!("{provider}/any")).map_err(KindPatternError)?;
                Ok(KindPattern::Provider(probe.provider().to_owned()))
            }
            None => Kind::new(text).map(KindPattern::Exactly).map_err(KindPatternError),
        }
    }
}

impl fmt::Display for KindPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KindPattern::Exactly(kind) => f.pad(kind.as_str()),
            KindPattern::Provider(provider) => f.pad(&format!("{provider}/*")),
        }
    }
}

impl TryFrom<String> for KindPattern {
    type Error = KindPatternError;
    fn try_from(text: String) -> Result<Self, KindPatternError> {
        text.parse()
    }
}

impl From<KindPattern> for String {
    fn from(pattern: KindPattern) -> String {
        pattern.to_string()
    }
}

impl LocalPolicy {
    /// The clause that forbids a resource by what it is and where it has to live, as one sentence.
    pub fn forbids(&self, resource: &Resource) -> Option<(&'static str, String)> {
        if let Some(allowed) = &self.allow_kinds
            && !allowed.iter().any(|pattern| pattern.fits(&resource.kind))
        {
            let message = format!(
                "policy.allow_kinds: {} is not allowed here, only {}",
                resource.kind,
                listed(allowed)
            );
            return Some(("policy.allow_kinds", message));
        }
        let allowed = self.regions.as_ref()?;
        let message = match &resource.region {
            Some(region) if allowed.contains(region) => return None,
            Some(region) => format!("policy.regions: region {region} is not allowed here, only {}", listed(allowed)),
            None => format!("policy.regions: it names no region; allowed here is only {}", listed(allowed)),
        };
        Some(("policy.regions", message))
    }
}

fn listed<T: fmt::Display>(items: &BTreeSet<T>) -> String {
    if items.is_empty() {
        return "nothing".into();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Finds the member's resources that the agreement's clauses or its local policy forbid, each with one sentence that names the clause.
///
/// A ledger that holds its changes to the agreement never orders what the clauses forbid. They are asked here again, by the same rules,
/// since a member makes nothing on a peer's word alone.
///
/// What was ordered first is what counts against `max_resources` first, so an order never displaces an older one.
pub fn forbidden(desired: &DesiredState, member: &MemberId, policy: &LocalPolicy) -> BTreeMap<ResourceName, String> {
    let mut found = breaches(desired);
    found.retain(|name, _| {
        desired
            .resources()
            .get(name)
            .is_some_and(|ordered| ordered.resource.owner == *member)
    });
    let mut taken: Vec<(&ResourceName, &Ordered)> = Vec::new();
    for (name, ordered) in desired.resources() {
        if ordered.resource.owner != *member || found.contains_key(name) {
            continue;
        }
        match policy.forbids(&ordered.resource) {
            Some((_, message)) => {
                found.insert(name.clone(), message);
            }
            None => taken.push((name, ordered)),
        }
    }
    if let Some(limit) = policy.max_resources {
        taken.sort_by_key(|(name, ordered)| (ordered.ordered.position, *name));
        for (name, _) in taken.iter().skip(limit as usize) {
            found.insert(
                (*name).clone(),
                format!("policy.max_resources: {member} takes on {limit} resources of this channel, ordered before this one"),
            );
        }
    }
    found
}

fn breaches(desired: &DesiredState) -> BTreeMap<ResourceName, String> {
    let Some(clauses) = desired.in_force().and_then(|agreement| agreement.clauses.as_ref()) else {
        return BTreeMap::new();
    };
    let all = desired.resources().values().map(|ordered| (&ordered.resource, ordered.orderer()));
    let found = rules::clauses::breaches(clauses, all);
    found.into_iter().map(|(name, breach)| (name, breach.to_string())).collect()
}
