//! `replay`: the store from the ledger's first block, and the comparison of commit ids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledger_sync::{Ledger, Options, catch_up};
use serde::Serialize;
use state::git::{CommitId, Store};
use state::ids::{Channel, MemberId};
use state::paths;

use super::access::Access;
use super::error::{CliError, Doing, Exit};
use super::history::block;
use super::{Format, Global, output, targets};
use crate::config::Config;
use crate::control::Control;
use crate::discovery;
use crate::view::ChannelView;

/// How a reference of a store stands to the same reference replayed from the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    /// Both are at the same commit, or neither is there.
    Identical,
    /// The store has not taken in everything, and what it has is the same history; of one that begins later it has nothing.
    Behind,
    /// The store has nothing where the ledger has something.
    Missing,
    /// Another history.
    Different,
}

impl Match {
    fn word(self) -> &'static str {
        match self {
            Match::Identical => "identical",
            Match::Behind => "identical as far as it goes",
            Match::Missing => "missing",
            Match::Different => "DIFFERENT",
        }
    }

    /// Whether it is the ledger's history. Nothing at all is no history.
    fn same(self) -> bool {
        matches!(self, Match::Identical | Match::Behind)
    }
}

#[derive(Serialize)]
struct Row {
    member: MemberId,
    reference: String,
    store: Option<CommitId>,
    ledger: Option<CommitId>,
    same: bool,
    #[serde(skip)]
    standing: Match,
}

/// Rebuilds or compares, for each member and channel that the options name.
pub(crate) async fn run(global: &Global, compare: Option<Option<PathBuf>>) -> Result<Exit, CliError> {
    if compare.is_none() && global.channel.is_some() {
        return Err(
            CliError::new("a store is rebuilt with all its channels; nothing was rebuilt").next("leave --channel out, or add --compare")
        );
    }
    // A store that is lost knows no channels: those are found again while it is rebuilt.
    let selected = match compare {
        Some(_) => targets::following(global)?,
        None => targets::selected(global)?,
    };
    let access = Access::open(global).await?;
    let mut rows = Vec::new();
    for (config, channels) in &selected {
        let ledger = access.connect(config)?;
        match &compare {
            Some(other) => rows.extend(compared(config, channels, ledger, other.as_deref()).await?),
            None => rows.extend(rebuilt(config, ledger).await?),
        }
    }
    access.close().await?;
    let same = rows.iter().all(|row| row.same);
    if global.output == Format::Json {
        output::json(&rows)?;
    } else {
        let id = |id: &Option<CommitId>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let cells = |row: &Row| {
            vec![
                row.member.to_string(),
                row.reference.clone(),
                id(&row.ledger),
                row.standing.word().to_owned(),
            ]
        };
        output::table(
            &["member", "ref", "commit from the ledger", "store"],
            rows.iter().map(cells).collect(),
        );
    }
    Ok(if same { Exit::Clean } else { Exit::Difference })
}

/// Follows a channel to its end: from block 0, in a store that has nothing of it yet.
async fn replayed(ledger: Arc<dyn Ledger>, channel: &Channel, into: &Store) -> Result<(), CliError> {
    catch_up(ledger, into.clone(), channel.clone(), Options::default())
        .await
        .map(|_| ())
        .map_err(|error| CliError::new(format!("channel {channel} can't be replayed")).because(error))
}

/// What the two references of a channel name that the ledger alone decides.
type Heads = BTreeMap<String, Option<CommitId>>;

fn heads(store: &Store, channel: &Channel) -> Result<Heads, CliError> {
    let head = |reference: String| {
        let head = store
            .head(&reference)
            .doing(format!("cannot read {reference} in {}", store.path().display()))?;
        Ok((reference, head))
    };
    [paths::desired_ref(channel), paths::reported_ref(channel)]
        .into_iter()
        .map(head)
        .collect()
}

/// Compares what references named, before they were replayed, with the replayed ones.
fn rows(member: &MemberId, present: &Heads, fresh: &Store) -> Result<Vec<Row>, CliError> {
    let taken = present
        .values()
        .flatten()
        .filter_map(|head| blocks(fresh, *head, 1).ok()?.max())
        .max();
    let row = |(reference, store): (&String, &Option<CommitId>)| {
        let ledger = fresh.head(reference).doing("cannot read the replayed store")?;
        let standing = match (*store, ledger) {
            (store, ledger) if store == ledger => Match::Identical,
            // One whose first block is still to come has nothing to name.
            (None, Some(newest)) if taken.is_some() && blocks(fresh, newest, usize::MAX)?.min() > taken => Match::Behind,
            (None, _) => Match::Missing,
            // A store that is behind the ledger is no other history: its head has to be among the replayed commits.
            (Some(found), Some(newest)) if holds(fresh, newest, found)? => Match::Behind,
            _ => Match::Different,
        };
        Ok(Row {
            member: member.clone(),
            reference: reference.clone(),
            store: *store,
            ledger,
            same: standing.same(),
            standing,
        })
    };
    present.iter().map(row).collect()
}

/// The numbers of the blocks that a history's newest commits come from, at most so many of them.
fn blocks(fresh: &Store, newest: CommitId, most: usize) -> Result<impl Iterator<Item = u64>, CliError> {
    let all = fresh.log(newest, None, most).doing("cannot read the replayed history")?;
    Ok(all.into_iter().filter_map(|info| block(&info)))
}

fn holds(fresh: &Store, newest: CommitId, found: CommitId) -> Result<bool, CliError> {
    let all = fresh.log(newest, None, usize::MAX).doing("cannot read the replayed history")?;
    Ok(all.iter().any(|info| info.id == found))
}

async fn compared(config: &Config, channels: &[Channel], ledger: Arc<dyn Ledger>, other: Option<&Path>) -> Result<Vec<Row>, CliError> {
    let own = config.store();
    let path = other.unwrap_or(&own);
    let present = Store::open(path).doing(format!("cannot read the store {}", path.display()))?;
    let folder = scratch(config)?;
    let fresh = Store::init(folder.path()).doing("cannot make an empty store")?;
    let mut all = Vec::new();
    for channel in channels {
        // Read first: a running service may move them on while the ledger is replayed.
        let heads = heads(&present, channel)?;
        replayed(ledger.clone(), channel, &fresh).await?;
        all.extend(rows(&config.member, &heads, &fresh)?);
    }
    Ok(all)
}

/// Replays every channel of a member into a new store, and puts that in the old one's place unless the old one is as good.
///
/// The new store is complete before the old one is touched, and the old one is kept: whatever fails, nothing is lost.
async fn rebuilt(config: &Config, ledger: Arc<dyn Ledger>) -> Result<Vec<Row>, CliError> {
    let control = Control::new(config.folder());
    let _held = control.hold().map_err(|error| {
        CliError::new("the store can't be rebuilt now")
            .because(error)
            .next("stop the service first")
    })?;
    let member = &config.member;
    let folder = scratch(config)?;
    let fresh = Store::init(folder.path()).doing("cannot make an empty store")?;
    let channels = channels(config, ledger.as_ref()).await?;
    for channel in &channels {
        replayed(ledger.clone(), channel, &fresh).await?;
    }
    let path = config.store();
    let there = path.symlink_metadata().is_ok();
    if there {
        match kept(config, &channels, &fresh, ledger).await {
            Ok(rows) => return Ok(rows),
            Err(error) => output::note(&format!("{member}: the present store can't stay\n{}", error.render().trim_end())),
        }
    }
    let mut all = Vec::new();
    for channel in &channels {
        // All that the ledger has is in it.
        Control::set_level(fresh.path(), channel).doing("the new store's standing can't be remembered")?;
        all.extend(rows(member, &heads(&fresh, channel)?, &fresh)?);
    }
    let aside = if there { Some(put_aside(&path)?) } else { None };
    std::fs::rename(folder.path(), &path).doing(format!("cannot put the rebuilt store at {}", path.display()))?;
    if let Some(aside) = aside {
        output::note(&format!(
            "{member}: the old store, with the history of actual/, is {} now",
            aside.display()
        ));
    }
    output::note(&format!(
        "{member}: rebuilt {}; the next pass finds what is owned by its owner labels, and begins actual/ anew",
        path.display()
    ));
    Ok(all)
}

/// The channels of a member: those that it names, those that its store knows, and those that its peers have joined. A store that is
/// lost knows none.
async fn channels(config: &Config, ledger: &dyn Ledger) -> Result<BTreeSet<Channel>, CliError> {
    let mut channels = config.channels();
    let patterns = config.discover();
    if !patterns.is_empty() {
        let new = discovery::new(ledger, &patterns, &channels).await;
        channels.extend(new.doing("the peers don't say which channels they have joined")?);
    }
    Ok(channels)
}

/// Keeps a store that holds the ledger's history, as far as it goes, and can be read; one that is behind takes in the rest. An error
/// says why it can't be kept.
async fn kept(config: &Config, channels: &BTreeSet<Channel>, fresh: &Store, ledger: Arc<dyn Ledger>) -> Result<Vec<Row>, CliError> {
    let path = config.store();
    let doing = || format!("cannot read the store {}", path.display());
    let present = Store::open(&path).doing(doing())?;
    let mut behind = Vec::new();
    for channel in channels {
        let rows = rows(&config.member, &heads(&present, channel)?, fresh)?;
        // Of a channel that was never followed there is nothing at all. One reference without the other was lost.
        let none = rows.iter().all(|row| row.store.is_none());
        if let Some(row) = rows.iter().find(|row| !row.same && !none) {
            return Err(CliError::new(format!("{} is {}", row.reference, row.standing.word())));
        }
        if rows.iter().any(|row| row.standing != Match::Identical) {
            behind.push(channel);
        }
        ChannelView::load(&present, channel).doing(doing())?;
        let actual = present.head(&paths::actual_ref(channel)).doing(doing())?;
        for head in rows.iter().filter_map(|row| row.store).chain(actual) {
            present.log(head, None, usize::MAX).doing(doing())?;
        }
    }
    let says = if behind.is_empty() {
        "identical to the ledger, nothing to rebuild"
    } else {
        // Mended where a killed writer left something half done.
        let present = Store::init(&path).doing(doing())?;
        for channel in behind {
            replayed(ledger.clone(), channel, &present).await?;
        }
        "identical to the ledger as far as it went, and took in the rest"
    };
    output::note(&format!("{}: {} is {says}", config.member, path.display()));
    let mut all = Vec::new();
    for channel in channels {
        // The ledger may have grown since the replay: what was taken in now goes on from what was compared.
        let heads = heads(&present, channel)?;
        all.extend(rows(&config.member, &heads, &present)?);
    }
    Ok(all)
}

/// Moves a store out of the way, beside where it was, and returns where it is now.
fn put_aside(path: &Path) -> Result<PathBuf, CliError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".before-");
    let free = (1..u32::MAX)
        .map(|number| {
            let mut name = name.clone();
            name.push(number.to_string());
            path.with_file_name(name)
        })
        .find(|aside| aside.symlink_metadata().is_err());
    let aside = free.ok_or_else(|| CliError::new(format!("there is no free name beside {}", path.display())))?;
    std::fs::rename(path, &aside).doing(format!("cannot move {} to {}", path.display(), aside.display()))?;
    Ok(aside)
}

/// A folder beside the member's store that goes when it is dropped.
fn scratch(config: &Config) -> Result<Scratch, CliError> {
    // On the store's own file system, so that it can take the store's place by a rename.
    let store = config.store();
    let beside = store.parent().unwrap_or(config.folder());
    let path = beside.join(format!(".replay-{}", std::process::id()));
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
