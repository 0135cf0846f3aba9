//! Ending: what runs is finished, nothing new is begun.

use std::time::Duration;

use ccaas::{Limits, Options, ServeError, Server, Tls};
use protos::peer::chaincode_message::Type;

use crate::peer::{PACKAGE, Peer, completed, ok, refused, serve};
use crate::proposals::{Proposed, args, somebody};

fn proposed(number: u64) -> Proposed {
    Proposed::new(number, &somebody(), &args(&["a"]))
}

#[tokio::test]
async fn what_runs_is_finished_and_nothing_new_begun() {
    let server = serve(Limits::default(), |stub, _| ok(&stub.get_state("a").unwrap().unwrap())).await;
    let mut peer = Peer::registered(&server).await;
    let idle = Peer::registered(&server).await;
    let one = proposed(1);
    peer.start(&one).await;
    assert_eq!(peer.next().await.r#type(), Type::GetState);
    server.shutdown_handle().begin();
    // A stream without transactions ends, and ends well.
    idle.end().await.unwrap();
    peer.start(&proposed(2)).await;
    refused(&peer.next().await, "is stopping");
    peer.say(Type::Response, &one.tx_id, b"value").await;
    assert_eq!(completed(&peer.next().await).payload, b"value");
    peer.end().await.unwrap();
    server.finished().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_let_go_is_let_go() {
    let limits = Limits {
        grace: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = serve(limits, |stub, _| match stub.get_state("a") {
        Ok(_) => ok(b"value"),
        Err(_) => ok(b"gone"),
    })
    .await;
    let mut peer = Peer::registered(&server).await;
    peer.start(&proposed(1)).await;
    peer.next().await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_served_says_why() {
    for id in ["", "a b", "a\n"] {
        let error = Server::bind("127.0.0.1:0", Options::new(id)).await.unwrap_err();
        assert!(matches!(error, ServeError::PackageId(_)), "{error}");
    }
    let first = Server::bind("127.0.0.1:0", Options::new(PACKAGE)).await.unwrap();
    let taken = Server::bind(&first.address().to_string(), Options::new(PACKAGE)).await.unwrap_err();
    assert!(matches!(taken, ServeError::Listen { .. }), "{taken}");
    let mut options = Options::new(PACKAGE);
    options.tls = Some(Tls {
        certificate: b"none".to_vec(),
        key: b"none".to_vec(),
        client_authorities: None,
    });
    let error = Server::bind("127.0.0.1:0", options).await.unwrap_err();
    assert!(matches!(error, ServeError::Tls(_)), "{error}");
    first.stop().await.unwrap();
}
