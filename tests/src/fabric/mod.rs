//! A real network of Hyperledger Fabric to test on: one orderer, a peer for each member of the example, and as many channels as a
//! test wants, started natively from Fabric's own binaries, on free ports and in the world's folder.
//!
//! Nothing of it outlives the test: a process is killed by its own handle when it is dropped, also by a panic, and everything
//! carries the world's folder in its environment, by which the world finds what is left.

mod binaries;
mod builder;
mod chaincode;
mod channel;
mod handout;
mod member;
mod network;
mod node;
mod organisation;
mod ports;
mod update;

pub use binaries::Binaries;
pub use member::Caller;
pub use network::Network;
pub use node::{Clients, Node};
pub use organisation::{ORDERER, Organisation};
