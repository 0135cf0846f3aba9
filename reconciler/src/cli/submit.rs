//! `submit`: an agreement, an order, an amendment, a retirement or an offer, as a signed transaction.

use std::path::Path;
use std::sync::Arc;

use ledger_sync::{EvaluateError, Ledger, SubmitError};
use state::ids::Channel;

use super::access::Access;
use super::error::{CliError, Doing, Exit};
use super::reputation::Demand;
use super::{Global, output, targets};
use crate::config::Config;
use crate::control::Control;
use crate::document::Document;
use crate::schemas;
use crate::submission::{Present, Said, SubmissionError, Voice};
use crate::workplace::Workplace;

/// Submits a document for one member on one channel. An agreement is held to its clause on reputation first.
pub(crate) async fn run(global: &Global, file: &Path, demand: &Demand) -> Result<Exit, CliError> {
    let document = Document::read(file).map_err(|error| CliError::new("nothing was submitted").because(error))?;
    schemas::misfits(document.resources())
        .iter()
        .for_each(|misfit| output::note(misfit));
    let config = targets::one(global)?;
    let channel = targets::one_channel(global, &config)?;
    let access = Access::open(global).await?;
    let ledger = access.connect(&config)?;
    if let Document::Agreement(agreement) = &document {
        demand.hold(&config, &ledger, agreement).await?;
    }
    let voice = Voice {
        ledger: ledger.as_ref(),
        channel: &channel,
        member: &config.member,
    };
    let answer = voice.say(&document, Present::Refuse).await;
    let said = answer.map_err(|error| {
        let next = next(&document, &error);
        let failed = CliError::new(format!("{} was not taken by {channel}", file.display())).because(error);
        match next {
            Some(next) => failed.next(next),
            None => failed,
        }
    })?;
    // What is on the ledger is said first, whatever comes of the rest.
    for one in &said {
        output::line(&line(one));
    }
    take_in(&config, &channel, ledger.clone()).await?;
    access.close().await?;
    Ok(Exit::Clean)
}

/// What to do about a peer that doesn't answer. What was sent to the orderer says itself what becomes of it.
fn next(document: &Document, error: &SubmissionError) -> Option<&'static str> {
    let fault = match error {
        SubmissionError::Read {
            source: EvaluateError::Call(fault),
            ..
        }
        | SubmissionError::Submit {
            source: SubmitError::Endorse(fault),
            ..
        } => fault,
        _ => return None,
    };
    if fault.is_late() {
        return Some(
            "check that the chaincode's server runs with the package id that is installed on the peer and approved (charter chaincode serve \
             --id), at the address in its package; then submit again",
        );
    }
    fault.is_unreached().then_some(match document {
        // Of an agreement an earlier step may stand on the ledger.
        Document::Agreement(_) => "submit again when the peer answers: what the ledger has taken already is not said twice",
        Document::Order(_) | Document::Amendment(_) | Document::Retirement(_) | Document::Offer(_) => {
            "nothing was sent; submit again when the peer answers"
        }
    })
}

/// Finds out what became of a member's transactions that were sent without an answer, on each of its channels.
pub(crate) async fn pending(global: &Global) -> Result<Exit, CliError> {
    let config = targets::one(global)?;
    let access = Access::open(global).await?;
    let ledger = access.connect(&config)?;
    let mut exit = Exit::Clean;
    let mut none = true;
    let channels = match &global.channel {
        Some(_) => vec![targets::one_channel(global, &config)?],
        None => config.channels().into_iter().collect(),
    };
    for channel in channels {
        let resolved = ledger.resolve(&channel, None).await;
        for one in resolved.doing(format!("the pending transactions of {channel} can't be read"))? {
            none = false;
            match one.outcome {
                Ok(done) => output::line(&format!(
                    "{channel}: {} is on the ledger (block {}, tx {})",
                    one.function, done.block, done.tx_id
                )),
                Err(error) => {
                    let why = output::plain(&state::errors::chain(&error));
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
pub(crate) async fn take_in(config: &Config, channel: &Channel, ledger: Arc<dyn Ledger>) -> Result<(), CliError> {
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

#[cfg(test)]
mod tests {
    use ledger_sync::Fault;
    use ledger_sync::ledger::Stage;

    use super::*;

    #[test]
    fn no_answer_in_time_hints_at_the_chaincodes_server() {
        let channel: Channel = "smart-city-1".parse().unwrap();
        let late = || Fault::deadline(Stage::Endorse, "https://peer", std::time::Duration::from_secs(45));
        let document = Document::Order(Vec::new());
        for error in [
            SubmissionError::Submit {
                channel: channel.clone(),
                source: SubmitError::Endorse(late()),
            },
            SubmissionError::Read {
                channel: channel.clone(),
                source: EvaluateError::Call(late()),
            },
        ] {
            let next = next(&document, &error).unwrap();
            assert!(next.contains("package id") && next.contains("address in its package"), "{next}");
        }
        // Of one that was sent the error itself says what becomes of it.
        let sent = SubmissionError::Submit {
            channel,
            source: SubmitError::Unknown {
                tx_id: "f00d".into(),
                source: late(),
            },
        };
        assert_eq!(next(&document, &sent), None);
    }
}
