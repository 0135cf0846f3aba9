//! The program as a ledger runs it and as its members see it.

#![allow(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod channel;
mod clauses;
mod distributions;
mod handovers;
mod imports;
mod life;
mod market;
mod market_properties;
mod negotiating;
mod negotiation_properties;
mod negotiations;
mod properties;
mod refusals;
mod reports;
mod transfers;
