//! Fabric's messages and the rules of its protocol that both ends of a connection need.
//!
//! The messages under `proto/` carry Fabric's package names and field numbers, so every byte here is the byte a real
//! network writes. Beside them stand the few computations that are part of the format: [`block`] (hashes of headers and
//! data, what an orderer signs), [`txid`], [`metadata`] (a block's five slots), [`commit_hash`] and [`envelope`] (taking a
//! transaction apart).

pub mod block;
pub mod commit_hash;
pub mod envelope;
pub mod metadata;
pub mod txid;

pub use prost_types;

/// The generated messages and services, one module per Protobuf package.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/fabric.rs"));
}

pub use generated::protos as peer;
pub use generated::{common, gateway, google, kvrwset, msp, orderer, queryresult, rwset};

/// The type URL under which a gateway packs an [`gateway::ErrorDetail`] into an error's details.
pub const ERROR_DETAIL_TYPE_URL: &str = "type.googleapis.com/gateway.ErrorDetail";

/// The largest gRPC message that Fabric's nodes send or take, in bytes; tonic's own default is 4 MiB.
pub const MAX_GRPC_MESSAGE_BYTES: usize = 100 * 1024 * 1024;
