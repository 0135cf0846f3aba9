//! Every bound of the ledger, in one place.

use std::time::Duration;

/// How much the ledger takes and holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of one gRPC message that is received.
    pub message_bytes: usize,
    /// The most bytes of one signed envelope.
    pub envelope_bytes: usize,
    /// The most bytes of a proposal's arguments together.
    pub args_bytes: usize,
    /// The most arguments of a proposal.
    pub args: usize,
    /// The most transactions in a block.
    pub block_transactions: usize,
    /// The size from which a block takes no further transaction, in bytes.
    pub block_bytes: usize,
    /// The most transactions of one channel that wait to be put into a block.
    pub queued_transactions: usize,
    /// The most bytes of one channel's waiting transactions together.
    pub queued_bytes: usize,
    /// The most proposals that are simulated at a time.
    pub simulations: usize,
    /// The most streams and waiting calls at a time.
    pub streams: usize,
    /// The most results of one range query.
    pub range_results: usize,
    /// The bytes of blocks after which a channel's state is saved, if its last snapshot isn't larger.
    pub snapshot_bytes: u64,
    /// How far the timestamp of a proposal or a seek request may be from the ledger's clock.
    pub clock_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 20 * 1024 * 1024,
            envelope_bytes: 16 * 1024 * 1024,
            args_bytes: 4 * 1024 * 1024,
            args: 64,
            block_transactions: 50,
            block_bytes: 4 * 1024 * 1024,
            queued_transactions: 1024,
            queued_bytes: 128 * 1024 * 1024,
            simulations: 32,
            streams: 1024,
            range_results: 100_000,
            snapshot_bytes: 8 * 1024 * 1024,
            clock_window: Duration::from_secs(15 * 60),
        }
    }
}
