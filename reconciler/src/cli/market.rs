//! What the commands of a market share: which channel it is, reading it from a store, and saying something on it.

use std::collections::BTreeMap;
use std::str::FromStr;

use policies::reputation::{Conduct, Score};
use state::agreement::Agreement;
use state::canonical::Digest;
use state::desired::DesiredState;
use state::git::Store;
use state::ids::{Channel, MemberId};

use super::error::{CliError, Doing, Exit};
use super::floor::Floor;
use super::{Global, targets};
use crate::clock::now;
use crate::conduct;
use crate::config::Config;
use crate::market::MARKET;
use crate::submission::{Said, SubmissionError};
use crate::view::{self, ChannelView};

/// The name that a market has where none is named.
pub(super) fn usual() -> Channel {
    Channel::new(MARKET).expect("it is a label")
}

/// The same options, with the market as the one channel.
fn on_market(global: &Global) -> Global {
    let mut global = global.clone();
    global.channel.get_or_insert_with(usual);
    global
}

/// Adds which option names the market.
fn named(error: CliError, global: &Global) -> CliError {
    match global.channel {
        Some(_) => error,
        None => error.next(format!("name the market's channel with --channel; without it, it is {MARKET}")),
    }
}

/// A market, as the store that has most of it knows it.
pub(super) struct Seen {
    /// Whose store it is.
    pub(super) config: Config,
    /// The market's channel.
    pub(super) channel: Channel,
    /// What was said on it.
    pub(super) desired: DesiredState,
}

impl Seen {
    /// Reads the market from a store of the members that the options name.
    pub(super) fn read(global: &Global) -> Result<Self, CliError> {
        let (config, channel) = targets::readable(&on_market(global)).map_err(|error| named(error, global))?;
        let view = ChannelView::load(&targets::store(&config)?, &channel);
        let desired = view.doing(format!("cannot read channel {channel} of {}", config.member))?.desired;
        Ok(Self { config, channel, desired })
    }

    /// What members say of each other.
    pub(super) fn scores(&self) -> BTreeMap<MemberId, Score> {
        Score::by_member(self.desired.records())
    }
}

/// What members have done, on each channel that the members whom the options name follow.
pub(super) fn conduct(global: &Global) -> Result<BTreeMap<MemberId, BTreeMap<Channel, Conduct>>, CliError> {
    let everywhere = Global {
        channel: None,
        ..global.clone()
    };
    let mut all: BTreeMap<MemberId, BTreeMap<Channel, Conduct>> = BTreeMap::new();
    for (channel, configs) in targets::by_channel(&everywhere)? {
        let Some(config) = targets::newest(&configs, &channel) else {
            continue;
        };
        let store = targets::store(config)?;
        let found = conduct::of(&store, &channel, now()).doing(format!("cannot count the reports of {}'s store", config.member))?;
        for (member, conduct) in found {
            all.entry(member).or_default().insert(channel.clone(), conduct);
        }
    }
    Ok(all)
}

/// What a member has done on several channels together.
pub(super) fn together(channels: Option<&BTreeMap<Channel, Conduct>>) -> Conduct {
    let all = channels.into_iter().flat_map(BTreeMap::values);
    all.fold(Conduct::default(), |sum, conduct| sum.and(conduct))
}

/// What a member has done, in a few words.
pub(super) fn in_words(conduct: &Conduct) -> String {
    if conduct.reports == 0 {
        return "no reports".into();
    }
    let silent = match conduct.silent {
        0 => String::new(),
        seconds => format!(", silent for {seconds} s"),
    };
    let counted = |count: u64, what: &str| match count {
        0 => String::new(),
        count => format!(", {count} {what}"),
    };
    format!(
        "{} report{}, {} late, {} healed, {} pending{silent}{}{}{}",
        conduct.reports,
        if conduct.reports == 1 { "" } else { "s" },
        conduct.late,
        conduct.healed,
        conduct.pending,
        counted(conduct.abandoned, "abandoned"),
        counted(conduct.given, "given away"),
        counted(conduct.taken, "taken over"),
    )
}

/// Opens the ledger for the one member that the options name, on the market.
pub(super) async fn floor(global: &Global) -> Result<Floor, CliError> {
    Floor::open(&on_market(global)).await.map_err(|error| named(error, global))
}

/// Prints what was said on a market, and leaves.
pub(super) async fn close(floor: Floor, said: Result<Vec<Said>, SubmissionError>, what: &str) -> Result<Exit, CliError> {
    floor
        .said(said)
        .await
        .map_err(|error| error.within(format!("{what} was not taken")))?;
    floor.close().await?;
    Ok(Exit::Clean)
}

/// An agreement, by the channel that it lives in or by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The one of a channel that the member follows.
    Channel(Channel),
    /// The one with this digest.
    Digest(Digest),
}

impl FromStr for Which {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("sha256:") {
            return text.parse().map(Which::Digest).map_err(|error| format!("{error}"));
        }
        Channel::new(text)
            .map(Which::Channel)
            .map_err(|error| format!("write the agreement's channel, or its digest: {error}"))
    }
}

impl Which {
    /// The agreement's digest.
    pub(super) fn digest(&self, config: &Config) -> Result<Digest, CliError> {
        match self {
            Which::Digest(digest) => Ok(*digest),
            Which::Channel(channel) => {
                let agreement = in_force(config, channel)?;
                agreement.digest().doing(format!("the agreement of {channel} can't be digested"))
            }
        }
    }
}

/// The agreement that is in force on a channel, from the member's own store.
pub(super) fn in_force(config: &Config, channel: &Channel) -> Result<Agreement, CliError> {
    let store: Store = targets::store(config)?;
    let head = store.head(&state::paths::desired_ref(channel));
    let commit = head
        .doing(format!("cannot read channel {channel} of {}", config.member))?
        .ok_or_else(|| {
            CliError::new(format!("{} has nothing of channel {channel}", config.member))
                .next("name the channel that the agreement lives in")
        })?;
    let desired = view::desired(&store, channel, commit).doing(format!("cannot read channel {channel} of {}", config.member))?;
    match desired.agreement() {
        Some(record) if record.in_force => Ok(record.agreement.clone()),
        Some(_) => Err(CliError::new(format!(
            "the agreement of {channel} is not in force: not every party has accepted it"
        ))),
        None => Err(CliError::new(format!("channel {channel} has no agreement"))),
    }
}
