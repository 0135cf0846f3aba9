//! `status`: how every resource stands, whether the ledger is followed, and what is owned and not in order.

use std::collections::{BTreeMap, BTreeSet};

use ledger_sync::{Testimony, frozen};
use providers::Scope;
use serde::Serialize;
use state::acts::life::{ENDING, EndingRecord, PartRecord};
use state::ids::{Channel, MemberId, ResourceName};
use state::reported::Head;
use state::time::Timestamp;

use super::error::{CliError, Doing, Exit};
use super::standing::{self, Standing};
use super::{Format, Global, output, targets};
use crate::clock::now;
use crate::control::{ChannelStatus, Control, ServiceStatus};
use crate::view::{self, ChannelView};
use crate::workplace;

#[derive(Serialize)]
struct One {
    member: MemberId,
    channel: Channel,
    agreement: Option<String>,
    in_force: bool,
    ended: bool,
    closed: Vec<MemberId>,
    block: Option<u64>,
    desired: Option<String>,
    service: Option<ChannelStatus>,
    frozen: Option<String>,
    witnessed: bool,
    pid: Option<u32>,
    paused: bool,
    resources: Vec<Standing>,
    owned: usize,
    unresolved: Vec<String>,
    going_on: BTreeMap<ResourceName, String>,
    reports: Vec<Said>,
}

#[derive(Serialize)]
struct Said {
    member: MemberId,
    sequence: u64,
    at: Timestamp,
    seconds_ago: i64,
}

/// Shows every member and channel that the options name.
pub(crate) async fn run(global: &Global) -> Result<Exit, CliError> {
    let mut all = Vec::new();
    let mut without = Vec::new();
    for (config, channels) in targets::selected(global)? {
        let store = targets::store(&config)?;
        // What can't be set up here is told by plan and by the service.
        let registry = workplace::registry(&config).ok();
        let control = Control::new(config.folder());
        let service = control.read_status();
        if channels.is_empty() && global.channel.is_none() {
            without.push((config.member.clone(), service.clone()));
        }
        for channel in channels {
            let view = ChannelView::load(&store, &channel).doing(format!("cannot read channel {channel} of {}", config.member))?;
            let cursor = view
                .desired_commit
                .map(|commit| view::cursor(&store, commit))
                .transpose()
                .doing("cannot read the cursor")?
                .flatten();
            let agreement = view.desired.agreement();
            let failed = |(name, entry): (&state::ids::ResourceName, &state::inventory::Entry)| {
                entry.failed.as_ref().map(|why| format!("{name} ({}): {why}", entry.external))
            };
            all.push(One {
                member: config.member.clone(),
                agreement: agreement.map(|record| format!("{} v{}", record.agreement.dao, record.agreement.version)),
                in_force: agreement.is_some_and(|record| record.in_force),
                ended: view
                    .desired
                    .records()
                    .of::<EndingRecord>(ENDING)
                    .is_some_and(|ending| ending.ended.is_some()),
                closed: view.desired.records().all::<PartRecord>().map(|part| part.member.clone()).collect(),
                block: cursor.map(|cursor| cursor.position.block),
                desired: view.desired_commit.map(|commit| commit.to_string()),
                frozen: frozen::read(&store, &channel).map(|frozen| frozen.reason),
                witnessed: config.ledger.witness.is_some(),
                pid: service.as_ref().map(|service| service.pid),
                service: service.as_ref().and_then(|service| service.channels.get(&channel).cloned()),
                paused: control.paused(&channel),
                resources: standing::from(&view, &channel, None),
                owned: view.inventory.entries().len(),
                going_on: registry.as_ref().map_or_else(BTreeMap::new, |registry| {
                    registry.going_on(&Scope::new(channel.clone(), config.member.clone()))
                }),
                unresolved: view.inventory.entries().iter().filter_map(failed).collect(),
                reports: view
                    .reported
                    .members()
                    .iter()
                    .map(|(member, reports)| said(member, &reports.head))
                    .collect(),
                channel,
            });
        }
    }
    if global.output == Format::Json {
        output::json(&all)?;
    } else {
        let channels: BTreeSet<&Channel> = all.iter().map(|one| &one.channel).collect();
        for (index, channel) in channels.into_iter().enumerate() {
            if index > 0 {
                output::line("");
            }
            show(channel, &all.iter().filter(|one| one.channel == *channel).collect::<Vec<_>>());
        }
        if !all.is_empty() {
            output::note(&format!("\n{}", trust(all.iter().map(One::second))));
        }
        for (member, service) in &without {
            output::note(&format!("{member}: no channel was found yet; {}", unfound(service.as_ref())));
        }
    }
    let unasked = |service: &Option<ServiceStatus>| service.as_ref().is_some_and(|service| service.undiscovered.is_some());
    let unwell = all.iter().any(|one| one.why_frozen().is_some()) || without.iter().any(|(_, service)| unasked(service));
    Ok(if unwell { Exit::Error } else { Exit::Clean })
}

/// What keeps a member from its channels, as its service knows it.
fn unfound(service: Option<&ServiceStatus>) -> String {
    match service {
        None => "charter channel join, and charter serve to find it; or name it in ledger.channels of charter.toml".to_owned(),
        Some(ServiceStatus {
            undiscovered: Some(why), ..
        }) => {
            format!("its service can't ask the peers: {}", output::plain(why))
        }
        Some(_) => "its service looks again at every interval; charter channel join has a peer join one".to_owned(),
    }
}

impl One {
    /// What a second peer says of this channel to this member.
    fn second(&self) -> Second {
        let said = self.service.as_ref().and_then(|service| service.testimony.as_ref());
        if self.witnessed { Second::of(said) } else { Second::Unnamed }
    }

    /// Why the channel is frozen: as its service says, or as it was recorded.
    fn why_frozen(&self) -> Option<&String> {
        let service = self.service.as_ref().and_then(|service| service.frozen.as_ref());
        service.or(self.frozen.as_ref())
    }
}

/// How a second peer stands to one channel of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Second {
    /// There is none.
    Unnamed,
    /// It is away, or has not confirmed everything, or nothing is known of it.
    Unconfirmed,
    /// It has confirmed everything that was taken in.
    Confirms,
}

impl Second {
    /// Reads what is known of a second peer that is named.
    pub(super) fn of(said: Option<&Testimony>) -> Self {
        match said {
            Some(said) if said.waiting == 0 && said.away.is_none() && said.confirmed.is_some() => Second::Confirms,
            _ => Second::Unconfirmed,
        }
    }
}

/// What is checked here, and what is somebody's word, in one line that is true of each of these channels.
pub(super) fn trust(seconds: impl IntoIterator<Item = Second>) -> String {
    let seconds: Vec<Second> = seconds.into_iter().collect();
    let all = |one: Second| seconds.iter().all(|second| *second == one);
    let rest = if seconds.is_empty() {
        ""
    } else if all(Second::Confirms) {
        "; a second peer confirms the validation codes and the state behind them"
    } else if all(Second::Unnamed) {
        "; that a transaction is a duplicate or malformed is one peer's word (ledger.witness names a second one)"
    } else if seconds.contains(&Second::Unnamed) {
        "; that a transaction is a duplicate or malformed is one peer's word where ledger.witness names no second one, or that one has not \
         confirmed it"
    } else {
        "; what the second peer has not confirmed is one peer's word"
    };
    format!("trust: hash chain and all signatures are checked here, and every transaction is run again{rest}")
}

fn said(member: &MemberId, head: &Head) -> Said {
    Said {
        member: member.clone(),
        sequence: head.sequence,
        at: head.submitted.at,
        seconds_ago: now().seconds() - head.submitted.at.seconds(),
    }
}

/// One channel: its agreement, how each member's Charter does, what is wrong, and every resource as its owner reports it.
fn show(channel: &Channel, all: &[&One]) {
    // Whoever has taken in most speaks for the channel.
    let Some(first) = all.iter().rev().max_by_key(|one| one.block) else {
        return;
    };
    let agreement = match (&first.agreement, first.in_force) {
        (Some(agreement), true) if first.ended => format!("{agreement}, ended: charter destruction shows what became of everything"),
        (Some(agreement), true) => {
            let closed: Vec<String> = first
                .closed
                .iter()
                .map(|member| format!(", the part of {member} is closed"))
                .collect();
            format!("{agreement}, in force{}", closed.concat())
        }
        (Some(agreement), false) => format!("{agreement}, not accepted by all yet"),
        (None, _) => "no agreement yet".into(),
    };
    output::line(&format!("{channel}: {}", output::plain(&agreement)));
    let rows = all.iter().map(|one| {
        let service = match (&one.service, one.pid) {
            (_, Some(pid)) if one.why_frozen().is_some() => format!("pid {pid}, FROZEN"),
            (Some(service), Some(pid)) => format!("pid {pid}, {}", if service.connected { "following" } else { "ledger away" }),
            _ if one.frozen.is_some() => "not running, FROZEN".into(),
            _ => "not running".into(),
        };
        let report = one.reports.iter().find(|said| said.member == one.member);
        vec![
            one.member.to_string(),
            service,
            one.block.map_or_else(|| "-".into(), |block| block.to_string()),
            one.service.as_ref().map_or_else(|| "-".into(), |service| service.lag.to_string()),
            report.map_or_else(
                || "none".into(),
                |said| format!("#{}, {} s ago", said.sequence, said.seconds_ago.max(0)),
            ),
            one.owned.to_string(),
            one.desired
                .as_ref()
                .map_or_else(|| "-".into(), |commit| commit.chars().take(10).collect()),
        ]
    });
    output::table(
        &[
            "member",
            "service",
            "last event in block",
            "behind",
            "last report",
            "owns",
            "desired",
        ],
        rows.collect(),
    );
    for one in all {
        wrong(one);
    }
    output::line("");
    standing::table(&first.resources);
}

/// What running transactions again and a second peer have said, where that is more than that all is well.
fn checked(member: &MemberId, service: &ChannelStatus) {
    if let Some(rerun) = service.rerun.filter(|rerun| rerun.undecided > 0) {
        output::line(&format!(
            "  {member}: of {} block{} {} transaction{} called invalid on the peer's word alone",
            rerun.block,
            if rerun.block == 1 { "" } else { "s" },
            rerun.undecided,
            if rerun.undecided == 1 { " is" } else { "s are" }
        ));
    }
    if let Some(said) = &service.testimony {
        output::line(&format!("  {member}: {}", output::plain(&testimony(said))));
    }
}

/// What a second peer has confirmed, in words.
pub(super) fn testimony(said: &Testimony) -> String {
    let confirmed = said.confirmed.map_or_else(
        || "has confirmed nothing yet".into(),
        |block| format!("confirms up to block {block}"),
    );
    let waiting = match said.waiting {
        0 => String::new(),
        waiting => format!(", {waiting} blocks are on one peer's word"),
    };
    let away = said.away.as_ref().map(|why| format!(", it is away: {why}")).unwrap_or_default();
    format!("the second peer {} {confirmed}{waiting}{away}", said.endpoint)
}

fn wrong(one: &One) {
    let member = &one.member;
    if one.paused {
        output::line(&format!("  {member} is paused: nothing is applied until 'charter resume'"));
    }
    for (resource, words) in &one.going_on {
        output::line(&format!("  {member}: {resource}: {}", output::plain(words)));
    }
    for failed in &one.unresolved {
        output::line(&format!("  {member} failed: {}", output::plain(failed)));
    }
    if let Some(why) = one.why_frozen() {
        output::line(&format!(
            "  {member} is frozen: {}; nothing is deleted, and a person has to look; then charter thaw --channel {}",
            output::plain(why),
            one.channel
        ));
    }
    let Some(service) = &one.service else { return };
    checked(member, service);
    if let Some(why) = service.ledger_error.as_ref().filter(|_| one.why_frozen().is_none()) {
        output::line(&format!(
            "  {member} can't follow the ledger: {}; it is tried again, and nothing is torn down because of it",
            output::plain(why)
        ));
    }
    if let Some(error) = service.pass.as_ref().and_then(|pass| pass.error.as_ref()) {
        output::line(&format!("  {member}'s last pass: {}", output::plain(error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_trust_claims_no_more_than_is_true_of_every_channel() {
        let confirms = "a second peer confirms";
        let said = |confirmed, waiting, away: Option<&str>| Testimony {
            endpoint: "https://second".into(),
            confirmed,
            waiting,
            away: away.map(str::to_owned),
        };
        let level = Second::of(Some(&said(Some(7), 0, None)));
        assert!(trust([level, level]).contains(confirms));
        for behind in [
            Second::of(None),
            Second::of(Some(&said(None, 0, None))),
            Second::of(Some(&said(Some(7), 2, None))),
            Second::of(Some(&said(Some(7), 0, Some("connection refused")))),
        ] {
            let line = trust([level, behind]);
            assert!(
                !line.contains(confirms) && line.contains("what the second peer has not confirmed is one peer's word"),
                "{line}"
            );
        }
        assert!(trust([Second::Unnamed]).contains("(ledger.witness names a second one)"));
        let mixed = trust([level, Second::Unnamed]);
        assert!(
            !mixed.contains(confirms) && mixed.contains("where ledger.witness names no second one"),
            "{mixed}"
        );
        let none = trust([]);
        assert!(!none.contains("second") && !none.contains("one peer's word"), "{none}");
    }
}
