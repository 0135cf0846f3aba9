//! Whatever a member or a peer does wrong: one clear error that says what to do, and nothing is lost.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/consortium.rs"]
mod consortium;
#[path = "common/peer.rs"]
mod peer;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use common::*;
use consortium::{Consortium, order};
use futures::StreamExt;
use ledger_sync::{FollowError, GatewayClient, Ledger, Options, StreamError, SubmitError, VerifyError, catch_up};
use msp::{MspError, PemSigner, Signer};
use peer::{Peer, Sent};
use protos::common::Block;
use state::errors::chain;
use state::git::Store;

fn present() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

async fn caught_up(client: GatewayClient, store: &Store) -> Result<(), FollowError> {
    let options = Options {
        batch_blocks: 2,
        ..Options::default()
    };
    catch_up(Arc::new(client), store.clone(), channel(), options).await.map(drop)
}

fn one_line(error: &dyn std::error::Error) -> String {
    let said = chain(error);
    assert!(!said.contains('\n') && said.len() < 1_000, "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_said_with_what_it_says() {
    let consortium = Consortium::new().await;
    let place = place();
    for off in [-20 * 60, 20 * 60] {
        let client = consortium.direct("city").with_clock(Arc::new(move || present() + off));
        // Asking for the height passes: a peer looks at the time in requests for blocks only.
        let error = caught_up(client, &place.store).await.unwrap_err();
        let said = one_line(&error);
        assert!(matches!(&error, FollowError::Ledger(StreamError::NotAccepted { .. })), "{said}");
        assert!(
            said.contains("this machine's clock says 20") && said.contains("right to 15 minutes"),
            "{said}"
        );
        assert!(!error.ends(), "it can be put right while it runs");
    }
    caught_up(consortium.direct("city"), &place.store).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_past_its_end_is_noticed_before_anything_is_sent() {
    let consortium = Consortium::new().await;
    let place = place();
    let end = consortium.signer("city").certificate().not_after();
    let late = || consortium.direct("city").with_clock(Arc::new(move || end + 1));
    let error = caught_up(late(), &place.store).await.unwrap_err();
    let said = one_line(&error);
    assert!(
        matches!(&error, FollowError::Ledger(StreamError::Sign(MspError::Expired { .. }))),
        "{said}"
    );
    assert!(said.contains("renew it") && !error.ends(), "{said}");
    let error = late().submit(&channel(), "order", order("x", "city")).await.unwrap_err();
    assert!(
        matches!(&error, SubmitError::Sign(MspError::Expired { .. })) && !error.transient(),
        "{error}"
    );
    assert!(consortium.pending("city").list(&channel()).unwrap().is_empty());
    let error = late().evaluate(&channel(), "resources", Vec::new()).await.unwrap_err();
    assert!(one_line(&error).contains("renew it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_msp_id_is_said_with_the_keys_to_look_at() {
    let consortium = Consortium::new().await;
    let folder = consortium.directory.path().join("city/msp");
    for (msp_id, says) in [("NowhereMSP", "check ledger.msp_id"), (ENERGY, "check")] {
        let signer = Arc::new(PemSigner::from_msp_dir(&folder, msp_id).unwrap());
        let mut config = consortium.config("city", &[]);
        config.peers = vec![ledger_sync::PeerConfig {
            endpoint: format!("https://localhost:{}", consortium.server.address().port()),
            tls_ca_pem: consortium.server_ca(),
            server_name: None,
        }];
        let client = GatewayClient::connect(config, signer).unwrap();
        let error = client.submit(&channel(), "order", order("x", "city")).await.unwrap_err();
        let said = one_line(&error);
        assert!(matches!(&error, SubmitError::Endorse(_)) && !error.transient(), "{said}");
        assert!(said.contains(says), "{said}");
        let error = caught_up(client, &place().store).await.unwrap_err();
        assert!(!error.transient() && !error.ends(), "{}", one_line(&error));
        assert!(one_line(&error).contains("may not read the channel"), "{}", one_line(&error));
    }
}

/// Follows through a peer that changes blocks, and then through one that doesn't.
async fn lied(consortium: &Consortium, peer: &Peer, lie: impl Fn(Block) -> Vec<Sent> + Send + Sync + 'static) -> FollowError {
    let place = place();
    peer.lie(lie);
    let error = caught_up(consortium.client("city", &[peer]), &place.store).await.unwrap_err();
    one_line(&error);
    peer.heal();
    // Somebody has found out why.
    let frozen = ledger_sync::frozen::thaw(&place.store, &channel()).unwrap();
    assert_eq!(frozen.is_some(), error.freezes());
    // What was taken before the lie is right, and what is missing is taken now.
    caught_up(consortium.client("city", &[peer]), &place.store).await.unwrap();
    let whole_place = common::place();
    caught_up(consortium.direct("energy"), &whole_place.store).await.unwrap();
    assert_eq!(heads(&place.store), heads(&whole_place.store));
    error
}

fn number(block: &Block) -> u64 {
    block.header.as_ref().map_or(0, |header| header.number)
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_out_of_order_are_asked_for_again() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    let error = lied(&consortium, &peer, |block| match number(&block) {
        2 => Vec::new(),
        _ => vec![Sent::Block(block)],
    })
    .await;
    assert!(
        matches!(&error, FollowError::Verify(VerifyError::Gap { expected: 2, found: 3, .. })),
        "{error}"
    );
    assert!(error.transient() && !error.freezes());
    // The numbers are right, and the blocks stand in each other's place.
    let blocks: Vec<Block> = {
        let all = consortium.direct("city").blocks(&channel(), 0).await.unwrap().take(5);
        all.map(Result::unwrap).collect().await
    };
    let swapped = move |block: Block| {
        let other = match number(&block) {
            2 => 3,
            3 => 2,
            _ => return vec![Sent::Block(block)],
        };
        let mut moved = blocks[other].clone();
        moved.header.as_mut().unwrap().number = number(&block);
        vec![Sent::Block(moved)]
    };
    let error = lied(&consortium, &peer, swapped).await;
    assert!(
        error.freezes() && one_line(&error).contains("does not follow block 1"),
        "{}",
        one_line(&error)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_blocks_freeze_and_change_nothing() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    type Cut = (&'static str, fn(&mut Block));
    let cuts: [Cut; 6] = [
        ("without its data", |block| block.data = None),
        ("was altered", |block| block.data.as_mut().unwrap().data.clear()),
        ("was altered", |block| {
            let bytes = &mut block.data.as_mut().unwrap().data[0];
            bytes.truncate(bytes.len() / 2);
        }),
        ("metadata", |block| block.metadata = None),
        ("not signed by the channel's orderers", |block| {
            block.metadata.as_mut().unwrap().metadata[0].clear()
        }),
        ("validation codes", |block| block.metadata.as_mut().unwrap().metadata[2].clear()),
    ];
    for (says, cut) in cuts {
        let error = lied(&consortium, &peer, move |mut block| {
            if number(&block) == 3 {
                cut(&mut block);
            }
            vec![Sent::Block(block)]
        })
        .await;
        let said = one_line(&error);
        assert!(error.freezes() && said.contains(says) && said.contains("block 3"), "{says}: {said}");
        assert!(said.contains("frozen until somebody has found out why"), "{said}");
    }
    // Without its header it has no number.
    let error = lied(&consortium, &peer, |mut block| {
        if number(&block) == 3 {
            block.header = None;
        }
        vec![Sent::Block(block)]
    })
    .await;
    assert!(one_line(&error).contains("without its header"), "{}", one_line(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_another_channel_are_refused() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    let other = ledger_sync::testing::MemoryNetwork::new(&"other".parse().unwrap(), &[CITY, ENERGY]).unwrap();
    for _ in 0..4 {
        other.append_other(CITY).unwrap();
    }
    let blocks = other.blocks();
    let (genesis, later) = (blocks[0].clone(), blocks[2].clone());
    let error = lied(&consortium, &peer, move |block| match number(&block) {
        2 => vec![Sent::Block(later.clone())],
        _ => vec![Sent::Block(block)],
    })
    .await;
    assert!(
        error.freezes() && one_line(&error).contains("does not follow block 1"),
        "{}",
        one_line(&error)
    );
    let error = lied(&consortium, &peer, move |block| match number(&block) {
        0 => vec![Sent::Block(genesis.clone())],
        _ => vec![Sent::Block(block)],
    })
    .await;
    assert!(one_line(&error).contains("is of channel \"other\""), "{}", one_line(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_a_hundred_megabytes_is_read_and_a_larger_one_is_named() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    let padded = |bytes: usize| {
        move |mut block: Block| {
            if number(&block) == 3 {
                block.data.as_mut().unwrap().data.push(vec![0; bytes]);
            }
            vec![Sent::Block(block)]
        }
    };
    // As large as Fabric sends it, and not what its header says.
    let error = lied(&consortium, &peer, padded(99 * 1024 * 1024)).await;
    assert!(one_line(&error).contains("was altered") && error.freezes(), "{}", one_line(&error));
    let error = lied(&consortium, &peer, padded(101 * 1024 * 1024)).await;
    let said = one_line(&error);
    assert!(matches!(&error, FollowError::Ledger(StreamError::TooLarge { .. })), "{said}");
    assert!(said.contains("larger than the 100 MiB") && said.contains(&peer.endpoint), "{said}");
    assert!(!error.ends() && !error.transient());
}
