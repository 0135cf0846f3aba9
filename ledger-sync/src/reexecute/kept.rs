//! The mirror as a follower keeps it: found at the start, written now and then and at the end.

use std::sync::mpsc;

use state::canonical::Digest;
use state::git::Store;
use state::ids::Channel;

use super::{Mirror, ReexecutionError, Standing, snapshot};
use crate::decode::Decoded;
use crate::limits::MIRROR_EVERY_BYTES;
use crate::verify::{BlockId, Verified};

/// A mirror, and how much of it is not written yet.
pub(crate) struct Kept {
    mirror: Mirror,
    /// The configuration in force where it was read.
    configuration: Option<BlockId>,
    /// The size of the blocks since it was written, in bytes.
    unwritten: u64,
    /// Its own size when it was written, in bytes.
    size: u64,
}

impl Kept {
    /// Reads a channel's mirror, or begins a new one.
    pub(crate) fn open(store: &Store, channel: &Channel, genesis: Digest) -> Self {
        match snapshot::read(store, channel, genesis) {
            Some((mirror, configuration)) => Self {
                configuration: Some(configuration),
                ..Self::from(mirror)
            },
            None => Self::new(channel, genesis),
        }
    }

    /// Begins a new mirror, at the channel's first block.
    pub(crate) fn new(channel: &Channel, genesis: Digest) -> Self {
        Self::from(Mirror::new(channel, genesis))
    }

    fn from(mirror: Mirror) -> Self {
        Self {
            mirror,
            configuration: None,
            unwritten: 0,
            size: 0,
        }
    }

    /// The block after which it stands.
    pub(crate) fn at(&self) -> BlockId {
        self.mirror.at()
    }

    /// The block that gave the configuration in force where it was read.
    pub(crate) fn configuration(&self) -> Option<BlockId> {
        self.configuration
    }

    pub(crate) fn standing(&self) -> Standing {
        self.mirror.standing()
    }

    /// Runs the transactions of blocks again, and hands each block on that stands up to it, in their order. They are run on another
    /// core than `next`, which ends it by `false`.
    pub(crate) fn take_all(&mut self, blocks: &[Verified], mut next: impl FnMut(&Verified) -> bool) -> Result<(), ReexecutionError> {
        let Self { mirror, unwritten, .. } = self;
        let mut run = |block: &Verified| {
            *unwritten += block.recorded.bytes;
            mirror.take(block.number, block.hash, &block.recorded)
        };
        // What this binary is too old for can't be run again either, and ends the batch.
        let newer = |block: &Verified| block.decoded.iter().any(|one| matches!(one, Decoded::Newer { .. }));
        if let [block] = blocks {
            if !newer(block) {
                run(block)?;
            }
            next(block);
            return Ok(());
        }
        std::thread::scope(|scope| {
            let (sender, told) = mpsc::channel();
            scope.spawn(move || {
                for block in blocks {
                    let ended = newer(block);
                    let result = if ended { Ok(()) } else { run(block) };
                    let ended = ended || result.is_err();
                    if sender.send(result).is_err() || ended {
                        return;
                    }
                }
            });
            // Less is told than there are blocks only after an end, or a panic, which the scope passes on.
            for (block, result) in blocks.iter().zip(told) {
                result?;
                if !next(block) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Writes the mirror when enough has come since the last time: the larger it is, the less often.
    pub(crate) fn write_when_due(&mut self, store: &Store, configuration: BlockId) {
        if self.unwritten >= MIRROR_EVERY_BYTES.max(self.size.saturating_mul(2)) {
            self.write(store, configuration);
        }
    }

    /// Writes the mirror if anything has come since the last time.
    pub(crate) fn write(&mut self, store: &Store, configuration: BlockId) {
        if self.unwritten == 0 {
            return;
        }
        match snapshot::write(store, &self.mirror, configuration) {
            Ok(size) => {
                self.size = size;
                self.unwritten = 0;
            }
            // It only saves running transactions again.
            Err(error) => tracing::warn!(%error, "the mirror of the state could not be written"),
        }
    }
}
