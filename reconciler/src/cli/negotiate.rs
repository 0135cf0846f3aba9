//! `negotiate`: how members come to terms on a market, and what they sign there.

mod show;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;
use state::acts::negotiations::{MAX_PARTIES, NegotiationState, Request};
use state::ids::{MemberId, NegotiationId, OfferId};
use state::terms::Terms;

use super::access::Access;
use super::error::{CliError, Doing, Exit};
use super::{Format, Global, output, submit, targets};
use crate::negotiation::{KeyUse, NegotiationError, Table};
use crate::sealing::KeyRing;
use crate::submission::{Said, Voice};
use crate::terms;

/// What to do in a negotiation.
#[derive(Debug, Subcommand)]
pub(crate) enum NegotiateCommand {
    /// Publishes the key that others seal terms to; made when there is none. `request` and `offer` do this by themselves.
    Key {
        /// Make a new one in its place; the private halves of the old ones stay, to read older rounds.
        #[arg(long)]
        renew: bool,
    },
    /// Asks others to negotiate.
    Request {
        /// A name for the negotiation.
        id: NegotiationId,
        /// The other parties, separated by commas.
        #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
        with: Vec<MemberId>,
        /// The data service provider that closes its steps.
        #[arg(long, value_name = "NAME")]
        provider: MemberId,
        /// The offer on the market that it is about.
        #[arg(long, value_name = "OFFER")]
        about: Option<OfferId>,
    },
    /// Puts terms on the table, sealed to the parties: the first ones, or others in their place.
    Offer {
        /// The negotiation.
        id: NegotiationId,
        /// The terms, YAML or JSON.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Accepts, as a consumer, the terms on the table.
    Accept {
        /// The negotiation.
        id: NegotiationId,
        /// The round whose terms were read: nobody signs what came in between.
        #[arg(long, value_name = "N")]
        round: u32,
    },
    /// Agrees, as the provider, to what every consumer accepted.
    Agree {
        /// The negotiation.
        id: NegotiationId,
        /// The round whose terms were read.
        #[arg(long, value_name = "N")]
        round: u32,
    },
    /// Confirms, as a consumer, that the terms make the agreement that the provider says.
    Verify {
        /// The negotiation.
        id: NegotiationId,
    },
    /// Closes, as the provider, what every consumer verified.
    Finalize {
        /// The negotiation.
        id: NegotiationId,
    },
    /// Ends a negotiation without an agreement.
    Terminate {
        /// The negotiation.
        id: NegotiationId,
        /// Why; everybody on the market reads it.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Lists negotiations: those of all members, without their terms.
    List {
        /// Only those in this state.
        #[arg(long, value_name = "STATE", value_parser = state)]
        state: Option<NegotiationState>,
        /// Only those that this member takes part in.
        #[arg(long)]
        mine: bool,
        #[command(flatten)]
        listing: show::Listing,
    },
    /// Shows a negotiation's rounds and signatures, and what this member can do next.
    Show {
        /// The negotiation.
        id: NegotiationId,
    },
    /// Opens the terms of a round with this member's key, and prints them.
    Terms {
        /// The negotiation.
        id: NegotiationId,
        /// Which round (default: the last).
        #[arg(long, value_name = "N")]
        round: Option<u32>,
        /// Print only what differs from this round.
        #[arg(long, value_name = "N")]
        against: Option<u32>,
    },
    /// Prints the agreement of a finalized negotiation, as its parties submit it in their channel.
    Agreement {
        /// The negotiation.
        id: NegotiationId,
    },
    /// Prints what this member orders by the terms of a finalized negotiation, as it submits it there.
    Orders {
        /// The negotiation.
        id: NegotiationId,
    },
}

fn state(word: &str) -> Result<NegotiationState, String> {
    let named = |state: &NegotiationState| state.to_string().eq_ignore_ascii_case(word);
    let names = || NegotiationState::ALL.map(|state| state.to_string()).join(", ");
    NegotiationState::ALL
        .into_iter()
        .find(named)
        .ok_or_else(|| format!("one of {}", names()))
}

/// Runs a command of a negotiation, for one member on one market.
pub(crate) async fn run(global: &Global, command: NegotiateCommand) -> Result<Exit, CliError> {
    // A file that can't be read is said before anything is asked.
    let terms = match &command {
        NegotiateCommand::Offer { file, .. } => {
            Some(terms::read(file).map_err(|error| CliError::new("nothing was offered").because(error))?)
        }
        _ => None,
    };
    let config = targets::one(global)?;
    let channel = targets::one_channel(global, &config)?;
    let access = Access::open(global).await?;
    let ledger = access.connect(&config)?;
    let table = Table {
        voice: Voice {
            ledger: ledger.as_ref(),
            channel: &channel,
            member: &config.member,
        },
        keys: KeyRing::of(&config),
    };
    let said = match says(&table, &command, terms).await {
        Some(said) => said.map_err(|error| failed(&command, error))?,
        None => {
            shows(global, &table, &command).await?;
            Vec::new()
        }
    };
    for one in &said {
        output::line(&submit::line(one));
    }
    if !said.is_empty() {
        submit::take_in(&config, &channel, ledger.clone()).await?;
    }
    access.close().await?;
    Ok(Exit::Clean)
}

/// Says something on the market; none for a command that only shows.
async fn says(table: &Table<'_>, command: &NegotiateCommand, terms: Option<Terms>) -> Option<Result<Vec<Said>, NegotiationError>> {
    let one = |said: Result<Said, NegotiationError>| said.map(|said| vec![said]);
    Some(match command {
        NegotiateCommand::Key { renew } => one(table.key(if *renew { KeyUse::Renew } else { KeyUse::Keep }).await),
        NegotiateCommand::Request { id, with, provider, about } => {
            let parties: BTreeSet<MemberId> = with.iter().chain([table.voice.member]).take(MAX_PARTIES + 1).cloned().collect();
            let asked = Request {
                id: id.clone(),
                provider: provider.clone(),
                parties,
                about: about.clone(),
            };
            table.request(&asked).await
        }
        NegotiateCommand::Offer { id, .. } => table.offer(id, terms?).await,
        NegotiateCommand::Accept { id, round } => one(table.accept(id, *round).await),
        NegotiateCommand::Agree { id, round } => one(table.agree(id, *round).await),
        NegotiateCommand::Verify { id } => one(table.verify(id).await),
        NegotiateCommand::Finalize { id } => one(table.finalize(id).await),
        NegotiateCommand::Terminate { id, reason } => one(table.terminate(id, reason).await),
        NegotiateCommand::List { .. }
        | NegotiateCommand::Show { .. }
        | NegotiateCommand::Terms { .. }
        | NegotiateCommand::Agreement { .. }
        | NegotiateCommand::Orders { .. } => return None,
    })
}

/// Shows something of the market.
async fn shows(global: &Global, table: &Table<'_>, command: &NegotiateCommand) -> Result<(), CliError> {
    let failed = |error| failed(command, error);
    match command {
        NegotiateCommand::List { state, mine, listing } => {
            show::list(global, table, listing, |record| {
                state.is_none_or(|state| record.state == state) && (!mine || record.parties.contains(table.voice.member))
            })
            .await
        }
        NegotiateCommand::Show { id } => show::one(global, table, &table.record(id).await.map_err(failed)?),
        NegotiateCommand::Terms { id, round, against } => {
            let opened = table.open(id, *round).await.map_err(failed)?;
            if against.is_some() {
                let earlier = table.open(id, *against).await.map_err(failed)?;
                return show::differences(global, &earlier, &opened);
            }
            let whole = opened.round == opened.record.round();
            let terms = match opened.record.state {
                NegotiationState::Finalized if whole => opened.salted.terms.agreed(),
                _ => opened.salted.terms,
            };
            output::note(&format!("round {} of negotiation {id}, terms {}", opened.round, opened.digest));
            document(global, serde_json::to_value(&terms))
        }
        NegotiateCommand::Agreement { id } => {
            let terms = table.finalized(id).await.map_err(failed)?;
            document(global, terms::agreement(&terms.agreement))
        }
        NegotiateCommand::Orders { id } => {
            let terms = table.finalized(id).await.map_err(failed)?;
            let member = table.voice.member;
            let own = terms.infrastructure.iter().find(|orders| orders.by == *member);
            let Some(own) = own else {
                return Err(CliError::new(format!("by the terms of negotiation {id}, {member} orders nothing")));
            };
            document(global, terms::order(&own.resources))
        }
        _ => Ok(()),
    }
}

/// Prints a document, in YAML or JSON.
fn document(global: &Global, value: Result<Value, serde_json::Error>) -> Result<(), CliError> {
    let value = value.doing("the document can't be written")?;
    match global.output {
        Format::Json => output::json(&value),
        Format::Table => {
            let text = serde_saphyr::to_string(&value).doing("the document can't be written as YAML")?;
            output::text(&output::lines(&text));
            Ok(())
        }
    }
}

fn failed(command: &NegotiateCommand, error: NegotiationError) -> CliError {
    let doing = match command {
        NegotiateCommand::Key { .. } => "the key was not published",
        NegotiateCommand::Request { .. } => "nothing was requested",
        NegotiateCommand::Offer { .. } => "nothing was offered",
        NegotiateCommand::Accept { .. } => "nothing was accepted",
        NegotiateCommand::Agree { .. } => "nothing was agreed to",
        NegotiateCommand::Verify { .. } => "nothing was verified",
        NegotiateCommand::Finalize { .. } => "nothing was finalized",
        NegotiateCommand::Terminate { .. } => "nothing was terminated",
        NegotiateCommand::List { .. } | NegotiateCommand::Show { .. } => "the negotiation can't be shown",
        NegotiateCommand::Terms { .. } | NegotiateCommand::Agreement { .. } | NegotiateCommand::Orders { .. } => "the terms can't be shown",
    };
    CliError::new(doing).because(error)
}
