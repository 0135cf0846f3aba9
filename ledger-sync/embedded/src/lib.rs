//! The embedded ledger: the gRPC services of a Fabric peer and its orderer in one process, with blocks on disk.
//!
//! It keeps Fabric's wire formats and its rules for proposals, transactions, blocks and validation, so that a client can't
//! tell it from a peer by what it does. What it can't give is decentralised trust: see [`TRUST_NOTICE`]. Left out, and
//! answered with a clear refusal: private data, rich queries, state-based endorsement, configuration updates, lifecycle
//! transactions, gossip and discovery.

mod block_file;
mod channel;
mod commit;
mod commit_hash;
mod deadline;
mod deliver;
mod endorse;
mod endorser;
mod error;
mod filtered;
mod gateway;
mod genesis;
mod ledger;
mod limits;
mod organisations;
mod program;
mod query;
mod seek;
mod server;
mod simulation;
mod snapshot;
mod status;
mod validation;
mod view;
mod world_state;

pub use channel::ChannelInfo;
pub use error::LedgerError;
pub use ledger::{Ledger, Options};
pub use limits::Limits;
pub use organisations::{MemberSpec, NetworkSpec};
pub use program::Program;
pub use server::{Server, Shutdown};

/// What must be said plainly wherever an embedded ledger starts.
pub const TRUST_NOTICE: &str = "The embedded ledger is one process whose operator holds every organisation's keys: it can \
     sign as any member and rewrite history. It gives no decentralised trust. Use it to try things out and in tests; run \
     Hyperledger Fabric between organisations that don't trust each other.";
