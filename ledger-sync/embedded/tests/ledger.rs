//! The embedded ledger as a client meets it: over gRPC with TLS.
#![allow(clippy::unwrap_used)]

mod client;
mod external;

use std::time::Duration;

use client::{CHAINCODE, Client, from_oldest_to, ledger, now, serve, specified};
use embedded::{Ledger, LedgerError, MemberSpec, Options};
use msp::Signer;
use msp::channel::Membership;
use prost::Message;
use protos::common::{Block, BlockchainInfo, Status as BlockStatus};
use protos::gateway::{ChaincodeEventsRequest, ErrorDetail, SignedChaincodeEventsRequest};
use protos::peer::deliver_response::Type;
use protos::peer::{ProcessedTransaction, TxValidationCode as Tx, filtered_transaction};
use protos::{block, envelope, google, metadata};
use tonic::{Code, Status};

fn detail(status: &Status) -> ErrorDetail {
    let decoded = google::rpc::Status::decode(status.details()).unwrap();
    assert_eq!((decoded.code, decoded.message.as_str()), (status.code() as i32, status.message()));
    assert_eq!(decoded.details[0].type_url, "type.googleapis.com/gateway.ErrorDetail");
    ErrorDetail::decode(decoded.details[0].value.as_slice()).unwrap()
}

async fn next(stream: &mut tonic::Streaming<protos::peer::DeliverResponse>) -> Type {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message())
        .await
        .expect("an answer in time");
    message.unwrap().expect("the stream goes on").r#type.unwrap()
}

async fn next_block(stream: &mut tonic::Streaming<protos::peer::DeliverResponse>) -> Block {
    match next(stream).await {
        Type::Block(block) => block,
        other => panic!("a block was expected, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_goes_all_the_way() {
    let place = tempfile::tempdir().unwrap();
    let ledger = ledger(place.path());
    let server = serve(&ledger).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let mut vsp = Client::connect(place.path(), "vsp1", "Vsp1MSP", &server).await;

    let committed = dsp.transact("ch-1", &["put", "a", "1"]).await;
    assert_eq!((committed.result(), committed.block_number), (Tx::Valid, 1));
    assert_eq!(vsp.evaluate("ch-1", CHAINCODE, &["get", "a"]).await.unwrap(), b"1");
    assert_eq!(vsp.transact("ch-1", &["incr", "a"]).await.result(), Tx::Valid);
    assert_eq!(dsp.evaluate("ch-1", CHAINCODE, &["get", "a"]).await.unwrap(), b"2");
    assert_eq!(vsp.transact("ch-1", &["del", "a"]).await.result(), Tx::Valid);

    let info = dsp.evaluate("ch-1", "qscc", &["GetChainInfo", "ch-1"]).await.unwrap();
    let info = BlockchainInfo::decode(info.as_slice()).unwrap();
    assert_eq!(info.height, 4);

    // Every block follows the one before, is signed by the orderer, and tells what was done.
    let mut stream = dsp.blocks(dsp.seek("ch-1", &from_oldest_to(3), now())).await;
    let genesis = next_block(&mut stream).await;
    let opened = envelope::open(&envelope::decode_envelope(&genesis.data.as_ref().unwrap().data[0]).unwrap()).unwrap();
    let membership = Membership::from_config(envelope::config(&opened).unwrap()).unwrap();
    assert_eq!(membership.members().iter().collect::<Vec<_>>(), ["DspMSP", "Vsp1MSP"]);
    let mut previous = block::check_link(&genesis, 0, None).unwrap();
    let mut hashes = Vec::new();
    for number in 1..=3 {
        let found = next_block(&mut stream).await;
        previous = block::check_link(&found, number, Some(&previous)).unwrap();
        membership.verify_block(&found).unwrap();
        assert_eq!(metadata::validation_flags(&found).unwrap(), [0]);
        assert_eq!(metadata::last_config(&found).unwrap(), Some(0));
        hashes.push(metadata::commit_hash(&found).unwrap().unwrap());
        let mut forged = found.clone();
        forged.header.as_mut().unwrap().number += 1;
        assert!(membership.verify_block(&forged).is_err());
        if number == 1 {
            let opened = envelope::open(&envelope::decode_envelope(&found.data.as_ref().unwrap().data[0]).unwrap()).unwrap();
            let transaction = envelope::endorsed(&opened).unwrap();
            assert_eq!(transaction.invocation.args, [b"put".to_vec(), b"a".to_vec(), b"1".to_vec()]);
            let event = transaction.event.unwrap();
            assert_eq!(
                (event.event_name.as_str(), event.payload.as_slice()),
                ("put", &b"a=1 by DspMSP"[..])
            );
            assert!(
                !found.encode_to_vec().windows(6).any(|window| window == b"hidden"),
                "transient data never enters"
            );
        }
    }
    assert_eq!(hashes.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(info.current_block_hash, previous);
    assert_eq!(next(&mut stream).await, Type::Status(BlockStatus::Success as i32));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chaincodes_own_words_reach_the_client() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let evaluated = dsp.evaluate("ch-1", CHAINCODE, &["get", "nothing"]).await.unwrap_err();
    assert_eq!(evaluated.code(), Code::Unknown);
    assert!(evaluated.message().contains("chaincode response 404, there is no key nothing"));
    assert_eq!(detail(&evaluated).message, "chaincode response 404, there is no key nothing");
    let endorsed = dsp.prepare("ch-1", &["get", "nothing"]).await.map(|_| ()).unwrap_err();
    assert_eq!(endorsed.code(), Code::Aborted);
    assert_eq!(detail(&endorsed).message, "chaincode response 404, there is no key nothing");
    let panicked = dsp.evaluate("ch-1", CHAINCODE, &["panic"]).await.unwrap_err();
    assert!(panicked.message().contains("500, the chaincode panicked"), "{panicked}");
    let large = "x".repeat(10 * 1024 * 1024);
    let refused = dsp.prepare("ch-1", &["put", "k", &large]).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("at most"), "{refused}");
    assert_eq!(
        dsp.evaluate("ch-1", "other", &["get", "a"]).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    assert_eq!(
        dsp.evaluate("ch-9", CHAINCODE, &["get", "a"]).await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_its_members_alone() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let mut stranger = Client::connect(place.path(), "vsp2", "Vsp2MSP", &server).await;
    let prepared = dsp.prepare("ch-1", &["put", "a", "1"]).await.unwrap();

    let evaluated = stranger.evaluate("ch-1", CHAINCODE, &["get", "a"]).await.unwrap_err();
    assert_eq!(evaluated.code(), Code::FailedPrecondition);
    assert!(
        evaluated.message().contains("creator org unknown, creator is malformed"),
        "{evaluated}"
    );
    let endorsed = stranger.prepare("ch-1", &["put", "a", "2"]).await.map(|_| ()).unwrap_err();
    assert_eq!(endorsed.code(), Code::Aborted);
    assert!(detail(&endorsed).message.contains("creator org unknown, creator is malformed"));
    assert_eq!(
        stranger.status("ch-1", &prepared.tx_id).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let heights = stranger.evaluate("ch-1", "qscc", &["GetChainInfo", "ch-1"]).await.unwrap_err();
    assert_eq!(heights.code(), Code::FailedPrecondition);
    let events = ChaincodeEventsRequest {
        channel_id: "ch-1".into(),
        chaincode_id: CHAINCODE.into(),
        identity: stranger.signer.identity(),
        ..ChaincodeEventsRequest::default()
    }
    .encode_to_vec();
    let signature = stranger.signer.sign(&events).unwrap();
    let refused = stranger
        .gateway
        .chaincode_events(SignedChaincodeEventsRequest {
            request: events,
            signature,
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    for (channel, expected) in [("ch-1", BlockStatus::Forbidden), ("ch-9", BlockStatus::NotFound)] {
        let mut stream = stranger.blocks(stranger.seek(channel, &from_oldest_to(0), now())).await;
        assert_eq!(next(&mut stream).await, Type::Status(expected as i32));
    }
    // In the channel that it belongs to it may.
    assert_eq!(stranger.transact("ch-2", &["put", "b", "1"]).await.result(), Tx::Valid);
    let mut stream = stranger.blocks(stranger.seek("ch-2", &from_oldest_to(0), now())).await;
    assert!(matches!(next(&mut stream).await, Type::Block(_)));
}

/// The other signature that fits: with the order of P-256's group minus `s`.
fn with_high_s(der: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
        0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let r_length = der[3] as usize;
    let s = &der[4 + r_length + 2..];
    let mut low = [0; 32];
    low[32 - s.len().min(32)..].copy_from_slice(&s[s.len().saturating_sub(32)..]);
    let mut high = [0; 32];
    let mut borrow = 0;
    for index in (0..32).rev() {
        let difference = i16::from(ORDER[index]) - i16::from(low[index]) - borrow;
        borrow = i16::from(difference < 0);
        high[index] = difference.rem_euclid(256) as u8;
    }
    // The top bit of a high S is always set, so it needs a zero byte before it.
    let mut body = der[2..4 + r_length].to_vec();
    body.extend([0x02, 33, 0]);
    body.extend(high);
    [vec![0x30, body.len() as u8], body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_bent_signatures_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let vsp = Client::connect(place.path(), "vsp1", "Vsp1MSP", &server).await;

    let (proposal, _) = dsp.propose("ch-1", CHAINCODE, &["put", "a", "1"]);
    let mut forged = proposal.clone();
    forged.signature = vsp.signer.sign(&proposal.proposal_bytes).unwrap();
    let mut high = proposal.clone();
    high.signature = with_high_s(&proposal.signature);
    for bent in [forged, high] {
        let refused = dsp.endorse_proposal("ch-1", bent).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted);
        assert!(
            detail(&refused)
                .message
                .contains("access denied: channel [ch-1] creator org [DspMSP]")
        );
    }
    dsp.endorse_proposal("ch-1", proposal).await.unwrap();

    let mut prepared = dsp.prepare("ch-1", &["put", "a", "1"]).await.unwrap();
    let good = prepared.envelope.signature.clone();
    for bad in [vsp.signer.sign(&prepared.envelope.payload).unwrap(), with_high_s(&good)] {
        prepared.envelope.signature = bad;
        let refused = dsp.submit("ch-1", &prepared).await.unwrap_err();
        assert_eq!(refused.code(), Code::Aborted);
        assert!(refused.message().contains("FORBIDDEN"), "{refused}");
    }
    prepared.envelope.signature = good;
    dsp.submit("ch-1", &prepared).await.unwrap();
    assert_eq!(dsp.status("ch-1", &prepared.tx_id).await.unwrap().result(), Tx::Valid);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_endorsers_did_not_sign_is_invalid() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    // Two of three must endorse in ch-2; the client takes one away and signs again.
    let mut prepared = dsp.prepare("ch-2", &["put", "a", "1"]).await.unwrap();
    edit(&dsp, &mut prepared, |action| {
        assert_eq!(action.endorsements.len(), 2);
        action.endorsements.pop();
    });
    dsp.submit("ch-2", &prepared).await.unwrap();
    let status = dsp.status("ch-2", &prepared.tx_id).await.unwrap();
    assert_eq!(status.result(), Tx::EndorsementPolicyFailure);
    // The client changes what was written.
    let mut prepared = dsp.prepare("ch-2", &["put", "a", "1"]).await.unwrap();
    edit(&dsp, &mut prepared, |action| {
        let bytes = &mut action.proposal_response_payload;
        let at = bytes.windows(5).position(|window| window == b"a=1 b").unwrap();
        bytes[at + 2] = b'9';
    });
    dsp.submit("ch-2", &prepared).await.unwrap();
    let status = dsp.status("ch-2", &prepared.tx_id).await.unwrap();
    assert_eq!(status.result(), Tx::EndorsementPolicyFailure);
    assert_eq!(
        dsp.evaluate("ch-2", CHAINCODE, &["get", "a"]).await.unwrap_err().code(),
        Code::Unknown
    );
}

fn edit(client: &Client, prepared: &mut client::Prepared, change: impl FnOnce(&mut protos::peer::ChaincodeEndorsedAction)) {
    use protos::common::Payload;
    use protos::peer::{ChaincodeActionPayload, Transaction};
    let mut payload = Payload::decode(prepared.envelope.payload.as_slice()).unwrap();
    let mut transaction = Transaction::decode(payload.data.as_slice()).unwrap();
    let mut action = ChaincodeActionPayload::decode(transaction.actions[0].payload.as_slice()).unwrap();
    change(action.action.as_mut().unwrap());
    transaction.actions[0].payload = action.encode_to_vec();
    payload.data = transaction.encode_to_vec();
    prepared.envelope.payload = payload.encode_to_vec();
    prepared.envelope.signature = client.signer.sign(&prepared.envelope.payload).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_envelope_counts_once() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let prepared = dsp.prepare("ch-1", &["put", "a", "1"]).await.unwrap();
    for _ in 0..2 {
        dsp.submit("ch-1", &prepared).await.unwrap();
        let status = dsp.status("ch-1", &prepared.tx_id).await.unwrap();
        assert_eq!((status.result(), status.block_number), (Tx::Valid, 1));
    }
    // Whether in one block or in two, the second is marked a duplicate.
    let mut stream = dsp.blocks(dsp.seek("ch-1", &from_oldest_to(u64::MAX), now())).await;
    next_block(&mut stream).await;
    let mut flags = Vec::new();
    while flags.len() < 2 {
        flags.extend_from_slice(metadata::validation_flags(&next_block(&mut stream).await).unwrap());
    }
    assert_eq!(flags, [Tx::Valid as u8, Tx::DuplicateTxid as u8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_in_flight_conflict() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    assert_eq!(dsp.transact("ch-1", &["incr", "n"]).await.result(), Tx::Valid);
    // Both read the same version of n.
    let first = dsp.prepare("ch-1", &["incr", "n"]).await.unwrap();
    let second = dsp.prepare("ch-1", &["incr", "n"]).await.unwrap();
    dsp.submit("ch-1", &first).await.unwrap();
    dsp.submit("ch-1", &second).await.unwrap();
    assert_eq!(dsp.status("ch-1", &first.tx_id).await.unwrap().result(), Tx::Valid);
    assert_eq!(dsp.status("ch-1", &second.tx_id).await.unwrap().result(), Tx::MvccReadConflict);
    assert_eq!(dsp.evaluate("ch-1", CHAINCODE, &["get", "n"]).await.unwrap(), b"2");

    // A key that appears in, vanishes from, or changes in a range that was read.
    for change in [["put", "r5", "x"], ["put", "r5", "y"], ["del", "r5", ""]] {
        let counted = dsp.prepare("ch-1", &["count", "r", "s", "total"]).await.unwrap();
        let change: Vec<&str> = change.into_iter().filter(|word| !word.is_empty()).collect();
        assert_eq!(dsp.transact("ch-1", &change).await.result(), Tx::Valid);
        dsp.submit("ch-1", &counted).await.unwrap();
        let status = dsp.status("ch-1", &counted.tx_id).await.unwrap();
        assert_eq!(status.result(), Tx::PhantomReadConflict, "{change:?}");
    }
    // A page vouches for what it read: a key behind it changes nothing, one before it does.
    assert_eq!(dsp.transact("ch-1", &["put", "p2", "x"]).await.result(), Tx::Valid);
    for (key, expected) in [("p3", Tx::Valid), ("p1", Tx::PhantomReadConflict)] {
        let paged = dsp.prepare("ch-1", &["first", "p", "first"]).await.unwrap();
        assert_eq!(dsp.transact("ch-1", &["put", key, "x"]).await.result(), Tx::Valid);
        dsp.submit("ch-1", &paged).await.unwrap();
        assert_eq!(dsp.status("ch-1", &paged.tx_id).await.unwrap().result(), expected, "{key}");
    }
    let counted = dsp.prepare("ch-1", &["count", "r", "s", "total"]).await.unwrap();
    assert_eq!(dsp.transact("ch-1", &["put", "s", "outside"]).await.result(), Tx::Valid);
    dsp.submit("ch-1", &counted).await.unwrap();
    assert_eq!(dsp.status("ch-1", &counted.tx_id).await.unwrap().result(), Tx::Valid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_waits_for_its_commit() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let mut other = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let prepared = dsp.prepare("ch-1", &["put", "a", "1"]).await.unwrap();
    let tx_id = prepared.tx_id.clone();
    let waiting = tokio::spawn(async move { other.status("ch-1", &tx_id).await.unwrap() });
    // Another transaction's commit must not answer it.
    assert_eq!(dsp.transact("ch-1", &["put", "b", "1"]).await.result(), Tx::Valid);
    assert!(!waiting.is_finished());
    dsp.submit("ch-1", &prepared).await.unwrap();
    let status = waiting.await.unwrap();
    assert_eq!((status.result(), status.block_number), (Tx::Valid, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_events_are_followed() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let info = protos::orderer::SeekInfo {
        start: Some(specified(1)),
        stop: Some(specified(u64::MAX)),
        ..Default::default()
    };
    let mut stream = dsp.blocks(dsp.seek("ch-1", &info, now())).await;
    let request = ChaincodeEventsRequest {
        channel_id: "ch-1".into(),
        chaincode_id: CHAINCODE.into(),
        identity: dsp.signer.identity(),
        start_position: Some(specified(0)),
        ..ChaincodeEventsRequest::default()
    }
    .encode_to_vec();
    let signature = dsp.signer.sign(&request).unwrap();
    let signed = SignedChaincodeEventsRequest { request, signature };
    let mut events = dsp.gateway.chaincode_events(signed).await.unwrap().into_inner();
    for number in 1..=3 {
        let value = number.to_string();
        assert_eq!(dsp.transact("ch-1", &["put", "k", &value]).await.block_number, number);
        assert_eq!(next_block(&mut stream).await.header.unwrap().number, number);
        let response = events.message().await.unwrap().unwrap();
        assert_eq!(response.block_number, number);
        assert_eq!(response.events[0].payload, format!("k={number} by DspMSP").into_bytes());
    }
    // A request with a stale timestamp, a start beyond the end, or a stop before the start.
    let backwards = protos::orderer::SeekInfo {
        start: Some(specified(2)),
        stop: Some(specified(1)),
        ..Default::default()
    };
    let beyond = protos::orderer::SeekInfo {
        start: Some(specified(9)),
        stop: Some(specified(9)),
        ..Default::default()
    };
    for (info, seconds, expected) in [
        (&info, now() - 16 * 60, BlockStatus::BadRequest),
        (&backwards, now(), BlockStatus::BadRequest),
        (&beyond, now(), BlockStatus::NotFound),
    ] {
        let mut refused = dsp.blocks(dsp.seek("ch-1", info, seconds)).await;
        assert_eq!(next(&mut refused).await, Type::Status(expected as i32));
    }
    // Stopping ends the streams that follow.
    server.stop().await.unwrap();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
}

fn reopen(place: &std::path::Path) -> Result<Ledger, LedgerError> {
    Ledger::open_with(
        &place.join("ledger"),
        Options {
            program: client::program(),
            ..Options::default()
        },
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_block_is_forgotten_and_the_rest_is_there() {
    let place = tempfile::tempdir().unwrap();
    let blocks = place.path().join("ledger/channels/ch-1/blocks");
    let opened = ledger(place.path());
    let server = serve(&opened).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    assert_eq!(dsp.transact("ch-1", &["put", "a", "1"]).await.result(), Tx::Valid);
    let first = dsp.prepare("ch-1", &["put", "a", "2"]).await.unwrap();
    let confirmed = std::fs::metadata(&blocks).unwrap().len();
    dsp.submit("ch-1", &first).await.unwrap();
    dsp.status("ch-1", &first.tx_id).await.unwrap();
    assert!(matches!(reopen(place.path()), Err(LedgerError::Locked(_))));
    drop(dsp);
    server.stop().await.unwrap();
    drop(opened);

    // As if killed in the middle of writing block 2.
    let whole = std::fs::metadata(&blocks).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&blocks).unwrap();
    file.set_len((confirmed + whole) / 2).unwrap();
    let reopened = released(place.path()).await;
    assert_eq!(reopened.channels()[0].height, 2);
    let server = serve(&reopened).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    assert_eq!(dsp.evaluate("ch-1", CHAINCODE, &["get", "a"]).await.unwrap(), b"1");
    // The same envelope commits now, and only now.
    dsp.submit("ch-1", &first).await.unwrap();
    let status = dsp.status("ch-1", &first.tx_id).await.unwrap();
    assert_eq!((status.result(), status.block_number), (Tx::Valid, 2));
    assert_eq!(dsp.evaluate("ch-1", CHAINCODE, &["get", "a"]).await.unwrap(), b"2");
    drop(dsp);
    server.stop().await.unwrap();
    drop(reopened);

    let mut damaged = std::fs::read(&blocks).unwrap();
    damaged[confirmed as usize / 2] ^= 1;
    let opened = released(place.path()).await;
    drop(opened);
    std::fs::write(&blocks, &damaged).unwrap();
    let error = reopen(place.path()).unwrap_err();
    assert!(matches!(error, LedgerError::Corrupt { .. }), "{error}");
}

/// Opens the ledger again once the connections of the stopped server have let go of it.
async fn released(place: &std::path::Path) -> Ledger {
    for _ in 0..200 {
        match reopen(place) {
            Err(LedgerError::Locked(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            other => return other.unwrap(),
        }
    }
    panic!("the ledger stayed locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_commit_in_few_blocks() {
    let place = tempfile::tempdir().unwrap();
    let opened = ledger(place.path());
    let server = serve(&opened).await;
    let client = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    drop(client);
    let mut running = tokio::task::JoinSet::new();
    for worker in 0..16 {
        let mut client = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
        running.spawn(async move {
            for round in 0..4 {
                let key = format!("w{worker}-{round}");
                assert_eq!(client.transact("ch-1", &["put", &key, "v"]).await.result(), Tx::Valid);
            }
        });
    }
    running.join_all().await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    assert_eq!(dsp.transact("ch-1", &["count", "w", "x", "total"]).await.result(), Tx::Valid);
    assert_eq!(dsp.evaluate("ch-1", CHAINCODE, &["get", "total"]).await.unwrap(), b"64");
    drop(dsp);
    server.stop().await.unwrap();
    let height = opened.channels()[0].height;
    drop(opened);
    assert_eq!(released(place.path()).await.channels()[0].height, height);
}

#[test]
fn networks_and_channels_grow_but_never_change() {
    let place = tempfile::tempdir().unwrap();
    let opened = ledger(place.path());
    let identity = std::fs::read(place.path().join("dsp/msp/signcerts/cert.pem")).unwrap();
    opened.export_identity("dsp", &place.path().join("dsp")).unwrap();
    assert_eq!(std::fs::read(place.path().join("dsp/msp/signcerts/cert.pem")).unwrap(), identity);
    drop(opened);

    let again = ledger(place.path());
    assert!(matches!(again.create_channel("ch-1", &["dsp"]), Err(LedgerError::Differs { .. })));
    assert!(matches!(
        again.create_channel("ch-3", &["nobody"]),
        Err(LedgerError::UnknownMember(_))
    ));
    assert!(matches!(again.create_channel("../up", &["dsp"]), Err(LedgerError::Name { .. })));
    assert!(matches!(again.create_channel("ch-3", &[]), Err(LedgerError::Name { .. })));
    let late = MemberSpec {
        name: "vsp3".into(),
        msp_id: "Vsp3MSP".into(),
    };
    again.add_member(&late).unwrap();
    let other = MemberSpec {
        name: "vsp3".into(),
        msp_id: "OtherMSP".into(),
    };
    assert!(matches!(again.add_member(&other), Err(LedgerError::Differs { .. })));
    again.create_channel("ch-3", &["dsp", "vsp3"]).unwrap();
    drop(again);

    let reopened = reopen(place.path()).unwrap();
    let channels: Vec<_> = reopened
        .channels()
        .into_iter()
        .map(|channel| (channel.name, channel.members))
        .collect();
    assert_eq!(channels[2], ("ch-3".into(), vec!["DspMSP".into(), "Vsp3MSP".into()]));
    assert!(matches!(Ledger::open(&place.path().join("elsewhere")), Err(LedgerError::Absent(_))));
}

/// Changes a transaction's headers and its one action, and signs it again.
fn rewrite(
    client: &Client,
    prepared: &mut client::Prepared,
    change: impl FnOnce(&mut protos::common::ChannelHeader, &mut protos::peer::ChaincodeActionPayload),
) {
    use protos::common::{ChannelHeader, Payload};
    use protos::peer::{ChaincodeActionPayload, Transaction};
    let mut payload = Payload::decode(prepared.envelope.payload.as_slice()).unwrap();
    let header = payload.header.as_mut().unwrap();
    let mut channel = ChannelHeader::decode(header.channel_header.as_slice()).unwrap();
    let mut transaction = Transaction::decode(payload.data.as_slice()).unwrap();
    let mut action = ChaincodeActionPayload::decode(transaction.actions[0].payload.as_slice()).unwrap();
    change(&mut channel, &mut action);
    header.channel_header = channel.encode_to_vec();
    transaction.actions[0].payload = action.encode_to_vec();
    payload.data = transaction.encode_to_vec();
    prepared.envelope.payload = payload.encode_to_vec();
    prepared.envelope.signature = client.signer.sign(&prepared.envelope.payload).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn faulty_transactions_get_a_peers_codes() {
    let place = tempfile::tempdir().unwrap();
    let server = serve(&ledger(place.path())).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let mut faulty = Vec::new();
    for _ in 0..4 {
        faulty.push(dsp.prepare("ch-1", &["put", "a", "1"]).await.unwrap());
    }
    let other = dsp.prepare("ch-1", &["put", "a", "9"]).await.unwrap();
    rewrite(&dsp, &mut faulty[0], |channel, _| channel.tx_id = other.tx_id.clone());
    rewrite(&dsp, &mut faulty[1], |_, action| {
        action.chaincode_proposal_payload.extend_from_slice(b"\x12\x03\x0a\x01k");
    });
    rewrite(&dsp, &mut faulty[2], |channel, _| channel.epoch = 7);
    rewrite(&dsp, &mut faulty[3], |_, action| action.action = None);
    for transaction in faulty.iter().chain([&other]) {
        dsp.submit("ch-1", transaction).await.unwrap();
    }
    // An id that somebody else wrote into a header doesn't take the id from its owner.
    assert_eq!(dsp.status("ch-1", &other.tx_id).await.unwrap().result(), Tx::Valid);
    let status = dsp.status("ch-1", &faulty[1].tx_id).await.unwrap();
    assert_eq!(status.result(), Tx::InvalidEndorserTransaction);
    let mut stream = dsp.blocks(dsp.seek("ch-1", &from_oldest_to(u64::MAX), now())).await;
    next_block(&mut stream).await;
    let mut flags = Vec::new();
    while flags.len() < 5 {
        let found = next_block(&mut stream).await;
        flags.extend(
            metadata::validation_flags(&found)
                .unwrap()
                .iter()
                .map(|flag| metadata::validation_code(*flag)),
        );
    }
    let expected = [
        Tx::BadProposalTxid,
        Tx::InvalidEndorserTransaction,
        Tx::BadCommonHeader,
        Tx::InvalidEndorserTransaction,
        Tx::Valid,
    ];
    assert_eq!(flags, expected);
    assert_eq!(dsp.evaluate("ch-1", CHAINCODE, &["get", "a"]).await.unwrap(), b"9");

    // What a filtered block can't tell of a faulty transaction it leaves away, and tells the rest.
    let request = dsp.seek("ch-1", &from_oldest_to(u64::MAX), now());
    let mut stream = dsp.filtered_blocks(request).await;
    let mut told = Vec::new();
    while told.len() < 6 {
        let Type::FilteredBlock(block) = next(&mut stream).await else {
            panic!("a filtered block was expected");
        };
        assert_eq!(block.channel_id, "ch-1");
        told.extend(block.filtered_transactions);
    }
    let codes: Vec<Tx> = told[1..].iter().map(|transaction| transaction.tx_validation_code()).collect();
    assert_eq!(codes, expected);
    let events: Vec<usize> = told[1..]
        .iter()
        .map(|transaction| match &transaction.data {
            Some(filtered_transaction::Data::TransactionActions(actions)) => actions.chaincode_actions.len(),
            None => panic!("a transaction of a chaincode has actions, if only none"),
        })
        .collect();
    assert_eq!(events, [1, 1, 1, 0, 1]);
    assert_eq!(told[5].txid, other.tx_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_found_in_its_block_before_and_after_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let opened = ledger(place.path());
    let server = serve(&opened).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    let mut prepared = Vec::new();
    for number in 0..10 {
        prepared.push(dsp.prepare("ch-1", &["put", &format!("k{number}"), "1"]).await.unwrap());
    }
    // At once, so that blocks have several of them; and each one twice, so that ids stand twice.
    let mut sending = tokio::task::JoinSet::new();
    for transaction in prepared.clone().into_iter().chain(prepared.clone()) {
        let mut client = dsp.clone();
        sending.spawn(async move { client.submit("ch-1", &transaction).await.unwrap() });
    }
    sending.join_all().await;
    check_found(&mut dsp, &prepared).await;
    drop(dsp);
    server.stop().await.unwrap();
    drop(opened);
    let opened = released(place.path()).await;
    let server = serve(&opened).await;
    let mut dsp = Client::connect(place.path(), "dsp", "DspMSP", &server).await;
    check_found(&mut dsp, &prepared).await;
}

/// Checks that each transaction is told of as it was sent, as valid, and in a block that is found by its hash as well.
async fn check_found(client: &mut Client, prepared: &[client::Prepared]) {
    for transaction in prepared {
        let status = client.status("ch-1", &transaction.tx_id).await.unwrap();
        assert_eq!(status.result(), Tx::Valid);
        let ask = ["GetTransactionByID", "ch-1", &transaction.tx_id];
        let found = client.evaluate("ch-1", "qscc", &ask).await.unwrap();
        let found = ProcessedTransaction::decode(found.as_slice()).unwrap();
        assert_eq!(found.transaction_envelope.as_ref(), Some(&transaction.envelope));
        assert_eq!(found.validation_code, Tx::Valid as i32);
        let ask = ["GetBlockByTxID", "ch-1", &transaction.tx_id];
        let block = Block::decode(client.evaluate("ch-1", "qscc", &ask).await.unwrap().as_slice()).unwrap();
        let header = block.header.as_ref().unwrap();
        assert_eq!(header.number, status.block_number);
        let ask = [b"GetBlockByHash".to_vec(), b"ch-1".to_vec(), block::header_hash(header).to_vec()];
        let same = client.evaluate_bytes("ch-1", "qscc", ask.to_vec()).await.unwrap();
        assert_eq!(Block::decode(same.as_slice()).unwrap(), block);
    }
}

#[test]
fn a_block_file_in_another_channels_place_is_refused() {
    let place = tempfile::tempdir().unwrap();
    drop(ledger(place.path()));
    let channels = place.path().join("ledger/channels");
    std::fs::copy(channels.join("ch-1/blocks"), channels.join("ch-2/blocks")).unwrap();
    let error = embedded::Ledger::open(&place.path().join("ledger")).unwrap_err().to_string();
    assert!(error.contains("ch-2/blocks"), "{error}");
    assert!(error.contains("the blocks of channel ch-1, not of ch-2"), "{error}");
}
