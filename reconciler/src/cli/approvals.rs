//! `approvals`: changes that have to be approved before they are in force.

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;
use state::acts::approvals::{ProposalRecord, Settlement, Standing};
use state::desired::{DesiredState, Present};
use state::ids::{Channel, TxId};

use super::error::{CliError, Exit};
use super::floor::{Floor, short};
use super::{Format, Global, output, targets};

/// The fewest digits that name a proposal.
const FEWEST_DIGITS: usize = 4;

/// What to do about proposals.
#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Lists the changes that wait for approvals.
    List {
        /// Those that are settled too.
        #[arg(long)]
        all: bool,
    },
    /// Shows a proposal: what it would change, who has to approve it, and who has spoken.
    Show {
        /// The first digits of its id, at least four.
        id: String,
    },
    /// Approves a proposal; with the last approval that it needs it is in force.
    Approve {
        /// The first digits of its id, at least four.
        id: String,
    },
    /// Rejects a proposal.
    Reject {
        /// The first digits of its id, at least four.
        id: String,
    },
    /// Takes an own proposal back.
    Withdraw {
        /// The first digits of its id, at least four.
        id: String,
    },
}

/// Runs a command of approvals.
pub(crate) async fn run(global: &Global, command: &ApprovalsCommand) -> Result<Exit, CliError> {
    match command {
        ApprovalsCommand::List { all } => list(global, *all),
        ApprovalsCommand::Show { id } => show(global, id),
        ApprovalsCommand::Approve { id } => say(global, id, "approve", "approved").await,
        ApprovalsCommand::Reject { id } => say(global, id, "reject", "rejected").await,
        ApprovalsCommand::Withdraw { id } => say(global, id, "retract", "withdrew").await,
    }
}

/// A proposal for people and programs.
#[derive(Serialize)]
struct Shown<'a> {
    channel: &'a Channel,
    id: &'a TxId,
    #[serde(flatten)]
    record: &'a ProposalRecord,
    standing: Vec<Standing>,
}

fn shown<'a>(channel: &'a Channel, desired: &DesiredState, record: &'a ProposalRecord) -> Shown<'a> {
    let standing = desired.in_force().map_or_else(Vec::new, |agreement| {
        let found = record.standing(&mut Present::new(desired), agreement);
        found.unwrap_or_else(|never| match never {})
    });
    Shown {
        channel,
        id: &record.proposed.tx_id,
        record,
        standing,
    }
}

impl Shown<'_> {
    fn state(&self) -> String {
        match &self.record.settled {
            Some(settled) => settled.how.word().to_owned(),
            None => self.standing.iter().map(words).collect::<Vec<_>>().join(", "),
        }
    }
}

fn words(standing: &Standing) -> String {
    format!("clauses.approvals[{}]: {} of {}", standing.clause, standing.have, standing.need)
}

fn list(global: &Global, all: bool) -> Result<Exit, CliError> {
    let views = targets::views(global)?;
    let found: Vec<Shown<'_>> = views
        .iter()
        .flat_map(|(channel, _, view)| {
            let records = view.desired.records().all::<ProposalRecord>();
            records.map(move |record| shown(channel, &view.desired, record))
        })
        .filter(|proposal| all || proposal.record.settled.is_none())
        .collect();
    if global.output == Format::Json {
        output::json(&found)?;
        return Ok(Exit::Clean);
    }
    if found.is_empty() {
        output::note(if all {
            "nothing was ever proposed"
        } else {
            "nothing waits for an approval"
        });
        return Ok(Exit::Clean);
    }
    let row = |proposal: &Shown<'_>| {
        vec![
            proposal.channel.to_string(),
            short(proposal.id),
            proposal.record.proposed.by.to_string(),
            what(proposal.record),
            proposal.state(),
        ]
    };
    output::table(&["channel", "proposal", "by", "change", "state"], found.iter().map(row).collect());
    Ok(Exit::Clean)
}

fn show(global: &Global, id: &str) -> Result<Exit, CliError> {
    let config = targets::one(global)?;
    let channel = targets::one_channel(global, &config)?;
    let view = targets::view(&config, &channel)?;
    let record = find(&view.desired, &channel, id)?;
    let proposal = shown(&channel, &view.desired, record);
    if global.output == Format::Json {
        output::json(&proposal)?;
        return Ok(Exit::Clean);
    }
    output::line(&format!("proposal   {}", proposal.id));
    let proposed = &record.proposed;
    output::line(&format!("proposed   by {} at {}", proposed.by, proposed.at));
    output::line(&format!("would      {}", what(record)));
    for standing in &proposal.standing {
        output::line(&format!("needs      {}", words(standing)));
    }
    for (member, submitted) in &record.approved {
        output::line(&format!("approved   by {member} at {}", submitted.at));
    }
    for (member, submitted) in &record.rejected {
        output::line(&format!("rejected   by {member} at {}", submitted.at));
    }
    if let Some(settled) = &record.settled {
        output::line(&format!("{:<10} by {} at {}", settled.how.word(), settled.by.by, settled.by.at));
    }
    Ok(Exit::Clean)
}

async fn say(global: &Global, id: &str, function: &str, did: &str) -> Result<Exit, CliError> {
    let floor = Floor::open(global).await?;
    let view = floor.fresh().await?;
    let record = find(&view.desired, &floor.channel, id)?;
    let id = &record.proposed.tx_id;
    let what = format!("{did} proposal {}: {}", short(id), what(record));
    let said = floor.act(function, &json!({ "id": id }), what).await;
    said.map_err(|error| error.within(format!("proposal {} stays as it is", short(id))))?;
    if let Ok(Some(record)) = floor.voice().find::<ProposalRecord>("proposal", id.as_str()).await {
        output::note(record.settled.map_or("it waits for others", |settled| match settled.how {
            Settlement::InForce => "it is in force",
            Settlement::Rejected => "it can't be approved any more",
            Settlement::Withdrawn => "nobody can approve it any more",
        }));
    }
    floor.close().await?;
    Ok(Exit::Clean)
}

/// The proposal whose id starts with these digits.
fn find<'a>(desired: &'a DesiredState, channel: &Channel, digits: &str) -> Result<&'a ProposalRecord, CliError> {
    by_digits(
        desired.records().all::<ProposalRecord>(),
        |record| &record.proposed.tx_id,
        digits,
        "proposal",
        &format!("charter approvals list --all --channel {channel}"),
    )
}

/// The one record whose transaction's id starts with these digits.
pub(crate) fn by_digits<'a, T>(
    all: impl Iterator<Item = &'a T>,
    id: fn(&T) -> &TxId,
    digits: &str,
    what: &str,
    listing: &str,
) -> Result<&'a T, CliError> {
    if digits.len() < FEWEST_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(CliError::new(format!("{digits:?} names no {what}"))
            .next(format!("give at least {FEWEST_DIGITS} of the digits that {listing} shows")));
    }
    let digits = digits.to_ascii_lowercase();
    let mut fitting = all.filter(|record| id(record).as_str().starts_with(&digits));
    match (fitting.next(), fitting.next()) {
        (Some(record), None) => Ok(record),
        (Some(_), Some(_)) => Err(CliError::new(format!("several start with {digits}: it names no {what}")).next("give more digits")),
        (None, _) => Err(CliError::new(format!("no {what} starts with {digits}")).next(listing.to_owned())),
    }
}

fn what(record: &ProposalRecord) -> String {
    let names = record.wanted.names();
    let listed: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    format!("{} {}", record.wanted.verb(), listed.join(", "))
}
