//! The live tests.

mod example;
mod history;
mod kills;
mod strangers;
