//! On a real network of Hyperledger Fabric: orderer, peers and chaincode servers as processes, and a Charter for each member.
//!
//! Where Fabric's binaries are missing, one line says so, and the tests do nothing.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod channels;
mod live;
