//! What a commit says: a subject that an auditor can skim, a list of what changed, and trailers that machines read.
//!
//! Everything here is part of commit ids: a change of one letter changes the history of every channel. Only checked names,
//! digests and fixed words are written, so nothing can break out of its line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use state::acts::agreed::AgreedRecord;
use state::acts::approvals::{ProposalRecord, Wanted};
use state::acts::distributions::DistributionRecord;
use state::acts::handovers::{Becomes, HandOver};
use state::acts::life::{ENDING, EndingRecord, PartRecord};
use state::acts::negotiations::{NegotiationRecord, Resulting};
use state::acts::offers::OfferRecord;
use state::acts::transfers::TransferRecord;
use state::canonical::Digest;
use state::desired::DesiredState;
use state::event::{EventBody, LedgerEvent};
use state::ids::{Channel, NegotiationId, ResourceName, TxId};
use state::report::{Condition, StepOutcome, StepReport};
use state::reported::ReportedState;
use state::resource::{OnRetire, Resource};

use crate::decode::Quarantine;
use crate::materialise::Change;

/// The longest subject, in characters.
const SUBJECT: usize = 72;
/// The most lines of a body's list.
const LINES: usize = 100;

/// A commit's message, but for the trailers that every commit has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// The first line.
    pub subject: String,
    /// The lines of the body.
    pub body: Vec<String>,
    /// The trailers that follow those of the transaction.
    pub trailers: Vec<(&'static str, String)>,
}

/// Puts a commit's message together.
pub fn render(channel: &Channel, change: &Change) -> String {
    let mut out = change.message.subject.clone();
    out.push_str("\n\n");
    for line in change.message.body.iter().take(LINES) {
        out.push_str(line);
        out.push('\n');
    }
    if change.message.body.len() > LINES {
        let _ = writeln!(out, "- and {} more", change.message.body.len() - LINES);
    }
    if !change.message.body.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "Ledger-Channel: {channel}");
    let _ = writeln!(out, "Ledger-Block: {}", change.position.block);
    let _ = writeln!(out, "Ledger-Tx: {}", change.tx_id);
    for (key, value) in &change.message.trailers {
        let _ = writeln!(out, "{key}: {value}");
    }
    out
}

/// The trailers of a transaction that was taken in.
pub(crate) fn trailers(event: &LedgerEvent, agreement: Option<Digest>) -> Vec<(&'static str, String)> {
    let mut trailers = vec![("Event", event.body.kind().to_owned()), ("Member", event.source.by.to_string())];
    trailers.extend(agreement.map(|digest| ("Agreement", digest.to_string())));
    trailers
}

/// Tells what an event did to the desired state, after it was taken in.
pub(crate) fn of_desired(event: &LedgerEvent, desired: &DesiredState) -> Text {
    let by = &event.source.by;
    let mut body = Vec::new();
    let subject = match &event.body {
        EventBody::MemberRegistered { member, msp, role } => {
            body.push(format!("- bound to {msp}"));
            format!("register {member} as {role}")
        }
        EventBody::AgreementConstituted { agreement, .. } => {
            for party in &agreement.parties {
                let beta = party.beta.map(|beta| format!(", beta {beta}")).unwrap_or_default();
                body.push(format!("- {}, {}{beta}", party.member, party.role));
            }
            format!("agreement {} v{} constituted by {by}", agreement.dao, agreement.version)
        }
        EventBody::AgreementAccepted { .. } => accepted(event, desired),
        EventBody::ResourcesOrdered { resources } => {
            body.extend(resources.iter().map(line));
            listed("order", resources.iter().map(|resource| &resource.name))
        }
        EventBody::ResourcesAmended { resources } => {
            body.extend(resources.iter().map(line));
            listed("amend", resources.iter().map(|resource| &resource.name))
        }
        EventBody::ResourcesRetired { resources } => {
            body.extend(resources.iter().map(|name| match desired.retired().get(name) {
                Some(gone) => line(&gone.resource),
                None => format!("- {name}"),
            }));
            listed("retire", resources.iter())
        }
        EventBody::OfferPublished(offer) => {
            body.push(format!("- {}, revision 1", offer.kind.word()));
            format!("publish offer {}", offer.id)
        }
        EventBody::OfferAmended(offer) => {
            let revision = desired
                .records()
                .of::<OfferRecord>(offer.id.as_str())
                .map_or(0, |record| record.revision);
            body.push(format!("- {}, revision {revision}", offer.kind.word()));
            format!("amend offer {}", offer.id)
        }
        EventBody::OfferWithdrawn(named) => format!("withdraw offer {}", named.id),
        EventBody::ChangeProposed(wanted) => {
            body.extend(proposed(wanted));
            listed(&format!("propose to {}", wanted.verb()), wanted.names().into_iter())
        }
        EventBody::ChangeApproved(named) => {
            let standing = match proposal(desired, &named.id) {
                Some(record) => {
                    body.extend(proposed(&record.wanted));
                    match &record.settled {
                        Some(settled) => settled.how.word().to_owned(),
                        None => format!("{} approve", record.approved.len()),
                    }
                }
                None => String::new(),
            };
            format!("proposal {} approved by {by}: {standing}", short(&named.id))
        }
        EventBody::ChangeRejected(named) => {
            let settled = proposal(desired, &named.id).and_then(|record| record.settled.as_ref());
            let settled = settled.map_or("still open", |settled| settled.how.word());
            format!("proposal {} rejected by {by}: {settled}", short(&named.id))
        }
        EventBody::ChangeWithdrawn(named) => format!("proposal {} withdrawn by {by}", short(&named.id)),
        EventBody::KeyPublished(said) => {
            body.push(format!("- {}", said.key));
            format!("publish a key of {by}")
        }
        EventBody::NegotiationRequested(said) => {
            body.extend(said.parties.iter().map(|member| match *member == said.provider {
                true => format!("- {member}, provider"),
                false => format!("- {member}"),
            }));
            negotiation(&said.id, &format!("requested by {by}"), desired)
        }
        EventBody::NegotiationOffered(said) => {
            body.push(format!("- round {}, terms {}", said.round, said.digest));
            negotiation(&said.id, &format!("terms offered by {by}"), desired)
        }
        EventBody::NegotiationAccepted(said) => {
            body.push(format!("- round {}, terms {}", said.round, said.digest));
            negotiation(&said.id, &format!("terms accepted by {by}"), desired)
        }
        EventBody::NegotiationAgreed(said) => {
            body.extend(resulting(said));
            negotiation(&said.id, &format!("agreed by {by}"), desired)
        }
        EventBody::NegotiationVerified(said) => {
            body.extend(resulting(said));
            negotiation(&said.id, &format!("verified by {by}"), desired)
        }
        EventBody::NegotiationFinalized(said) => {
            body.extend(resulting(said));
            negotiation(&said.id, &format!("finalized by {by}"), desired)
        }
        EventBody::NegotiationTerminated(said) => negotiation(&said.id, &format!("terminated by {by}"), desired),
        EventBody::DaoRepresented(representation) => {
            body.push(format!("- agreement {}", representation.agreement));
            body.extend(representation.members.iter().map(|member| format!("- with {member}")));
            format!("{by} is {} v{}", representation.dao, representation.version)
        }
        EventBody::RepresentationVouched(vouching) => {
            let said = &vouching.representation;
            format!("{by} stands for {}: {} v{}", vouching.member, said.dao, said.version)
        }
        EventBody::AgreementConfirmed(agreed) => said_of(desired, agreed.agreement, "confirmed", |record| record.confirmed.len()),
        EventBody::AgreementConcluded(named) => said_of(desired, named.agreement, "concluded", |record| record.concluded.len()),
        EventBody::MemberRated(rating) => {
            body.push(format!("- agreement {}", rating.agreement));
            format!("rate {}: {} of 5 stars", rating.member, rating.stars)
        }
        EventBody::PartClosed(named) => {
            if let Some(part) = desired.records().of::<PartRecord>(named.member.as_str()) {
                body.push(format!("- silent since {}, its grace ended at {}", part.since, part.deadline));
                body.extend(part.witnesses.iter().map(|(member, at)| format!("- {member} was later: {at}")));
            }
            body.extend(left(event, desired));
            format!("close the part of {}: abandoned", named.member)
        }
        EventBody::AgreementExpired(_) => {
            body.extend(left(event, desired));
            "the agreement has expired".to_owned()
        }
        EventBody::EndAsked(_) => {
            let ended = desired
                .records()
                .of::<EndingRecord>(ENDING)
                .is_some_and(|ending| ending.ended.is_some());
            body.extend(left(event, desired));
            match ended {
                true => format!("end asked by {by}: the agreement has ended"),
                false => format!("end asked by {by}"),
            }
        }
        EventBody::TransferProposed(transfer) => {
            body.extend(transfer.resources.iter().map(|name| format!("- {name}")));
            if transfer.place {
                return Text {
                    subject: bounded(format!("propose to give the place of {by} to {}", transfer.to)),
                    body,
                    trailers: Vec::new(),
                };
            }
            format!(
                "propose to transfer {} of {by} to {}",
                resources(transfer.resources.len()),
                transfer.to
            )
        }
        EventBody::TransferApproved(named) => transfer(&named.id, &format!("approved by {by}"), desired, &mut body),
        EventBody::TransferAccepted(named) => transfer(&named.id, &format!("accepted by {by}"), desired, &mut body),
        EventBody::TransferCancelled(named) => transfer(&named.id, &format!("called off by {by}"), desired, &mut body),
        EventBody::ProfitDistributed(distribution) => {
            let record = desired.records().of::<DistributionRecord>(distribution.period.as_str());
            let parts = record.into_iter().flat_map(|record| &record.parts);
            body.extend(parts.map(|part| format!("- {} to {}", part.amount, part.member)));
            format!("distribute {} of {}", distribution.amount, distribution.period)
        }
        EventBody::Imported(import) => {
            body.extend(import.outputs.keys().map(|output| format!("- {output}")));
            format!("import {} as {}", import.from.resource, import.name)
        }
        EventBody::ImportDropped(named) => format!("drop import {}", named.name),
        EventBody::HandedOver(hand_over) => {
            body.extend(handed(hand_over));
            format!("hand {} over to {}", resources(hand_over.leaving().count()), hand_over.to)
        }
        // Reports have their own text; this arm keeps the match total.
        EventBody::ReportSubmitted { sequence, .. } => format!("report {sequence} from {by}"),
    };
    Text {
        subject: bounded(subject),
        body,
        trailers: Vec::new(),
    }
}

fn proposal<'a>(desired: &'a DesiredState, id: &TxId) -> Option<&'a ProposalRecord> {
    desired.records().of::<ProposalRecord>(id.as_str())
}

fn proposed(wanted: &Wanted) -> Vec<String> {
    match wanted {
        Wanted::Order { resources } | Wanted::Amend { resources } => resources.iter().map(line).collect(),
        Wanted::Retire { resources } => resources.iter().map(|name| format!("- {name}")).collect(),
        Wanted::HandOver { hand_over } => handed(hand_over),
    }
}

fn handed(hand_over: &HandOver) -> Vec<String> {
    let becomes = |name| match hand_over.becomes(name) {
        Some(Becomes::Carried(to)) => format!("- {name}: carried, as {to}"),
        Some(Becomes::Replaced(by)) => format!("- {name}: replaced, by {by}"),
        Some(Becomes::Retired) | None => format!("- {name}: retired"),
    };
    hand_over.leaving().map(|(name, _)| becomes(name)).collect()
}

/// What an event retired, beside what it says.
fn left(event: &LedgerEvent, desired: &DesiredState) -> Vec<String> {
    let retired = desired.retired().values();
    retired
        .filter(|gone| gone.retired.as_ref().is_some_and(|by| by.tx_id == event.source.tx_id))
        .map(|gone| match gone.resource.on_retire {
            OnRetire::Delete => line(&gone.resource),
            OnRetire::Retain => format!("{}, kept", line(&gone.resource)),
        })
        .collect()
}

fn resources(count: usize) -> String {
    match count {
        1 => "1 resource".to_owned(),
        count => format!("{count} resources"),
    }
}

fn transfer(id: &TxId, done: &str, desired: &DesiredState, body: &mut Vec<String>) -> String {
    let Some(record) = desired.records().of::<TransferRecord>(id.as_str()) else {
        return format!("transfer {} {done}", short(id));
    };
    body.extend(record.transfer.resources.iter().map(|name| format!("- {name}")));
    let standing = match (&record.done, &record.cancelled) {
        (Some(_), _) if record.transfer.place => format!(": {} has the place of {}", record.transfer.to, record.proposed.by),
        (Some(_), _) => format!(": {} has it", record.transfer.to),
        (None, Some(_)) => String::new(),
        (None, None) => ": not in force yet".to_owned(),
    };
    format!("transfer {} {done}{standing}", short(id))
}

/// The first digits of a transaction's id.
fn short(id: &TxId) -> &str {
    id.as_str().get(..12).unwrap_or(id.as_str())
}

/// What was done in a negotiation, and where it stands then. The reason for ending one is a member's own text, and stays in its record.
fn negotiation(id: &NegotiationId, done: &str, desired: &DesiredState) -> String {
    match desired.records().of::<NegotiationRecord>(id.as_str()) {
        Some(record) => format!("negotiation {id}: {done}: {}", record.state),
        None => format!("negotiation {id}: {done}"),
    }
}

fn resulting(said: &Resulting) -> [String; 2] {
    [
        format!("- round {}, terms {}", said.round, said.digest),
        format!("- agreement {}", said.agreement),
    ]
}

/// Tells how many parties have said something of an agreement on a market.
fn said_of(desired: &DesiredState, agreement: Digest, word: &str, count: fn(&AgreedRecord) -> usize) -> String {
    match desired.records().of::<AgreedRecord>(&AgreedRecord::name(agreement)) {
        Some(record) => format!(
            "{} v{} {word}: {} of {}",
            record.agreed.dao,
            record.agreed.version,
            count(record),
            record.agreed.parties.len()
        ),
        None => format!("agreement {} {word}", agreement.short()),
    }
}

fn accepted(event: &LedgerEvent, desired: &DesiredState) -> String {
    let by = &event.source.by;
    let Some(record) = desired.agreement() else {
        return format!("agreement accepted by {by}");
    };
    let standing = if record.in_force {
        "in force".to_owned()
    } else {
        format!("{} of {}", record.accepted.len(), record.agreement.parties.len())
    };
    format!(
        "agreement {} v{} accepted by {by}: {standing}",
        record.agreement.dao, record.agreement.version
    )
}

/// Tells what a report says, after it was taken in.
pub(crate) fn of_report(event: &LedgerEvent, reported: &ReportedState, complaint: Option<&str>) -> Text {
    let by = &event.source.by;
    let reports = reported.members().get(by);
    let sequence = reports.map_or(0, |reports| reports.head.sequence);
    let mut counts: BTreeMap<Condition, usize> = BTreeMap::new();
    for status in reports.into_iter().flat_map(|reports| reports.statuses.values()) {
        *counts.entry(status.condition).or_default() += 1;
    }
    let said = match complaint {
        Some(_) => "its changes are left out".to_owned(),
        None if counts.is_empty() => "no resources".to_owned(),
        None => {
            let parts: Vec<String> = counts.iter().map(|(condition, count)| format!("{count} {condition}")).collect();
            parts.join(", ")
        }
    };
    let steps = match &event.body {
        EventBody::ReportSubmitted { envelope, .. } => envelope.report().map(|(report, _)| report.steps).unwrap_or_default(),
        _ => Vec::new(),
    };
    let healed = steps
        .iter()
        .filter(|step| step.tx.is_none() && step.outcome != StepOutcome::Failed)
        .count();
    let healed = if healed > 0 { format!(", {healed} healed") } else { String::new() };
    let mut body: Vec<String> = complaint.map(|reason| format!("- {reason}")).into_iter().collect();
    if let Some(reports) = reports.filter(|_| complaint.is_none()) {
        let troubled = reports.statuses.iter().filter(|(_, status)| status.condition != Condition::InSync);
        body.extend(troubled.map(|(name, status)| format!("- {name} ({}): {}", status.kind, status.condition)));
    }
    body.extend(steps.iter().map(step));
    Text {
        subject: bounded(format!("report {sequence} from {by}: {said}{healed}")),
        body,
        trailers: Vec::new(),
    }
}

/// Tells of an event that was not taken in.
pub(crate) fn of_quarantine(quarantine: &Quarantine) -> Text {
    Text {
        subject: bounded(format!("quarantine a transaction of {}", quarantine.msp)),
        body: vec![format!("- {}", quarantine.reason)],
        trailers: vec![("Event", quarantine.event.clone()), ("Msp", quarantine.msp.clone())],
    }
}

/// Tells what was done and why.
fn step(step: &StepReport) -> String {
    let outcome = match step.outcome {
        StepOutcome::Done => "done",
        StepOutcome::Begun => "begun",
        StepOutcome::Failed => "failed",
    };
    let why = match step.tx {
        Some(position) => format!("ordered in transaction {position}"),
        None if step.fields.is_empty() => "drifted".to_owned(),
        None => format!("drifted at {}", plain(&step.fields)),
    };
    format!("- {} {}: {outcome}; {why}", step.action, step.resource)
}

/// Fields are a member's words: what is not plain ASCII is left open, so that nothing breaks out of its line.
fn plain(fields: &[String]) -> String {
    let shown = |letter: char| if letter.is_ascii_graphic() { letter } else { '?' };
    let fields: Vec<String> = fields.iter().map(|field| field.chars().map(shown).collect()).collect();
    bounded(fields.join(" "))
}

fn line(resource: &Resource) -> String {
    format!("- {} ({}), owner {}", resource.name, resource.kind, resource.owner)
}

/// Names as many as fit: `order 3 resources: a, b, …`.
fn listed<'a>(verb: &str, names: impl ExactSizeIterator<Item = &'a ResourceName>) -> String {
    let count = names.len();
    if count == 1 {
        return names.fold(format!("{verb} resource"), |text, name| format!("{text} {name}"));
    }
    let mut text = format!("{verb} {count} resources:");
    for (index, name) in names.enumerate() {
        let last = index + 1 == count;
        // Two more than the name: the space before it, and the comma or the end after it; three for the mark of more.
        let room = if last { 1 } else { 4 };
        if text.len() + name.as_str().len() + room > SUBJECT {
            text.push_str(" …");
            break;
        }
        let _ = write!(text, " {name}{}", if last { "" } else { "," });
    }
    text
}

fn bounded(subject: String) -> String {
    if subject.chars().count() <= SUBJECT {
        return subject;
    }
    let mut short: String = subject.chars().take(SUBJECT - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize, length: usize) -> Vec<ResourceName> {
        (0..count)
            .map(|n| {
                ResourceName::new(format!(
                    "{:a>length$}",
                    format!("{n:03}").replace(|c: char| c.is_ascii_digit(), "b")
                ))
                .unwrap()
            })
            .collect()
    }

    #[test]
    fn a_subject_never_grows_past_its_bound() {
        for count in [1, 2, 3, 50] {
            for length in [3, 17, 30, 63] {
                let subject = bounded(listed("order", names(count, length).iter()));
                assert!(subject.chars().count() <= SUBJECT, "{subject}");
                assert!(subject.starts_with("order "), "{subject}");
            }
        }
        assert_eq!(listed("retire", names(1, 3).iter()), "retire resource bbb");
        assert_eq!(listed("retire", names(2, 3).iter()), "retire 2 resources: bbb, bbb");
    }
}
