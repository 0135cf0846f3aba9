//! Peers that break the protocol, break off, or ask too much: what they take with them is their own.

use ccaas::Limits;
use proptest::prelude::*;
use protos::peer::chaincode_message::Type;
use protos::peer::{ChaincodeMessage, SignedProposal};
use tonic::Code;

use crate::peer::{Peer, completed, message, ok, refused, serve};
use crate::proposals::{Proposed, somebody};
use crate::serving::{copy, play, proposed};

#[tokio::test]
async fn a_message_that_is_not_understood_ends_nothing_else() {
    let server = serve(Limits::default(), copy).await;
    let mut peer = Peer::registered(&server).await;
    let one = proposed(1, "a");
    peer.start(&one).await;
    peer.next().await;
    for unknown in [12, 99, Type::GetState.into(), Type::Register.into()] {
        let mut message = message(Type::Undefined, "beef", b"?");
        message.r#type = unknown;
        peer.send(message.clone()).await;
        let told = peer.next().await;
        assert_eq!(told.txid, "beef");
        refused(&told, "does not understand");
        message.txid.clear();
        peer.send(message).await;
    }
    peer.say(Type::Response, &one.tx_id, b"a").await;
    completed(&play(&mut peer, "a").await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_register_is_told_so() {
    let server = serve(Limits::default(), copy).await;
    let mut peer = Peer::connect(&server).await;
    peer.next().await;
    peer.start(&proposed(1, "a")).await;
    let ended = peer.end().await.unwrap_err();
    assert_eq!(ended.code(), Code::FailedPrecondition);
    assert!(ended.message().contains("TRANSACTION"), "{ended}");

    let mut peer = Peer::connect(&server).await;
    peer.next().await;
    peer.say(Type::Error, "", b"chaincode is registered already").await;
    let ended = peer.end().await.unwrap_err();
    assert!(ended.message().contains("registered already"), "{ended}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn names_of_no_sensible_length_end_the_stream() {
    let server = serve(Limits::default(), copy).await;
    for (tx_id, channel) in [("a".repeat(257), "air".to_owned()), ("a".to_owned(), "c".repeat(257))] {
        let peer = Peer::registered(&server).await;
        let mut named = message(Type::Response, &tx_id, b"");
        named.channel_id = channel;
        peer.send(named).await;
        let ended = peer.end().await.unwrap_err();
        assert_eq!(ended.code(), Code::InvalidArgument);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_is_silent_while_registering_is_given_up() {
    let limits = Limits {
        answer: std::time::Duration::from_millis(50),
        ..Limits::default()
    };
    let server = serve(limits, copy).await;
    let ended = Peer::connect(&server).await.end().await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    // The same bound holds for the answer to a call.
    let mut peer = Peer::registered(&server).await;
    peer.start(&proposed(1, "a")).await;
    peer.next().await;
    let end = completed(&peer.next().await);
    assert!(end.status == 500 && end.message.contains("has not answered GET_STATE"), "{end:?}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_above_the_limit_ends_that_stream_with_a_reason() {
    let limits = Limits {
        message_bytes: 64 * 1024,
        ..Limits::default()
    };
    let server = serve(limits, copy).await;
    let mut other = Peer::registered(&server).await;
    let peer = Peer::registered(&server).await;
    peer.start(&Proposed::new(1, &somebody(), &[vec![7; 100 * 1024]])).await;
    let ended = peer.end().await.unwrap_err();
    assert!(ended.message().contains("can't be taken"), "{ended}");
    other.start(&proposed(2, "a")).await;
    completed(&play(&mut other, "a").await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_to_be_sent_is_that_transactions_error() {
    let limits = Limits {
        message_bytes: 64 * 1024,
        ..Limits::default()
    };
    let server = serve(limits, |stub, invocation| match invocation.args[0].as_slice() {
        b"answer" => ok(&[7; 64 * 1024]),
        b"write" => {
            stub.put_state("a", vec![7; 64 * 1024]);
            ok(b"")
        }
        _ => ok(b"small"),
    })
    .await;
    let mut peer = Peer::registered(&server).await;
    for (number, (words, kind)) in [("answer", "COMPLETED"), ("write", "PUT_STATE")].into_iter().enumerate() {
        peer.start(&proposed(number as u64, words)).await;
        let told = peer.next().await;
        refused(&told, kind);
        refused(&told, "the limit is 65536");
    }
    peer.start(&proposed(9, "small")).await;
    assert_eq!(completed(&peer.next().await).payload, b"small");
    server.stop().await.unwrap();
}

/// Messages of every kind, of which hardly any makes sense.
fn nonsense() -> impl Strategy<Value = Vec<ChaincodeMessage>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    let kind = prop_oneof![9 => 0..30i32, 1 => any::<i32>()];
    let one = (kind, "[ab]{0,1}", bytes(), prop::option::of(bytes()), any::<bool>());
    let one = one.prop_map(|(kind, txid, payload, proposal, ours)| ChaincodeMessage {
        r#type: kind,
        txid,
        payload,
        channel_id: if ours { "air".into() } else { String::new() },
        proposal: proposal.map(|proposal_bytes| SignedProposal {
            proposal_bytes,
            signature: Vec::new(),
        }),
        ..ChaincodeMessage::default()
    });
    prop::collection::vec(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// No message ends more than the transaction that it names.
    #[test]
    fn no_nonsense_ends_a_stream(messages in nonsense()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = serve(Limits::default(), copy).await;
            let mut peer = Peer::registered(&server).await;
            let one = proposed(1, "key");
            peer.start(&one).await;
            for message in messages {
                peer.send(message).await;
            }
            let end = loop {
                let call = peer.next().await;
                match call.r#type() {
                    Type::GetState | Type::PutState | Type::DelState => peer.say(Type::Response, &call.txid, b"key").await,
                    _ if call.txid == one.tx_id => break call,
                    _ => prop_assert_eq!(call.r#type(), Type::Error),
                }
            };
            prop_assert_eq!(completed(&end).payload, b"key");
            server.stop().await.unwrap();
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_peer_that_goes_away_in_mid_transaction_takes_only_its_own_with_it() {
    let limits = Limits {
        transactions: 1,
        running: 1,
        streams: 2,
        ..Limits::default()
    };
    let server = serve(limits, copy).await;
    for _ in 0..3 {
        let mut peer = Peer::registered(&server).await;
        peer.start(&proposed(1, "a")).await;
        assert_eq!(peer.next().await.r#type(), Type::GetState);
        drop(peer);
        // The one place is free again as soon as the server has noticed.
        let mut next = Peer::registered(&server).await;
        let one = proposed(2, "b");
        loop {
            next.start(&one).await;
            let first = next.next().await;
            if first.r#type() == Type::GetState {
                next.say(Type::Response, &one.tx_id, b"b").await;
                break;
            }
            refused(&first, "1 transactions");
            tokio::task::yield_now().await;
        }
        completed(&play(&mut next, "b").await);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn streams_are_bounded() {
    let limits = Limits {
        streams: 1,
        ..Limits::default()
    };
    let server = serve(limits, copy).await;
    let mut first = Peer::registered(&server).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let second = protos::peer::chaincode_client::ChaincodeClient::new(channel)
        .connect(tokio_stream::empty())
        .await
        .unwrap_err();
    assert_eq!(second.code(), Code::ResourceExhausted);
    first.start(&proposed(1, "a")).await;
    let end = play(&mut first, "a").await;
    completed(&end);
    server.stop().await.unwrap();
}
