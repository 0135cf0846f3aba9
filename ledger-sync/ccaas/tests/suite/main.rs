//! The chaincode's server and the peer's side of it, over real connections.

#![allow(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod external;
mod misbehaviour;
mod peer;
mod proposals;
mod same;
mod serving;
mod shutdown;
mod tls;
