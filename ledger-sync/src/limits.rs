//! Every bound of this crate, in one place.

use std::time::Duration;

/// The most blocks that are verified and written as one batch.
pub const BATCH_BLOCKS: usize = 1024;
/// The size from which a batch takes no further block, in bytes. Two batches are held at most: one is filled while the
/// other is written.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The memory of unwritten commits from which they are written at the next block's end, in bytes.
pub const UNWRITTEN_BYTES: usize = 64 * 1024 * 1024;
/// How often a transaction is endorsed anew after a read conflict.
pub const ENDORSEMENTS: u32 = 6;
/// How often an envelope with an unknown outcome is sent again.
pub const RESENDS: u32 = 3;
/// The longest message of another program that an error repeats, in characters.
pub const QUOTED: usize = 600;
/// The most details of a refused call that are kept.
pub const DETAILS: usize = 16;
/// The shortest interval between two pings: Fabric ends a connection that pings more often.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a ping's answer is waited for before a connection counts as cut.
pub const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);
/// How long other peers are waited for once one has told its height.
pub const OTHER_PEERS: Duration = Duration::from_millis(500);
/// How long the outcome of a transaction that was perhaps sent before is waited for, before it is sent again.
pub const KNOWN: Duration = Duration::from_secs(1);
/// How long the first commit of a transaction is waited for, before the same envelope is sent again.
pub const ORDERED: Duration = Duration::from_secs(10);
/// The most channels of one peer that are looked at.
pub const CHANNELS: usize = 1_000;
/// The most pending transactions of a channel that are looked at.
pub const PENDING: usize = 1_000;
/// The most keys of one organisation that a check of the evidence remembers.
pub const KEYS: usize = 10_000;
/// The most creators of transactions whose certificates are kept in memory.
pub const CREATORS: usize = 1_000;
/// How long one block may take to arrive.
pub const FETCH: Duration = Duration::from_secs(60);
/// The largest soft cursor that is read, in bytes.
pub const SOFT_BYTES: u64 = 64 * 1024;

/// The largest mirror of a channel's state that is read from its file, in bytes.
pub const MIRROR_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// The size of the blocks after which the mirror is written, in bytes; more where the mirror itself is larger.
pub const MIRROR_EVERY_BYTES: u64 = 8 * 1024 * 1024;
/// The largest record of a frozen channel that is read, in bytes.
pub const FROZEN_BYTES: u64 = 64 * 1024;

/// How long a second peer is waited for at each block, before the block is taken on the first one's word.
pub const WITNESS_PATIENCE: Duration = Duration::from_secs(2);
/// How long a second peer that is away is not called, at first; it doubles.
pub const WITNESS_PAUSE: Duration = Duration::from_millis(200);
/// The longest time that a second peer is not called.
pub const WITNESS_LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The most blocks that are kept in mind until the second peer has them.
pub const UNCONFIRMED: usize = 65_536;

/// Shortens a text to what an error repeats, with control characters made visible.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == QUOTED {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
    }
    out
}
