//! One peer is down, hung, behind or lying: another one is asked, and nothing is lost.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/consortium.rs"]
mod consortium;
#[path = "common/peer.rs"]
mod peer;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use consortium::{Consortium, order};
use futures::StreamExt;
use ledger_sync::{ClientTls, FollowError, Follower, GatewayClient, Ledger, Options, PeerConfig, Progress, StreamError, catch_up};
use msp::Enrolment;
use peer::{At, Fate, Peer, Sent, authority};
use state::errors::chain;
use state::git::Store;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::Code;

struct Running {
    progress: watch::Receiver<Progress>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), FollowError>>,
}

fn follow(client: GatewayClient, store: &Store) -> Running {
    let (sender, progress) = watch::channel(Progress::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let follower = Follower {
        ledger: Arc::new(client),
        store: store.clone(),
        channel: channel(),
        options: Options {
            first_pause: Duration::from_millis(2),
            longest_pause: Duration::from_millis(20),
            probe: Duration::from_millis(100),
            ..Options::default()
        },
    };
    let task = tokio::spawn(follower.run(sender, async { drop(stopped.await) }));
    Running { progress, stop, task }
}

impl Running {
    async fn until(&mut self, what: impl FnMut(&Progress) -> bool) -> Progress {
        let waited = tokio::time::timeout(Duration::from_secs(30), self.progress.wait_for(what)).await;
        waited.expect("the follower gets there").unwrap().clone()
    }

    async fn at(&mut self, block: u64) -> Progress {
        self.until(|progress| progress.block >= Some(block) && progress.caught_up && progress.last_error.is_none())
            .await
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_one_peer_another_one_serves() {
    let consortium = Consortium::new().await;
    let (one, two) = (consortium.peer().await, consortium.peer().await);
    let client = consortium.client("city", &[&one, &two]);
    let place = place();
    let mut running = follow(consortium.client("city", &[&one, &two]), &place.store);
    let first = running.at(0).await;
    assert_eq!(first.endpoint.as_deref(), Some(one.endpoint.as_str()));
    // An open stream ends.
    one.lie(|_| vec![Sent::Status(503)]);
    let done = client.submit(&channel(), "order", order("a", "city")).await.unwrap();
    let there = running.at(done.block).await;
    assert_eq!(there.endpoint.as_deref(), Some(two.endpoint.as_str()));
    one.heal();
    running.stop().await;
    for fate in [
        Fate::Lost(Code::Unavailable, "connection refused"),
        Fate::Lost(Code::PermissionDenied, "access denied: channel [c] creator org [CityMSP]"),
        Fate::Hung,
    ] {
        let place = common::place();
        one.next(At::Deliver, fate.clone(), usize::MAX);
        let mut running = follow(consortium.client("city", &[&one, &two]), &place.store);
        if fate == Fate::Hung {
            // The genesis block is waited for a minute, and this peer never sends it.
            running.stop().await;
        } else {
            let there = running.at(done.block).await;
            assert_eq!(there.endpoint.as_deref(), Some(two.endpoint.as_str()), "{fate:?}");
            assert_eq!((there.desired, there.reported), heads(&place.store));
            running.stop().await;
        }
        one.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_goes_silent_is_told_from_a_quiet_channel() {
    let consortium = Consortium::new().await;
    let (one, two) = (consortium.peer().await, consortium.peer().await);
    let client = consortium.client("energy", &[&two]);
    let place = place();
    let mut running = follow(consortium.client("city", &[&one, &two]), &place.store);
    let height = client.height(&channel()).await.unwrap();
    running.at(height - 1).await;
    // Quiet: asked for its height again and again, and left open.
    let (asked, opened) = (one.calls(At::Evaluate), one.calls(At::Deliver));
    one.called(At::Evaluate, asked + 3).await;
    assert_eq!(one.calls(At::Deliver), opened);
    // Silent: newer blocks, and none of them.
    one.lie(|_| vec![Sent::Silence]);
    let done = client.submit(&channel(), "order", order("a", "energy")).await.unwrap();
    // What is said of it stands only until the other peer serves, milliseconds later: `follow.rs` looks at the words.
    let there = running.at(done.block).await;
    assert_eq!(there.endpoint.as_deref(), Some(two.endpoint.as_str()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_cut_off_from_the_orderers_is_left_for_one_that_is_not() {
    let consortium = Consortium::new().await;
    let (behind, ahead) = (consortium.peer().await, consortium.peer().await);
    let place = place();
    let mut running = follow(consortium.client("city", &[&behind, &ahead]), &place.store);
    running.at(4).await;
    // It answers, and says of itself that there is nothing new.
    behind.lie(|_| vec![Sent::Silence]);
    let qscc_away = Fate::Lost(Code::FailedPrecondition, "no peers available to evaluate chaincode qscc");
    behind.next(At::Evaluate, qscc_away, usize::MAX);
    let done = consortium
        .direct("energy")
        .submit(&channel(), "order", order("a", "energy"))
        .await
        .unwrap();
    let there = running.at(done.block).await;
    assert_eq!(there.endpoint.as_deref(), Some(ahead.endpoint.as_str()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_effect_is_asked_elsewhere_and_a_transaction_is_sent_elsewhere() {
    let consortium = Consortium::new().await;
    let (one, two) = (consortium.peer().await, consortium.peer().await);
    for (at, fate) in [
        (
            At::Endorse,
            Fate::Lost(Code::Aborted, "could not launch chaincode charter: connection refused"),
        ),
        (
            At::Submit,
            Fate::Lost(Code::Unavailable, "no orderers could successfully process transaction"),
        ),
        (At::CommitStatus, Fate::Hung),
    ] {
        let client = consortium.client("city", &[&one, &two]);
        one.next(at, fate.clone(), usize::MAX);
        let name = format!("{at:?}").to_lowercase();
        client.submit(&channel(), "order", order(&name, "city")).await.unwrap();
        assert!(two.calls(at) > 0, "{at:?} {fate:?}");
        one.heal();
    }
    one.next(At::Evaluate, Fate::Hung, usize::MAX);
    let client = consortium.client("city", &[&one, &two]);
    client.evaluate(&channel(), "resource", vec![b"submit".to_vec()]).await.unwrap();
    // The chaincode's own word is everybody's.
    one.heal();
    let before = two.calls(At::Evaluate);
    let client = consortium.client("city", &[&one, &two]);
    client
        .evaluate(&channel(), "resource", vec![b"nothing".to_vec()])
        .await
        .unwrap_err();
    assert_eq!(two.calls(At::Evaluate), before);
    // Nobody is there: the error names a peer.
    one.down();
    two.down();
    let error = client.evaluate(&channel(), "resource", vec![b"submit".to_vec()]).await.unwrap_err();
    assert!(error.transient() && chain(&error).contains(&two.endpoint), "{}", chain(&error));
    let error = client.height(&channel()).await.unwrap_err();
    assert!(error.transient() && chain(&error).contains(&one.endpoint), "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_for_a_client_certificate_gets_it() {
    let consortium = Consortium::new().await;
    let clients = authority();
    let peer = Peer::before(&consortium.server, &consortium.server_ca(), "peer0.city.example", Some(&clients)).await;
    let issued = clients
        .enrol("city", &Enrolment::TlsServer { hosts: &["charter.city"] }, 1_780_000_000)
        .unwrap();
    let mut config = consortium.config("city", &[&peer]);
    config.peers[0].server_name = Some("peer0.city.example".into());
    config.client_tls = Some(ClientTls {
        certificate_pem: issued.certificate_pem.clone().into_bytes(),
        key_pem: issued.key_pem.clone().into_bytes(),
    });
    assert!(!format!("{config:?}").contains("PRIVATE"));
    let client = GatewayClient::connect(config.clone(), consortium.signer("city")).unwrap();
    client.submit(&channel(), "order", order("a", "city")).await.unwrap();
    let first = client.blocks(&channel(), 0).await.unwrap().next().await.unwrap();
    assert_eq!(first.unwrap().header.unwrap().number, 0);
    // Without it, and under another name.
    let mut without = config.clone();
    without.client_tls = None;
    let client = GatewayClient::connect(without, consortium.signer("city")).unwrap();
    let error = client.height(&channel()).await.unwrap_err();
    assert!(chain(&error).to_lowercase().contains("certificate"), "{}", chain(&error));
    let mut other = config.clone();
    other.peers[0].server_name = None;
    let client = GatewayClient::connect(other, consortium.signer("city")).unwrap();
    let error = client.height(&channel()).await.unwrap_err();
    assert!(chain(&error).contains("as server_name"), "{}", chain(&error));
    // A key that is not the certificate's.
    let stranger = clients
        .enrol("city", &Enrolment::TlsServer { hosts: &["x"] }, 1_780_000_000)
        .unwrap();
    let mut mixed = config;
    mixed.client_tls = Some(ClientTls {
        certificate_pem: issued.certificate_pem.into_bytes(),
        key_pem: stranger.key_pem.into_bytes(),
    });
    let error = GatewayClient::connect(mixed, consortium.signer("city"))
        .err()
        .expect("it is noticed before anything is sent");
    assert!(
        chain(&error).contains("client certificate") && !chain(&error).contains("PRIVATE"),
        "{}",
        chain(&error)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_does_not_vouch_for_one_peer_is_no_reason_to_stop() {
    let consortium = Consortium::new().await;
    let (one, two) = (consortium.peer().await, consortium.peer().await);
    let mut config = consortium.config("city", &[&one, &two]);
    config.peers[0] = PeerConfig {
        tls_ca_pem: two.ca_pem.clone(),
        ..config.peers[0].clone()
    };
    let client = GatewayClient::connect(config, consortium.signer("city")).unwrap();
    let place = place();
    let error = catch_up(Arc::new(client.clone()), place.store.clone(), channel(), Options::default())
        .await
        .unwrap_err();
    assert!(matches!(&error, FollowError::Ledger(StreamError::Call { .. })), "{error}");
    assert!(chain(&error).contains("does not vouch"), "{}", chain(&error));
    // The peer was left for the next one.
    catch_up(Arc::new(client), place.store.clone(), channel(), Options::default())
        .await
        .unwrap();
}
