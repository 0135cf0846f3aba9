//! Recording a member's signed report.
//!
//! It reads points only and writes one key of the member's own, so the reports of several members never conflict.

use msp::Certificate;
use serde_json::json;
use state::event::EventBody;
use state::report::{Envelope, PAYLOAD_TYPE, Report, pre_authentication_encoding};

use state::time::Timestamp;

use crate::arguments::{self, MAX_REPORT_BYTES};
use crate::effect::{Call, Effect};
use crate::error::Refused;
use crate::records::{self, ReportRecord};
use crate::snapshot::Snapshot;

/// The largest integer that canonical JSON holds exactly (2^53 - 1).
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Records the next report of the submitter's chain.
pub(crate) fn report(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    next(snapshot, call, "report", rest, None)
}

/// The same, and keeps the transaction's time as a sign of life.
pub(crate) fn heartbeat(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    next(snapshot, call, "heartbeat", rest, Some(call.at))
}

fn next(
    snapshot: &mut Snapshot<'_>,
    call: &Call<'_>,
    function: &'static str,
    rest: &[Vec<u8>],
    heartbeat: Option<Timestamp>,
) -> Result<Effect, Refused> {
    let argument = arguments::one(function, rest, MAX_REPORT_BYTES)?;
    let envelope: Envelope = arguments::json(function, argument)?;
    let by = snapshot.submitter(&call.msp)?;
    let payload = envelope.payload()?;
    let (report, digest) = envelope.report()?;
    if report.member != by {
        return Err(Refused::ReportMember { found: report.member, by });
    }
    if report.channel != call.channel {
        return Err(Refused::Report("channel is not this one"));
    }
    let head = snapshot.report(&by)?;
    if head.as_ref().is_some_and(|head| head.digest == digest) {
        return Err(Refused::Recorded);
    }
    let last = head.as_ref().map_or(0, |head| head.sequence);
    let before = head.as_ref().and_then(|head| head.at);
    let previous = head.map(|head| head.digest);
    if last.checked_add(1) != Some(report.sequence) || report.previous != previous {
        return Err(Refused::Chain {
            member: by,
            last,
            found: report.sequence,
            previous: report.previous,
        });
    }
    content(&report, &payload)?;
    signature(call, &envelope, &payload)?;
    let record = ReportRecord {
        sequence: report.sequence,
        digest,
        at: heartbeat.or(before),
    };
    let key = records::report(&by);
    let body = EventBody::ReportSubmitted {
        sequence: report.sequence,
        digest,
        envelope,
        heartbeat,
    };
    let mut effect = Effect::new(by, body, &json!({ "sequence": report.sequence, "digest": digest }))?;
    effect.put(key, &record)?;
    Ok(effect)
}

/// Holds a report to what can be known of it without the desired state that it speaks of.
fn content(report: &Report, payload: &[u8]) -> Result<(), Refused> {
    if report.sequence > MAX_INTEGER || report.desired.block > MAX_INTEGER {
        return Err(Refused::Report("position or number is beyond 2^53"));
    }
    let hexadecimal = report.commit.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !matches!(report.commit.len(), 40 | 64) || !hexadecimal {
        return Err(Refused::Report("commit is not a git commit id"));
    }
    // One report, one sequence of bytes: neither another subject nor a field that nobody knows can ride along.
    if report.payload()? != payload {
        return Err(Refused::Report("payload is not the canonical form of its statement"));
    }
    Ok(())
}

fn signature(call: &Call<'_>, envelope: &Envelope, payload: &[u8]) -> Result<(), Refused> {
    let (key_id, signature) = envelope.signature()?;
    let certificate = Certificate::from_pem(&call.creator.certificate).map_err(Refused::Certificate)?;
    if key_id != msp::key_id(call.msp.as_str(), &certificate) {
        return Err(Refused::Report("key id is not that of the submitter's certificate"));
    }
    let message = pre_authentication_encoding(PAYLOAD_TYPE, payload);
    msp::verify(&certificate, &message, &signature).map_err(Refused::Signature)
}
