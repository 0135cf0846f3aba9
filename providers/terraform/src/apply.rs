//! Carrying out plans that were shown, and taking down what was made.

use state::event::Position;
use state::ids::ResourceName;
use state::resource::Resource;

use providers::detached::now;
use providers::made::Made;
use providers::{Applied, Deleted, ProviderError, Scope, Script, failed};

use crate::check::Ordered;
use crate::hold::hold;
use crate::record::Record;
use crate::render::{CONFIGURATION, Rendered, VARIABLES, render};
use crate::workspace::{Aim, Outcome, Standing, inputs};
use crate::{Hindrance, Site, check, external};

/// Renders what the engine is given. A secret's value stands nowhere in it.
pub(crate) fn scripts(rendered: &Rendered, name: &ResourceName) -> Vec<Script> {
    let own = [(CONFIGURATION, &rendered.configuration), (VARIABLES, &rendered.variables)];
    let files = rendered.files.iter().map(|(path, text)| (path.as_str(), text));
    let script = |(file, text): (&str, &String)| Script::of_file(name, file, text.clone().into_bytes());
    own.into_iter().chain(files).map(script).collect()
}

/// Applies one resource.
pub(crate) async fn apply(site: &Site, scope: &Scope, resource: &Resource, order: Option<Position>) -> Result<Applied, ProviderError> {
    let ordered = check::read(&site.config, resource)?;
    let external = external(&resource.origin(&scope.channel));
    match applied(site, scope, resource, order, &external, &ordered).await {
        Ok(applied) => Ok(applied),
        Err(Hindrance::NotOwned) => Err(ProviderError::NotOwned { external }),
        Err(hindrance) => Err(failed("make", &external, hindrance)),
    }
}

async fn applied(
    site: &Site,
    scope: &Scope,
    resource: &Resource,
    order: Option<Position>,
    external: &str,
    ordered: &Ordered,
) -> Result<Applied, Hindrance> {
    let rendered = &render(&site.config, external, ordered);
    let workspace = site.workspace(external, &rendered.secrets);
    let pending = |why: String| {
        Ok(Applied::Pending {
            external: external.to_owned(),
            why,
        })
    };
    let present = site.records.get(external)?;
    let adopts = providers::adopts(resource);
    match &present {
        Some(record) if record.made.is_ours(scope, &resource.name) => {}
        Some(record) if adopts => return Err(Hindrance::Anothers(record.made.owner())),
        Some(_) => return Err(Hindrance::NotOwned),
        None if !adopts && workspace.is_there().await? => return Err(Hindrance::NotOwned),
        None => {}
    }
    let _hold = match hold(site, external, workspace.as_ref()).await? {
        Ok(hold) => hold,
        Err(why) => return pending(why),
    };
    workspace.suits(&ordered.spec.engine).await?;
    let was_ours = present.is_some();
    let before = present.unwrap_or_else(|| Record::new(scope, resource));
    let mut record = Record {
        made: Made::new(scope, resource),
        adopts,
        secrets: rendered.secrets.clone(),
        ..before
    };
    // Whose it is stands before anything is made.
    site.records.put(external, &record)?;
    workspace.prepare(rendered, &mut record).await?;
    site.records.put(external, &record)?;
    let inputs = inputs(rendered, workspace.as_ref());
    let mut outputs = None;
    let mut changes = workspace.is_planned(&inputs, &record).await?;
    if !changes {
        match workspace.plan(Aim::Make(&inputs), &mut record).await? {
            Outcome::Same(plan) => outputs = Some(plan.outputs()),
            Outcome::Changes(plan) => {
                // What a backend has under this name already is somebody's.
                if !was_ours && !adopts && !plan.only_creates() {
                    workspace.remove(&record).await?;
                    site.records.remove(external)?;
                    return Err(Hindrance::NotOwned);
                }
                if !plan.destroyed().is_empty() {
                    return pending(format!(
                        "its plan destroys {}, which no plan has shown yet: the next pass does",
                        plan.destroyed().join(", ")
                    ));
                }
                changes = true;
            }
            Outcome::Waits(why) => return pending(why),
        }
    }
    if changes {
        // Until it is done wholly, what was applied is not known.
        record.checked = None;
        site.records.put(external, &record)?;
        if let Some(why) = workspace.apply(order, &mut record).await? {
            return pending(why);
        }
    }
    workspace.keep_applied(rendered, &mut record)?;
    let outputs = match outputs {
        Some(outputs) => outputs,
        None => workspace.outputs(&mut record).await?,
    };
    record.applied = Some(inputs);
    record.checked = Some(now());
    record.outputs = outputs.clone();
    site.records.put(external, &record)?;
    Ok(Applied::Done {
        external: external.to_owned(),
        outputs,
    })
}

/// Destroys what was made for a resource.
pub(crate) async fn delete(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
    let done = deleted(site, scope, name, external).await;
    providers::taken_down(done, external)
}

async fn deleted(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<Option<String>, Hindrance> {
    let Some(mut record) = site.records.get(external)?.filter(|record| record.made.is_ours(scope, name)) else {
        return Ok(None);
    };
    let workspace = site.workspace(external, &record.secrets);
    let _hold = match hold(site, external, workspace.as_ref()).await? {
        Ok(hold) => hold,
        Err(why) => return Ok(Some(why)),
    };
    match workspace.standing(&mut record).await? {
        Standing::Nothing => {}
        Standing::Busy(why) => return Ok(Some(why)),
        Standing::There(_) => match workspace.plan(Aim::Destroy, &mut record).await? {
            Outcome::Same(_) => {}
            Outcome::Waits(why) => return Ok(Some(why)),
            Outcome::Changes(_) => {
                if let Some(why) = workspace.apply(None, &mut record).await? {
                    return Ok(Some(why));
                }
            }
        },
    }
    if let Some(why) = workspace.remove(&record).await? {
        return Ok(Some(why));
    }
    site.records.remove(external)?;
    Ok(None)
}

/// Lets go of a workspace, and leaves it where it is.
pub(crate) fn release(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
    let released = || -> Result<(), Hindrance> {
        match site.records.get(external)?.is_some_and(|record| record.made.is_ours(scope, name)) {
            true => Ok(site.records.remove(external)?),
            false => Ok(()),
        }
    };
    released().map_err(|hindrance| failed("release", external, hindrance))
}
