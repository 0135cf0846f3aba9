//! Profits divided on the ledger.

use serde::Serialize;
use state::acts::distributions::{Distribution, DistributionRecord, Units};
use state::ids::{Channel, PeriodId};

use super::super::access::Access;
use super::super::error::{CliError, Doing, Exit};
use super::super::{Format, Global, output, submit, targets};
use crate::submission::Voice;
use crate::view::ChannelView;

/// Divides a profit on the ledger.
pub(super) async fn distribute(global: &Global, amount: Units, period: &PeriodId) -> Result<Exit, CliError> {
    let config = targets::one(global)?;
    let channel = targets::one_channel(global, &config)?;
    let access = Access::open(global).await?;
    let ledger = access.connect(&config)?;
    let voice = Voice {
        ledger: ledger.as_ref(),
        channel: &channel,
        member: &config.member,
    };
    let distribution = Distribution {
        period: period.clone(),
        amount,
    };
    let said = voice
        .act("distribute", &distribution, format!("divided {amount} of {period}"))
        .await;
    let said = said.map_err(|error| CliError::new(format!("the profit of {period} is not divided")).because(error))?;
    output::line(&submit::line(&said));
    submit::take_in(&config, &channel, ledger.clone()).await?;
    access.close().await?;
    Ok(Exit::Clean)
}

#[derive(Serialize)]
struct Shown<'a> {
    channel: &'a Channel,
    #[serde(flatten)]
    record: &'a DistributionRecord,
}

/// Lists what was divided, on every channel that the options name.
pub(super) fn list(global: &Global) -> Result<Exit, CliError> {
    let mut views = Vec::new();
    for (channel, configs) in targets::by_channel(global)? {
        let Some(config) = targets::newest(&configs, &channel) else {
            continue;
        };
        let store = targets::store(config)?;
        let view = ChannelView::load(&store, &channel).doing(format!("cannot read channel {channel} of {}", config.member))?;
        views.push((channel, view));
    }
    let found: Vec<Shown<'_>> = views
        .iter()
        .flat_map(|(channel, view)| {
            let records = view.desired.records().all::<DistributionRecord>();
            records.map(move |record| Shown { channel, record })
        })
        .collect();
    if global.output == Format::Json {
        output::json(&found)?;
        return Ok(Exit::Clean);
    }
    if found.is_empty() {
        output::note("no profit was divided yet");
        return Ok(Exit::Clean);
    }
    let rows = found.iter().flat_map(|shown| {
        let distribution = &shown.record.distribution;
        shown.record.parts.iter().map(move |part| {
            vec![
                shown.channel.to_string(),
                distribution.period.to_string(),
                distribution.amount.to_string(),
                part.member.to_string(),
                part.amount.to_string(),
            ]
        })
    });
    output::table(&["channel", "period", "profit", "member", "part"], rows.collect());
    Ok(Exit::Clean)
}
