//! What commands ask of a channel: nothing is written anywhere.

use std::collections::BTreeMap;

use providers::{Script, Tool, Wanted};
use state::desired::DesiredState;
use state::event::{EventBody, LedgerEvent, Position, Provenance};
use state::ids::{Kind, ResourceName, TxId};
use state::inventory::Inventory;
use state::observation::Observation;
use state::plan::Plan;
use state::resource::Resource;
use state::rules::Verdict;
use state::time::Timestamp;

use super::{Controller, PassError};
use crate::actual::Actual;
use crate::observe::observe_wanted;
use crate::overdue::{self, Due};
use crate::planner::{self, Mode};

/// One thing that is owned, as it is seen against what was applied last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Its resource.
    pub name: ResourceName,
    /// What it is.
    pub kind: Kind,
    /// What is seen.
    pub observation: Observation,
}

/// What is run for one resource.
#[derive(Debug)]
pub struct Rendered {
    /// The resource.
    pub name: ResourceName,
    /// What it asks for, with the values that are known.
    pub resource: Resource,
    /// The scripts, or why there are none.
    pub scripts: Result<Vec<Script>, String>,
    /// Which value is not known yet, in words.
    pub open: Option<String>,
}

/// What a change would do that is not submitted yet.
#[derive(Debug)]
pub struct Preview {
    /// What would be done once it is in force.
    pub plan: Plan,
    /// Whether it would be in force at once.
    pub verdict: Verdict,
}

impl Controller {
    /// Looks at everything that this member owns against what was applied last. Never writes.
    pub async fn drift(&self) -> Result<Vec<Looked>, PassError> {
        let inventory = self.inventory().await?;
        let all: Vec<Wanted<'_>> = inventory.entries().values().map(|entry| Wanted::of(&entry.resource)).collect();
        let mut seen = observe_wanted(&self.settings.registry, &self.scope, &all, self.settings.bounds.observe).await;
        Ok(all
            .iter()
            .filter_map(|one| {
                Some(Looked {
                    name: one.name.clone(),
                    kind: one.kind.clone(),
                    observation: seen.resources.remove(one.name)?,
                })
            })
            .collect())
    }

    /// What this member owns on the channel, as recorded last.
    pub async fn inventory(&self) -> Result<Inventory, PassError> {
        let (store, channel) = (self.settings.store.clone(), self.settings.channel.clone());
        let actual = tokio::task::spawn_blocking(move || Actual::load(&store, &channel))
            .await
            .map_err(|_| PassError::Interrupted)??;
        Ok(actual.inventory().clone())
    }

    /// What has become due on the channel by a moment, as the last pass saw it.
    pub async fn due(&self, now: Timestamp) -> Vec<Due> {
        let memory = self.memory.lock().await;
        let loaded = memory.loaded.as_ref();
        loaded.map_or_else(Vec::new, |loaded| {
            overdue::due(&loaded.desired, &loaded.reported, &self.settings.member, now)
        })
    }

    /// Plans what would be done if this event were on the ledger, submitted by this member now, and approved. Never writes.
    pub async fn preview(&self, body: EventBody) -> Result<Preview, PassError> {
        let mut memory = self.memory.lock().await;
        let (loaded, mut actual) = self.load(&mut memory, None).await?;
        let mut desired = DesiredState::clone(&loaded.desired);
        let member = &self.settings.member;
        let msp = match desired.members().get(member) {
            Some(record) => record.msp.clone(),
            None => return Err(PassError::Stranger(member.clone())),
        };
        let event = LedgerEvent {
            channel: self.settings.channel.clone(),
            source: Provenance {
                position: Position {
                    block: loaded.position.block + 1,
                    tx: 0,
                },
                tx_id: TxId::new(planner::NOT_SUBMITTED).expect("64 zeros are hexadecimal digits"),
                at: (self.settings.clock)(),
                by: member.clone(),
            },
            msp,
            body,
        };
        let verdict = desired.foresee(&event).map_err(PassError::Refused)?;
        let plan = self.look(Mode::ObserveOnly, &loaded, &desired, &mut actual).await?.plan;
        Ok(Preview { plan, verdict })
    }

    /// Renders what is run for each of the member's resources, with the values that are known now. Nothing outside is looked at.
    pub async fn render(&self) -> Result<Vec<Rendered>, PassError> {
        let mut memory = self.memory.lock().await;
        let (loaded, actual) = self.load(&mut memory, None).await?;
        let known = planner::Known {
            member: &self.settings.member,
            desired: &loaded.desired,
            inventory: actual.inventory(),
            reported: &loaded.reported,
            observed: None,
            fresh: None,
        };
        let mine = loaded.desired.resources().iter();
        let mine = mine.filter(|(_, ordered)| ordered.resource.owner == self.settings.member);
        Ok(mine
            .map(|(name, ordered)| {
                let (resource, open) = match known.resolve(&ordered.resource.spec) {
                    Ok(spec) => (planner::recorded(&ordered.resource, spec), None),
                    Err(unresolved) => (ordered.resource.clone(), Some(unresolved.to_string())),
                };
                Rendered {
                    name: name.clone(),
                    scripts: match self.settings.registry.for_kind(&resource.kind) {
                        Some(provider) => provider.render(&self.scope, &resource).map_err(|invalid| invalid.to_string()),
                        None => Err(format!("no provider of this Charter makes {}: configure one", resource.kind)),
                    },
                    resource,
                    open,
                }
            })
            .collect())
    }

    /// The same resources in the words of another tool, as far as it can make them.
    pub fn translate(&self, tool: Tool, resources: &[Resource]) -> Vec<Result<Script, String>> {
        let mut by_provider: BTreeMap<&str, Vec<Resource>> = BTreeMap::new();
        for resource in resources {
            by_provider.entry(resource.kind.provider()).or_default().push(resource.clone());
        }
        let translated = by_provider.values().filter_map(|all| {
            let provider = self.settings.registry.for_kind(&all.first()?.kind)?;
            provider.translate(tool, &self.scope, all)
        });
        translated.map(|script| script.map_err(|invalid| invalid.to_string())).collect()
    }
}
