//! `submit`: an agreement, an order, an amendment or a retirement, as a signed transaction.

use std::path::Path;

use super::access::Access;
use super::error::{CliError, Exit};
use super::{Global, output, targets};
use crate::document::Document;
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
    access.close().await?;
    let said = answer.map_err(|error| CliError::new(format!("{} was not taken by {channel}", file.display())).because(error))?;
    for one in &said {
        output::line(&line(one));
    }
    Ok(Exit::Clean)
}

/// One thing that was said, in one line.
pub(crate) fn line(said: &Said) -> String {
    match said {
        Said::Committed { what, tx_id, block } => format!("{what} (block {block}, tx {})", tx_id.get(..12).unwrap_or(tx_id)),
        Said::Already { what } => format!("nothing to say: {what}"),
        Said::Waiting { what } => format!("waiting for {what}"),
    }
}
