//! Profits divided on the ledger.

use serde::Serialize;
use state::acts::distributions::{Distribution, DistributionRecord, Units};
use state::ids::{Channel, PeriodId};

use super::super::error::{CliError, Exit};
use super::super::floor::Floor;
use super::super::{Format, Global, output, targets};

/// Divides a profit on the ledger.
pub(super) async fn distribute(global: &Global, amount: Units, period: &PeriodId) -> Result<Exit, CliError> {
    let floor = Floor::open(global).await?;
    let distribution = Distribution {
        period: period.clone(),
        amount,
    };
    let said = floor
        .act("distribute", &distribution, format!("divided {amount} of {period}"))
        .await;
    said.map_err(|error| error.within(format!("the profit of {period} is not divided")))?;
    floor.close().await?;
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
    let views = targets::views(global)?;
    let found: Vec<Shown<'_>> = views
        .iter()
        .flat_map(|(channel, _, view)| {
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
