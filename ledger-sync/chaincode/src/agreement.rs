//! Putting an agreement before the members, and accepting it.

use serde_json::json;
use state::agreement::Agreement;
use state::event::EventBody;
use state::rules::{self, Proposed};

use crate::arguments::{self, Acceptance, MAX_ARGUMENT_BYTES};
use crate::effect::{Call, Effect};
use crate::error::Refused;
use crate::records::{AGREEMENT, AgreementRecord};
use crate::snapshot::Snapshot;

/// Puts an agreement before the members; whoever does accepts it.
pub(crate) fn constitute(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("constitute", rest, MAX_ARGUMENT_BYTES)?;
    let agreement: Agreement = arguments::json("constitute", argument)?;
    let by = snapshot.submitter(&call.msp)?;
    let standing = snapshot.standing()?;
    rules::constitute(snapshot, standing.as_ref().map(|record| &record.agreement), &agreement, &by)?;
    let digest = agreement.digest()?;
    let record = AgreementRecord {
        agreement: agreement.clone(),
        digest,
        constituted: call.submitted(&by),
        accepted: [(by.clone(), call.submitted(&by))].into(),
        in_force: false,
        succeeded: Vec::new(),
    };
    let mut effect = Effect::new(
        by,
        EventBody::AgreementConstituted { agreement, digest },
        &json!({ "digest": digest }),
    )?;
    effect.put(AGREEMENT.into(), &record)?;
    Ok(effect)
}

/// Accepts the agreement by its digest; with the last acceptance it is in force.
pub(crate) fn accept(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("accept", rest, MAX_ARGUMENT_BYTES)?;
    let Acceptance { digest } = arguments::json("accept", argument)?;
    let by = snapshot.submitter(&call.msp)?;
    let standing = snapshot.standing()?;
    let proposed = standing.as_ref().map(|record| Proposed {
        agreement: &record.agreement,
        digest: record.digest,
        accepted: record.accepted.keys().collect(),
    });
    let in_force = rules::accept(proposed.as_ref(), digest, &by)? == rules::Acceptance::InForce;
    let mut record = standing.ok_or(Refused::NoAgreement)?;
    record.accepted.insert(by.clone(), call.submitted(&by));
    record.in_force = in_force;
    let body = EventBody::AgreementAccepted { digest, in_force };
    let mut effect = Effect::new(by, body, &json!({ "digest": digest, "in_force": in_force }))?;
    effect.put(AGREEMENT.into(), &record)?;
    Ok(effect)
}
