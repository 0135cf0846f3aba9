//! The live tests.

pub(crate) mod example;
mod history;
mod kills;
mod official_client;
mod peers;
mod strangers;
