//! Running playbooks that were ordered, and undoing what they did.

use std::sync::Arc;

use state::ids::ResourceName;
use state::resource::{OnRetire, Resource};

use providers::detached::now;
use providers::made::Made;
use providers::{Applied, Deleted, ProviderError, Scope, Script, failed};

use crate::check::{self, Ordered};
use crate::observe::start;
use crate::record::{Clean, Failed, Purpose, Record, Retiring, Standing};
use crate::render::{Rendered, render};
use crate::run::{self, Start, Texts, Waited, What};
use crate::{Hindrance, Site, external};

/// How long a look that has shown no difference stands for a run, in seconds.
const JUST_NOW: u64 = 60;

/// What is kept of a run for whoever asks later what was run. A secret's text stands nowhere in it.
pub(crate) fn scripts(rendered: &Rendered, name: &ResourceName) -> Vec<Script> {
    let all = rendered.files.iter();
    all.map(|(path, bytes)| Script::of_file(name, path, bytes.clone())).collect()
}

/// Applies one resource.
pub(crate) async fn apply(site: &Arc<Site>, scope: &Scope, resource: &Resource) -> Result<Applied, ProviderError> {
    let ordered = check::read(&site.config, resource)?;
    let external = external(&resource.origin(&scope.channel));
    match applied(site, scope, resource, &external, &ordered).await {
        Ok(applied) => Ok(applied),
        Err(Hindrance::NotOwned) => Err(ProviderError::NotOwned { external }),
        Err(hindrance) => Err(failed("run", &external, hindrance)),
    }
}

async fn applied(site: &Arc<Site>, scope: &Scope, resource: &Resource, external: &str, ordered: &Ordered) -> Result<Applied, Hindrance> {
    let pending = |why: String| {
        Ok(Applied::Pending {
            external: external.to_owned(),
            why,
        })
    };
    if let Some(why) = run::settle(site, external)? {
        return pending(why);
    }
    let rendered = render(&site.config, ordered);
    let texts = Texts::read(site, &rendered.secrets, &rendered.keys)?;
    let digest = run::digest(&rendered, &texts)?;
    let hold = match run::turn(site, external).await? {
        Ok(hold) => hold,
        Err(why) => return pending(why),
    };
    let mut record = match site.records.get(external)? {
        Some(record) => owned(record, scope, resource)?,
        None => Record::new(scope, resource),
    };
    // A run that nobody waited for any more has failed: that is told before it is tried again.
    if let Some(Failed { why, .. }) = record.failed.take_if(|failed| failed.purpose == Purpose::Apply) {
        site.records.put(external, &record)?;
        return Err(Hindrance::Failed(why));
    }
    record.made = Made::new(scope, resource);
    if rendered.retire.is_none() {
        // Nothing could be undone, whoever finds it.
        record.made.on_retire = OnRetire::Retain;
    }
    record.standing = Standing::Ours;
    record.retiring = rendered.retire.as_ref().map(|playbook| Retiring {
        playbook: playbook.clone(),
        arguments: rendered.arguments.clone(),
        secrets: rendered.secrets.clone(),
        keys: rendered.keys.clone(),
    });
    let seen = record
        .seen
        .as_ref()
        .filter(|seen| seen.digest == digest && now().saturating_sub(seen.at) < JUST_NOW);
    if seen.is_some_and(|seen| seen.look.is_clean()) {
        record.seen = None;
        record.clean = Some(Clean { digest, at: now() });
    }
    let recheck = site.recheck(&ordered.spec);
    let is_clean = |clean: &Clean| clean.digest == digest && (site.is_fresh(clean.at, recheck) || clean.at == now());
    if record.clean.as_ref().is_some_and(is_clean) {
        site.records.put(external, &record)?;
        return Ok(done(external, record));
    }
    let start = start(site, Purpose::Apply, ordered, &rendered, texts, digest)?;
    match run::run(site, external, hold, start, &mut record).await? {
        Waited::GoesOn(why) => pending(why),
        Waited::Done => match record.failed.take() {
            None => Ok(done(external, record)),
            Some(Failed { why, .. }) => {
                site.records.put(external, &record)?;
                Err(Hindrance::Failed(why))
            }
        },
    }
}

fn done(external: &str, record: Record) -> Applied {
    Applied::Done {
        external: external.to_owned(),
        outputs: record.outputs,
    }
}

/// A record that a resource may be applied by.
fn owned(record: Record, scope: &Scope, resource: &Resource) -> Result<Record, Hindrance> {
    let ours = record.made.is_ours(scope, &resource.name);
    let adopts = providers::adopts(resource);
    match record.standing {
        Standing::Ours if ours => Ok(record),
        Standing::Ours if adopts => Err(Hindrance::Anothers(record.made.owner())),
        Standing::Ours => Err(Hindrance::NotOwned),
        Standing::Released if adopts => Ok(record),
        Standing::Released => Err(Hindrance::NotOwned),
        Standing::Seen | Standing::Undone => Ok(Record { clean: None, ..record }),
    }
}

/// Undoes what was done for a resource, where its order says how.
pub(crate) async fn delete(site: &Arc<Site>, scope: &Scope, name: &ResourceName, external: &str) -> Result<Deleted, ProviderError> {
    let done = deleted(site, scope, name, external).await;
    providers::taken_down(done, external)
}

async fn deleted(site: &Arc<Site>, scope: &Scope, name: &ResourceName, external: &str) -> Result<Option<String>, Hindrance> {
    let mine = |record: &Record| record.made.is_ours(scope, name) && matches!(record.standing, Standing::Ours | Standing::Undone);
    if site.records.get(external)?.is_none_or(|record| !mine(&record)) {
        return Ok(None);
    }
    if let Some(why) = run::settle(site, external)? {
        return Ok(Some(why));
    }
    let hold = match run::turn(site, external).await? {
        Ok(hold) => hold,
        Err(why) => return Ok(Some(why)),
    };
    let Some(mut record) = site.records.get(external)?.filter(mine) else {
        return Ok(None);
    };
    if let Some(Failed { why, .. }) = record.failed.take_if(|failed| failed.purpose == Purpose::Retire) {
        site.records.put(external, &record)?;
        return Err(Hindrance::Failed(why));
    }
    let retiring = record.retiring.clone().filter(|_| record.standing == Standing::Ours);
    if let Some(retiring) = retiring {
        let start = Start {
            purpose: Purpose::Retire,
            digest: state::canonical::Digest::of(b"retire"),
            what: What::Retiring(&retiring),
            texts: Texts::read(site, &retiring.secrets, &retiring.keys)?,
            unknown: Default::default(),
            outputs: Default::default(),
            wanted: None,
        };
        match run::run(site, external, hold, start, &mut record).await? {
            Waited::GoesOn(why) => return Ok(Some(why)),
            Waited::Done => {}
        }
        if let Some(Failed { why, .. }) = record.failed.take() {
            site.records.put(external, &record)?;
            return Err(Hindrance::Failed(why));
        }
    }
    run::remove(&site.folder(external))?;
    site.records.remove(external)?;
    Ok(None)
}

/// Lets go of a playbook: the hosts stay as they are.
pub(crate) fn release(site: &Site, scope: &Scope, name: &ResourceName, external: &str) -> Result<(), ProviderError> {
    let released = || -> Result<(), Hindrance> {
        let mine = |record: &Record| record.made.is_ours(scope, name) && record.standing == Standing::Ours;
        if site.records.get(external)?.is_none_or(|record| !mine(&record)) {
            return Ok(());
        }
        if let Some(why) = run::settle(site, external)? {
            return Err(Hindrance::Failed(why));
        }
        // What a run has told may just have been taken in.
        if let Some(mut record) = site.records.get(external)?.filter(mine) {
            record.standing = Standing::Released;
            site.records.put(external, &record)?;
        }
        Ok(())
    };
    released().map_err(|hindrance| failed("release", external, hindrance))
}
