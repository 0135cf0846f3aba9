//! The present moment, for what is allowed to know it.
//!
//! A trial or a story may let hours pass within a minute: an offset is added to the machine's clock, from the variable [`OFFSET`] or by
//! [`pass`]. Only an embedded ledger on this machine is spoken to so (`cli::access`); everywhere else transactions carry the machine's time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use state::time::Timestamp;

/// The variable that a process takes its offset from, in seconds; for trials and stories.
pub const OFFSET: &str = "CHARTER_CLOCK_OFFSET_SECONDS";

static PASSED: AtomicI64 = AtomicI64::new(0);

/// Lets so many seconds pass for this process.
pub fn pass(seconds: i64) {
    PASSED.fetch_add(seconds, Ordering::Relaxed);
}

/// By how many seconds this process's clock is ahead of the machine's.
pub fn offset() -> i64 {
    static GIVEN: OnceLock<i64> = OnceLock::new();
    let given = GIVEN.get_or_init(|| std::env::var(OFFSET).ok().and_then(|text| text.parse().ok()).unwrap_or(0));
    given.saturating_add(PASSED.load(Ordering::Relaxed))
}

/// The present moment, in Unix seconds.
pub fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_add(offset())
}

/// The present moment.
pub fn now() -> Timestamp {
    Timestamp::clamped(seconds())
}
