//! A ledger in memory, for tests and benchmarks: real certificates, signatures and hash chains, and the real chaincode; no
//! server, no disk, no clock. It can be made to lie.
//!
//! What it leaves out: endorsements, read conflicts and policies, since every transaction is run and committed at once.

mod chain;
mod ledger;
mod transaction;

pub use chain::{MemoryNetwork, Tamper};
pub use ledger::{MemoryLedger, Misbehaviour};
pub use transaction::Emit;
#[cfg(test)]
pub(crate) use transaction::prepared;

/// The moment at which a network in memory starts, in seconds since the Unix epoch; each transaction is a second later.
pub const START: i64 = 1_780_000_000;
