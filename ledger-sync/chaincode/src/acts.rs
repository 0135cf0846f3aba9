//! Running an act: the rules of [`state::acts`] decide what it does, and this writes it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use state::acts::{self, Source};
use state::event::EventBody;

use crate::arguments::{self, MAX_ARGUMENT_BYTES};
use crate::effect::{Call, Effect};
use crate::error::Refused;
use crate::resources;
use crate::snapshot::Snapshot;

/// Runs an act whose one argument is its event's data.
pub(crate) fn act<T: DeserializeOwned>(
    snapshot: &mut Snapshot<'_>,
    call: &Call<'_>,
    function: &'static str,
    rest: &[Vec<u8>],
    event: fn(T) -> EventBody,
) -> Result<Effect, Refused> {
    let argument = arguments::one(function, rest, MAX_ARGUMENT_BYTES)?;
    take(
        snapshot,
        call,
        event(arguments::json(function, argument)?),
        &json!({ "tx": call.tx_id }),
    )
}

/// Decides what an act does, as the submitter's.
pub(crate) fn take<T: Serialize>(snapshot: &mut Snapshot<'_>, call: &Call<'_>, body: EventBody, answer: &T) -> Result<Effect, Refused> {
    let by = snapshot.submitter(&call.msp)?;
    let source = Source {
        channel: &call.channel,
        submitted: call.submitted(&by),
    };
    let taken = acts::take(snapshot, &source, &body)?;
    let mut effect = Effect::new(by, body, answer)?;
    for record in taken.records {
        effect.put(record.key(), &record)?;
    }
    resources::put_into_force(snapshot, call, taken.changes, &mut effect)?;
    Ok(effect)
}
