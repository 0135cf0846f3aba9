//! What an observation confirms: no decision, only the record brought up to what was seen.

use std::collections::BTreeMap;

use state::canonical::CanonicalError;
use state::desired::DesiredState;
use state::ids::{MemberId, ResourceName};
use state::inventory::{Entry, EntryState, Inventory};
use state::observation::Observation;

use super::alongside::Alongside;
use super::references::unchanged;

/// The inventory entries that an observation brings up to date: an intention whose result is there has become applied, and
/// outputs are what they were seen to be.
///
/// Only what is as its present order says is confirmed; everything else is the planner's to decide.
pub fn settled(
    desired: &DesiredState,
    member: &MemberId,
    inventory: &Inventory,
    observed: &BTreeMap<ResourceName, Observation>,
) -> Result<Vec<Entry>, CanonicalError> {
    let mut entries = Vec::new();
    let mut seen = Alongside::new(observed);
    for (name, entry) in inventory.entries() {
        let Some(Observation::Present { external, outputs, .. }) = seen.get(name).filter(|seen| seen.in_sync()) else {
            continue;
        };
        let told = entry.state == EntryState::Applied && entry.failed.is_none() && entry.outputs == *outputs && entry.external == *external;
        if told {
            continue;
        }
        let Some(ordered) = desired.resources().get(name).map(|ordered| &ordered.resource) else {
            continue;
        };
        if ordered.owner != *member || ordered.kind != entry.resource.kind || !unchanged(ordered, entry)? {
            continue;
        }
        entries.push(Entry {
            state: EntryState::Applied,
            external: external.clone(),
            outputs: outputs.clone(),
            failed: None,
            ..entry.clone()
        });
    }
    Ok(entries)
}
