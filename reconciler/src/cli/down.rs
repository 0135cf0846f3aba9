//! `down`: deletes what an example made, and its data directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use embedded::LedgerError;
use providers::machine::Machine;
use providers::{Deleted, Orphan, Scope, Wanted};
use state::git::Store;
use state::ids::{Channel, MemberId};
use state::observation::Observation;
use state::report::Condition;

use super::error::{CliError, Consent, Doing, Exit};
use super::standing::{self, Standing};
use super::{Global, access, output, story, targets, up};
use crate::config::Config;
use crate::control::{Control, ControlError};
use crate::view::ChannelView;
use crate::workplace::registry;

/// How long deleting may take before `down` gives up and leaves the data directory.
const DEADLINE: Duration = Duration::from_secs(90);
/// How long somebody is waited for who may just be ending.
const ENDING: Duration = Duration::from_secs(5);
/// How often what is going is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Asks, and deletes.
pub(crate) async fn run(global: &Global, consent: Consent) -> Result<Exit, CliError> {
    let data_dir = &global.data_dir;
    if global.config.is_some() || global.member.is_some() || global.channel.is_some() {
        return Err(CliError::new(
            "down deletes a whole data directory; it takes no --config, --member or --channel",
        ));
    }
    if !access::ledger_folder(data_dir).join("network.json").is_file() {
        return Err(CliError::new(format!(
            "{} is not a data directory of charter up; nothing was deleted",
            data_dir.display()
        ))
        .next("name it with --data-dir"));
    }
    let configs = targets::configs(global)?;
    let mut held = Vec::new();
    for config in &configs {
        let control = Control::new(config.folder());
        let hold = free(|| control.hold(), |error| matches!(error, ControlError::Held { .. })).await;
        held.push(hold.map_err(|error| {
            CliError::new("nothing was deleted")
                .because(error)
                .next("stop charter up or charter serve first")
        })?);
    }
    // Held until the end: nobody starts a ledger on what is being deleted.
    let folder = access::ledger_folder(data_dir);
    let open = free(|| embedded::Ledger::open(&folder), |error| matches!(error, LedgerError::Locked(_))).await;
    let ledger = open.map_err(|error| {
        CliError::new("nothing was deleted")
            .because(error)
            .next("stop charter up or charter ledger serve first")
    })?;
    let mut owned = Vec::new();
    for config in &configs {
        can_see(config).await?;
        for channel in &config.channels() {
            owned.extend(
                orphans(config, channel)
                    .await?
                    .into_iter()
                    .map(|orphan| (config.member.clone(), channel.clone(), orphan)),
            );
        }
    }
    for (member, channel, orphan) in &owned {
        output::line(&format!(
            "- {member} {channel}/{} ({}) {}",
            orphan.name,
            orphan.kind,
            output::plain(&orphan.external)
        ));
    }
    output::confirm(
        &format!(
            "Delete these {} resources, and {} with its ledger, stores and keys?",
            owned.len(),
            data_dir.display()
        ),
        consent,
    )?;
    delete(&configs).await?;
    drop(ledger);
    drop(held);
    remove(data_dir)?;
    output::note(&format!("deleted {} resources and {}", owned.len(), data_dir.display()));
    Ok(Exit::Clean)
}

/// Takes what one at a time may have, from somebody who may just be ending.
async fn free<T, E>(mut take: impl FnMut() -> Result<T, E>, taken: fn(&E) -> bool) -> Result<T, E> {
    let started = tokio::time::Instant::now();
    loop {
        match take() {
            Err(error) if taken(&error) && started.elapsed() < ENDING => tokio::time::sleep(LOOK).await,
            had => return had,
        }
    }
}

/// Makes sure that what a member's record says it owns can be looked at: on a disk that is not mounted, or from records that can't be
/// read, nothing is seen, and that is not the same as nothing there.
async fn can_see(config: &Config) -> Result<(), CliError> {
    let member = &config.member;
    if !config.store().exists() {
        // Without a record, what its providers see is all that is known.
        return Ok(());
    }
    let broken = || format!("cannot read what {member} owns; nothing was deleted");
    let unreadable = |error: CliError| error.next(format!("charter replay --member {member}, then charter down again"));
    let store = Store::open(&config.store()).doing(broken()).map_err(unreadable)?;
    let registry = registry(config).doing(format!("the providers of {member} can't be set up"))?;
    for channel in &config.channels() {
        let view = ChannelView::load(&store, channel).doing(broken()).map_err(unreadable)?;
        // A rebuilt store has no record of its own yet; what the member has reported is a word too.
        let reported = standing::from(&view, channel, Some(member));
        let there = |one: &&Standing| !matches!(one.condition, None | Some(Condition::Deleted | Condition::Retained));
        let inventory = view.inventory;
        match inventory.entries().len().max(reported.iter().filter(there).count()) {
            0 => continue,
            owned => rooted(config, owned)?,
        }
        let scope = Scope::new(channel.clone(), member.clone());
        for provider in registry.providers() {
            let kinds = provider.kinds();
            let entries = inventory.entries().iter().filter(|(_, entry)| kinds.contains(&entry.resource.kind));
            let wanted: Vec<Wanted<'_>> = entries
                .map(|(name, entry)| Wanted {
                    name,
                    kind: &entry.resource.kind,
                    origin: entry.resource.origin.as_deref(),
                    resource: None,
                })
                .collect();
            for (name, observation) in provider.observe(&scope, &wanted).await.resources {
                if let Observation::Unknown { why } = observation {
                    return Err(CliError::new(format!(
                        "{member} owns {channel}/{name}, and it can't be seen: {why}; the data directory stays"
                    ))
                    .next("mend that, and run charter down again"));
                }
            }
        }
    }
    Ok(())
}

/// Makes sure that the machine's root is there.
fn rooted(config: &Config, owned: usize) -> Result<(), CliError> {
    let Some(machine) = &config.machine else { return Ok(()) };
    let there = Machine::new(machine.clone()).doing(format!("the machine of {} can't be set up", config.member))?;
    if there.has_root() {
        return Ok(());
    }
    Err(CliError::new(format!(
        "{} owns {owned} resources, and its machine's root {} is not there; the data directory stays",
        config.member,
        machine.root.display()
    ))
    .next("mount it, and run charter down again; if it is really gone, make the folder with an empty .charter folder in it first"))
}

async fn orphans(config: &Config, channel: &Channel) -> Result<Vec<Orphan>, CliError> {
    let scope = Scope::new(channel.clone(), config.member.clone());
    let registry = registry(config).doing(format!("the providers of {} can't be set up", config.member))?;
    let mut all = Vec::new();
    for provider in registry.providers() {
        // With nothing wanted, everything that is owned is an orphan.
        all.extend(provider.observe(&scope, &[]).await.orphans);
    }
    Ok(all)
}

/// Deletes round by round until nothing is left: what stands inside or depends on something else goes in an earlier round.
async fn delete(configs: &[Config]) -> Result<(), CliError> {
    let started = tokio::time::Instant::now();
    let mut last: BTreeMap<(MemberId, String), String> = BTreeMap::new();
    loop {
        let mut left = 0;
        for config in configs {
            let registry = registry(config).doing(format!("the providers of {} can't be set up", config.member))?;
            for channel in &config.channels() {
                let scope = Scope::new(channel.clone(), config.member.clone());
                for orphan in orphans(config, channel).await? {
                    left += 1;
                    let Some(provider) = registry.for_kind(&orphan.kind) else {
                        continue;
                    };
                    let key = (config.member.clone(), orphan.external.clone());
                    match provider.delete(&scope, &orphan.kind, &orphan.name, &orphan.external).await {
                        Ok(Deleted::Gone) => {
                            last.remove(&key);
                        }
                        Ok(Deleted::Pending { why }) => {
                            last.insert(key, why);
                        }
                        Err(error) => {
                            last.insert(key, state::errors::chain(&error));
                        }
                    }
                }
            }
        }
        if left == 0 {
            // A disk may have gone meanwhile, and then nothing left is nothing seen.
            for config in configs {
                can_see(config).await?;
            }
            return Ok(());
        }
        if started.elapsed() > DEADLINE {
            let reasons: Vec<String> = last
                .iter()
                .map(|((member, external), why)| format!("{member} {}", output::plain(&format!("{external}: {why}"))))
                .collect();
            return Err(CliError::new(format!(
                "{left} resources could not be deleted; the data directory stays\n  {}",
                reasons.join("\n  ")
            ))
            .next("mend that, and run charter down again"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes what `up` made in a data directory, and the directory if nothing else is in it.
fn remove(data_dir: &Path) -> Result<(), CliError> {
    // The ledger goes last: it is what tells a data directory from any other.
    let story = up::story_file(data_dir).exists();
    let told = story.then_some([story::WORK, story::EXAMPLE]);
    for part in ["members"].into_iter().chain(told.into_iter().flatten()).chain(["ledger"]) {
        let path = data_dir.join(part);
        if path.exists() {
            std::fs::remove_dir_all(&path).doing(format!("cannot delete {}", path.display()))?;
        }
    }
    // Whatever else is in it is not ours.
    let _ = std::fs::remove_dir(data_dir);
    Ok(())
}
