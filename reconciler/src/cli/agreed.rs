//! `agreed`: what a market knows of its members' agreements.

use clap::Subcommand;
use serde::Serialize;
use state::acts::agreed::AgreedRecord;
use state::ids::{Channel, MemberId};

use super::error::{CliError, Doing, Exit};
use super::market::{Seen, Which, close, floor, in_force};
use super::{Format, Global, output};
use crate::market;

/// What to know or say of agreements.
#[derive(Debug, Subcommand)]
pub(crate) enum AgreedCommand {
    /// Lists the agreements that their parties have spoken of.
    List,
    /// Says that an agreement of one's own is in force, and who its parties are. No terms leave its channel.
    Confirm {
        /// The channel of the agreement, which one's own store has.
        agreement: Channel,
    },
    /// Says that an agreement of one's own is finished.
    Conclude {
        /// The channel of the agreement, or its digest.
        agreement: Which,
    },
}

/// Runs a command of agreements.
pub(crate) async fn run(global: &Global, command: AgreedCommand) -> Result<Exit, CliError> {
    let (said, floor, what) = match command {
        AgreedCommand::List => return list(global),
        AgreedCommand::Confirm { agreement } => {
            let floor = floor(global).await?;
            let standing = in_force(&floor.config, &agreement)?;
            let agreed = market::agreed(&standing).doing(format!("the agreement of {agreement} can't be digested"))?;
            let said = floor.voice().confirm(&agreed).await;
            (said, floor, format!("{} v{}", agreed.dao, agreed.version))
        }
        AgreedCommand::Conclude { agreement } => {
            let floor = floor(global).await?;
            let digest = agreement.digest(&floor.config)?;
            let said = floor.voice().conclude(digest).await;
            (said, floor, format!("the end of {digest}"))
        }
    };
    close(floor, said.map(|one| vec![one]), &what).await
}

#[derive(Serialize)]
struct Known<'a> {
    #[serde(flatten)]
    record: &'a AgreedRecord,
    confirmed_by_all: bool,
    finished: bool,
}

fn list(global: &Global) -> Result<Exit, CliError> {
    let seen = Seen::read(global)?;
    let known: Vec<Known<'_>> = seen
        .desired
        .records()
        .all::<AgreedRecord>()
        .map(|record| Known {
            record,
            confirmed_by_all: record.is_confirmed(),
            finished: record.is_finished(),
        })
        .collect();
    if global.output == Format::Json {
        output::json(&known)?;
        return Ok(Exit::Clean);
    }
    let names = |members: &mut dyn Iterator<Item = &MemberId>| members.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let rows = known.iter().map(|one| {
        let (record, agreed) = (one.record, &one.record.agreed);
        let standing = match (one.confirmed_by_all, one.finished) {
            (_, true) => "finished".into(),
            (true, false) => format!("in force; concluded by {}, {} are needed", record.concluded.len(), record.needed()),
            (false, false) => format!("not confirmed by {}", names(&mut record.unconfirmed())),
        };
        vec![
            format!("{} v{}", agreed.dao, agreed.version),
            names(&mut agreed.parties.iter()),
            standing,
            agreed.agreement.to_string(),
        ]
    });
    output::table(&["dao", "parties", "standing", "agreement"], rows.collect());
    Ok(Exit::Clean)
}
