//! Every bound of a chaincode server and of its peer's side, in one place.

use std::time::Duration;

/// How much a chaincode server takes and holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one message, received or sent; Fabric's own bound by default.
    pub message_bytes: usize,
    /// The most streams, which is the most peers, at a time.
    pub streams: usize,
    /// The most transactions at a time, running and waiting, of all streams together.
    pub transactions: usize,
    /// The most bytes of all those transactions' messages together.
    pub transaction_bytes: usize,
    /// The most transactions that run at a time; each has a thread.
    pub running: usize,
    /// The most results of one range query.
    pub range_results: usize,
    /// The most bytes of one range query's values together.
    pub range_bytes: usize,
    /// How long a peer may take to register the chaincode, or to answer one call for the state.
    pub answer: Duration,
    /// How long transactions may take to finish once the server was asked to stop; a peer gives one up after 30 seconds.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: protos::MAX_GRPC_MESSAGE_BYTES,
            streams: 64,
            transactions: 1024,
            transaction_bytes: 256 * 1024 * 1024,
            running: 64,
            range_results: 100_000,
            range_bytes: 64 * 1024 * 1024,
            answer: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

/// How much a peer's side of the protocol takes from a chaincode, and how long it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// The most bytes of one message, received or sent.
    pub message_bytes: usize,
    /// The results of one page of a range query, as Fabric's peers send them.
    pub page: usize,
    /// The most results of one range query.
    pub range_results: usize,
    /// The most range queries of one transaction that are open at a time.
    pub ranges: usize,
    /// How long dialling may take.
    pub dial: Duration,
    /// How long the chaincode may take to register.
    pub registration: Duration,
    /// How long one transaction may take.
    pub execution: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            message_bytes: protos::MAX_GRPC_MESSAGE_BYTES,
            page: 100,
            range_results: 100_000,
            ranges: 64,
            dial: Duration::from_secs(3),
            registration: Duration::from_secs(10),
            execution: Duration::from_secs(30),
        }
    }
}
