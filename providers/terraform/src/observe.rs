//! Looking at workspaces: by what is remembered where that is fresh, else by the engine's plan.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use state::ids::ResourceName;
use state::observation::{FieldDrift, Observation};
use state::resource::{Origin, Outputs, Resource};

use providers::detached::now;
use providers::{Observed, Scope, Wanted};

use crate::check::Ordered;
use crate::hold::hold;
use crate::plan::EnginePlan;
use crate::record::Record;
use crate::render::render;
use crate::workspace::{Aim, Outcome, Standing, inputs};
use crate::{Hindrance, Site, check, external};

/// Looks at all wanted resources, and for owned workspaces that none of them names.
pub(crate) async fn observe(site: &Site, scope: &Scope, wanted: &[Wanted<'_>]) -> Result<Observed, Hindrance> {
    let names: BTreeSet<&ResourceName> = wanted.iter().map(|one| one.name).collect();
    let left = site
        .records
        .of(scope)?
        .into_iter()
        .filter(|(_, record)| !names.contains(&record.made.resource));
    let orphans = left.map(|(external, record)| record.made.orphan(external));
    let mut observed = Observed {
        orphans: orphans.collect(),
        ..Observed::default()
    };
    // All of them side by side: how many engines run is a matter of the configuration.
    let looks: FuturesUnordered<_> = wanted.iter().map(|one| named(site, scope, one)).collect();
    observed.resources = looks.collect().await;
    Ok(observed)
}

async fn named(site: &Site, scope: &Scope, wanted: &Wanted<'_>) -> (ResourceName, Observation) {
    let seen = look(site, scope, wanted).await;
    let why = |hindrance: Hindrance| Observation::Unknown {
        why: state::errors::chain(&hindrance),
    };
    (wanted.name.clone(), seen.unwrap_or_else(why))
}

fn present(external: String, owned: bool, outputs: Outputs) -> Observation {
    Observation::Present {
        external,
        owned,
        outputs,
        drift: Vec::new(),
        replace: None,
        blocked: None,
    }
}

async fn look(site: &Site, scope: &Scope, wanted: &Wanted<'_>) -> Result<Observation, Hindrance> {
    let origin = Origin::of(&scope.channel, wanted.name, wanted.origin);
    let external = external(&origin);
    let record = site.records.get(&external)?;
    let Some(record) = record else {
        let workspace = site.workspace(&external, &Default::default());
        let there = workspace.is_there().await?;
        // What can't be made here is told before anybody orders it.
        if let Some(ordered) = wanted.resource.filter(|_| !there) {
            workspace.suits(&checked(site, ordered)?.spec.engine).await?;
        }
        return Ok(match there {
            true => present(external, false, Outputs::new()),
            false => Observation::Absent,
        });
    };
    if !record.made.is_ours(scope, wanted.name) {
        return Ok(match wanted.origin {
            Some(_) => Observation::Pending {
                why: providers::still_held(&record.made.owner()),
                external,
            },
            None => present(external, false, Outputs::new()),
        });
    }
    match wanted.resource {
        Some(resource) => ours(site, resource, external, record).await,
        None => Ok(present(external, true, record.outputs)),
    }
}

fn checked(site: &Site, resource: &Resource) -> Result<Ordered, Hindrance> {
    check::read(&site.config, resource).map_err(|invalid| Hindrance::Invalid(invalid.to_string()))
}

/// A workspace of ours, against what is ordered.
async fn ours(site: &Site, resource: &Resource, external: String, mut record: Record) -> Result<Observation, Hindrance> {
    let ordered = checked(site, resource)?;
    let rendered = render(&site.config, &external, &ordered);
    let workspace = site.workspace(&external, &rendered.secrets);
    workspace.suits(&ordered.spec.engine).await?;
    let version = match workspace.standing(&mut record).await? {
        Standing::Nothing => return Ok(Observation::Absent),
        Standing::Busy(why) => return Ok(Observation::Pending { external, why }),
        Standing::There(version) => version,
    };
    let inputs = inputs(&rendered, workspace.as_ref());
    let fresh = record.checked.is_some_and(|checked| site.is_fresh(checked));
    if record.applied.as_ref() == Some(&inputs) && record.version == version {
        if fresh {
            return Ok(present(external, true, record.outputs));
        }
        if workspace.assessed(&record).await? {
            record.checked = Some(now());
            site.records.put(&external, &record)?;
            return Ok(present(external, true, record.outputs));
        }
    }
    let _hold = match hold(site, &external, workspace.as_ref()).await? {
        Ok(hold) => hold,
        Err(why) => return Ok(Observation::Pending { external, why }),
    };
    workspace.prepare(&rendered, &mut record).await?;
    Ok(match workspace.plan(Aim::Make(&inputs), &mut record).await? {
        Outcome::Same(plan) => {
            record.applied = Some(inputs);
            record.checked = Some(now());
            record.version = version;
            record.outputs = plan.outputs();
            record.secrets = rendered.secrets;
            site.records.put(&external, &record)?;
            present(external, true, record.outputs)
        }
        Outcome::Changes(plan) => {
            record.checked = None;
            site.records.put(&external, &record)?;
            Observation::Present {
                external,
                owned: true,
                outputs: plan.outputs(),
                drift: shown(&plan),
                replace: None,
                blocked: blocked(resource, &plan),
            }
        }
        Outcome::Waits(why) => Observation::Pending { external, why },
    })
}

/// A plan's differences; there is always one, where the engine says that there are.
fn shown(plan: &EnginePlan) -> Vec<FieldDrift> {
    let mut drift = plan.drift();
    if drift.is_empty() {
        drift.push(FieldDrift {
            path: "/state".to_owned(),
            wanted: None,
            found: None,
        });
    }
    drift
}

/// Why a plan may not be carried out.
fn blocked(resource: &Resource, plan: &EnginePlan) -> Option<String> {
    let destroyed = plan.destroyed();
    let held = resource.protect && !destroyed.is_empty();
    held.then(|| format!("{} is protected, and its plan destroys {}", resource.name, destroyed.join(", ")))
}
