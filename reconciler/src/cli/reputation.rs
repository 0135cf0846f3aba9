//! `reputation` and `rate`: what members say of each other, what their reports show, and what an agreement demands of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::Args;
use ledger_sync::Ledger;
use policies::reputation::{Conduct, Score, Shortfall, shortfalls};
use serde::Serialize;
use state::acts::ratings::{MAX_STARS, Rating, RatingRecord};
use state::agreement::Agreement;
use state::ids::{Channel, MemberId};

use super::error::{CliError, Doing, Exit};
use super::market::{Seen, Which, close, floor, in_words, together};
use super::{Format, Global, market, output, submit, targets};
use crate::config::Config;
use crate::view::ChannelView;

/// What to say of a member.
#[derive(Debug, Args)]
pub(crate) struct Rate {
    /// Who is rated.
    #[arg(value_name = "MEMBER")]
    of: MemberId,
    /// The channel of the finished agreement, or its digest.
    agreement: Which,
    /// From 1 to 5.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_STARS)), value_name = "N")]
    stars: u8,
    /// Why, in at most 1,000 characters.
    #[arg(long, default_value = "", value_name = "TEXT")]
    text: String,
}

/// Rates another party of a finished agreement.
pub(crate) async fn rate(global: &Global, rate: Rate) -> Result<Exit, CliError> {
    let floor = floor(global).await?;
    let rating = Rating {
        agreement: rate.agreement.digest(&floor.config)?,
        member: rate.of,
        stars: rate.stars,
        text: rate.text,
    };
    let said = floor.voice().rate(&rating).await;
    close(floor, said.map(|one| vec![one]), &format!("the rating of {}", rating.member)).await
}

/// What is known of one member.
#[derive(Serialize)]
struct Known<'a> {
    member: &'a MemberId,
    score: Score,
    /// Each rating, oldest first.
    ratings: Vec<&'a RatingRecord>,
    /// What its reports show, on each channel that is followed here.
    conduct: BTreeMap<Channel, Conduct>,
}

/// Shows what is known of every member of the market, or of one.
pub(crate) fn show(global: &Global, of: Option<&MemberId>) -> Result<Exit, CliError> {
    let seen = Seen::read(global)?;
    let (scores, mut conduct) = (seen.scores(), market::conduct(global)?);
    let members: BTreeSet<&MemberId> = seen.desired.members().keys().collect();
    let mut known: Vec<Known<'_>> = Vec::new();
    for member in members.into_iter().filter(|member| of.is_none_or(|of| of == *member)) {
        let ratings = seen.desired.records().all::<RatingRecord>();
        let mut ratings: Vec<&RatingRecord> = ratings.filter(|record| record.rating.member == *member).collect();
        ratings.sort_by_key(|record| (record.rated.at, record.rated.by.clone()));
        known.push(Known {
            member,
            score: scores.get(member).cloned().unwrap_or_default(),
            ratings,
            conduct: conduct.remove(member).unwrap_or_default(),
        });
    }
    if let (Some(of), true) = (of, known.is_empty()) {
        return Err(CliError::new(format!("{of} is not registered on {}", seen.channel)).next("charter members"));
    }
    if global.output == Format::Json {
        output::json(&known)?;
        return Ok(Exit::Clean);
    }
    let rows = known.iter().map(|one| {
        vec![
            one.member.to_string(),
            one.score.to_string(),
            one.score.raters.to_string(),
            in_words(&together(Some(&one.conduct))),
        ]
    });
    output::table(&["member", "stars", "raters", "reports seen here"], rows.collect());
    if let (Some(_), [one]) = (of, known.as_slice()) {
        details(one);
    }
    Ok(Exit::Clean)
}

/// Each rating of a member, and what its reports show on each channel.
fn details(known: &Known<'_>) {
    if !known.ratings.is_empty() {
        output::line("");
        let rows = known.ratings.iter().map(|record| {
            vec![
                record.rated.at.to_string(),
                record.rated.by.to_string(),
                format!("{} v{}", record.dao, record.version),
                record.rating.stars.to_string(),
                record.rating.text.clone(),
            ]
        });
        output::table(&["time", "by", "agreement", "stars", "text"], rows.collect());
    }
    if !known.conduct.is_empty() {
        output::line("");
        let rows = known.conduct.iter().map(|(channel, conduct)| {
            vec![
                channel.to_string(),
                conduct.reports.to_string(),
                conduct.late.to_string(),
                format!("{} s", conduct.longest_gap),
                conduct.drifted.to_string(),
                conduct.healed.to_string(),
                conduct.pending.to_string(),
                format!("{} s", conduct.silent),
                conduct.abandoned.to_string(),
                conduct.given.to_string(),
                conduct.taken.to_string(),
                conduct.last.map_or_else(|| "-".into(), |last| last.to_string()),
            ]
        });
        output::table(
            &[
                "channel",
                "reports",
                "late",
                "longest gap",
                "drifted",
                "healed",
                "pending",
                "silent",
                "abandoned",
                "given",
                "taken",
                "last report",
            ],
            rows.collect(),
        );
    }
}

/// What a member holds an agreement to before it accepts: the channel of the agreement can't see the market, but the member can.
#[derive(Debug, Args)]
pub(crate) struct Demand {
    /// The market on which an agreement's clause on reputation is checked.
    #[arg(long, default_value = crate::market::MARKET, value_name = "CHANNEL")]
    market: Channel,
    /// Accepts an agreement though a party doesn't have the reputation that it demands.
    #[arg(long)]
    despite_reputation: bool,
}

impl Demand {
    /// Refuses an agreement whose clause on reputation a party doesn't meet, as far as the market has told this member.
    pub(crate) async fn hold(&self, config: &Config, ledger: &Arc<dyn Ledger>, agreement: &Agreement) -> Result<(), CliError> {
        let Some(clause) = agreement.clauses.as_ref().and_then(|clauses| clauses.reputation.as_ref()) else {
            return Ok(());
        };
        let title = format!("{} v{}", agreement.dao, agreement.version);
        let refused = |error: CliError| {
            if self.despite_reputation {
                output::note(&format!("{title} is accepted in spite of:\n{}", error.render().trim_end()));
                return Ok(());
            }
            Err(error.next("--despite-reputation accepts it all the same"))
        };
        if !config.channels().contains(&self.market) {
            return refused(CliError::new(format!(
                "{title} was not accepted: clauses.reputation can't be checked, since {} does not follow {}",
                config.member, self.market
            )));
        }
        // What was said since the store was looked at last may be what matters.
        submit::take_in(config, &self.market, ledger.clone()).await?;
        let view = ChannelView::load(&targets::store(config)?, &self.market);
        let desired = view
            .doing(format!("cannot read channel {} of {}", self.market, config.member))?
            .desired;
        let parties = agreement.parties.iter().map(|party| &party.member);
        let found = shortfalls(clause, &Score::by_member(desired.records()), parties, &config.member);
        if found.is_empty() {
            return Ok(());
        }
        let all = found.iter().map(Shortfall::to_string).collect::<Vec<_>>().join("; ");
        refused(CliError::new(format!("{title} was not accepted: {all}")))
    }
}
