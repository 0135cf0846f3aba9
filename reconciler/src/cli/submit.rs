//! `submit`: an agreement, an order, an amendment or a retirement, as a signed transaction.

use std::path::Path;
use std::sync::Arc;

use ledger_sync::Ledger;
use state::ids::Channel;

use super::access::Access;
use super::error::{CliError, Doing, Exit};
use super::{Global, output, targets};
use crate::config::Config;
use crate::control::Control;
use crate::document::Document;
use crate::service::Workplace;
use crate::submission::{Present, Said, Voice};

/// Submits a document for one member on one channel.
pub(crate) async fn run(global: &Global, file: &Path) -> Result<Exit, CliError> {
    let document = Document::read(file).map_err(|error| CliError::new("nothing was submitted").because(error))?;
    let config = targets::one(global)?;
    let channel = targets::one_channel(global, &config)?;
    let access = Access::open(global).await?;
    let ledger = access.connect(&config)?;
    let voice = Voice {
        ledger: ledger.as_ref(),
        channel: &channel,
        member: &config.member,
    };
    let answer = voice.say(&document, Present::Refuse).await;
    let said = answer.map_err(|error| CliError::new(format!("{} was not taken by {channel}", file.display())).because(error))?;
    // What is on the ledger is said first, whatever comes of the rest.
    for one in &said {
        output::line(&line(one));
    }
    take_in(&config, &channel, ledger.clone()).await?;
    access.close().await?;
    Ok(Exit::Clean)
}

/// Finds out what became of a member's transactions that were sent without an answer, on each of its channels.
pub(crate) async fn pending(global: &Global) -> Result<Exit, CliError> {
    let config = targets::one(global)?;
    let access = Access::open(global).await?;
    let ledger = access.connect(&config)?;
    let mut exit = Exit::Clean;
    let mut none = true;
    for channel in targets::channels(global, &config) {
        let resolved = ledger.resolve(&channel, None).await;
        for one in resolved.doing(format!("the pending transactions of {channel} can't be read"))? {
            none = false;
            match one.outcome {
                Ok(done) => output::line(&format!(
                    "{channel}: {} is on the ledger (block {}, tx {})",
                    one.function, done.block, done.tx_id
                )),
                Err(error) => {
                    let why = output::plain(&ledger_sync::whole(&error));
                    output::line(&format!("{channel}: {} (tx {}): {why}", one.function, one.tx_id));
                    exit = exit.worse(if error.transient() { Exit::Unknown } else { Exit::Error });
                }
            }
        }
    }
    if none {
        output::line("no transaction is pending");
    }
    access.close().await?;
    Ok(exit)
}

/// Lets the member's own store have what was said at once, for `plan` and `status`; a running service has it already.
async fn take_in(config: &Config, channel: &Channel, ledger: Arc<dyn Ledger>) -> Result<(), CliError> {
    let Ok(_held) = Control::new(config.folder()).hold() else {
        return Ok(());
    };
    let place = Workplace::open(config).doing(format!("the store of {} can't be used", config.member))?;
    match place.catch_up(channel, ledger).await {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::new(format!("it was submitted, but {channel} can't be followed")).because(error)),
    }
}

/// One thing that was said, in one line.
pub(crate) fn line(said: &Said) -> String {
    match said {
        Said::Committed { what, tx_id, block } => format!("{what} (block {block}, tx {})", tx_id.get(..12).unwrap_or(tx_id)),
        Said::Already { what } => format!("nothing to say: {what}"),
        Said::Waiting { what } => format!("waiting for {what}"),
    }
}
