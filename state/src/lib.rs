//! The vocabulary of Charter (names, resources, desired state, observations, inventory, plans, reports), and the git store.
//!
//! Nothing here reads a clock, draws randomness, or depends on the order of a hash table. No money and no state holds floating
//! point.

pub mod action;
pub mod acts;
pub mod agreement;
pub mod canonical;
pub mod clauses;
pub mod cursor;
pub mod desired;
pub mod errors;
pub mod event;
pub mod git;
pub mod ids;
pub mod inventory;
pub mod locked;
pub mod observation;
mod outputs;
pub mod paths;
pub mod plan;
pub mod records;
pub mod report;
pub mod reported;
pub mod resource;
pub mod rules;
pub mod sealed;
pub mod shares;
pub mod size;
mod sorted;
pub mod spec;
pub mod terms;
pub mod time;
