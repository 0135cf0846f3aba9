//! End to end: real processes, real ledgers, real stores, as a user would see them.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod chaincode;
mod channels;
mod crash;
mod discovery;
mod drift;
mod input;
mod ledger;
mod lies;
mod orders;
mod renewal;
mod service;
mod shares;
mod up;
