//! Registering a member.

use serde_json::json;
use state::event::EventBody;
use state::rules;

use crate::arguments::{self, MAX_ARGUMENT_BYTES, Registration};
use crate::effect::{Call, Effect};
use crate::error::Refused;
use crate::records::{self, MemberRecord};
use crate::snapshot::Snapshot;

/// Binds a name to the creator's MSP.
pub(crate) fn register(snapshot: &mut Snapshot<'_>, call: &Call<'_>, rest: &[Vec<u8>]) -> Result<Effect, Refused> {
    let argument = arguments::one("register", rest, MAX_ARGUMENT_BYTES)?;
    let Registration { member, role } = arguments::json("register", argument)?;
    rules::register(snapshot, &member, &call.msp)?;
    let record = MemberRecord {
        msp: call.msp.clone(),
        role,
        registered: call.submitted(&member),
    };
    let body = EventBody::MemberRegistered {
        member: member.clone(),
        msp: call.msp.clone(),
        role,
    };
    let mut effect = Effect::new(member.clone(), body, &json!({ "member": member, "msp": call.msp }))?;
    effect.put(records::member(&member), &record)?;
    effect.put(records::msp(&call.msp), &member)?;
    Ok(effect)
}
