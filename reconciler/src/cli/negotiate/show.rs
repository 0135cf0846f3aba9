//! Negotiations for people and programs: states, rounds, signatures, and what a member can do next.

use chaincode::arguments::RecordPage;
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use state::acts::negotiations::{Move, NegotiationRecord};
use state::ids::{MemberId, NegotiationId};
use state::records::Submitted;

use super::super::error::{CliError, Doing};
use super::super::{Format, Global, output};
use crate::negotiation::{Opened, Table};
use crate::terms;

/// How many negotiations are asked for at a time: so many of the largest fit into one answer of a peer.
const PAGE: u32 = 50;

/// Which part of a list.
#[derive(Debug, Args)]
pub(crate) struct Listing {
    /// Only those whose names stand after this one.
    #[arg(long, value_name = "NAME")]
    after: Option<NegotiationId>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
}

/// A negotiation with what the member that asks can do next.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    record: &'a NegotiationRecord,
    round: u32,
    next: Vec<Move>,
}

fn shown<'a>(record: &'a NegotiationRecord, member: &MemberId) -> Shown<'a> {
    Shown {
        record,
        round: record.round(),
        next: record.next(member),
    }
}

/// Lists the negotiations that fit, at most so many, after a name; says where the next ones start.
pub(super) async fn list(
    global: &Global,
    table: &Table<'_>,
    listing: &Listing,
    fits: impl Fn(&NegotiationRecord) -> bool,
) -> Result<(), CliError> {
    let mut found = Vec::new();
    let mut page = RecordPage {
        after: listing.after.as_ref().map(ToString::to_string),
        limit: PAGE,
    };
    let limit = listing.limit as usize;
    let more = loop {
        let read = table.page(&page).await;
        let read = read.map_err(|error| CliError::new("the negotiations can't be listed").because(error))?;
        found.extend(read.records.into_iter().filter(&fits));
        match read.next {
            _ if found.len() > limit => break true,
            Some(next) => page.after = Some(next),
            None => break false,
        }
    };
    found.truncate(limit);
    if let (true, Some(last)) = (more, found.last()) {
        output::note(&format!("there are more: --after {}", last.id));
    }
    let member = table.voice.member;
    if global.output == Format::Json {
        return output::json(&found.iter().map(|record| shown(record, member)).collect::<Vec<_>>());
    }
    if found.is_empty() {
        output::note("no negotiation fits");
        return Ok(());
    }
    let row = |record: &NegotiationRecord| {
        vec![
            record.id.to_string(),
            record.state.to_string(),
            record.round().to_string(),
            record.provider.to_string(),
            joined(record.consumers()),
            words(&record.next(member)),
        ]
    };
    let next = format!("{member} can");
    output::table(
        &["negotiation", "state", "round", "provider", "consumers", &next],
        found.iter().map(row).collect(),
    );
    Ok(())
}

/// Shows one negotiation whole.
pub(super) fn one(global: &Global, table: &Table<'_>, record: &NegotiationRecord) -> Result<(), CliError> {
    let member = table.voice.member;
    if global.output == Format::Json {
        return output::json(&shown(record, member));
    }
    output::line(&format!("negotiation {} is {}", record.id, record.state));
    output::line(&format!("provider   {}", record.provider));
    output::line(&format!("consumers  {}", joined(record.consumers())));
    if let Some(offer) = &record.about {
        output::line(&format!("about      offer {offer}"));
    }
    if let Some(agreement) = &record.agreement {
        output::line(&format!("agreement  {agreement} (salted: only its parties can tell of what)"));
    }
    if let Some(ended) = &record.terminated {
        output::line(&format!("reason     {}", output::plain(&ended.reason)));
    }
    output::line("");
    output::table(&["what", "by", "when", "transaction", "digest"], history(record));
    output::line("");
    let next = record.next(member);
    if next.is_empty() {
        output::line(&format!("{member} can do nothing here now"));
    } else {
        output::line(&format!("{member} can:"));
        for step in next {
            output::line(&format!("  {}", command(record, step)));
        }
    }
    Ok(())
}

/// Shows in what two rounds' terms differ.
pub(super) fn differences(global: &Global, before: &Opened, after: &Opened) -> Result<(), CliError> {
    let found = terms::differences(&before.salted.terms, &after.salted.terms).doing("the terms can't be compared")?;
    if global.output == Format::Json {
        return output::json(&found);
    }
    if found.is_empty() {
        output::note("these rounds have the same terms");
        return Ok(());
    }
    let cell = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let rows = found.iter().map(|one| vec![one.field.clone(), cell(&one.before), cell(&one.after)]);
    let heading = |opened: &Opened| format!("round {}", opened.round);
    output::table(&["field", &heading(before), &heading(after)], rows.collect());
    Ok(())
}

/// Everything that counts, in the order in which it happened.
fn history(record: &NegotiationRecord) -> Vec<Vec<String>> {
    let row = |what: String, by: &Submitted, digest: String| {
        let tx = by.tx_id.as_str();
        vec![
            what,
            by.by.to_string(),
            by.at.to_string(),
            tx.get(..12).unwrap_or(tx).to_owned(),
            digest,
        ]
    };
    let mut rows = vec![row("requested".into(), &record.requested, String::new())];
    for (number, round) in (1..).zip(&record.rounds) {
        rows.push(row(format!("round {number} offered"), &round.offered, round.digest.to_string()));
    }
    let round = record.round();
    let last = record.rounds.last();
    for accepted in record.accepted.values() {
        // Who offers has accepted by that.
        if last.is_none_or(|last| last.offered != *accepted) {
            rows.push(row(format!("round {round} accepted"), accepted, String::new()));
        }
    }
    let agreement = record.agreement.map(|digest| digest.to_string()).unwrap_or_default();
    if let Some(agreed) = &record.agreed {
        rows.push(row(format!("round {round} agreed"), agreed, agreement.clone()));
    }
    for verified in record.verified.values() {
        rows.push(row("verified".into(), verified, agreement.clone()));
    }
    if let Some(finalized) = &record.finalized {
        rows.push(row("finalized".into(), finalized, agreement));
    }
    if let Some(ended) = &record.terminated {
        rows.push(row("terminated".into(), &ended.submitted, String::new()));
    }
    rows
}

/// What to type for a move.
fn command(record: &NegotiationRecord, step: Move) -> String {
    let (id, round) = (&record.id, record.round());
    let more = match step {
        Move::Offer => " -f TERMS.yaml".to_owned(),
        Move::Accept | Move::Agree => format!(" --round {round}"),
        Move::Terminate => " --reason TEXT".to_owned(),
        Move::Verify | Move::Finalize => String::new(),
    };
    format!("charter negotiate {} {id}{more}", step.word())
}

fn joined<'a>(members: impl Iterator<Item = &'a MemberId>) -> String {
    members.map(MemberId::as_str).collect::<Vec<_>>().join(", ")
}

fn words(moves: &[Move]) -> String {
    moves.iter().map(|step| step.word()).collect::<Vec<_>>().join(", ")
}
