//! Where a ref stands in its channel. It is part of the same commit as the state that it speaks of.

use serde::{Deserialize, Serialize};

use crate::canonical::Digest;
use crate::event::Position;
use crate::ids::{Channel, TxId};

/// The last transaction that a ref has taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The channel.
    pub channel: Channel,
    /// The transaction's place.
    pub position: Position,
    /// The transaction.
    pub tx_id: TxId,
    /// The hash of its block's header: another one at the same number is another history.
    pub block_hash: Digest,
    /// The channel's event schema version.
    pub schema: u32,
}
