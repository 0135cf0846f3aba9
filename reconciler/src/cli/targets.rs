//! Which members' Charters a command is about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use state::git::Store;
use state::ids::Channel;
use state::paths;

use super::Global;
use super::error::{CliError, Doing};
use crate::config::{Config, FILE_NAME};
use crate::control::Control;
use crate::view::{self, ChannelView};

/// The configurations that the options name: one file, or the members below the data directory, by name.
pub(crate) fn configs(global: &Global) -> Result<Vec<Config>, CliError> {
    if let Some(path) = &global.config {
        let config = Config::read(path).map_err(|error| CliError::new("the configuration can't be used").because(error))?;
        return Ok(vec![config]);
    }
    let folder = members(&global.data_dir);
    let nobody = || {
        CliError::new(format!("there are no members below {}", folder.display()))
            .next("charter up, or name a data directory with --data-dir, or a configuration with --config")
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|_| nobody())? {
        let path = entry.doing(format!("cannot read {}", folder.display()))?.path().join(FILE_NAME);
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut found = Vec::new();
    for path in &paths {
        found.push(Config::read(path).map_err(|error| CliError::new("the configuration can't be used").because(error))?);
    }
    if found.is_empty() {
        return Err(nobody());
    }
    let names: Vec<String> = found.iter().map(|config| config.member.to_string()).collect();
    if let Some(member) = &global.member {
        found.retain(|config| config.member == *member);
        if found.is_empty() {
            return Err(CliError::new(format!("member {member} is not below {}", folder.display()))
                .next(format!("--member is one of {}", names.join(", "))));
        }
    }
    Ok(found)
}

/// The one configuration that a command works for.
pub(crate) fn one(global: &Global) -> Result<Config, CliError> {
    let mut found = configs(global)?;
    match (found.pop(), found.is_empty()) {
        (Some(config), true) => Ok(config),
        (last, _) => {
            let names: Vec<String> = found.iter().chain(&last).map(|config| config.member.to_string()).collect();
            Err(CliError::new("this command works for one member").next(format!("add --member, one of {}", names.join(", "))))
        }
    }
}

/// The channels of a configuration that the options name. None of them: what a command does then is up to [`selected`] and
/// [`following`], so that a name that was mistyped is never taken for success.
fn channels(global: &Global, config: &Config) -> Vec<Channel> {
    match &global.channel {
        None => config.channels().into_iter().collect(),
        Some(only) if config.channels().contains(only) || has(config, only) => vec![only.clone()],
        Some(_) => Vec::new(),
    }
}

/// Tells whether a member has a channel that its configuration doesn't tell of: its service follows it since its peer joined it, or its
/// store has taken something in from it.
fn has(config: &Config, channel: &Channel) -> bool {
    let served = Control::new(config.folder()).read_status();
    if served.is_some_and(|status| status.channels.contains_key(channel)) {
        return true;
    }
    let references = [
        paths::desired_ref(channel),
        paths::reported_ref(channel),
        paths::actual_ref(channel),
    ];
    // A store that can't be opened has no channels to speak of; who works with it says what is wrong with it.
    config.store().exists()
        && Store::open(&config.store()).is_ok_and(|store| references.iter().any(|name| store.head(name).is_ok_and(|head| head.is_some())))
}

/// The members that the options name, each with its channels that they name. A channel that no member follows is an error.
pub(crate) fn selected(global: &Global) -> Result<Vec<(Config, Vec<Channel>)>, CliError> {
    let found = configs(global)?;
    let with_channels = |config: &Config| (config.clone(), channels(global, config));
    let all: Vec<(Config, Vec<Channel>)> = found.iter().map(with_channels).collect();
    if global.channel.is_some() && all.iter().all(|(_, channels)| channels.is_empty()) {
        return Err(no_channel(&found));
    }
    Ok(all)
}

/// What [`selected`] gives, where no channel at all is an error too: for commands that would do nothing, and seem to have done it.
pub(crate) fn following(global: &Global) -> Result<Vec<(Config, Vec<Channel>)>, CliError> {
    let mut all = selected(global)?;
    all.retain(|(_, channels)| !channels.is_empty());
    if all.is_empty() {
        return Err(no_channel(&configs(global)?));
    }
    Ok(all)
}

/// What a member's store says of a channel.
pub(crate) fn view(config: &Config, channel: &Channel) -> Result<ChannelView, CliError> {
    let store = store(config)?;
    ChannelView::load(&store, channel).doing(format!("cannot read channel {channel} of {}", config.member))
}

/// Every channel that the options name, as the store has it that has taken in most of it, and whose store that is.
pub(crate) fn views(global: &Global) -> Result<Vec<(Channel, Config, ChannelView)>, CliError> {
    let mut views = Vec::new();
    for (channel, configs) in by_channel(global)? {
        if let Some(config) = newest(&configs, &channel) {
            let view = view(config, &channel)?;
            views.push((channel, config.clone(), view));
        }
    }
    Ok(views)
}

/// The one channel that a command works on.
pub(crate) fn one_channel(global: &Global, config: &Config) -> Result<Channel, CliError> {
    let mut found = channels(global, config);
    if let (Some(named), true) = (&global.channel, found.is_empty())
        && config.discover().iter().any(|pattern| pattern.fits(named))
    {
        // A channel that was only just joined: nothing of it is in the store yet.
        return Ok(named.clone());
    }
    match (found.pop(), found.is_empty()) {
        (Some(channel), true) => Ok(channel),
        (last, _) => {
            let names: Vec<String> = match last {
                Some(last) => found.iter().chain([&last]).map(ToString::to_string).collect(),
                None => config.channels().iter().map(ToString::to_string).collect(),
            };
            if let Some(named) = &global.channel {
                let error = CliError::new(format!(
                    "{named} is not followed: add it to channels or discover of [ledger] in {FILE_NAME}"
                ));
                return Err(match names.is_empty() {
                    true => error,
                    false => error.next(format!("--channel is one of {}", names.join(", "))),
                });
            }
            if names.is_empty() {
                return Err(CliError::new("no channel was found yet").next("add --channel with the name of one that the peer has joined"));
            }
            Err(CliError::new("this command works on one channel").next(format!("add --channel, one of {}", names.join(", "))))
        }
    }
}

/// The members' folders below a data directory.
pub(crate) fn members(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("members")
}

/// Opens a member's store for reading.
pub(crate) fn store(config: &Config) -> Result<Store, CliError> {
    Store::open(&config.store()).map_err(|error| {
        CliError::new(format!("{} has no store yet", config.member))
            .because(error)
            .next("charter up, or charter serve --config FILE")
    })
}

/// The channels that the options name, each with the members that follow it.
pub(crate) fn by_channel(global: &Global) -> Result<BTreeMap<Channel, Vec<Config>>, CliError> {
    let found = configs(global)?;
    let mut all: BTreeMap<Channel, Vec<Config>> = BTreeMap::new();
    for config in &found {
        for channel in channels(global, config) {
            all.entry(channel).or_default().push(config.clone());
        }
    }
    if all.is_empty() {
        return Err(no_channel(&found));
    }
    Ok(all)
}

/// Of several members' stores, the one that has taken in most of a channel.
pub(crate) fn newest<'a>(configs: &'a [Config], channel: &Channel) -> Option<&'a Config> {
    let block = |config: &Config| {
        let store = Store::open(&config.store()).ok()?;
        let head = store.head(&paths::desired_ref(channel)).ok()??;
        Some(view::cursor(&store, head).ok()??.position)
    };
    configs.iter().rev().max_by_key(|config| block(config))
}

fn no_channel(found: &[Config]) -> CliError {
    let names: BTreeSet<String> = found.iter().flat_map(Config::channels).map(|channel| channel.to_string()).collect();
    if names.is_empty() {
        return CliError::new("no channel was found yet")
            .next("charter channel join, and charter serve to find it; or name it in ledger.channels of charter.toml");
    }
    CliError::new("no member follows that channel")
        .next(format!("--channel is one of {}", names.into_iter().collect::<Vec<_>>().join(", ")))
}

/// For commands that read one channel: of the members that follow it, the one whose store has most of it.
pub(crate) fn readable(global: &Global) -> Result<(Config, Channel), CliError> {
    let all = by_channel(global)?;
    let found = all.into_iter().rev().find_map(|(channel, configs)| {
        let config = newest(&configs, &channel)?.clone();
        Some((config, channel))
    });
    found.ok_or_else(|| no_channel(&[]))
}
