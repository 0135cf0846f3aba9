//! Pure rules over desired state and plans, which a member's own Charter holds whatever the ledger orders, and the exact
//! division of profit.
//!
//! Nothing here does I/O, reads a clock, draws randomness or uses floating point.

pub mod local;
pub mod plan;
pub mod shares;

pub use local::{KindPattern, LocalPolicy, forbidden};
pub use plan::{Denial, check};
