//! A member whose key is in a token: its Charter signs transactions, reports and commits there, and says clearly what is wrong when
//! it can't.
//!
//! The token is SoftHSM's. Where it is not installed, one line says so, and the tests do nothing.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

mod member;
mod token;
