//! What a Charter's passes do for one resource: they look, and make what differs, until it is in sync.

use std::time::{Duration, Instant};

use providers::Applied;
use state::observation::Observation;
use state::resource::Outputs;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one waits for the next.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks and applies until what is seen is in sync; its outputs.
///
/// # Panics
/// When it is not in time.
#[track_caller]
pub fn passes(see: impl Fn() -> Observation, apply: impl Fn() -> Result<Applied, String>) -> Outputs {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = see();
        if seen.in_sync() {
            return seen.outputs().cloned().unwrap_or_default();
        }
        let done = match &seen {
            Observation::Pending { .. } => Ok(None),
            _ => apply().map(Some),
        };
        assert!(Instant::now() < end, "{seen:?} {done:?}");
        std::thread::sleep(PAUSE);
    }
}

/// The paths in which what is there differs.
///
/// # Panics
/// When it is not there.
#[track_caller]
pub fn paths(seen: Observation) -> Vec<String> {
    match seen {
        Observation::Present { drift, .. } => drift.into_iter().map(|field| field.path).collect(),
        other => panic!("{other:?}"),
    }
}
