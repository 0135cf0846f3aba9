//! A DAO version's channel on a Hyperledger Fabric network: from the members' public MSP folders to a running chaincode.
//!
//! Organisations don't share keys. One of them makes the channel's first block from what everybody hands out and joins the
//! ordering service ([`create`](steps::create)); each of them checks that block against its own copy of the channel document, joins its
//! peers, and approves the chaincode with its own package ([`join`](steps::join)). Every step looks first whether it is done, so that all
//! of it may be run again after any failure.

pub mod address;
mod answers;
pub mod block;
pub mod configtx;
pub mod document;
mod error;
pub mod public_msp;
pub mod settings;
pub mod site;
pub mod steps;
#[cfg(test)]
mod testing;
pub mod tools;

pub use document::{ChannelDocument, ChannelDocumentError};
pub use error::FabricError;
pub use settings::FabricConfig;
