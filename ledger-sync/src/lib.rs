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
mod fault;
pub mod follow;
pub mod frozen;
pub mod gateway;
mod joined;
pub mod ledger;
pub mod limits;
pub mod materialise;
pub mod message;
mod peers;
pub mod pending;
mod proposal;
mod reasons;
pub mod reexecute;
pub mod reports;
mod session;
pub mod soft;
pub mod testing;
mod transact;
pub mod verify;
pub mod witness;

pub use branches::{BranchError, Materialiser};
pub use decode::{Decoded, Quarantine};
pub use follow::{FollowError, Follower, Options, Progress, catch_up};
pub use gateway::{ClientTls, GatewayClient, GatewayConfig, PeerConfig};
pub use ledger::{BlockStream, Committed, EvaluateError, Fault, Ledger, Resolved, StreamError, SubmitError};
pub use pending::{Pending, PendingTransaction};
pub use proposal::NotProposed;
pub use reexecute::{Reexecution, ReexecutionError};
pub use verify::{BlockVerifier, VerifyError};
pub use witness::{Contradiction, Testimony, Witnessed};
