//! A ledger in memory, for tests and benchmarks: real certificates, signatures and hash chains, and the real chaincode; no
//! server, no disk, no clock. It can be made to lie.
//!
//! Transactions that are submitted or [drafted](Draft) carry endorsements, read sets and commit hashes as a real network's do. What
//! is [emitted](Emit) carries any event, whatever the chaincode would say to it, and stands up to nothing that runs it again.

mod chain;
mod draft;
mod ledger;
mod liar;
mod transaction;

pub use chain::{MemoryNetwork, Tamper};
pub use draft::Draft;
pub use ledger::{MemoryLedger, Misbehaviour};
pub use liar::LyingPeer;
#[cfg(test)]
pub(crate) use transaction::prepared;
pub use transaction::{Effects, Emit};

/// The moment at which a network in memory starts, in seconds since the Unix epoch; each transaction is a second later.
pub const START: i64 = 1_780_000_000;
