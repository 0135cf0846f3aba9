//! Looking at playbooks: by what is remembered where that is fresh, else by `--check --diff`.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use state::ids::ResourceName;
use state::observation::{FieldDrift, Observation};
use state::resource::{Origin, Outputs, Resource};

use providers::detached::now;
use providers::{Observed, Scope, Wanted};

use crate::check::{self, Ordered};
use crate::events::Look;
use crate::record::{Clean, Failed, Purpose, Record, Seen, Standing};
use crate::render::{Rendered, render};
use crate::run::{self, Start, Texts, Waited, What};
use crate::{Hindrance, Site, external, galaxy};

/// Looks at all wanted resources, and for owned playbooks that none of them names.
pub(crate) async fn observe(site: &Arc<Site>, scope: &Scope, wanted: &[Wanted<'_>]) -> Result<Observed, Hindrance> {
    let names: BTreeSet<&ResourceName> = wanted.iter().map(|one| one.name).collect();
    let left = site.records.of(scope)?.into_iter();
    let left = left.filter(|(_, record)| record.standing == Standing::Ours && !names.contains(&record.made.resource));
    let mut observed = Observed {
        orphans: left.map(|(external, record)| record.made.orphan(external)).collect(),
        ..Observed::default()
    };
    // All of them side by side: how many run is a matter of the configuration.
    let looks: FuturesUnordered<_> = wanted.iter().map(|one| named(site, scope, one)).collect();
    observed.resources = looks.collect().await;
    Ok(observed)
}

async fn named(site: &Arc<Site>, scope: &Scope, wanted: &Wanted<'_>) -> (ResourceName, Observation) {
    let why = |hindrance: Hindrance| Observation::Unknown {
        why: state::errors::chain(&hindrance),
    };
    (wanted.name.clone(), look(site, scope, wanted).await.unwrap_or_else(why))
}

fn present(external: &str, owned: bool, outputs: Outputs, drift: Vec<FieldDrift>) -> Observation {
    Observation::Present {
        external: external.to_owned(),
        owned,
        outputs,
        drift,
        replace: None,
        blocked: None,
    }
}

async fn look(site: &Arc<Site>, scope: &Scope, wanted: &Wanted<'_>) -> Result<Observation, Hindrance> {
    let external = external(&Origin::of(&scope.channel, wanted.name, wanted.origin));
    let pending = |why| Observation::Pending {
        external: external.clone(),
        why,
    };
    if let Some(why) = run::settle(site, &external)? {
        return Ok(pending(why));
    }
    let record = site.records.get(&external)?;
    let standing = record.as_ref().map_or(Standing::Seen, |record| record.standing);
    let ours = record.as_ref().is_some_and(|record| record.made.is_ours(scope, wanted.name));
    if !ours && standing == Standing::Ours {
        let owner = record.map(|record| record.made.owner()).unwrap_or_default();
        return Ok(match wanted.origin {
            Some(_) => pending(providers::still_held(&owner)),
            None => present(&external, false, Outputs::new(), Vec::new()),
        });
    }
    let outputs = || record.as_ref().map(|record| record.outputs.clone()).unwrap_or_default();
    match (wanted.resource, standing) {
        (_, Standing::Undone) | (None, Standing::Seen) => Ok(Observation::Absent),
        (None, _) => Ok(present(&external, standing == Standing::Ours, outputs(), Vec::new())),
        (Some(resource), _) => {
            let record = record.unwrap_or_else(|| Record::new(scope, resource));
            ordered(site, resource, &external, record).await
        }
    }
}

/// A playbook against what is ordered.
async fn ordered(site: &Arc<Site>, resource: &Resource, external: &str, mut record: Record) -> Result<Observation, Hindrance> {
    let ordered = match check::read(&site.config, resource) {
        Ok(ordered) => ordered,
        // Nothing may be done, whatever is there.
        Err(refused) => {
            return Ok(Observation::Present {
                external: external.to_owned(),
                owned: true,
                outputs: Outputs::new(),
                drift: Vec::new(),
                replace: None,
                blocked: Some(refused.to_string()),
            });
        }
    };
    let rendered = render(&site.config, &ordered);
    let texts = Texts::read(site, &rendered.secrets, &rendered.keys)?;
    let digest = run::digest(&rendered, &texts)?;
    let recheck = site.recheck(&ordered.spec);
    let owned = record.standing == Standing::Ours;
    if let Some(clean) = record.clean.as_ref().filter(|clean| clean.digest == digest)
        && record.standing != Standing::Seen
        && site.is_fresh(clean.at, recheck)
    {
        return Ok(present(external, owned, record.outputs, Vec::new()));
    }
    if let Some(seen) = record
        .seen
        .as_ref()
        .filter(|seen| seen.digest == digest && seen.look.away.is_empty())
        && site.is_fresh(seen.at, recheck)
    {
        let seen = seen.clone();
        return shown(site, external, record, seen);
    }
    let hold = match run::turn(site, external).await? {
        Ok(hold) => hold,
        Err(why) => {
            return Ok(Observation::Pending {
                external: external.to_owned(),
                why,
            });
        }
    };
    // Another one may have worked on it while it was waited for.
    if let Some(there) = site.records.get(external)? {
        record = there;
    }
    let start = start(site, Purpose::Check, &ordered, &rendered, texts, digest)?;
    match run::run(site, external, hold, start, &mut record).await? {
        Waited::GoesOn(why) => Ok(Observation::Pending {
            external: external.to_owned(),
            why,
        }),
        Waited::Done => match (record.failed.clone(), record.seen.clone()) {
            (
                Some(Failed {
                    purpose: Purpose::Check,
                    why,
                }),
                _,
            ) => Ok(Observation::Unknown { why }),
            (_, Some(seen)) if seen.digest == digest => shown(site, external, record, seen),
            _ => Err(Hindrance::Lost(external.to_owned())),
        },
    }
}

/// What a run of an order is started with.
pub(crate) fn start<'a>(
    site: &Site,
    purpose: Purpose,
    ordered: &Ordered,
    rendered: &'a Rendered,
    texts: Texts,
    digest: state::canonical::Digest,
) -> Result<Start<'a>, Hindrance> {
    Ok(Start {
        purpose,
        digest,
        what: What::Ordered(rendered),
        texts,
        unknown: ordered.spec.unknown.clone(),
        outputs: ordered.spec.outputs.clone(),
        wanted: galaxy::Wanted::of(&site.config, &ordered.spec)?,
    })
}

/// What a look has shown, for the plan.
fn shown(site: &Site, external: &str, mut record: Record, seen: Seen) -> Result<Observation, Hindrance> {
    let owned = record.standing == Standing::Ours;
    // These inputs ran whole before: what is unknown now is no work that is left.
    let ran = record.standing != Standing::Seen && record.clean.as_ref().is_some_and(|clean| clean.digest == seen.digest);
    let Seen { digest, look, .. } = seen;
    if look.is_clean() && record.standing != Standing::Seen {
        record.clean = Some(Clean { digest, at: now() });
        record.seen = None;
        site.records.put(external, &record)?;
        return Ok(present(external, owned, record.outputs, Vec::new()));
    }
    if look.changes.is_empty() && (ran || look.unknown.is_empty()) && !look.is_clean() {
        return Ok(Observation::Unknown { why: unknown(&look) });
    }
    let mut drift = look.changes;
    drift.extend(look.unknown);
    Ok(match record.standing {
        Standing::Seen | Standing::Undone => Observation::Unmade { changes: drift },
        Standing::Ours | Standing::Released => present(external, owned, record.outputs, drift),
    })
}

/// Why nobody knows.
fn unknown(look: &Look) -> String {
    const SHOWN: usize = 3;
    let mut words = look.away.clone();
    let tasks: Vec<String> = look.unknown.iter().map(|one| one.path.clone()).collect();
    if !tasks.is_empty() {
        let more = if tasks.len() > SHOWN {
            format!(" and {} more", tasks.len() - SHOWN)
        } else {
            String::new()
        };
        words.push(format!(
            "no check tells whether {}{more} would change something: make these tasks tell (creates, changed_when), or name them in unknown",
            tasks[..tasks.len().min(SHOWN)].join(", ")
        ));
    }
    words.join("; ")
}
