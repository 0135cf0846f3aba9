//! A start from a snapshot: the same ledger as one that reads all its blocks.
#![allow(clippy::unwrap_used)]

mod client;

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{CHAINCODE, Client, from_oldest_to, ledger, now, program, serve};
use embedded::{Ledger, LedgerError, Limits, Options, Server};
use prost::Message;
use protos::block;
use protos::common::BlockchainInfo;
use protos::peer::TxValidationCode as Tx;
use protos::peer::deliver_response::Type;
use tonic::Code;

/// A world whose ledger saves its state after every block.
struct World {
    place: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        drop(ledger(place.path()));
        Self { place }
    }

    fn channel(&self) -> PathBuf {
        self.place.path().join("ledger/channels/ch-1")
    }

    fn snapshot(&self) -> PathBuf {
        self.channel().join("snapshot")
    }

    fn blocks(&self) -> PathBuf {
        self.channel().join("blocks")
    }

    fn open(&self) -> Result<Ledger, LedgerError> {
        let limits = Limits {
            snapshot_bytes: 1,
            ..Limits::default()
        };
        let options = Options {
            program: program(),
            limits,
        };
        Ledger::open_with(&self.place.path().join("ledger"), options)
    }

    /// Opens the ledger once those that had it open have let go of it.
    async fn opened(&self) -> Result<Ledger, LedgerError> {
        for _ in 0..500 {
            match self.open() {
                Err(LedgerError::Locked(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => return other,
            }
        }
        panic!("the ledger stayed locked");
    }

    async fn serve(&self) -> (Ledger, Server, Client) {
        let opened = self.opened().await.unwrap();
        let server = serve(&opened).await;
        let client = Client::connect(self.place.path(), "dsp", "DspMSP", &server).await;
        (opened, server, client)
    }

    /// Commits a history with everything in it that a state can depend on, and returns a valid and an invalid transaction's id.
    async fn history(&self) -> (String, String) {
        let (opened, server, mut client) = self.serve().await;
        for args in [["put", "a", "1"], ["put", "b", "1"], ["put", "c", "1"]] {
            assert_eq!(client.transact("ch-1", &args).await.result(), Tx::Valid);
        }
        assert_eq!(client.transact("ch-1", &["del", "b"]).await.result(), Tx::Valid);
        let first = client.prepare("ch-1", &["incr", "a"]).await.unwrap();
        let second = client.prepare("ch-1", &["incr", "a"]).await.unwrap();
        for transaction in [&first, &second] {
            client.submit("ch-1", transaction).await.unwrap();
        }
        assert_eq!(client.status("ch-1", &first.tx_id).await.unwrap().result(), Tx::Valid);
        assert_eq!(client.status("ch-1", &second.tx_id).await.unwrap().result(), Tx::MvccReadConflict);
        stop(opened, server, client).await;
        (first.tx_id, second.tx_id)
    }

    /// Checks that the ledger is as the history has left it, and goes on; then stops it.
    async fn is_whole(&self, (valid, invalid): &(String, String)) {
        let (opened, server, mut client) = self.serve().await;
        assert_eq!(client.evaluate("ch-1", CHAINCODE, &["get", "a"]).await.unwrap(), b"2");
        assert_eq!(
            client.evaluate("ch-1", CHAINCODE, &["get", "b"]).await.unwrap_err().code(),
            Code::Unknown
        );
        assert_eq!(client.status("ch-1", valid).await.unwrap().result(), Tx::Valid);
        assert_eq!(client.status("ch-1", invalid).await.unwrap().result(), Tx::MvccReadConflict);
        // What was read before is still known by its version, and what is new joins the chain.
        let prepared = client.prepare("ch-1", &["incr", "a"]).await.unwrap();
        assert_eq!(client.transact("ch-1", &["put", "a", "2"]).await.result(), Tx::Valid);
        client.submit("ch-1", &prepared).await.unwrap();
        let conflict = client.status("ch-1", &prepared.tx_id).await.unwrap();
        assert_eq!(conflict.result(), Tx::MvccReadConflict);
        check_chain(&mut client, conflict.block_number).await;
        stop(opened, server, client).await;
    }
}

async fn stop(opened: Ledger, server: Server, client: Client) {
    drop(client);
    server.stop().await.unwrap();
    drop(opened);
}

/// Reads every block up to one, and checks that they are one chain, and that its end is what the ledger says.
async fn check_chain(client: &mut Client, last: u64) {
    let request = client.seek("ch-1", &from_oldest_to(last), now());
    let mut stream = client.blocks(request).await;
    let mut previous: Option<[u8; 32]> = None;
    for number in 0..=last {
        let Some(Type::Block(found)) = stream.message().await.unwrap().unwrap().r#type else {
            panic!("block {number} was expected");
        };
        let hash = block::check_link(&found, number, previous.as_ref().map(|hash| hash.as_slice())).unwrap();
        previous = Some(hash);
        let ask = [b"GetBlockByHash".to_vec(), b"ch-1".to_vec(), hash.to_vec()];
        let same = client.evaluate_bytes("ch-1", "qscc", ask.to_vec()).await.unwrap();
        assert_eq!(same, found.encode_to_vec());
    }
    let info = client.evaluate("ch-1", "qscc", &["GetChainInfo", "ch-1"]).await.unwrap();
    let info = BlockchainInfo::decode(info.as_slice()).unwrap();
    assert_eq!(
        (info.height, Some(info.current_block_hash)),
        (last + 1, previous.map(|hash| hash.to_vec()))
    );
}

/// Changes one byte of a file.
fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_from_a_snapshot_is_the_same_as_from_all_blocks() {
    let world = World::new();
    let ids = world.history().await;
    assert!(world.snapshot().exists());
    world.is_whole(&ids).await;
    std::fs::remove_file(world.snapshot()).unwrap();
    world.is_whole(&ids).await;
    assert!(world.snapshot().exists(), "a lost one is made again");
    world.is_whole(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_or_damaged_snapshot_is_passed_over() {
    let world = World::new();
    let ids = world.history().await;
    let whole = std::fs::read(world.snapshot()).unwrap();
    for length in [0, 3, 20, whole.len() / 2, whole.len() - 1] {
        std::fs::write(world.snapshot(), &whole[..length]).unwrap();
        drop(world.opened().await.unwrap());
    }
    for at in (0..whole.len()).step_by(97) {
        std::fs::write(world.snapshot(), &whole).unwrap();
        damage(&world.snapshot(), at);
        drop(world.opened().await.unwrap());
    }
    world.is_whole(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_other_blocks_is_passed_over() {
    let world = World::new();
    let ids = world.history().await;
    let (blocks, snapshot) = (std::fs::read(world.blocks()).unwrap(), std::fs::read(world.snapshot()).unwrap());
    // The blocks are older than the snapshot, as from a backup.
    world.is_whole(&ids).await;
    let newer = std::fs::read(world.snapshot()).unwrap();
    std::fs::write(world.blocks(), &blocks).unwrap();
    std::fs::write(world.snapshot(), &newer).unwrap();
    world.is_whole(&ids).await;
    // The snapshot is older than the blocks.
    std::fs::write(world.snapshot(), &snapshot).unwrap();
    world.is_whole(&ids).await;
    // The snapshot is another ledger's, of the same shape.
    let other = World::new();
    other.history().await;
    std::fs::copy(other.snapshot(), world.snapshot()).unwrap();
    world.is_whole(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_an_old_block_is_found_when_it_is_read() {
    let world = World::new();
    world.history().await;
    // In block 1: the first block is read at every start.
    let bytes = std::fs::read(world.blocks()).unwrap();
    let first = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    damage(&world.blocks(), 24 + first + 24 + 40);
    let (opened, server, mut client) = world.serve().await;
    assert_eq!(client.evaluate("ch-1", CHAINCODE, &["get", "a"]).await.unwrap(), b"2");
    let request = client.seek("ch-1", &from_oldest_to(1), now());
    let mut stream = client.blocks(request).await;
    let refused = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the damage was delivered"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::Aborted);
    assert!(refused.message().contains("its record is damaged"), "{refused}");
    stop(opened, server, client).await;
    std::fs::remove_file(world.snapshot()).unwrap();
    let error = world.opened().await.unwrap_err();
    assert!(matches!(error, LedgerError::Corrupt { block: 1, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_ledger_has_no_snapshot() {
    let place = tempfile::tempdir().unwrap();
    let opened = ledger(place.path());
    let server = serve(&opened).await;
    let mut client = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    assert_eq!(client.transact("ch-1", &["put", "a", "1"]).await.result(), Tx::Valid);
    stop(opened, server, client).await;
    assert!(!place.path().join("ledger/channels/ch-1/snapshot").exists());
}
