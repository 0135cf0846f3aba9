//! The live tests.

pub(crate) mod example;
mod history;
mod kills;
mod membership;
mod official_client;
mod peers;
mod strangers;
