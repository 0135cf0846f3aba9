//! Pure rules over desired state and plans, which a member's own Charter holds whatever the ledger orders, and the exact
//! division of profit.
//!
//! Nothing here does I/O, reads a clock or draws randomness. Only `simulation` uses floating point, and its seed is passed in.

pub mod local;
pub mod plan;
#[cfg(feature = "plots")]
pub mod plots;
pub mod reputation;
pub mod simulation;

/// The division of profit: what `state` has one rule for, on the ledger and off it.
pub use state::shares;

pub use local::{KindPattern, LocalPolicy, forbidden};
pub use plan::{Denial, check};
