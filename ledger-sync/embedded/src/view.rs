//! What a channel is at one height: its state, the end of its chain, and where its transactions and blocks are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::commit::{Committed, Tip, TxIndex};
use crate::world_state::{Updates, WorldState};

/// Everything that a block changes, changed in one step.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Shared with transactions that run elsewhere, which may take long.
    pub(crate) state: Arc<WorldState>,
    pub(crate) tip: Tip,
    pub(crate) index: TxIndex,
    /// The numbers of the blocks, by their headers' hashes.
    pub(crate) hashes: HashMap<[u8; 32], u64>,
}

impl View {
    /// Takes in what a block changes.
    pub(crate) fn advance(&mut self, updates: Updates, committed: BTreeMap<String, Committed>, tip: Tip) {
        Arc::make_mut(&mut self.state).apply(updates);
        for (tx_id, place) in committed {
            // An id is its first transaction's.
            self.index.entry(tx_id).or_insert(place);
        }
        if let Some(hash) = tip.header_hash {
            self.hashes.insert(hash, tip.height.saturating_sub(1));
        }
        self.tip = tip;
    }
}
