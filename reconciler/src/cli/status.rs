//! `status`: how every resource stands, whether the ledger is followed, and what is owned and not in order.

use std::collections::BTreeSet;

use ledger_sync::{Testimony, frozen};
use serde::Serialize;
use state::ids::{Channel, MemberId};
use state::reported::Head;
use state::time::Timestamp;

use super::error::{CliError, Doing, Exit};
use super::standing::{self, Standing};
use super::{Format, Global, output, targets};
use crate::control::{ChannelStatus, Control};
use crate::service::now;
use crate::view::{self, ChannelView};

#[derive(Serialize)]
struct One {
    member: MemberId,
    channel: Channel,
    agreement: Option<String>,
    in_force: bool,
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
    for config in targets::configs(global)? {
        let store = targets::store(&config)?;
        let control = Control::new(config.folder());
        let service = control.read_status();
        for channel in targets::channels(global, &config) {
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
                block: cursor.map(|cursor| cursor.position.block),
                desired: view.desired_commit.map(|commit| commit.to_string()),
                frozen: frozen::read(&store, &channel).map(|frozen| frozen.reason),
                witnessed: config.ledger.witness.is_some(),
                pid: service.as_ref().map(|service| service.pid),
                service: service.as_ref().and_then(|service| service.channels.get(&channel).cloned()),
                paused: control.paused(&channel),
                resources: standing::from(&view, &channel, None),
                owned: view.inventory.entries().len(),
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
        output::note(&format!("\n{}", trust(all.iter().all(|one| one.witnessed))));
    }
    let unwell = all.iter().any(|one| one.why_frozen().is_some());
    Ok(if unwell { Exit::Error } else { Exit::Clean })
}

impl One {
    /// Why the channel is frozen: as its service says, or as it was recorded.
    fn why_frozen(&self) -> Option<&String> {
        let service = self.service.as_ref().and_then(|service| service.frozen.as_ref());
        service.or(self.frozen.as_ref())
    }
}

/// What is checked here, and what is somebody's word, in one line.
pub(super) fn trust(witnessed: bool) -> String {
    let rest = if witnessed {
        "a second peer confirms the validation codes and the state behind them"
    } else {
        "that a transaction is a duplicate or malformed is one peer's word (ledger.witness names a second one)"
    };
    format!("trust: hash chain and all signatures are checked here, and every transaction is run again; {rest}")
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
        (Some(agreement), true) => format!("{agreement}, in force"),
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
