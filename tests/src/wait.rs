//! Waiting for conditions, with a deadline.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long anything may take that isn't said to take longer. It is a sign of failure, and never waited out otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(40);

/// Waits until a look finds what it looks for.
///
/// # Panics
/// After [`DEADLINE`], with what was waited for and what the last look said.
#[track_caller]
pub fn until<T, E: Display>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    until_within(DEADLINE, what, look)
}

/// Does what [`until`] does, with a deadline of its own.
///
/// # Panics
/// After the deadline, with what was waited for and what the last look said.
#[track_caller]
pub fn until_within<T, E: Display>(deadline: Duration, what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if started.elapsed() > deadline => {
                panic!("not within {} s: {what}: {why}", deadline.as_secs());
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}
