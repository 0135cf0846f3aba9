//! `down`: deletes what an example made, and its data directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use providers::{Deleted, Orphan, Scope};
use state::ids::{Channel, MemberId};

use super::error::{CliError, Consent, Doing, Exit};
use super::{Global, access, output, targets};
use crate::config::Config;
use crate::control::Control;
use crate::service::registry;

/// How long deleting may take before `down` gives up and leaves the data directory.
const DEADLINE: Duration = Duration::from_secs(90);
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
        held.push(control.hold().map_err(|error| {
            CliError::new("nothing was deleted")
                .because(error)
                .next("stop charter up or charter serve first")
        })?);
    }
    // Held until the end: nobody starts a ledger on what is being deleted.
    let ledger = embedded::Ledger::open(&access::ledger_folder(data_dir)).map_err(|error| {
        CliError::new("nothing was deleted")
            .because(error)
            .next("stop charter up or charter ledger serve first")
    })?;
    let mut owned = Vec::new();
    for config in &configs {
        for channel in &config.ledger.channels {
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
            orphan.name, orphan.kind, orphan.external
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

async fn orphans(config: &Config, channel: &Channel) -> Result<Vec<Orphan>, CliError> {
    let scope = Scope {
        channel: channel.clone(),
        member: config.member.clone(),
    };
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
            for channel in &config.ledger.channels {
                let scope = Scope {
                    channel: channel.clone(),
                    member: config.member.clone(),
                };
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
                            last.insert(key, ledger_sync::whole(&error));
                        }
                    }
                }
            }
        }
        if left == 0 {
            return Ok(());
        }
        if started.elapsed() > DEADLINE {
            let reasons: Vec<String> = last
                .iter()
                .map(|((member, external), why)| format!("{member} {external}: {why}"))
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
    for part in ["members", "ledger"] {
        let path = data_dir.join(part);
        if path.exists() {
            std::fs::remove_dir_all(&path).doing(format!("cannot delete {}", path.display()))?;
        }
    }
    // Whatever else is in it is not ours.
    let _ = std::fs::remove_dir(data_dir);
    Ok(())
}
