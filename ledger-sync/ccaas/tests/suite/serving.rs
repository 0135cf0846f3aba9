//! The server, from a peer's point of view.

use std::collections::BTreeMap;

use ccaas::Limits;
use chaincode::stub::{Invocation, Response, Stub};
use prost::Message;
use protos::peer::chaincode_message::Type;
use protos::peer::{ChaincodeMessage, DelState, GetState, GetStateByRange, PutState, QueryStateClose, QueryStateNext};

use crate::peer::{Peer, completed, message, ok, page, refused, serve, transaction};
use crate::proposals::{NOW, Proposed, args, somebody};

/// Reads the key that it is given, writes what it read under another one, and tells of it.
pub(crate) fn copy(stub: &mut dyn Stub, invocation: &Invocation<'_>) -> Response {
    let key = String::from_utf8(invocation.args[0].clone()).unwrap();
    match stub.get_state(&key) {
        Ok(value) => {
            let value = value.unwrap_or_else(|| b"nothing".to_vec());
            stub.put_state(&format!("{key}-copy"), value.clone());
            stub.del_state(&key);
            stub.set_event("copied", value.clone());
            ok(&value)
        }
        Err(error) => Response {
            status: 500,
            message: error.to_string(),
            payload: Vec::new(),
        },
    }
}

pub(crate) fn proposed(number: u64, key: &str) -> Proposed {
    Proposed::new(number, &somebody(), &args(&[key]))
}

/// Answers the calls of one transaction that runs [`copy`], the value being its key's, and gives its end.
pub(crate) async fn play(peer: &mut Peer, key: &str) -> ChaincodeMessage {
    loop {
        let call = peer.next().await;
        match call.r#type() {
            Type::GetState => {
                assert_eq!(GetState::decode(call.payload.as_slice()).unwrap().key, key);
                peer.say(Type::Response, &call.txid, key.as_bytes()).await;
            }
            Type::PutState | Type::DelState => peer.say(Type::Response, &call.txid, b"").await,
            _ => return call,
        }
    }
}

#[tokio::test]
async fn a_transaction_reads_writes_and_sets_its_event() {
    let server = serve(Limits::default(), copy).await;
    let mut peer = Peer::registered(&server).await;
    peer.say(Type::Keepalive, "", b"").await;
    let one = proposed(1, "a");
    peer.start(&one).await;
    let call = peer.next().await;
    assert_eq!(
        (call.r#type(), call.channel_id.as_str(), &call.txid),
        (Type::GetState, "air", &one.tx_id)
    );
    // A second answer, one that nobody waits for, and one for a transaction that isn't there change nothing.
    peer.say(Type::Response, &one.tx_id, b"value").await;
    peer.say(Type::Response, &one.tx_id, b"another").await;
    peer.say(Type::Response, "ff", b"another").await;
    peer.say(Type::Keepalive, "", b"").await;
    let call = peer.next().await;
    assert_eq!(call.r#type(), Type::PutState);
    let written = PutState::decode(call.payload.as_slice()).unwrap();
    assert_eq!(
        (written.key.as_str(), written.value.as_slice(), written.collection.as_str()),
        ("a-copy", &b"value"[..], "")
    );
    // It runs already: to run it twice would end the first one.
    peer.start(&one).await;
    peer.say(Type::Response, &one.tx_id, b"").await;
    let call = peer.next().await;
    assert_eq!(call.r#type(), Type::DelState);
    assert_eq!(DelState::decode(call.payload.as_slice()).unwrap().key, "a");
    peer.say(Type::Response, &one.tx_id, b"").await;
    let end = peer.next().await;
    assert_eq!(completed(&end).payload, b"value");
    let event = end.chaincode_event.unwrap();
    assert_eq!((event.event_name.as_str(), event.payload.as_slice()), ("copied", &b"value"[..]));

    // Done is done: the same transaction may be asked for again, as gateways do.
    peer.start(&one).await;
    assert_eq!(completed(&play(&mut peer, "a").await).payload, b"a");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn many_transactions_run_at_once_on_one_stream() {
    const MANY: u64 = 48;
    let server = serve(Limits::default(), copy).await;
    let mut peer = Peer::registered(&server).await;
    let mut keys = BTreeMap::new();
    for number in 0..MANY {
        let key = format!("key-{number}");
        let one = proposed(number, &key);
        peer.start(&one).await;
        keys.insert(one.tx_id, key);
    }
    // All of them are running when the first is answered.
    let mut asked = Vec::new();
    while asked.len() < keys.len() {
        let call = peer.next().await;
        assert_eq!(call.r#type(), Type::GetState);
        assert_eq!(GetState::decode(call.payload.as_slice()).unwrap().key, keys[&call.txid]);
        asked.push(call.txid);
    }
    for tx_id in asked.iter().rev() {
        peer.say(Type::Response, tx_id, keys[tx_id].as_bytes()).await;
    }
    let mut done = 0;
    while done < keys.len() {
        let call = peer.next().await;
        let key = &keys[&call.txid];
        match call.r#type() {
            Type::PutState => {
                let written = PutState::decode(call.payload.as_slice()).unwrap();
                assert_eq!((written.key, written.value), (format!("{key}-copy"), key.as_bytes().to_vec()));
                peer.say(Type::Response, &call.txid, b"").await;
            }
            Type::DelState => peer.say(Type::Response, &call.txid, b"").await,
            _ => {
                assert_eq!(completed(&call).payload, key.as_bytes());
                assert_eq!(call.chaincode_event.unwrap().payload, key.as_bytes());
                done += 1;
            }
        }
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn more_than_may_run_wait_and_more_than_may_wait_are_refused() {
    let limits = Limits {
        running: 1,
        transactions: 2,
        ..Limits::default()
    };
    let server = serve(limits, copy).await;
    let mut peer = Peer::registered(&server).await;
    let all: Vec<Proposed> = (0..3).map(|number| proposed(number, "a")).collect();
    peer.start(&all[0]).await;
    let call = peer.next().await;
    assert_eq!((call.r#type(), &call.txid), (Type::GetState, &all[0].tx_id));
    peer.start(&all[1]).await;
    peer.start(&all[2]).await;
    let told = peer.next().await;
    assert_eq!(told.txid, all[2].tx_id);
    refused(&told, "2 transactions");
    peer.say(Type::Response, &all[0].tx_id, b"a").await;
    for one in &all[..2] {
        let end = play(&mut peer, "a").await;
        assert_eq!(end.txid, one.tx_id);
        completed(&end);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_bytes_of_transactions_are_bounded_together() {
    let limits = Limits {
        transaction_bytes: 64 * 1024,
        ..Limits::default()
    };
    let server = serve(limits, |_, _| ok(b"")).await;
    let mut peer = Peer::registered(&server).await;
    // The arguments travel twice: in the input, and in the proposal.
    let large = Proposed::new(1, &somebody(), &[vec![7; 40 * 1024]]);
    peer.start(&large).await;
    refused(&peer.next().await, "65536 bytes together");
    let small = Proposed::new(2, &somebody(), &[vec![7; 20 * 1024]]);
    for _ in 0..10 {
        peer.start(&small).await;
        completed(&peer.next().await);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_range_is_read_page_by_page() {
    let server = serve(Limits::default(), |stub, invocation| {
        let limit: usize = std::str::from_utf8(&invocation.args[0]).unwrap().parse().unwrap();
        let found = match limit {
            0 => stub.get_state_by_range("k", "l"),
            limit => stub.get_state_page("k", "l", limit),
        };
        match found {
            Ok(found) => {
                let keys: Vec<String> = found.iter().map(|(key, _)| key.clone()).collect();
                assert!(found.iter().all(|(key, value)| key.as_bytes() == value));
                ok(keys.concat().as_bytes())
            }
            Err(error) => Response {
                status: 500,
                message: error.to_string(),
                payload: Vec::new(),
            },
        }
    })
    .await;
    let mut peer = Peer::registered(&server).await;
    let keys: Vec<String> = (0..250).map(|number| format!("k{number:03}")).collect();
    for (number, limit) in [0, 120, 100, 250, 7].into_iter().enumerate() {
        let one = proposed(number as u64, &limit.to_string());
        peer.start(&one).await;
        let call = peer.next().await;
        assert_eq!(call.r#type(), Type::GetStateByRange);
        let asked = GetStateByRange::decode(call.payload.as_slice()).unwrap();
        assert_eq!((asked.start_key.as_str(), asked.end_key.as_str()), ("k", "l"));
        assert!(asked.metadata.is_empty() && asked.collection.is_empty());
        peer.say(Type::Response, &one.tx_id, &page(&keys[..100], "it", true)).await;
        let mut sent = 100;
        let mut closed = false;
        let end = loop {
            let call = peer.next().await;
            match call.r#type() {
                Type::QueryStateNext => {
                    assert_eq!(QueryStateNext::decode(call.payload.as_slice()).unwrap().id, "it");
                    let next = (sent + 100).min(keys.len());
                    let answer = page(&keys[sent..next], "it", next < keys.len());
                    sent = next;
                    peer.say(Type::Response, &one.tx_id, &answer).await;
                }
                Type::QueryStateClose => {
                    assert_eq!(QueryStateClose::decode(call.payload.as_slice()).unwrap().id, "it");
                    closed = true;
                    peer.say(Type::Response, &one.tx_id, &page(&[], "it", false)).await;
                }
                _ => break call,
            }
        };
        let wanted = if limit == 0 { 250 } else { limit };
        assert_eq!(completed(&end).payload, keys[..wanted].concat().as_bytes(), "limit {limit}");
        assert_eq!(
            closed,
            wanted < 250 && sent < 250,
            "a range that isn't read to its end is closed: {limit}"
        );
    }

    // A peer that never comes to an end is not followed for ever.
    let one = proposed(9, "0");
    peer.start(&one).await;
    peer.next().await;
    peer.say(Type::Response, &one.tx_id, &page(&[], "it", true)).await;
    let end = completed(&peer.next().await);
    assert!(end.status == 500 && end.message.contains("without results"), "{end:?}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_range_has_bounds() {
    let limits = Limits {
        range_results: 3,
        range_bytes: 100,
        ..Limits::default()
    };
    let server = serve(limits, |stub, _| match stub.get_state_by_range("", "") {
        Ok(_) => ok(b""),
        Err(error) => Response {
            status: 500,
            message: error.to_string(),
            payload: Vec::new(),
        },
    })
    .await;
    let mut peer = Peer::registered(&server).await;
    let keys = |count: usize, length: usize| -> Vec<String> { (0..count).map(|_| "k".repeat(length)).collect() };
    for (number, (keys, words)) in [
        (keys(3, 2), ""),
        (keys(4, 2), "more than 3 results"),
        (keys(2, 60), "more than 100 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        peer.start(&proposed(number as u64, "x")).await;
        let call = peer.next().await;
        peer.say(Type::Response, &call.txid, &page(&keys, "it", false)).await;
        let end = completed(&peer.next().await);
        assert!(end.message.contains(words) && (end.status == 200) == words.is_empty(), "{end:?}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_error_of_the_peer_is_told_and_ends_that_transaction_only() {
    let server = serve(Limits::default(), copy).await;
    let mut peer = Peer::registered(&server).await;
    // While reading: the program decides what to answer.
    let one = proposed(1, "a");
    peer.start(&one).await;
    peer.next().await;
    peer.say(Type::Error, &one.tx_id, b"GET_STATE failed: the disk is full").await;
    // The program of this test goes on writing, as none should: what follows is answered as before.
    let end = completed(&peer.next().await);
    assert!(end.status == 500 && end.message.contains("the disk is full"), "{end:?}");
    // While writing: the peer doesn't have what was written, so the transaction has no result.
    let two = proposed(2, "a");
    peer.start(&two).await;
    peer.next().await;
    peer.say(Type::Response, &two.tx_id, b"value").await;
    peer.next().await;
    peer.say(Type::Error, &two.tx_id, b"PUT_STATE failed: no ledger context").await;
    let end = peer.next().await;
    refused(&end, "no ledger context");
    assert!(end.chaincode_event.is_none());
    let three = proposed(3, "a");
    peer.start(&three).await;
    completed(&play(&mut peer, "a").await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_transaction_of_this_chaincode_is_refused() {
    let server = serve(Limits::default(), |_, _| ok(b"")).await;
    let mut peer = Peer::registered(&server).await;
    let good = proposed(1, "a");
    let foreign = Proposed::of_chaincode("other", 2, NOW, &somebody(), &args(&["a"]));
    let tampered = |change: &dyn Fn(&mut ChaincodeMessage)| {
        let mut message = transaction(&good);
        change(&mut message);
        message
    };
    let cases = [
        (transaction(&foreign), "which called this one"),
        (
            tampered(&|message| message.payload = transaction(&proposed(1, "b")).payload),
            "which called this one",
        ),
        (tampered(&|message| message.proposal = None), "no signed proposal"),
        (tampered(&|message| message.payload = b"\xff".to_vec()), "input cannot be decoded"),
        (
            tampered(&|message| message.proposal.as_mut().unwrap().proposal_bytes = b"\xff".to_vec()),
            "proposal cannot be read",
        ),
        (tampered(&|message| message.channel_id = "water".into()), "not for this one"),
        (tampered(&|message| message.txid = "aa".into()), "not for this one"),
    ];
    for (message, words) in cases {
        let tx_id = message.txid.clone();
        peer.send(message).await;
        let told = peer.next().await;
        assert_eq!(told.txid, tx_id);
        refused(&told, words);
    }
    peer.send(message(Type::Init, &good.tx_id, b"")).await;
    refused(&peer.next().await, "--init-required");
    peer.start(&good).await;
    completed(&peer.next().await);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_panic_is_one_transactions_error() {
    let server = serve(Limits::default(), |_, invocation| {
        assert_ne!(invocation.args[0], b"panic", "the test asks for it");
        ok(b"")
    })
    .await;
    let mut peer = Peer::registered(&server).await;
    peer.start(&proposed(1, "panic")).await;
    refused(&peer.next().await, "panicked");
    peer.start(&proposed(2, "calm")).await;
    completed(&peer.next().await);
    server.stop().await.unwrap();
}
