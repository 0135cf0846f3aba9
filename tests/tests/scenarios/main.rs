//! End to end: real processes, real ledgers, real stores, as a user would see them.

mod crash;
mod drift;
mod input;
mod ledger;
mod orders;
mod service;
mod up;
