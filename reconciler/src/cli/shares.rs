//! `shares`: who owns which part of a DAO, what a newcomer would change, what a profit comes to, and how laws of shares compare.

mod distributions;
mod simulate;

use clap::{Args, Subcommand};
use policies::shares::{Stakes, break_even, ownership, split};
use serde::Serialize;
use state::acts::distributions::Units;
use state::agreement::Beta;
use state::ids::{Channel, DaoId, MemberId, PeriodId, Version};

use super::error::{CliError, Doing, Exit};
use super::{Format, Global, output, targets};
use crate::view::ChannelView;

/// Percentages are shown with four digits, and sum to a hundred as the parts of a profit of a million do.
const MILLION: u128 = 1_000_000;

/// What to know of shares.
#[derive(Debug, Subcommand)]
pub(crate) enum SharesCommand {
    /// Shows every member's part of every version, from the data alone on.
    Show {
        #[command(flatten)]
        shares: Shares,
    },
    /// Shows what everybody would own if one more value service provider joined.
    WhatIf {
        /// Who joins, and the part of the next version's profit that it leaves to those before: NAME=0.80.
        #[arg(long, value_name = "NAME=BETA", value_parser = newcomer)]
        join: Newcomer,
        /// Today's profit in minor units; tells how much the next version has to earn.
        #[arg(long, value_name = "AMOUNT", default_value = "1000000", value_parser = amount)]
        profit: u128,
        #[command(flatten)]
        shares: Shares,
    },
    /// Divides a profit among the members, to the unit.
    Split {
        /// The profit of the last version, in whole minor units such as cents.
        #[arg(value_parser = amount)]
        amount: u128,
        #[command(flatten)]
        shares: Shares,
    },
    /// Divides the profit of a period on the ledger, for everybody to check: each part is what `split` gives.
    Distribute {
        /// The profit of this version, in whole minor units such as cents.
        #[arg(value_parser = units)]
        amount: Units,
        /// The period, for example q1-2027; each is divided once.
        #[arg(long)]
        period: PeriodId,
    },
    /// Shows the profits that were divided.
    Distributions,
    /// Draws many DAOs at random under a law of shares, and shows what their members own.
    Simulate(simulate::Simulate),
}

/// Where shares are taken from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shares {
    /// Shares beta of VSP 1, VSP 2, … in the order in which they join, instead of an agreement's.
    #[arg(long = "beta", value_name = "BETA", value_delimiter = ',', conflicts_with_all = ["config", "member", "channel"])]
    betas: Vec<Beta>,
}

/// Somebody who may join.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    member: MemberId,
    beta: Beta,
}

fn newcomer(text: &str) -> Result<Newcomer, String> {
    let (name, beta) = text.split_once('=').ok_or("write NAME=BETA, for example carol=0.80")?;
    Ok(Newcomer {
        member: name.parse().map_err(|error| format!("{error}"))?,
        beta: beta.parse().map_err(|error| format!("{error}"))?,
    })
}

fn amount(text: &str) -> Result<u128, String> {
    let refused = || format!("write digits only, whole minor units up to {}", u128::MAX);
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    text.parse().map_err(|_| refused())
}

fn units(text: &str) -> Result<Units, String> {
    text.parse()
        .map_err(|error: state::acts::distributions::UnitsError| error.to_string())
}

/// Runs a command of shares.
pub(crate) async fn run(global: &Global, command: &SharesCommand) -> Result<Exit, CliError> {
    match command {
        SharesCommand::Distribute { amount, period } => distributions::distribute(global, *amount, period).await,
        SharesCommand::Distributions => distributions::list(global),
        SharesCommand::Show { shares } => show(global, shares),
        SharesCommand::WhatIf { join, profit, shares } => what_if(global, join, *profit, shares),
        SharesCommand::Split { amount, shares } => divide(global, *amount, shares),
        SharesCommand::Simulate(simulate) => simulate::run(global, simulate),
    }
}

/// The shares of one version of a DAO.
#[derive(Debug, Serialize)]
struct Deal {
    /// The channel of the agreement; none: shares from the command line.
    channel: Option<Channel>,
    dao: Option<DaoId>,
    version: Option<Version>,
    in_force: bool,
    /// The data service provider first.
    members: Vec<String>,
    /// β_1 … β_n.
    betas: Vec<Beta>,
}

impl Deal {
    /// What the shares are called in an error.
    fn name(&self) -> String {
        match &self.channel {
            Some(channel) => format!("the shares of channel {channel}"),
            None => "these shares".into(),
        }
    }

    /// Everybody's part of each version, in per cent with four digits that sum to a hundred.
    fn percentages(&self) -> Result<Vec<Vec<String>>, CliError> {
        percentages(&self.betas).doing(format!("{} can't be shown", self.name()))
    }

    /// Says which agreement it is, and that it doesn't hold yet.
    fn note(&self) {
        if let (Some(channel), Some(dao), Some(version)) = (&self.channel, &self.dao, &self.version) {
            let state = if self.in_force {
                "in force"
            } else {
                "not accepted by everybody yet"
            };
            output::note(&format!("channel {channel}: {dao} v{version}, {state}"));
        }
    }
}

fn percentages(betas: &[Beta]) -> Result<Vec<Vec<String>>, policies::shares::ShareError> {
    (0..=betas.len())
        .map(|version| {
            let parts = split(MILLION, &betas[..version])?.parts();
            Ok(parts
                .iter()
                .map(|part| format!("{}.{:04} %", part / 10_000, part % 10_000))
                .collect())
        })
        .collect()
}

/// The shares that the options name: those of the command line, or of every channel that has an agreement.
fn deals(global: &Global, shares: &Shares) -> Result<Vec<Deal>, CliError> {
    if !shares.betas.is_empty() {
        let services = (1..=shares.betas.len()).map(|i| format!("vsp-{i}"));
        return Ok(vec![Deal {
            channel: None,
            dao: None,
            version: None,
            in_force: false,
            members: std::iter::once("dsp".to_owned()).chain(services).collect(),
            betas: shares.betas.clone(),
        }]);
    }
    let mut found = Vec::new();
    let mut without = Vec::new();
    for (channel, configs) in targets::by_channel(global)? {
        let Some(config) = targets::newest(&configs, &channel) else {
            continue;
        };
        let store = targets::store(config)?;
        let view = ChannelView::load(&store, &channel).doing(format!("cannot read channel {channel} of {}", config.member))?;
        let Some(record) = view.desired.agreement() else {
            without.push(channel.to_string());
            continue;
        };
        let stakes = Stakes::of(&record.agreement).doing(format!("the agreement of channel {channel} can't be divided"))?;
        found.push(Deal {
            dao: Some(record.agreement.dao.clone()),
            version: Some(record.agreement.version),
            in_force: record.in_force,
            members: stakes.members().map(ToString::to_string).collect(),
            betas: stakes.betas(),
            channel: Some(channel),
        });
    }
    if found.is_empty() {
        return Err(CliError::new(format!("there is no agreement yet on {}", without.join(", ")))
            .next("charter submit FILE with an agreement, or give the shares themselves: --beta 0.80,0.75"));
    }
    Ok(found)
}

/// The shares of one agreement.
fn one(global: &Global, shares: &Shares) -> Result<Deal, CliError> {
    let mut found = deals(global, shares)?;
    match (found.pop(), found.is_empty()) {
        (Some(deal), true) => Ok(deal),
        (last, _) => {
            let names: Vec<String> = found
                .iter()
                .chain(&last)
                .filter_map(|deal| Some(deal.channel.as_ref()?.to_string()))
                .collect();
            Err(CliError::new("this command works on one agreement").next(format!("add --channel, one of {}", names.join(", "))))
        }
    }
}

/// A member and what it has.
#[derive(Serialize)]
struct Part<'a> {
    member: &'a str,
    /// Of the whole, with all decimals.
    share: String,
}

#[derive(Serialize)]
struct Tree<'a> {
    #[serde(flatten)]
    deal: &'a Deal,
    /// Version 0, which is the data alone, to the last.
    versions: Vec<Vec<Part<'a>>>,
}

fn show(global: &Global, shares: &Shares) -> Result<Exit, CliError> {
    let deals = deals(global, shares)?;
    if global.output == Format::Json {
        let trees = deals.iter().map(tree).collect::<Result<Vec<_>, _>>()?;
        output::json(&trees)?;
        return Ok(Exit::Clean);
    }
    for (index, deal) in deals.iter().enumerate() {
        if index > 0 {
            output::line("");
        }
        deal.note();
        let versions = deal.percentages()?;
        let headings: Vec<String> = ["member".into(), "beta".into()]
            .into_iter()
            .chain((0..versions.len()).map(|version| format!("v{version}")))
            .collect();
        let rows = deal.members.iter().enumerate().map(|(member, name)| {
            // The data service provider has no β, and version i has members up to i.
            let beta = member.checked_sub(1).map_or_else(|| "-".into(), |i| deal.betas[i].to_string());
            let parts = versions
                .iter()
                .map(|parts| parts.get(member).cloned().unwrap_or_else(|| "-".into()));
            [name.clone(), beta].into_iter().chain(parts).collect()
        });
        output::table(&headings.iter().map(String::as_str).collect::<Vec<_>>(), rows.collect());
    }
    Ok(Exit::Clean)
}

fn tree(deal: &Deal) -> Result<Tree<'_>, CliError> {
    let versions = ownership(&deal.betas).doing(format!("{} can't be shown", deal.name()))?;
    let parts = |version: &Vec<policies::shares::Share>| {
        let members = deal.members.iter().zip(version);
        members
            .map(|(member, share)| Part {
                member,
                share: share.to_string(),
            })
            .collect()
    };
    Ok(Tree {
        deal,
        versions: versions.iter().map(parts).collect(),
    })
}

#[derive(Serialize)]
struct Change {
    member: String,
    before: String,
    after: String,
}

#[derive(Serialize)]
struct Changes<'a> {
    channel: Option<&'a Channel>,
    join: &'a MemberId,
    beta: Beta,
    members: Vec<Change>,
    /// Today's profit, and the least one of the next version at which nobody has less; none: no profit is enough.
    profit: String,
    break_even: Option<String>,
}

fn what_if(global: &Global, join: &Newcomer, profit: u128, shares: &Shares) -> Result<Exit, CliError> {
    let deal = one(global, shares)?;
    if deal.members.iter().any(|member| *member == join.member.as_str()) {
        return Err(CliError::new(format!("{} is a member already", join.member)).next("name somebody else with --join NAME=BETA"));
    }
    let refused = || format!("{} can't join {}", join.member, deal.name());
    let after: Vec<Beta> = deal.betas.iter().copied().chain([join.beta]).collect();
    let members: Vec<String> = deal.members.iter().cloned().chain([join.member.to_string()]).collect();
    let last = deal.betas.len();
    let enough = break_even(profit, join.beta);
    if global.output == Format::Json {
        let versions = ownership(&after).doing(refused())?;
        let before = versions[last].iter().map(ToString::to_string).chain(["0".into()]);
        let changes = members.into_iter().zip(before).zip(&versions[last + 1]);
        output::json(&Changes {
            channel: deal.channel.as_ref(),
            join: &join.member,
            beta: join.beta,
            members: changes
                .map(|((member, before), after)| Change {
                    member,
                    before,
                    after: after.to_string(),
                })
                .collect(),
            profit: profit.to_string(),
            break_even: enough.map(|enough| enough.to_string()),
        })?;
        return Ok(Exit::Clean);
    }
    deal.note();
    let versions = percentages(&after).doing(refused())?;
    let before = versions[last].iter().cloned().chain(["-".into()]);
    let rows = members.into_iter().zip(before).zip(&versions[last + 1]);
    output::table(
        &["member", "before", "after"],
        rows.map(|((member, before), after)| vec![member, before, after.clone()]).collect(),
    );
    output::note(&match enough {
        Some(enough) => format!(
            "version {} has to earn {enough} or more, so that nobody has less than of {profit} today",
            last + 1
        ),
        None => format!("no profit is great enough that nobody has less than of {profit} today"),
    });
    Ok(Exit::Clean)
}

#[derive(Serialize)]
struct Payment<'a> {
    member: &'a str,
    amount: String,
    share: String,
}

#[derive(Serialize)]
struct Payments<'a> {
    #[serde(flatten)]
    deal: &'a Deal,
    profit: String,
    parts: Vec<Payment<'a>>,
}

fn divide(global: &Global, amount: u128, shares: &Shares) -> Result<Exit, CliError> {
    let deal = one(global, shares)?;
    let refused = || format!("{amount} can't be divided by {}", deal.name());
    let amounts = split(amount, &deal.betas).doing(refused())?.parts();
    let mut versions = ownership(&deal.betas).doing(refused())?;
    let exact = versions.pop().unwrap_or_default();
    let paid = deal.members.iter().zip(amounts).zip(exact);
    if global.output == Format::Json {
        let parts = paid.map(|((member, amount), share)| Payment {
            member,
            amount: amount.to_string(),
            share: share.to_string(),
        });
        output::json(&Payments {
            deal: &deal,
            profit: amount.to_string(),
            parts: parts.collect(),
        })?;
        return Ok(Exit::Clean);
    }
    deal.note();
    let percentages = deal.percentages()?.pop().unwrap_or_default();
    let rows = paid
        .zip(percentages)
        .map(|(((member, amount), _), percent)| vec![member.clone(), percent, amount.to_string()]);
    output::table(&["member", "share", "amount"], rows.collect());
    Ok(Exit::Clean)
}
