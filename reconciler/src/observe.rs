//! Observation in bulk: one call for each provider, bounded in time; what can't be seen is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use providers::registry::Registry;
use providers::{Orphan, Scope, Wanted};
use state::desired::DesiredState;
use state::ids::{MemberId, ResourceName};
use state::inventory::Inventory;
use state::observation::Observation;

use crate::planner::OwnedWanted;

/// What all providers see together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// One observation for each wanted resource.
    pub resources: BTreeMap<ResourceName, Observation>,
    /// Owned objects that nobody wants any more.
    pub orphans: Vec<Orphan>,
}

/// Observes everything that is wanted.
///
/// A provider that doesn't answer in time, or that isn't configured, leaves its resources unknown; the others are seen.
pub async fn observe(registry: &Registry, scope: &Scope, wanted: &[OwnedWanted<'_>], deadline: Duration) -> Seen {
    let all: Vec<Wanted<'_>> = wanted.iter().map(OwnedWanted::as_wanted).collect();
    observe_wanted(registry, scope, &all, deadline).await
}

/// Observes everything that is wanted, in the providers' own form.
pub async fn observe_wanted(registry: &Registry, scope: &Scope, wanted: &[Wanted<'_>], deadline: Duration) -> Seen {
    let looks = registry.providers().iter().map(|provider| async move {
        let kinds = provider.kinds();
        let mine: Vec<Wanted<'_>> = wanted.iter().filter(|one| kinds.contains(one.kind)).copied().collect();
        let seen = tokio::time::timeout(deadline, provider.observe(scope, &mine)).await;
        (mine, seen)
    });
    let mut all = Seen::default();
    for (mine, seen) in join_all(looks).await {
        match seen {
            Ok(mut seen) => {
                for one in &mine {
                    if !seen.resources.contains_key(one.name) {
                        let why = "its provider said nothing of it".to_owned();
                        seen.resources.insert(one.name.clone(), Observation::Unknown { why });
                    }
                }
                if seen.resources.len() > mine.len() {
                    let asked: BTreeSet<&ResourceName> = mine.iter().map(|one| one.name).collect();
                    seen.resources.retain(|name, _| asked.contains(name));
                }
                all.resources.append(&mut seen.resources);
                all.orphans.append(&mut seen.orphans);
            }
            Err(_) => {
                for one in mine {
                    let why = format!("its provider did not answer within {} s", deadline.as_secs());
                    all.resources.insert(one.name.clone(), Observation::Unknown { why });
                }
            }
        }
    }
    let some_missing = all.resources.len() < wanted.len();
    for one in wanted.iter().filter(|_| some_missing) {
        if !all.resources.contains_key(one.name) {
            let why = format!("no provider of this Charter makes {}: configure one", one.kind);
            all.resources.insert(one.name.clone(), Observation::Unknown { why });
        }
    }
    all.orphans
        .sort_by(|a, b| (&a.name, &a.kind, &a.external).cmp(&(&b.name, &b.kind, &b.external)));
    all
}

/// The member's resources that the providers refuse as they were ordered, each with the reason.
pub fn invalid(registry: &Registry, desired: &DesiredState, member: &MemberId) -> BTreeMap<ResourceName, String> {
    let mut found = BTreeMap::new();
    for (name, ordered) in desired.resources() {
        let resource = &ordered.resource;
        if resource.owner != *member {
            continue;
        }
        if let Some(provider) = registry.for_kind(&resource.kind)
            && let Err(refused) = provider.validate(resource)
        {
            found.insert(name.clone(), refused.to_string());
        }
    }
    found
}

/// What is no longer wanted of the member's and can't be undone by its provider, each with the reason.
pub fn lasting(registry: &Registry, desired: &DesiredState, inventory: &Inventory, member: &MemberId) -> BTreeMap<ResourceName, String> {
    let retired = desired.retired().values().map(|ordered| &ordered.resource);
    let retired = retired.filter(|resource| resource.owner == *member);
    let owned = inventory.entries().values().map(|entry| &entry.resource);
    let unwanted = owned.filter(|resource| {
        let wanted = desired.resources().get(&resource.name).map(|ordered| &ordered.resource);
        wanted.is_none_or(|wanted| wanted.owner != *member || wanted.kind != resource.kind)
    });
    let all = retired.chain(unwanted);
    all.filter_map(|resource| {
        let why = registry.for_kind(&resource.kind)?.undoes(resource).err()?;
        Some((resource.name.clone(), why))
    })
    .collect()
}
