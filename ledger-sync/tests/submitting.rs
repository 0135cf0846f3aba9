//! A transaction is recorded once, whenever its sender is killed and whatever is lost on the way.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/consortium.rs"]
mod consortium;
#[path = "common/peer.rs"]
mod peer;

use std::sync::Arc;

use common::*;
use consortium::{Consortium, order};
use futures::StreamExt;
use ledger_sync::reports::{Recorded, Recording, submit_report};
use ledger_sync::{Committed, GatewayClient, Ledger, SubmitError, reports};
use peer::{At, Fate, Peer};
use protos::peer::TxValidationCode;
use state::report::Condition;
use tonic::Code;

/// The places at which a sender is killed: what its peer does to which call while it waits.
const KILLS: [(At, Fate); 6] = [
    (At::Endorse, Fate::Hung),
    // Endorsed and not yet known to be.
    (At::Endorse, Fate::AnswerHung),
    // On disk, and not sent.
    (At::Submit, Fate::Hung),
    // Sent, and not known to be.
    (At::Submit, Fate::AnswerHung),
    (At::CommitStatus, Fate::Hung),
    // Committed, and not known to be.
    (At::CommitStatus, Fate::AnswerHung),
];

/// The transactions of a function that are on the ledger as valid.
async fn recorded(city: &GatewayClient, function: &str) -> Vec<String> {
    let height = city.height(&channel()).await.unwrap();
    let blocks: Vec<_> = city
        .blocks(&channel(), 0)
        .await
        .unwrap()
        .take(usize::try_from(height).unwrap())
        .collect()
        .await;
    let mut found = Vec::new();
    for block in blocks.into_iter().map(Result::unwrap) {
        let flags = protos::metadata::validation_flags(&block).unwrap().to_vec();
        for (bytes, flag) in block.data.unwrap().data.iter().zip(flags) {
            let opened = protos::envelope::open(&protos::envelope::decode_envelope(bytes).unwrap()).unwrap();
            if let Ok(transaction) = protos::envelope::endorsed(&opened)
                && transaction.invocation.args[0] == function.as_bytes()
                && flag == TxValidationCode::Valid as u8
            {
                found.push(opened.channel.tx_id);
            }
        }
    }
    found
}

/// Begins to submit, waits until the peer holds the call, and ends the sender there.
async fn killed_while<T: Send + 'static>(peer: &Peer, at: At, fate: Fate, sending: impl Future<Output = T> + Send + 'static) {
    let before = peer.calls(at);
    peer.next(at, fate, 1);
    let task = tokio::spawn(sending);
    peer.called(at, before + 1).await;
    assert!(!task.is_finished(), "it waits for an answer");
    task.abort();
    assert!(task.await.err().is_some_and(|error| error.is_cancelled()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_killed_at_any_step_records_it_once() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    for (index, (at, fate)) in KILLS.into_iter().enumerate() {
        let what = order(&format!("r{index}"), "city");
        let (client, args) = (consortium.client("city", &[&peer]), what.clone());
        killed_while(
            &peer,
            at,
            fate.clone(),
            async move { client.submit(&channel(), "order", args).await },
        )
        .await;
        let standing = consortium.pending("city").list(&channel()).unwrap();
        assert_eq!(standing.len(), usize::from(at != At::Endorse), "{at:?} {fate:?}");
        // Killed again at the same step, by a process of its own, and then left alone. What was ordered is not sent again.
        if (at, &fate) != (At::Submit, &Fate::AnswerHung) {
            let (client, args) = (consortium.client("city", &[&peer]), what.clone());
            let submitting = async move { client.submit(&channel(), "order", args).await };
            killed_while(&peer, at, fate.clone(), submitting).await;
        }
        let done = consortium
            .client("city", &[&peer])
            .submit(&channel(), "order", what.clone())
            .await
            .unwrap();
        if let Some(first) = standing.first() {
            assert_eq!(done.tx_id, first.tx_id, "the same envelope is sent again: {at:?} {fate:?}");
        }
        let city = consortium.direct("city");
        assert_eq!(recorded(&city, "order").await.len(), index + 1, "{at:?} {fate:?}");
        assert!(consortium.pending("city").list(&channel()).unwrap().is_empty());
        // It is done: asked for once more, the chaincode says so.
        let error = city.submit(&channel(), "order", what).await.unwrap_err();
        assert!(matches!(error, SubmitError::Refused { status: 409, .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_neither_lost_nor_recorded_twice() {
    let consortium = Consortium::new().await;
    let city = consortium.direct("city");
    city.submit(&channel(), "order", order("x", "energy")).await.unwrap();
    let peer = consortium.peer().await;
    let mut last = None;
    for (index, (at, fate)) in KILLS.into_iter().enumerate() {
        let condition = if index % 2 == 0 { Condition::Pending } else { Condition::InSync };
        let next = report("energy", "x", condition, last.as_ref());
        let envelope = reports::sign(&next, consortium.signer("energy").as_ref()).unwrap();
        let (_, digest) = envelope.report().unwrap();
        let (client, sent) = (consortium.client("energy", &[&peer]), envelope.clone());
        killed_while(&peer, at, fate.clone(), async move {
            submit_report(&client, &channel(), &sent, Recording::Report).await
        })
        .await;
        let client = consortium.client("energy", &[&peer]);
        let done = submit_report(&client, &channel(), &envelope, Recording::Report).await.unwrap();
        assert!(matches!(done, Recorded::Now(_)), "{at:?} {fate:?}: {done:?}");
        assert_eq!(
            submit_report(&client, &channel(), &envelope, Recording::Report).await.unwrap(),
            Recorded::Before
        );
        assert_eq!(recorded(&city, "report").await.len(), index + 1, "{at:?} {fate:?}");
        last = Some((next, digest));
    }
    assert!(consortium.pending("energy").list(&channel()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_asked_for_again_with_the_same_envelope() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    let client = consortium.client("city", &[&peer]);
    let fates = [
        (
            At::Submit,
            Fate::Lost(Code::Unavailable, "no orderers could successfully process transaction"),
        ),
        (At::Submit, Fate::AnswerLost(Code::DeadlineExceeded, "too late")),
        (At::CommitStatus, Fate::Lost(Code::Unavailable, "connection dropped")),
        (At::CommitStatus, Fate::AnswerLost(Code::Cancelled, "cancelled")),
        (At::CommitStatus, Fate::Hung),
    ];
    for (index, (at, fate)) in fates.into_iter().enumerate() {
        peer.next(at, fate.clone(), 1);
        let before = peer.calls(At::Endorse);
        let done = client.submit(&channel(), "order", order(&format!("r{index}"), "city")).await;
        assert_eq!(done.unwrap().code, TxValidationCode::Valid, "{at:?} {fate:?}");
        assert_eq!(peer.calls(At::Endorse), before + 1, "it is endorsed once: {at:?} {fate:?}");
    }
    assert_eq!(recorded(&client, "order").await.len(), 5);
    assert!(consortium.pending("city").list(&channel()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_kept_and_resolved_later() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    let client = consortium.client("city", &[&peer]);
    peer.next(At::CommitStatus, Fate::Lost(Code::Unavailable, "connection dropped"), usize::MAX);
    let error = client.submit(&channel(), "order", order("x", "city")).await.unwrap_err();
    assert!(error.transient() && matches!(&error, SubmitError::Unknown { .. }), "{error}");
    assert!(error.to_string().contains("asked for when the same is submitted again"), "{error}");
    let kept = consortium.pending("city").list(&channel()).unwrap();
    assert_eq!((kept.len(), kept[0].function.as_str()), (1, "order"));
    peer.heal();
    let resolved = client.resolve(&channel(), None).await.unwrap();
    let [one] = resolved.as_slice() else {
        panic!("one is resolved: {resolved:?}")
    };
    let Committed { tx_id, .. } = one.outcome.as_ref().unwrap();
    assert_eq!((tx_id, &one.tx_id), (&kept[0].tx_id, &kept[0].tx_id));
    assert!(client.resolve(&channel(), None).await.unwrap().is_empty());
    assert_eq!(recorded(&client, "order").await, [kept[0].tx_id.clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_orderer_refuses_for_good_is_not_kept() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    let client = consortium.client("city", &[&peer]);
    let refusal = "received unsuccessful response from orderer: status=FORBIDDEN, info=identity expired";
    peer.next(At::Submit, Fate::Lost(Code::Aborted, refusal), 1);
    let error = client.submit(&channel(), "order", order("x", "city")).await.unwrap_err();
    assert!(matches!(&error, SubmitError::Submit { .. }) && !error.transient(), "{error}");
    assert!(
        state::errors::chain(&error).contains("enrol again"),
        "{}",
        state::errors::chain(&error)
    );
    assert!(consortium.pending("city").list(&channel()).unwrap().is_empty());
    // One that may have been taken before is asked for first: here it was.
    let (other, args) = (consortium.client("city", &[&peer]), order("x", "city"));
    killed_while(&peer, At::Submit, Fate::AnswerHung, async move {
        other.submit(&channel(), "order", args).await
    })
    .await;
    peer.next(At::Submit, Fate::Lost(Code::Aborted, refusal), 1);
    client.submit(&channel(), "order", order("x", "city")).await.unwrap();
    // And here it never was: it is endorsed anew the next time.
    let (other, args) = (consortium.client("city", &[&peer]), order("y", "city"));
    killed_while(&peer, At::Submit, Fate::Hung, async move {
        other.submit(&channel(), "order", args).await
    })
    .await;
    peer.next(At::Submit, Fate::Lost(Code::Aborted, refusal), 1);
    let error = client.submit(&channel(), "order", order("y", "city")).await.unwrap_err();
    assert!(matches!(&error, SubmitError::Submit { .. }), "{error}");
    client.submit(&channel(), "order", order("y", "city")).await.unwrap();
    assert_eq!(recorded(&client, "order").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_say_the_same_say_it_once() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    let clients: Vec<Arc<GatewayClient>> = (0..4).map(|_| Arc::new(consortium.client("city", &[&peer]))).collect();
    let all = clients.iter().map(|client| {
        let client = Arc::clone(client);
        async move { client.submit(&channel(), "order", order("x", "city")).await }
    });
    let done = futures::future::join_all(all).await;
    assert!(done.iter().any(Result::is_ok), "{done:?}");
    for error in done.iter().filter_map(|one| one.as_ref().err()) {
        // Too late to be one with the first.
        assert!(matches!(error, SubmitError::Refused { status: 409, .. }), "{error}");
    }
    assert_eq!(recorded(&clients[0], "order").await.len(), 1);
    assert!(consortium.pending("city").list(&channel()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_said_and_nothing_is_sent() {
    let consortium = Consortium::new().await;
    let peer = consortium.peer().await;
    let client = consortium.client("city", &[&peer]);
    peer.next(At::CommitStatus, Fate::Lost(Code::Unavailable, "connection dropped"), usize::MAX);
    client.submit(&channel(), "order", order("x", "city")).await.unwrap_err();
    peer.heal();
    let folder = consortium.directory.path().join("city/pending").join(channel().as_str());
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let whole_file = std::fs::read(&file).unwrap();
    for length in [0, 1, whole_file.len() / 2, whole_file.len() - 100] {
        std::fs::write(&file, &whole_file[..length]).unwrap();
        let error = client.submit(&channel(), "order", order("x", "city")).await.unwrap_err();
        assert!(matches!(&error, SubmitError::Pending(_)) && !error.transient(), "{error}");
        assert!(
            state::errors::chain(&error).contains("is no signed transaction"),
            "{}",
            state::errors::chain(&error)
        );
    }
    std::fs::write(&file, &whole_file).unwrap();
    // What a writer left half-written was never sent.
    std::fs::write(folder.join(".new-half.tx"), b"half").unwrap();
    client.submit(&channel(), "order", order("x", "city")).await.unwrap();
    assert_eq!(recorded(&client, "order").await.len(), 1);
}
