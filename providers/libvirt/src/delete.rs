//! Deleting what was made, and letting go of it.

use std::time::{Duration, Instant};

use state::ids::ResourceName;

use providers::{Deleted, ProviderError, Scope, failed};

use crate::label::{Label, Owner, owner, relabel};
use crate::wire::{Ask, Seen, SeenDomain, SeenNetwork};
use crate::xml::Element;
use crate::{Hindrance, Site, network};

/// How long a guest may take to stop whose label doesn't say.
const STOP: Duration = Duration::from_secs(60);

/// What is there under an external name, and ours.
enum Thing<'a> {
    Domain(&'a SeenDomain, Label),
    Network(&'a SeenNetwork),
    /// A pool, or a volume or a seed in one.
    Stored(Label),
    Nothing,
}

fn find<'a>(site: &Site, scope: &Scope, seen: &'a Seen, name: &ResourceName, external: &str) -> Result<Thing<'a>, Hindrance> {
    let ours = |label: Option<&Label>| owner(label, scope, name) == Owner::Ours;
    let label = Label::in_text;
    if let Some(domain) = seen.domains.iter().find(|domain| domain.name == external)
        && let Some(label) = label(&domain.inactive).filter(|label| ours(Some(label)))
    {
        return Ok(Thing::Domain(domain, label));
    }
    if let Some(network) = seen.networks.iter().find(|network| network.name == external)
        && ours(label(&network.inactive).as_ref())
    {
        return Ok(Thing::Network(network));
    }
    Ok(match site.label(external)? {
        Some(label) if ours(Some(&label)) => Thing::Stored(label),
        _ => Thing::Nothing,
    })
}

/// Looks at what has an external name, and at the pool that it is in.
async fn look(site: &Site, external: &str) -> Result<Seen, Hindrance> {
    let place = site.label(external)?.and_then(|label| label.place);
    let seen = site
        .client
        .look_at(external, place.as_ref().map(|place| place.pool.as_str()))
        .await?;
    match seen.networks.is_empty() {
        true => Ok(seen),
        // Who uses it matters.
        false => Ok(site.client.look().await?),
    }
}

/// Deletes what was made for a resource.
pub(crate) async fn delete(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
    let done = deleted(site, scope, name, external).await;
    providers::taken_down(done, external)
}

async fn deleted(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<Option<String>, Hindrance> {
    let seen = look(site, external).await?;
    match find(site, scope, &seen, name, external)? {
        Thing::Nothing => Ok(None),
        Thing::Domain(domain, label) => {
            if domain.active.is_some() {
                let patience = label.stop_seconds.map_or(STOP, Duration::from_secs);
                if let Some(why) = stop(site, external, patience).await? {
                    return Ok(Some(why));
                }
            }
            site.client.undo(Ask::UndefineDomain(external.to_owned())).await?;
            Ok(None)
        }
        Thing::Network(found) => {
            let users = network::users(&seen, external);
            if !users.is_empty() {
                return Ok(Some(format!("{} has an interface in it", users.join(", "))));
            }
            if found.active.is_some() {
                site.client.undo(Ask::StopNetwork(external.to_owned())).await?;
            }
            site.client.undo(Ask::UndefineNetwork(external.to_owned())).await?;
            Ok(None)
        }
        Thing::Stored(label) => stored(site, &seen, external, &label).await,
    }
}

async fn stored(site: &Site, seen: &Seen, external: &str, label: &Label) -> Result<Option<String>, Hindrance> {
    match &label.place {
        Some(place) => {
            let pool = seen.pools.iter().find(|pool| pool.name == place.pool);
            if pool.is_some_and(|pool| !pool.active) {
                return Ok(Some(format!("the pool {} is not active", place.pool)));
            }
            let (pool, name) = (place.pool.clone(), place.volume.clone());
            site.client.undo(Ask::DeleteVolume { pool, name }).await?;
        }
        None => {
            if let Some(pool) = seen.pools.iter().find(|pool| pool.name == external) {
                if let Some(volume) = pool.volumes.first() {
                    return Ok(Some(format!(
                        "it still holds {}, which is never deleted with its pool",
                        volume.name
                    )));
                }
                site.client.undo(Ask::DropPool(external.to_owned())).await?;
            }
        }
    }
    site.drop_label(external)?;
    Ok(None)
}

/// Stops a guest: it is asked to, and stopped when it has taken too long. Says what is waited for.
pub(crate) async fn stop(site: &Site, external: &str, patience: Duration) -> Result<Option<String>, Hindrance> {
    let first = {
        let mut stops = site.stops();
        let first = !stops.contains_key(external);
        let since = *stops.entry(external.to_owned()).or_insert_with(Instant::now);
        match since.elapsed() < patience {
            true => Some(first),
            false => {
                stops.remove(external);
                None
            }
        }
    };
    match first {
        Some(first) => {
            if first {
                // Without an operating system nobody hears it, and the daemon says that all is well.
                site.client.undo(Ask::ShutDomain(external.to_owned())).await?;
            }
            let seen = site.client.look_at(external, None).await?;
            let runs = seen.domains.iter().any(|domain| domain.name == external && domain.active.is_some());
            if runs {
                return Ok(Some(format!("its guest is stopping, within {} s", patience.as_secs())));
            }
            site.stops().remove(external);
        }
        None => site.client.undo(Ask::DestroyDomain(external.to_owned())).await?,
    }
    Ok(None)
}

/// Takes the label off what was made for a resource, and leaves the rest where it is.
pub(crate) async fn release(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
    let done = released(site, scope, name, external).await;
    done.map_err(|hindrance| failed("release", external, hindrance))
}

async fn released(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<(), Hindrance> {
    let seen = look(site, external).await?;
    let without = |text: &str| -> Result<String, Hindrance> {
        let mut definition = Element::read(text).map_err(|error| Hindrance::Invalid(error.to_string()))?;
        relabel(&mut definition, None);
        Ok(definition.to_xml())
    };
    match find(site, scope, &seen, name, external)? {
        Thing::Nothing => Ok(()),
        Thing::Domain(domain, _) => {
            let xml = without(&domain.inactive)?;
            Ok(site.client.do_it(Ask::DefineDomain { xml }).await?)
        }
        Thing::Network(network) => {
            let xml = without(&network.inactive)?;
            Ok(site.client.do_it(Ask::DefineNetwork { xml }).await?)
        }
        Thing::Stored(_) => site.drop_label(external),
    }
}
