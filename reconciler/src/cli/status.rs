//! `status`: how every resource stands, whether the ledger is followed, and what is owned and not in order.

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
        for (index, one) in all.iter().enumerate() {
            if index > 0 {
                output::line("");
            }
            show(one);
        }
    }
    let unwell = all
        .iter()
        .any(|one| one.service.as_ref().is_some_and(|service| service.frozen.is_some()));
    Ok(if unwell { Exit::Error } else { Exit::Clean })
}

fn said(member: &MemberId, head: &Head) -> Said {
    Said {
        member: member.clone(),
        sequence: head.sequence,
        at: head.submitted.at,
        seconds_ago: now().seconds() - head.submitted.at.seconds(),
    }
}

fn show(one: &One) {
    let agreement = match (&one.agreement, one.in_force) {
        (Some(agreement), true) => format!("{agreement}, in force"),
        (Some(agreement), false) => format!("{agreement}, not accepted by all yet"),
        (None, _) => "no agreement yet".into(),
    };
    let block = one
        .block
        .map_or_else(|| "nothing taken in yet".into(), |block| format!("last event in block {block}"));
    let desired = one
        .desired
        .as_ref()
        .map_or_else(String::new, |commit| format!(", desired {}", commit.get(..10).unwrap_or(commit)));
    output::line(&format!("{} on {}: {agreement}; {block}{desired}", one.member, one.channel));
    match (&one.service, one.pid) {
        (Some(service), Some(pid)) => {
            output::line(&format!(
                "  service: pid {pid}, {}, {} blocks behind",
                if service.connected { "connected" } else { "not connected" },
                service.lag
            ));
            if let Some(why) = &service.ledger_error {
                output::line(&format!(
                    "  ledger: {why}; it is tried again, and nothing is torn down because of it"
                ));
            }
            if let Some(why) = &service.frozen {
                output::line(&format!("  FROZEN: {why}; nothing is deleted, and a person has to look"));
            }
            if let Some(pass) = &service.pass {
                let word = if pass.converged { "converged" } else { "not converged" };
                let error = pass.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                output::line(&format!(
                    "  last pass: {}, {word}, {} done, {} failed{error}",
                    pass.at, pass.done, pass.failed
                ));
            }
        }
        _ => output::line("  service: not running"),
    }
    if one.paused {
        output::line("  paused: nothing is applied until 'charter resume'");
    }
    let reports: Vec<String> = one
        .reports
        .iter()
        .map(|said| format!("{} #{} {} s ago", said.member, said.sequence, said.seconds_ago.max(0)))
        .collect();
    output::line(&format!(
        "  reports: {}",
        if reports.is_empty() {
            "none yet".into()
        } else {
            reports.join(", ")
        }
    ));
    output::line("  trust: validation codes are the peer's word; hash chain, orderer and creator signatures are checked here");
    output::line(&format!("  owned here: {}", one.owned));
    for failed in &one.unresolved {
        output::line(&format!("  failed: {failed}"));
    }
    standing::table(&one.resources);
}
