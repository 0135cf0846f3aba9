//! The system chaincode `qscc`: a channel's height, its blocks and its transactions.

use prost::Message;
use protos::common::{Block, BlockchainInfo};
use protos::envelope;
use protos::peer::{self, ProcessedTransaction};
use state::errors::chain;

use crate::Ledger;
use crate::channel::Core;
use crate::status::{Denied, Policy, Refusal, Signed, authorise, quoted};

/// The chaincode's name on every channel.
pub(crate) const CHAINCODE: &str = "qscc";

const CHAIN_INFO: &str = "GetChainInfo";
const BLOCK_BY_NUMBER: &str = "GetBlockByNumber";
const BLOCK_BY_HASH: &str = "GetBlockByHash";
const BLOCK_BY_TX_ID: &str = "GetBlockByTxID";
const TRANSACTION_BY_ID: &str = "GetTransactionByID";
const FUNCTIONS: [&str; 5] = [CHAIN_INFO, BLOCK_BY_NUMBER, BLOCK_BY_HASH, BLOCK_BY_TX_ID, TRANSACTION_BY_ID];

/// Answers a query: a function's name, a channel's, and for every function but the first one argument.
///
/// The channel may be another one than the proposal's, as on a peer; who asks has to be a reader of that one.
pub(crate) fn answer(ledger: &Ledger, args: &[Vec<u8>], signed: Signed<'_>, now: i64) -> Result<peer::Response, Refusal> {
    let payload = payload(ledger, args, signed, now).map_err(|message| Refusal::Chaincode { status: 500, message })?;
    Ok(peer::Response {
        status: 200,
        message: String::new(),
        payload,
    })
}

fn payload(ledger: &Ledger, args: &[Vec<u8>], signed: Signed<'_>, now: i64) -> Result<Vec<u8>, String> {
    let [function, name, rest @ ..] = args else {
        return Err(format!("Incorrect number of arguments, {}", args.len()));
    };
    let (function, name) = (String::from_utf8_lossy(function), String::from_utf8_lossy(name));
    let argument = rest.first().map(Vec::as_slice);
    if function != CHAIN_INFO && argument.is_none() {
        return Err(format!("missing 3rd argument for {}", quoted(&function)));
    }
    let argument = argument.unwrap_or_default();
    let channel = ledger
        .channel(&name)
        .ok_or_else(|| format!("Invalid chain ID, {}", quoted(&name)))?;
    let core = &channel.core;
    let refused = |why: String| format!("access denied for [{}][{}]: [{why}]", quoted(&function), core.name);
    if !FUNCTIONS.contains(&function.as_ref()) {
        return Err(refused(format!("Unmapped policy for {CHAINCODE}/{}", quoted(&function))));
    }
    let denied = |denied: Denied| match denied {
        Denied::Expired => refused("proposal client identity expired".into()),
        _ => refused(Policy::Readers.denied(&core.name)),
    };
    authorise(&core.name, &core.membership, Policy::Readers, signed, now).map_err(denied)?;
    match function.as_ref() {
        BLOCK_BY_NUMBER => block_by_number(core, argument).map(|block| block.encode_to_vec()),
        BLOCK_BY_HASH => block_by_hash(core, argument).map(|block| block.encode_to_vec()),
        BLOCK_BY_TX_ID => block_by_tx_id(core, argument).map(|block| block.encode_to_vec()),
        TRANSACTION_BY_ID => transaction(core, argument).map(|transaction| transaction.encode_to_vec()),
        _ => Ok(chain_info(core).encode_to_vec()),
    }
}

fn chain_info(core: &Core) -> BlockchainInfo {
    let view = core.view();
    BlockchainInfo {
        height: view.tip.height,
        current_block_hash: view.tip.header_hash.map(|hash| hash.to_vec()).unwrap_or_default(),
        previous_block_hash: view.tip.previous_hash.clone(),
    }
}

/// The largest number stands for the newest block.
fn block_by_number(core: &Core, argument: &[u8]) -> Result<Block, String> {
    let number = parse(argument).map_err(|why| format!("Failed to parse block number with error {why}"))?;
    let wanted = if number == u64::MAX {
        core.info().height.saturating_sub(1)
    } else {
        number
    };
    read(core, wanted, &format!("no such block number [{wanted}] in index"))
        .map_err(|why| format!("Failed to get block number {number}, error {why}"))
}

fn block_by_hash(core: &Core, hash: &[u8]) -> Result<Block, String> {
    let hexadecimal = || hash.iter().take(64).map(|byte| format!("{byte:02x}")).collect::<String>();
    let missing = || format!("no such block hash [{}] in index", hexadecimal());
    let found = core.number_of(hash).ok_or_else(missing);
    found
        .and_then(|number| read(core, number, &missing()))
        .map_err(|why| format!("Failed to get block hash {}, error {why}", quoted(&String::from_utf8_lossy(hash))))
}

fn block_by_tx_id(core: &Core, argument: &[u8]) -> Result<Block, String> {
    let tx_id = String::from_utf8_lossy(argument);
    let missing = missing_transaction(&tx_id);
    let committed = core.committed(&tx_id).ok_or_else(|| missing.clone());
    committed
        .and_then(|committed| read(core, committed.block, &missing))
        .map_err(|why| format!("Failed to get block for txID {}, error {why}", quoted(&tx_id)))
}

fn transaction(core: &Core, argument: &[u8]) -> Result<ProcessedTransaction, String> {
    let tx_id = String::from_utf8_lossy(argument);
    let missing = missing_transaction(&tx_id);
    let find = || {
        let committed = core.committed(&tx_id).ok_or_else(|| missing.clone())?;
        let block = read(core, committed.block, &missing)?;
        let envelopes = block.data.unwrap_or_default().data;
        let bytes = envelopes.get(committed.index as usize).ok_or_else(|| missing.clone())?;
        let envelope = envelope::decode_envelope(bytes).map_err(|error| chain(&error))?;
        Ok(ProcessedTransaction {
            transaction_envelope: Some(envelope),
            validation_code: committed.code as i32,
        })
    };
    find().map_err(|why: String| format!("Failed to get transaction with id {}, error {why}", quoted(&tx_id)))
}

fn missing_transaction(tx_id: &str) -> String {
    format!("no such transaction ID [{}] in index", quoted(tx_id))
}

fn read(core: &Core, number: u64, missing: &str) -> Result<Block, String> {
    core.block(number).map_err(|error| chain(&error))?.ok_or_else(|| missing.to_owned())
}

/// Reads a number as Go does, and says as Go does why it is none.
fn parse(argument: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(argument);
    let refused = |why: &str| format!("strconv.ParseUint: parsing {:?}: {why}", quoted(&text));
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused("invalid syntax"));
    }
    text.parse().map_err(|_| refused("value out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_a_peer_reads_them() {
        assert_eq!(parse(b"0"), Ok(0));
        assert_eq!(parse(b"18446744073709551615"), Ok(u64::MAX));
        for (text, why) in [
            ("", "invalid syntax"),
            ("+5", "invalid syntax"),
            ("0x5", "invalid syntax"),
            ("18446744073709551616", "value out of range"),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(format!("strconv.ParseUint: parsing {text:?}: {why}")));
        }
    }
}
