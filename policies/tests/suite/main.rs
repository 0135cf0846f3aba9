//! The rules as a member's own Charter holds them, and the division of profit.

#![allow(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod local;
mod ownership;
mod plan;
mod reputation;
mod shares;
mod simulation;
