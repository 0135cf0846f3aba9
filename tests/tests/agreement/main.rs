//! The whole life of an agreement, end to end: how organisations meet, agree, share, and part.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod clauses;
mod handovers;
mod imports;
mod life;
mod market;
mod negotiate;
mod newcomer;
mod story;
