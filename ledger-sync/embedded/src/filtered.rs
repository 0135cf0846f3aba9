//! What of a block its readers need who only watch transactions: ids, codes, and the names of events.

use protos::common::{Block, HeaderType};
use protos::envelope::{self, Opened};
use protos::metadata;
use protos::peer::filtered_transaction::Data;
use protos::peer::{
    ChaincodeEvent, FilteredBlock, FilteredChaincodeAction, FilteredTransaction, FilteredTransactionActions, TxValidationCode,
};

/// Filters a block of a channel.
///
/// An envelope that has no readable header isn't told of at all, as in a peer. A transaction whose content can't be read is
/// told of without actions; a peer would refuse its whole block.
pub(crate) fn filtered(channel: &str, block: &Block) -> FilteredBlock {
    let flags = metadata::validation_flags(block).unwrap_or_default();
    let data = block.data.as_ref().map(|data| data.data.as_slice()).unwrap_or_default();
    let transactions = data.iter().enumerate().filter_map(|(index, bytes)| {
        let opened = envelope::decode_envelope(bytes)
            .and_then(|envelope| envelope::open(&envelope))
            .ok()?;
        let code = flags
            .get(index)
            .map_or(TxValidationCode::InvalidOtherReason, |flag| metadata::validation_code(*flag));
        let data = opened.is(HeaderType::EndorserTransaction).then(|| actions(&opened));
        Some(FilteredTransaction {
            txid: opened.channel.tx_id,
            r#type: opened.channel.r#type,
            tx_validation_code: code as i32,
            data,
        })
    });
    FilteredBlock {
        channel_id: channel.to_owned(),
        number: block.header.as_ref().map_or(0, |header| header.number),
        filtered_transactions: transactions.collect(),
    }
}

fn actions(opened: &Opened) -> Data {
    let event = envelope::endorsed(opened).ok().and_then(|transaction| transaction.event);
    let named = event
        .filter(|event| !event.chaincode_id.is_empty())
        .map(|event| FilteredChaincodeAction {
            chaincode_event: Some(ChaincodeEvent {
                payload: Vec::new(),
                ..event
            }),
        });
    Data::TransactionActions(FilteredTransactionActions {
        chaincode_actions: named.into_iter().collect(),
    })
}
