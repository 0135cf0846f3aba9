//! The calls for the state that wait for their answers: at most one for each transaction of a stream.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protos::peer::ChaincodeMessage;

/// A transaction on a stream: its channel and its id.
pub(crate) type Key = (String, String);

/// The longest name of a channel and the longest transaction id, in bytes: Fabric's have 249 and 64 at most.
const MAX_NAME: usize = 256;

/// Whether a message names a channel and a transaction of a sensible length. Both are kept, and stand in logs.
pub(crate) fn is_sensible(message: &ChaincodeMessage) -> bool {
    message.channel_id.len() <= MAX_NAME && message.txid.len() <= MAX_NAME
}

/// The key of the transaction that a message belongs to.
pub(crate) fn key(message: &ChaincodeMessage) -> Key {
    (message.channel_id.clone(), message.txid.clone())
}

/// The live transactions of one stream.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    ended: bool,
    // For each live transaction, who waits for an answer.
    live: BTreeMap<Key, Option<SyncSender<ChaincodeMessage>>>,
}

/// What became of a message that answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Its transaction has it.
    Delivered,
    /// No live transaction waits for it.
    Unasked,
}

impl Calls {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a transaction; false if it is live already, or the stream has ended.
    pub(crate) fn enter(&self, key: &Key) -> bool {
        let mut table = self.table();
        if table.ended || table.live.contains_key(key) {
            return false;
        }
        table.live.insert(key.clone(), None);
        true
    }

    /// Takes a transaction out that is done.
    pub(crate) fn leave(&self, key: &Key) {
        self.table().live.remove(key);
    }

    /// Prepares for the answer to a live transaction's next call; none when the stream has ended.
    pub(crate) fn expect(&self, key: &Key) -> Option<Receiver<ChaincodeMessage>> {
        let mut table = self.table();
        let (sender, receiver) = sync_channel(1);
        *table.live.get_mut(key)? = Some(sender);
        Some(receiver)
    }

    /// Hands an answer to the transaction that waits for it.
    pub(crate) fn answer(&self, message: ChaincodeMessage) -> Delivery {
        let waiting = self.table().live.get_mut(&key(&message)).and_then(Option::take);
        match waiting {
            // It has room for the one answer; only a transaction that gave up waiting doesn't take it.
            Some(waiting) if waiting.try_send(message).is_ok() => Delivery::Delivered,
            _ => Delivery::Unasked,
        }
    }

    /// Ends every call: the stream is gone.
    pub(crate) fn end(&self) {
        let mut table = self.table();
        table.ended = true;
        table.live.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(txid: &str) -> ChaincodeMessage {
        ChaincodeMessage {
            txid: txid.into(),
            channel_id: "c".into(),
            ..ChaincodeMessage::default()
        }
    }

    #[test]
    fn one_answer_goes_to_the_one_call_of_its_transaction() {
        let calls = Calls::default();
        let key = |txid: &str| ("c".to_owned(), txid.to_owned());
        assert!(calls.enter(&key("a")) && calls.enter(&key("b")));
        assert!(!calls.enter(&key("a")), "a transaction is live once");
        assert_eq!(calls.answer(message("a")), Delivery::Unasked, "nothing was asked");
        let answer = calls.expect(&key("a")).unwrap();
        assert_eq!(calls.answer(message("b")), Delivery::Unasked);
        assert_eq!(calls.answer(message("a")), Delivery::Delivered);
        assert_eq!(calls.answer(message("a")), Delivery::Unasked, "one call has one answer");
        assert_eq!(answer.try_recv().unwrap().txid, "a");

        let answer = calls.expect(&key("a")).unwrap();
        calls.end();
        assert!(answer.recv().is_err(), "nobody answers when the stream is gone");
        assert!(calls.expect(&key("a")).is_none() && !calls.enter(&key("new")));
    }
}
