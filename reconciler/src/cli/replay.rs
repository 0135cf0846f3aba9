//! `replay`: the store from the ledger's first block, and the comparison of commit ids.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledger_sync::{Ledger, Options, catch_up};
use serde::Serialize;
use state::git::{CommitId, Store};
use state::ids::{Channel, MemberId};
use state::paths;

use super::access::Access;
use super::error::{CliError, Doing, Exit};
use super::{Format, Global, output, targets};
use crate::config::Config;

#[derive(Serialize)]
struct Row {
    member: MemberId,
    reference: String,
    store: Option<CommitId>,
    ledger: Option<CommitId>,
    same: bool,
}

/// Rebuilds or compares, for each member and channel that the options name.
pub(crate) async fn run(global: &Global, compare: Option<Option<PathBuf>>) -> Result<Exit, CliError> {
    let configs = targets::configs(global)?;
    let access = Access::open(global).await?;
    let mut rows = Vec::new();
    for config in &configs {
        let ledger = access.connect(config)?;
        match &compare {
            Some(other) => rows.extend(compared(global, config, ledger, other.as_deref()).await?),
            None => rows.extend(rebuilt(global, config, ledger).await?),
        }
    }
    access.close().await?;
    let same = rows.iter().all(|row| row.same);
    if global.output == Format::Json {
        output::json(&rows)?;
    } else {
        let id = |id: &Option<CommitId>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let cells = |row: &Row| {
            let word = match (row.same, row.store == row.ledger) {
                (true, true) => "identical",
                (true, false) => "identical as far as it goes",
                (false, _) => "DIFFERENT",
            };
            vec![row.member.to_string(), row.reference.clone(), id(&row.ledger), word.to_owned()]
        };
        output::table(
            &["member", "ref", "commit from the ledger", "store"],
            rows.iter().map(cells).collect(),
        );
    }
    Ok(if same { Exit::Clean } else { Exit::Difference })
}

/// Replays a channel from block 0 into an empty store, and returns its two heads.
async fn replayed(ledger: Arc<dyn Ledger>, channel: &Channel, into: &Path) -> Result<Store, CliError> {
    let store = Store::init(into).doing("cannot make an empty store")?;
    catch_up(ledger, store.clone(), channel.clone(), Options::default())
        .await
        .map_err(|error| CliError::new(format!("channel {channel} can't be replayed")).because(error))?;
    Ok(store)
}

async fn compared(global: &Global, config: &Config, ledger: Arc<dyn Ledger>, other: Option<&Path>) -> Result<Vec<Row>, CliError> {
    let own = config.store();
    let path = other.unwrap_or(&own);
    let present = Store::open(path).doing(format!("cannot read the store {}", path.display()))?;
    let mut rows = Vec::new();
    for channel in targets::channels(global, config) {
        let folder = scratch(config)?;
        let fresh = replayed(ledger.clone(), &channel, folder.path()).await?;
        for reference in [paths::desired_ref(&channel), paths::reported_ref(&channel)] {
            let from_ledger = fresh.head(&reference).doing("cannot read the replayed store")?;
            let found = present.head(&reference).doing("cannot read the store")?;
            // A store that is behind the ledger is no other history: its head has to be among the replayed commits.
            let same = found == from_ledger
                || match (found, from_ledger) {
                    (Some(found), Some(newest)) => fresh
                        .log(newest, None, usize::MAX)
                        .doing("cannot read the replayed history")?
                        .iter()
                        .any(|info| info.id == found),
                    (None, _) => true,
                    (Some(_), None) => false,
                };
            rows.push(Row {
                member: config.member.clone(),
                reference,
                store: found,
                ledger: from_ledger,
                same,
            });
        }
    }
    Ok(rows)
}

async fn rebuilt(global: &Global, config: &Config, ledger: Arc<dyn Ledger>) -> Result<Vec<Row>, CliError> {
    let control = crate::control::Control::new(config.folder());
    let _held = control.hold().map_err(|error| {
        CliError::new("the store can't be rebuilt now")
            .because(error)
            .next("stop the service first")
    })?;
    let store = Store::init(&config.store()).map_err(|error| {
        CliError::new(format!("{} can't be repaired in place", config.store().display()))
            .because(error)
            .next("move it away and run the same command again")
    })?;
    let mut rows = Vec::new();
    for channel in targets::channels(global, config) {
        catch_up(ledger.clone(), store.clone(), channel.clone(), Options::default())
            .await
            .map_err(|error| CliError::new(format!("channel {channel} can't be replayed")).because(error))?;
        for reference in [paths::desired_ref(&channel), paths::reported_ref(&channel)] {
            let head = store.head(&reference).doing("cannot read the store")?;
            rows.push(Row {
                member: config.member.clone(),
                reference,
                store: head,
                ledger: head,
                same: true,
            });
        }
    }
    Ok(rows)
}

/// A folder beside the member's store that goes when it is dropped.
fn scratch(config: &Config) -> Result<Scratch, CliError> {
    let path = config.folder().join(format!(".replay-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).doing(format!("cannot make {}", path.display()))?;
    Ok(Scratch(path))
}

struct Scratch(PathBuf);

impl Scratch {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
