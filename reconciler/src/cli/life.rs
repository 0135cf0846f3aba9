//! `silence`, `close`, `end` and `destruction`: how parts and agreements end, and the proof of what became of everything.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use state::acts::handovers::HandOverRecord;
use state::acts::life::{ENDING, EndingRecord, PartRecord, Why};
use state::canonical::Digest;
use state::desired::{DesiredState, Ordered};
use state::git::{CommitId, Store};
use state::ids::{Channel, Kind, MemberId, ResourceName};
use state::paths;
use state::report::{Condition, ResourceStatus};
use state::resource::{OnRetire, Origin};
use state::time::Timestamp;

use super::error::{CliError, Doing, Exit};
use super::floor::Floor;
use super::{Format, Global, output, targets};
use crate::clock;
use crate::overdue;
use crate::view::ChannelView;

/// The most commits of a report's history that are read for one resource.
const HISTORY: usize = 1_000;

/// How a member's silence stands, for people and programs.
#[derive(Serialize)]
struct Quiet {
    channel: Channel,
    member: MemberId,
    since: Option<Timestamp>,
    deadline: Option<Timestamp>,
    later: BTreeMap<MemberId, Timestamp>,
    need: Option<usize>,
    can_be_closed: bool,
    closed: Option<PartRecord>,
}

/// Shows who was heard of when, and whose silence is abandonment.
pub(crate) fn silence(global: &Global) -> Result<Exit, CliError> {
    let mut all = Vec::new();
    for (channel, config, view) in targets::views(global)? {
        for one in overdue::silences(&view.desired, &view.reported, &config.member, clock::now()) {
            let deadline = one.deadline;
            all.push(Quiet {
                channel: channel.clone(),
                since: deadline
                    .as_ref()
                    .map(|deadline| deadline.since)
                    .or(one.closed.as_ref().map(|part| part.since)),
                deadline: deadline
                    .as_ref()
                    .map(|deadline| deadline.at)
                    .or(one.closed.as_ref().map(|part| part.deadline)),
                can_be_closed: one.member != config.member && deadline.as_ref().is_some_and(|deadline| deadline.passed()),
                need: deadline.as_ref().map(|deadline| deadline.need),
                later: deadline.map(|deadline| deadline.witnesses).unwrap_or_default(),
                member: one.member,
                closed: one.closed,
            });
        }
    }
    if global.output == Format::Json {
        output::json(&all)?;
        return Ok(Exit::Clean);
    }
    let moment = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let rows = all.iter().map(|one| {
        let state = match (&one.closed, one.need) {
            (Some(part), _) => format!("closed by {}, epoch {}", part.closed.by, part.epoch),
            (None, None) => "silence ends nothing".to_owned(),
            (None, Some(_)) if one.can_be_closed => format!("abandoned: charter close {} --channel {}", one.member, one.channel),
            (None, Some(need)) if one.later.is_empty() => format!("heard of; {need} would have to be later"),
            (None, Some(need)) => format!("{} of {need} others are later", one.later.len()),
        };
        vec![
            one.channel.to_string(),
            one.member.to_string(),
            moment(one.since),
            moment(one.deadline),
            state,
        ]
    });
    output::table(&["channel", "member", "heard of", "grace ends", "state"], rows.collect());
    Ok(Exit::Clean)
}

/// Closes the part of a member that is silent for too long.
pub(crate) async fn close(global: &Global, member: &MemberId) -> Result<Exit, CliError> {
    let what = format!("closed the part of {member}; what it owned and what needed that is retired");
    let floor = Floor::open(global).await?;
    let said = floor.act("close_abandoned", &json!({ "member": member }), what).await;
    said.map_err(|error| error.within(format!("the part of {member} stays open")).next("charter silence"))?;
    floor.close().await?;
    Ok(Exit::Clean)
}

/// What to say of an agreement's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// That this member asks for it.
    Asked,
    /// That its date has come.
    Expired,
}

/// Asks for the end of the agreement, or says that its date has come.
pub(crate) async fn end(global: &Global, end: End) -> Result<Exit, CliError> {
    let (function, what) = match end {
        End::Asked => ("end", "asked for the end of the agreement"),
        End::Expired => ("expire", "said that the agreement has expired"),
    };
    let floor = Floor::open(global).await?;
    let said = floor.act(function, &json!({}), what.to_owned()).await;
    said.map_err(|error| error.within("the agreement stays as it is"))?;
    let view = targets::view(&floor.config, &floor.channel)?;
    let record = view.desired.records().of::<EndingRecord>(ENDING);
    output::note(&match record.map(|record| (&record.ended, &record.asked)) {
        Some((Some(_), _)) => "the agreement has ended: everything is retired as it says".to_owned(),
        Some((None, asked)) => {
            let asking: Vec<&str> = asked.keys().map(AsRef::as_ref).collect();
            format!("it goes on until enough ask for its end; so far: {}", asking.join(", "))
        }
        None => "a running service takes it in".to_owned(),
    });
    floor.close().await?;
    Ok(Exit::Clean)
}

/// What became of one resource that was retired.
#[derive(Serialize)]
struct Fate {
    channel: Channel,
    resource: ResourceName,
    kind: Kind,
    owner: MemberId,
    /// `destroyed`, `kept`, `carried`, `destroyed against the agreement`, `not yet`, `could not be destroyed` or `nobody said`.
    fate: &'static str,
    /// What was agreed: `delete` or `retain`.
    agreed: OnRetire,
    /// Where it goes on, if it was carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    carried: Option<Origin>,
    /// The owner's words.
    why: Option<String>,
    /// The commit on `reported` with the signed report that says so.
    commit: Option<CommitId>,
    /// The order's digest.
    order: Option<Digest>,
}

/// Proves what became of everything that was retired: destroyed, kept by agreement, or not to be destroyed.
pub(crate) fn destruction(global: &Global) -> Result<Exit, CliError> {
    let mut all = Vec::new();
    let mut exit = Exit::Clean;
    for (channel, config, view) in targets::views(global)? {
        let store = targets::store(&config)?;
        let ending = view.desired.records().of::<EndingRecord>(ENDING);
        output::note(&match ending.and_then(|ending| ending.ended.as_ref()) {
            Some(ended) => format!(
                "{channel}: the agreement ended at {} because {} (tx {}); {} of its resources are in force",
                ended.by.at,
                match ended.why {
                    Why::Expired => "its date had come".to_owned(),
                    Why::Asked => "its parties asked for it".to_owned(),
                },
                ended.by.tx_id,
                view.desired.resources().len()
            ),
            None => format!(
                "{channel}: the agreement has not ended; {} of its resources are in force",
                view.desired.resources().len()
            ),
        });
        for gone in view.desired.retired().values() {
            let resource = &gone.resource;
            let carried = carried(&view.desired, gone);
            let (status, commit) = last_word(&store, &view, &resource.owner, &resource.name)?;
            let fate = match status.as_ref().map(|status| status.condition) {
                Some(Condition::Deleted) if resource.on_retire == OnRetire::Retain => "destroyed against the agreement",
                Some(Condition::Deleted) => "destroyed",
                Some(Condition::Retained) if carried.is_some() => "carried",
                Some(Condition::Retained) => "kept",
                Some(Condition::Failed | Condition::Denied | Condition::Unknown) => "could not be destroyed",
                Some(_) => "not yet",
                None => "nobody said",
            };
            if !matches!(fate, "destroyed" | "kept" | "carried") {
                exit = Exit::Difference;
            }
            all.push(Fate {
                channel: channel.clone(),
                resource: resource.name.clone(),
                kind: resource.kind.clone(),
                owner: resource.owner.clone(),
                fate,
                agreed: resource.on_retire,
                carried,
                why: status.as_ref().and_then(|status| status.why.clone()),
                commit,
                order: resource.digest().ok(),
            });
        }
    }
    if global.output == Format::Json {
        output::json(&all)?;
        return Ok(exit);
    }
    let row = |fate: &Fate| {
        vec![
            fate.channel.to_string(),
            fate.owner.to_string(),
            fate.resource.to_string(),
            fate.kind.to_string(),
            match (&fate.why, &fate.carried) {
                (_, Some(there)) if fate.fate == "carried" => format!("carried on as {there}"),
                (Some(why), _) if fate.fate == "could not be destroyed" => format!("{}: {why}", fate.fate),
                _ => fate.fate.to_owned(),
            },
            fate.commit
                .map_or_else(|| "-".to_owned(), |commit| commit.to_string().chars().take(10).collect()),
        ]
    };
    output::table(
        &["channel", "owner", "resource", "kind", "fate", "reported in"],
        all.iter().map(row).collect(),
    );
    Ok(exit)
}

/// Where something goes on that another version carries.
fn carried(desired: &DesiredState, gone: &Ordered) -> Option<Origin> {
    let tx = gone.retired.as_ref()?.tx_id.as_str();
    let hand_over = &desired.records().of::<HandOverRecord>(tx)?.hand_over;
    Some(Origin {
        channel: hand_over.to.clone(),
        resource: hand_over.carried.get(&gone.resource.name)?.clone(),
    })
}

/// The last thing that an owner's signed reports say of a resource, and the commit that holds it. What is gone is said once, and leaves
/// the reports with the next one.
fn last_word(
    store: &Store,
    view: &ChannelView,
    owner: &MemberId,
    name: &ResourceName,
) -> Result<(Option<ResourceStatus>, Option<CommitId>), CliError> {
    let Some(head) = view.reported_commit else {
        return Ok((None, None));
    };
    let path = paths::named(&format!("members/{owner}/resources"), name);
    let commits = store.log(head, Some(&path), HISTORY).doing("cannot read the history of reports")?;
    for commit in commits {
        if let Some(bytes) = store.read(commit.id, &path).doing("cannot read a report")? {
            let status = serde_json::from_slice(&bytes).doing(format!("{path} in commit {} is no status", commit.id))?;
            return Ok((Some(status), Some(commit.id)));
        }
    }
    Ok((None, None))
}
