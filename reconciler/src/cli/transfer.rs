//! `transfer`: giving what a member owns to another.

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};
use state::acts::transfers::TransferRecord;
use state::desired::DesiredState;
use state::ids::{Channel, MemberId, ResourceName, TxId};

use super::error::{CliError, Exit};
use super::floor::{Floor, short};
use super::{Format, Global, output, targets};

/// What to do about transfers.
#[derive(Debug, Subcommand)]
pub(crate) enum TransferCommand {
    /// Proposes to give resources of this member to another party.
    Propose {
        /// Who takes them.
        #[arg(long, value_name = "MEMBER")]
        to: MemberId,
        /// The resources.
        #[arg(required_unless_present_any = ["all", "place"], conflicts_with_all = ["all", "place"], value_name = "RESOURCE")]
        resources: Vec<ResourceName>,
        /// Everything that this member owns on the channel.
        #[arg(long, conflicts_with = "place")]
        all: bool,
        /// This member's whole place in the agreement, to a member that is no party yet: its share, its voice, and all that it owns.
        #[arg(long)]
        place: bool,
    },
    /// Lists transfers that are not in force yet.
    List {
        /// Those that are settled too.
        #[arg(long)]
        all: bool,
    },
    /// Approves a transfer as a party.
    Approve {
        /// The first digits of its id, at least four.
        id: String,
    },
    /// Takes what is transferred.
    Accept {
        /// The first digits of its id, at least four.
        id: String,
    },
    /// Calls a transfer off, as its giver or its taker.
    Cancel {
        /// The first digits of its id, at least four.
        id: String,
    },
}

/// Runs a command of transfers.
pub(crate) async fn run(global: &Global, command: &TransferCommand) -> Result<Exit, CliError> {
    match command {
        TransferCommand::Propose { to, place: true, .. } => {
            say(global, "transfer", |member, _| {
                let what = format!("proposed to give the place of {member} to {to}");
                Ok((json!({ "to": to, "place": true }), what))
            })
            .await
        }
        TransferCommand::Propose { to, resources, all, .. } => {
            say(global, "transfer", |member, desired| {
                let resources: Vec<ResourceName> = match all {
                    false => resources.clone(),
                    true => {
                        let owned = desired.resources().values().filter(|ordered| ordered.resource.owner == *member);
                        owned.map(|ordered| ordered.resource.name.clone()).collect()
                    }
                };
                let listed: Vec<&str> = resources.iter().map(ResourceName::as_str).collect();
                let what = format!("proposed to transfer {} to {to}", listed.join(", "));
                Ok((json!({ "to": to, "resources": resources }), what))
            })
            .await
        }
        TransferCommand::List { all } => list(global, *all),
        TransferCommand::Approve { id } => speak(global, "approve_transfer", "approved", id).await,
        TransferCommand::Accept { id } => accept(global, id).await,
        TransferCommand::Cancel { id } => speak(global, "cancel_transfer", "called off", id).await,
    }
}

async fn speak(global: &Global, function: &str, did: &str, id: &str) -> Result<Exit, CliError> {
    say(global, function, |_, desired| {
        let record = find(desired, id)?;
        let id = &record.proposed.tx_id;
        Ok((json!({ "id": id }), format!("{did} transfer {}: {}", short(id), words(record))))
    })
    .await
}

/// Takes what is transferred. Who takes a place registers as what it takes it of first.
async fn accept(global: &Global, id: &str) -> Result<Exit, CliError> {
    let floor = Floor::open(global).await?;
    let view = floor.fresh().await?;
    let record = find(&view.desired, id)?;
    let agreement = view.desired.agreement().map(|record| &record.agreement);
    if record.transfer.place
        && record.transfer.to == floor.config.member
        && !view.desired.members().contains_key(&floor.config.member)
        && let Some(party) = agreement.and_then(|agreement| agreement.party(&record.proposed.by))
    {
        let registered = floor.voice().register_as(party.role).await;
        floor.said(registered.map(|said| vec![said])).await?;
    }
    let id = &record.proposed.tx_id;
    let what = format!("accepted transfer {}: {}", short(id), words(record));
    floor.act("accept_transfer", &json!({ "id": id }), what).await?;
    floor.close().await?;
    Ok(Exit::Clean)
}

/// Says something that depends on how things stand.
async fn say(
    global: &Global,
    function: &str,
    make: impl FnOnce(&MemberId, &DesiredState) -> Result<(Value, String), CliError>,
) -> Result<Exit, CliError> {
    let floor = Floor::open(global).await?;
    let view = floor.fresh().await?;
    let (argument, what) = make(&floor.config.member, &view.desired)?;
    floor.act(function, &argument, what).await?;
    floor.close().await?;
    Ok(Exit::Clean)
}

#[derive(Serialize)]
struct Shown<'a> {
    channel: &'a Channel,
    id: &'a TxId,
    #[serde(flatten)]
    record: &'a TransferRecord,
}

fn list(global: &Global, all: bool) -> Result<Exit, CliError> {
    let views = targets::views(global)?;
    let found: Vec<Shown<'_>> = views
        .iter()
        .flat_map(|(channel, _, view)| {
            view.desired.records().all::<TransferRecord>().map(move |record| Shown {
                channel,
                id: &record.proposed.tx_id,
                record,
            })
        })
        .filter(|one| all || one.record.done.is_none() && one.record.cancelled.is_none())
        .collect();
    if global.output == Format::Json {
        output::json(&found)?;
        return Ok(Exit::Clean);
    }
    if found.is_empty() {
        output::note("no transfer is open");
        return Ok(Exit::Clean);
    }
    let row = |one: &Shown<'_>| {
        let record = one.record;
        let approved: Vec<&str> = record.approved.keys().map(AsRef::as_ref).collect();
        let state = match (&record.done, &record.cancelled, &record.accepted) {
            (Some(done), _, _) => format!("in force since {}", done.at),
            (None, Some(cancelled), _) => format!("called off by {}", cancelled.by),
            (None, None, Some(_)) => format!("accepted; approved by {}", approved.join(", ")),
            (None, None, None) => format!("waits for {}; approved by {}", record.transfer.to, approved.join(", ")),
        };
        vec![one.channel.to_string(), short(one.id), words(record), state]
    };
    output::table(&["channel", "transfer", "what", "state"], found.iter().map(row).collect());
    Ok(Exit::Clean)
}

fn find<'a>(desired: &'a DesiredState, digits: &str) -> Result<&'a TransferRecord, CliError> {
    super::approvals::by_digits(
        desired.records().all::<TransferRecord>(),
        |record| &record.proposed.tx_id,
        digits,
        "transfer",
        "charter transfer list --all",
    )
}

fn words(record: &TransferRecord) -> String {
    if record.transfer.place {
        return format!("the place of {} to {}", record.proposed.by, record.transfer.to);
    }
    let listed: Vec<&str> = record.transfer.resources.iter().map(ResourceName::as_str).collect();
    format!("{} of {} to {}", listed.join(", "), record.proposed.by, record.transfer.to)
}
