//! Follows a channel's blocks, verifies and decodes them, and materialises their events into commits; sends transactions and
//! signed reports the other way.
//!
//! The way of one event: [`Ledger::blocks`] → [`verify`] (chain, orderers' and creators' signatures) → [`decode`] (typed
//! events, quarantine) → [`materialise`] (pure) → [`branches`] (two references, one pack) → [`Progress`] (the wake signal).
//!
//! The two references are functions of the blocks alone. Nothing below [`follow`] and [`gateway`] reads a clock or draws
//! randomness.

pub mod branches;
pub mod decode;
pub mod evidence;
pub mod follow;
pub mod gateway;
pub mod ledger;
pub mod limits;
pub mod materialise;
pub mod message;
mod proposal;
mod reasons;
pub mod reports;
mod session;
pub mod soft;
pub mod testing;
pub mod verify;

pub use branches::{BranchError, Materialiser};
pub use decode::{Decoded, Quarantine};
pub use follow::{FollowError, Follower, Options, Progress, catch_up};
pub use gateway::{GatewayClient, GatewayConfig};
pub use ledger::{BlockStream, Committed, EvaluateError, Fault, Ledger, StreamError, SubmitError};
pub use proposal::NotProposed;
pub use verify::{BlockVerifier, VerifyError};

/// Tells an error with everything below it, in one line.
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
