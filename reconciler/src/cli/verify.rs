//! `verify`: the chain of evidence, from the ledger's first block to the commits of what was done.

use ledger_sync::branches::{CHANNEL, ChannelRecord};
use ledger_sync::evidence;
use msp::{Certificate, Signer};
use serde::Serialize;
use state::canonical::Digest;
use state::cursor::Cursor;
use state::git::Store;
use state::ids::{Channel, MemberId};
use state::paths;

use super::access::{self, Access};
use super::error::{CliError, Doing, Exit};
use super::{Format, Global, output, targets};
use crate::view;

#[derive(Serialize)]
struct Row {
    member: MemberId,
    channel: Channel,
    blocks: u64,
    events: u64,
    quarantined: u64,
    reports: u64,
    commits: usize,
}

/// Checks every member and channel that the options name.
pub(crate) async fn run(global: &Global) -> Result<Exit, CliError> {
    let access = Access::open(global).await?;
    let mut rows = Vec::new();
    for config in targets::configs(global)? {
        let ledger = access.connect(&config)?;
        let store = targets::store(&config)?;
        let signer = access::signer(&config)?;
        let certificate = Certificate::from_pem(signer.certificate_pem().as_bytes()).doing("the member's certificate can't be read")?;
        for channel in targets::channels(global, &config) {
            let taken = taken(&store, &channel)?;
            let found = evidence::check(ledger.as_ref(), &channel, taken.genesis, &taken.cursors)
                .await
                .map_err(|error| CliError::new(format!("channel {channel} does not stand up to the check")).because(error))?;
            rows.push(Row {
                member: config.member.clone(),
                commits: commits(&store, &channel, &certificate)?,
                channel,
                blocks: found.blocks,
                events: found.events,
                quarantined: found.quarantined,
                reports: found.reports.values().sum(),
            });
        }
    }
    access.close().await?;
    if global.output == Format::Json {
        output::json(&rows)?;
    } else {
        let cells = |row: &Row| {
            let numbers = [row.blocks, row.events, row.quarantined, row.reports, row.commits as u64].map(|number| number.to_string());
            [row.member.to_string(), row.channel.to_string()]
                .into_iter()
                .chain(numbers)
                .collect()
        };
        output::table(
            &[
                "member",
                "channel",
                "blocks",
                "events",
                "quarantined",
                "signed reports",
                "signed commits",
            ],
            rows.iter().map(cells).collect(),
        );
        output::note("good: the hash chain, the signatures of orderers and creators, of every report, and of every commit of actual/");
        output::note("validation codes are the peer's word");
    }
    Ok(Exit::Clean)
}

/// What the store has taken in of a channel.
#[derive(Default)]
struct Taken {
    /// The hash of the channel's first block, as it was pinned.
    genesis: Option<Digest>,
    /// Where `desired` and `reported` stand.
    cursors: Vec<Cursor>,
}

/// Reads what the chain has to agree with.
fn taken(store: &Store, channel: &Channel) -> Result<Taken, CliError> {
    let mut taken = Taken::default();
    for reference in [paths::desired_ref(channel), paths::reported_ref(channel)] {
        let unread = || format!("cannot read {reference}");
        let damaged = |what: &str| CliError::new(format!("{reference} {what}")).next("charter replay");
        let Some(head) = store.head(&reference).doing(unread())? else {
            continue;
        };
        let bytes = store.read(head, CHANNEL).doing(unread())?;
        let record: Option<ChannelRecord> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let genesis = record
            .filter(|record| record.channel == *channel)
            .ok_or_else(|| damaged(&format!("has no {CHANNEL} of this channel")))?
            .genesis;
        if taken.genesis.replace(genesis).is_some_and(|other| other != genesis) {
            return Err(damaged("was made from another first block than the channel's other references"));
        }
        let cursor = view::cursor(store, head).doing(unread())?;
        taken.cursors.push(cursor.ok_or_else(|| damaged("has no cursor"))?);
    }
    Ok(taken)
}

/// Checks the signature of every commit of `actual`, and returns their number.
fn commits(store: &Store, channel: &Channel, certificate: &Certificate) -> Result<usize, CliError> {
    let reference = paths::actual_ref(channel);
    let Some(head) = store.head(&reference).doing(format!("cannot read {reference}"))? else {
        return Ok(0);
    };
    let infos = store.log(head, None, usize::MAX).doing(format!("cannot read {reference}"))?;
    for info in &infos {
        let bad = |why: String| {
            CliError::new(format!(
                "commit {} of actual/{channel} is not signed by this member: {why}",
                info.id
            ))
        };
        let armored = info.signature.as_ref().ok_or_else(|| bad("it has no signature".into()))?;
        let signed = store.signed_bytes(info.id).doing(format!("cannot read commit {}", info.id))?;
        msp::sshsig::verify(certificate, msp::sshsig::GIT_NAMESPACE, &signed, armored).map_err(|error| bad(error.to_string()))?;
    }
    Ok(infos.len())
}
