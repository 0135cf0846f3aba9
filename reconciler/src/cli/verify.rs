//! `verify`: the chain of evidence, from the ledger's first block to the commits of what was done.

use std::collections::BTreeMap;

use ledger_sync::branches::{CHANNEL, ChannelRecord};
use ledger_sync::evidence::{self, EvidenceError};
use ledger_sync::{Reexecution, StreamError, Testimony};
use msp::sshsig;
use serde::Serialize;
use state::canonical::Digest;
use state::cursor::Cursor;
use state::git::Store;
use state::ids::{Channel, MemberId};
use state::paths;

use super::access::{self, Access};
use super::error::{CliError, Doing, Exit};
use super::status::{self, Second};
use super::{Format, Global, output, targets};
use crate::config::Config;
use crate::{identity, view};

#[derive(Serialize)]
struct Row {
    member: MemberId,
    channel: Channel,
    blocks: u64,
    events: u64,
    quarantined: u64,
    /// Transactions that were run again, all the same as recorded.
    rerun: u64,
    /// Transactions that are called invalid on the peer's word alone.
    undecided: u64,
    /// What a second peer has confirmed, where there is one.
    testimony: Option<Testimony>,
    #[serde(skip)]
    second: Second,
    reports: u64,
    commits: usize,
    /// The keys that signed the commits, by fingerprint.
    keys: BTreeMap<String, KeyRow>,
}

/// One key of a member.
#[derive(Serialize)]
struct KeyRow {
    known: Known,
    commits: usize,
}

/// Where it is known from that a key is the member's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Known {
    /// It signed transactions of this channel, with a certificate that the member's organisation vouched for.
    Ledger,
    /// It is the key of the member's certificate now.
    Certificate,
    /// It is written down on this machine only.
    Identity,
}

/// Checks every member and channel that the options name.
pub(crate) async fn run(global: &Global) -> Result<Exit, CliError> {
    let access = Access::open(global).await?;
    let mut rows = Vec::new();
    let mut unchecked = Vec::new();
    for (config, channels) in targets::following(global)? {
        let ledger = access.connect(&config)?;
        let store = targets::store(&config)?;
        let signer = access::signer(&config)?;
        for channel in channels {
            let taken = taken(&store, &channel)?;
            let checked = evidence::check(ledger.as_ref(), &channel, taken.genesis, &taken.cursors, Reexecution::Enforced).await;
            let found = match checked {
                Ok(found) => found,
                // That nobody gives the blocks says nothing of them.
                Err(error) if is_away(&error) => {
                    let failed = CliError::new(format!("channel {channel} of {} could not be checked", config.member)).because(error);
                    unchecked
                        .push(failed.next("charter verify again, when the peer answers; charter status says what was followed so far"));
                    continue;
                }
                Err(error) => return Err(CliError::new(format!("channel {channel} does not stand up to the check")).because(error)),
            };
            let testimony = ledger.testimony(&channel);
            let mut keys = Keys::of(&config, signer.certificate().public_key())?;
            keys.seen(found.keys.get(config.ledger.msp_id.as_str()).into_iter().flatten());
            let signed = commits(&store, &channel, &keys)?;
            rows.push(Row {
                member: config.member.clone(),
                commits: signed.values().map(|row| row.commits).sum(),
                keys: signed,
                second: match config.ledger.witness {
                    Some(_) => Second::of(testimony.as_ref()),
                    None => Second::Unnamed,
                },
                testimony,
                channel,
                blocks: found.blocks,
                events: found.events,
                quarantined: found.quarantined,
                rerun: found.rerun.map_or(0, |rerun| rerun.transactions),
                undecided: found.rerun.map_or(0, |rerun| rerun.undecided),
                reports: found.reports.values().sum(),
            });
        }
    }
    access.close().await?;
    if global.output == Format::Json {
        output::json(&rows)?;
    } else if !rows.is_empty() {
        let cells = |row: &Row| {
            let numbers = [row.blocks, row.events, row.quarantined, row.rerun, row.reports, row.commits as u64];
            let numbers = numbers.map(|number| number.to_string());
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
                "run again",
                "signed reports",
                "signed commits",
            ],
            rows.iter().map(cells).collect(),
        );
        output::note(
            "good: the hash chain, the signatures of orderers, creators and endorsers, of every report, and of every commit of actual/;\n\
             every transaction, run again, gives what the ledger recorded",
        );
        output::note(&status::trust(rows.iter().map(|row| row.second)));
        for row in &rows {
            if row.undecided > 0 {
                output::note(&format!(
                    "{} of {}: {} transactions are called invalid on the peer's word alone",
                    row.channel, row.member, row.undecided
                ));
            }
            if let Some(said) = &row.testimony {
                let said = output::plain(&status::testimony(said));
                output::note(&format!("{} of {}: {said}", row.channel, row.member));
            }
        }
        for row in &rows {
            for (key, KeyRow { commits, .. }) in row.keys.iter().filter(|(_, row)| row.known == Known::Identity) {
                output::note(&format!(
                    "{} of {}: {commits} commits are signed with {key}, which signed nothing on this channel and is known from identity/allowed_signers only",
                    row.channel, row.member
                ));
            }
        }
    }
    for failed in &unchecked {
        output::note(failed.render().trim_end());
    }
    let unconfirmed = |row: &&Row| row.testimony.as_ref().is_some_and(|said| said.waiting > 0);
    match rows.iter().find(unconfirmed) {
        Some(row) => Err(
            CliError::new(format!("the second peer has not confirmed every block of {}", row.channel))
                .next("charter verify, when it can be reached and has all blocks"),
        ),
        None if unchecked.is_empty() => Ok(Exit::Clean),
        None => Ok(Exit::Unknown),
    }
}

/// Whether an error says only that the blocks could not be had.
fn is_away(error: &EvidenceError) -> bool {
    match error {
        EvidenceError::Stream(error) => !matches!(error, StreamError::Contradicted { .. } | StreamError::TooLarge { .. }),
        _ => false,
    }
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

/// The keys that a member signs with, and signed with before.
struct Keys(BTreeMap<Vec<u8>, Key>);

struct Key {
    known: Known,
    /// The last moment at which it signs, Unix seconds; none: it signs now.
    until: Option<i64>,
}

impl Keys {
    /// The keys that the member's own machine knows: that of its certificate, and those that are written down.
    fn of(config: &Config, present: &[u8]) -> Result<Self, CliError> {
        let written = identity::allowed_keys(config).doing("the member's allowed signers can't be read")?;
        let mut keys: BTreeMap<Vec<u8>, Key> = BTreeMap::new();
        for key in written {
            let known = Known::Identity;
            let until = match keys.get(&key.public_key) {
                // Of two lines with one key the later end counts, as git sees it.
                Some(before) => before.until.zip(key.until).map(|(one, other)| one.max(other)),
                None => key.until,
            };
            keys.insert(key.public_key, Key { known, until });
        }
        let known = Known::Certificate;
        keys.insert(present.to_vec(), Key { known, until: None });
        Ok(Self(keys))
    }

    /// Adds what the ledger has seen: that a key was the member's, not when it ended.
    fn seen<'a>(&mut self, keys: impl Iterator<Item = &'a Vec<u8>>) {
        for key in keys {
            let until = self.0.get(key).and_then(|key| key.until);
            let known = Known::Ledger;
            self.0.insert(key.clone(), Key { known, until });
        }
    }
}

/// Checks the signature of every commit of `actual`, and counts them by key.
fn commits(store: &Store, channel: &Channel, keys: &Keys) -> Result<BTreeMap<String, KeyRow>, CliError> {
    let reference = paths::actual_ref(channel);
    let mut counted = BTreeMap::new();
    let Some(head) = store.head(&reference).doing(format!("cannot read {reference}"))? else {
        return Ok(counted);
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
        let key = sshsig::signed_by(sshsig::GIT_NAMESPACE, &signed, armored).map_err(|error| bad(error.to_string()))?;
        let name = sshsig::fingerprint(&key);
        let Some(Key { known, until }) = keys.0.get(&key) else {
            return Err(bad(format!(
                "it is signed with {name}, which is neither the key of its certificate, nor written down in identity/allowed_signers, nor one that its organisation signed with on this channel"
            )));
        };
        if until.is_some_and(|until| info.committer.seconds > until) {
            return Err(bad(format!(
                "it is signed with {name}, which had been followed by another key before"
            )));
        }
        let known = *known;
        counted.entry(name).or_insert(KeyRow { known, commits: 0 }).commits += 1;
    }
    Ok(counted)
}
