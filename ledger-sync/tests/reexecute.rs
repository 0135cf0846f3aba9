//! A ledger that lies is found out, freezes its channel with a reason, and changes nothing that was taken in before.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::*;
use ledger_sync::testing::{Draft, Effects, LyingPeer, MemoryNetwork, Tamper};
use ledger_sync::{FollowError, Ledger, Options, Progress, catch_up, frozen};
use protos::common::{Block, BlockMetadataIndex};
use protos::kvrwset::{KvWrite, KvrwSet};
use protos::peer::{Response, TxValidationCode as Code};
use serde_json::json;
use state::errors::chain;
use state::git::Store;

pub const HEALTH: &str = "HealthMSP";

fn text(value: serde_json::Value) -> Vec<Vec<u8>> {
    vec![value.to_string().into_bytes()]
}

fn order(names: &[&str]) -> Vec<Vec<u8>> {
    let resources: Vec<_> = names.iter().map(|name| resource(name, "city", &[])).collect();
    text(json!({ "resources": resources }))
}

fn retire(names: &[&str]) -> Vec<Vec<u8>> {
    text(json!({ "resources": names }))
}

/// A channel with an agreement and two resources in force.
async fn channel_with_two() -> Arc<MemoryNetwork> {
    let network = network();
    found(&network).await;
    network
        .ledger(CITY)
        .submit(&channel(), "order", order(&["kept", "spare"]))
        .await
        .unwrap();
    network
}

async fn followed(ledger: impl Ledger + 'static, store: &Store) -> Result<Progress, FollowError> {
    catch_up(Arc::new(ledger), store.clone(), channel(), Options::default()).await
}

/// Follows what is there, lets the network lie, and looks at what becomes of it. Returns what is said.
async fn lied(network: &Arc<MemoryNetwork>, lie: impl FnOnce(&MemoryNetwork) -> u64) -> String {
    let place = place();
    let before = followed(network.ledger(CITY), &place.store).await.unwrap();
    let block = lie(network);
    frozen_at(network.ledger(CITY), &place.store, &before, Some(block)).await
}

/// Follows a ledger that shows a block that is not to be believed.
async fn frozen_at(ledger: impl Ledger + Clone + 'static, store: &Store, before: &Progress, block: Option<u64>) -> String {
    let error = followed(ledger.clone(), store).await.unwrap_err();
    assert!(error.freezes() && error.ends() && !error.transient(), "{error}");
    assert_eq!(heads(store), (before.desired, before.reported), "what was verified stays as it was");
    // Whoever looks finds the reason, and the block as it was sent.
    let said = chain(&error);
    let record = frozen::read(store, &channel()).unwrap();
    assert_eq!(record.reason, said);
    if let Some(block) = block.filter(|_| matches!(error, FollowError::Reexecution(_))) {
        assert_eq!(record.block, Some(block));
        let kept = std::fs::read(frozen::kept_block(store, &channel())).unwrap();
        let kept: Block = prost::Message::decode(kept.as_slice()).unwrap();
        assert_eq!(kept.header.unwrap().number, block);
    }
    // A restart changes nothing.
    let error = followed(ledger.clone(), store).await.unwrap_err();
    assert!(matches!(&error, FollowError::Frozen { reason, .. } if *reason == said), "{error}");
    // Who thaws it without having done anything sees the same.
    frozen::thaw(store, &channel()).unwrap().unwrap();
    assert_eq!(chain(&followed(ledger, store).await.unwrap_err()), said);
    assert_eq!(heads(store), (before.desired, before.reported));
    said
}

/// One transaction, changed by those who endorse it.
async fn endorsed(function: &str, args: Vec<Vec<u8>>, change: impl FnOnce(&mut Draft)) -> String {
    let network = channel_with_two().await;
    lied(&network, |network| {
        let mut draft = network.draft(CITY, function, &args).unwrap();
        change(&mut draft);
        network.commit(vec![draft]).unwrap()
    })
    .await
}

fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
}

#[tokio::test]
async fn what_nobody_submitted_is_found_out() {
    // Its creator never signed it.
    let said = endorsed("retire", retire(&["kept"]), |draft| draft.signed_by = Some(ENERGY.into())).await;
    says(&said, &["transaction 6/0", "was not made by its creator"]);
    // It has the signature of a client that plays along, and a peer that endorses what the chaincode refuses.
    let said = endorsed("retire", retire(&["nowhere"]), |draft| {
        assert_eq!(draft.effects.response.status, 404);
        draft.effects.response = Response {
            status: 200,
            ..Response::default()
        };
    })
    .await;
    says(
        &said,
        &["transaction 6/0", "called valid, and the chaincode refuses it (404", "nowhere"],
    );
    // A retirement inside an order's clothes.
    let network = channel_with_two().await;
    let said = lied(&network, |network| {
        let retirement = network.draft(CITY, "retire", &retire(&["kept"])).unwrap();
        let mut draft = network.draft(CITY, "order", &order(&["new"])).unwrap();
        draft.effects = retirement.effects;
        network.commit(vec![draft]).unwrap()
    })
    .await;
    says(&said, &["records another event than the chaincode sets"]);
}

#[tokio::test]
async fn what_is_written_otherwise_is_found_out() {
    let said = endorsed("order", order(&["new"]), |draft| {
        let write = draft.effects.own().writes.iter_mut().find(|write| write.key == "resource/new");
        let value = &mut write.unwrap().value;
        *value = String::from_utf8(value.clone()).unwrap().replace("hello", "HELLO").into_bytes();
    })
    .await;
    says(
        &said,
        &["transaction 6/0 (", "writes \"resource/new\" otherwise than the chaincode does"],
    );
    let said = endorsed("order", order(&["new"]), |draft| {
        draft.effects.own().writes.push(KvWrite {
            key: "resource/kept".into(),
            is_delete: true,
            value: Vec::new(),
        });
    })
    .await;
    says(&said, &["writes \"resource/kept\" otherwise"]);
    let said = endorsed("retire", retire(&["kept"]), |draft| draft.effects.own().writes.clear()).await;
    says(&said, &["writes \"resource/kept\" otherwise"]);
    let said = endorsed("retire", retire(&["kept"]), |draft| draft.effects.namespaces.clear()).await;
    says(&said, &["writes \"resource/kept\" otherwise"]);
}

#[tokio::test]
async fn another_event_answer_or_read_is_found_out() {
    let other = |draft: &mut Draft| {
        let (_, payload) = draft.effects.event.as_mut().unwrap();
        *payload = String::from_utf8(payload.clone())
            .unwrap()
            .replace("\"new\"", "\"old\"")
            .into_bytes();
    };
    let said = endorsed("order", order(&["new"]), other).await;
    says(&said, &["records another event than the chaincode sets"]);
    let said = endorsed("order", order(&["new"]), |draft| draft.effects.event = None).await;
    says(&said, &["records another event"]);
    let said = endorsed("order", order(&["new"]), |draft| draft.effects.response.payload.clear()).await;
    says(&said, &["records another answer"]);
    // Without its read the conflict with others is not seen.
    let said = endorsed("order", order(&["new"]), |draft| {
        draft.effects.own().reads.retain(|read| read.key != "usage")
    })
    .await;
    says(&said, &["reads \"usage\" otherwise than the chaincode does"]);
}

#[tokio::test]
async fn too_few_endorsements_are_found_out() {
    let said = endorsed("order", order(&["new"]), |draft| draft.endorsers.clear()).await;
    says(&said, &["endorsed by nobody only", "the channel's endorsement policy"]);
    // Of three members two have to.
    let network = MemoryNetwork::new(&channel(), &[CITY, ENERGY, HEALTH]).unwrap();
    found(&network).await;
    let said = lied(&network, |network| {
        let mut draft = network.draft(CITY, "order", &order(&["new"])).unwrap();
        draft.endorsers = vec![CITY.into(), CITY.into()];
        network.commit(vec![draft]).unwrap()
    })
    .await;
    says(&said, &["endorsed by CityMSP only"]);
}

#[tokio::test]
async fn other_namespaces_and_other_chaincodes_change_nothing_of_ours() {
    let write = |key: &str| KvrwSet {
        writes: vec![KvWrite {
            key: key.into(),
            is_delete: false,
            value: b"x".to_vec(),
        }],
        ..KvrwSet::default()
    };
    let said = endorsed("order", order(&["new"]), |draft| {
        draft.effects.namespaces.push(("basic".into(), write("a")));
    })
    .await;
    says(&said, &["touches \"basic\""]);
    let said = endorsed("order", order(&["new"]), |draft| {
        draft.effects.namespaces.push(("_lifecycle".into(), write("a")));
    })
    .await;
    says(&said, &["touches \"_lifecycle\""]);
    let network = channel_with_two().await;
    let said = lied(&network, |network| {
        let effects = Effects {
            chaincode: "basic".into(),
            namespaces: vec![("charter".into(), write("resource/kept"))],
            ..Effects::default()
        };
        network.commit(vec![network.draft_of(ENERGY, effects).unwrap()]).unwrap()
    })
    .await;
    says(
        &said,
        &["chaincode \"basic\"", "changes the agreement's state at \"resource/kept\""],
    );
}

/// Two orders that were made over the same state: the second one is a conflict.
fn conflicting(network: &MemoryNetwork) -> (Draft, Draft) {
    let draft = |name| network.draft(CITY, "order", &order(&[name])).unwrap();
    (draft("one"), draft("two"))
}

#[tokio::test]
async fn a_conflict_that_is_called_valid_is_found_out() {
    let network = channel_with_two().await;
    let said = lied(&network, |network| {
        let (first, mut second) = conflicting(network);
        second.code = Some(Code::Valid);
        network.commit(vec![first, second]).unwrap()
    })
    .await;
    says(
        &said,
        &[
            "transaction 6/1",
            "is called valid, and read \"usage\" as of 5/0 where it stood at 6/0",
        ],
    );
    // In two blocks: the good one is kept.
    let network = channel_with_two().await;
    let (first, mut second) = conflicting(&network);
    second.code = Some(Code::Valid);
    network.commit(vec![first]).unwrap();
    network.commit(vec![second]).unwrap();
    let place = place();
    let error = followed(network.ledger(CITY), &place.store).await.unwrap_err();
    says(&chain(&error), &["transaction 7/0", "that is a conflict"]);
    let subjects = subjects(&place.store, "refs/heads/desired/smart-city-1");
    assert_eq!(subjects[0], "order resource one");
}

/// Follows a peer that changes what it says about the last block.
async fn flipped(network: &Arc<MemoryNetwork>, lie: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> String {
    let last = network.blocks().len() as u64 - 1;
    let honest = place();
    let all = followed(network.ledger(CITY), &honest.store).await.unwrap();
    assert_eq!(all.block, Some(last));
    // The same up to the block before.
    let place = place();
    let before = {
        let ledger = LyingPeer::new(Arc::new(network.ledger(CITY)), |_| {}).up_to(last);
        followed(ledger, &place.store).await.unwrap()
    };
    let liar = LyingPeer::new(Arc::new(network.ledger(CITY)), move |block| {
        if block.header.as_ref().unwrap().number == last {
            lie(&mut block.metadata.as_mut().unwrap().metadata[BlockMetadataIndex::TransactionsFilter as usize]);
        }
    });
    frozen_at(liar, &place.store, &before, Some(last)).await
}

#[tokio::test]
async fn flipped_validation_codes_are_found_out() {
    // From invalid to valid: a conflict.
    let network = channel_with_two().await;
    let (first, second) = conflicting(&network);
    network.commit(vec![first, second]).unwrap();
    let said = flipped(&network, |codes| codes[1] = Code::Valid as u8).await;
    says(&said, &["transaction 6/1", "that is a conflict"]);
    // From valid to invalid, whatever it is called.
    let network = channel_with_two().await;
    network.ledger(CITY).submit(&channel(), "retire", retire(&["kept"])).await.unwrap();
    for code in [
        Code::MvccReadConflict,
        Code::PhantomReadConflict,
        Code::EndorsementPolicyFailure,
        Code::BadCreatorSignature,
        Code::BadProposalTxid,
    ] {
        let said = flipped(&network, move |codes| codes[0] = code as u8).await;
        says(
            &said,
            &["transaction 6/0", code.as_str_name(), "nothing of that kind is wrong with it"],
        );
    }
}

#[tokio::test]
async fn what_is_hidden_for_a_reason_that_only_a_peer_judges_is_counted_and_found_out_by_what_builds_on_it() {
    let network = channel_with_two().await;
    let hidden = network.ledger(CITY).submit(&channel(), "order", order(&["hidden"])).await.unwrap();
    let liar = {
        let block = hidden.block;
        LyingPeer::new(Arc::new(network.ledger(CITY)), move |shown| {
            if shown.header.as_ref().unwrap().number == block {
                let slots = &mut shown.metadata.as_mut().unwrap().metadata;
                slots[BlockMetadataIndex::TransactionsFilter as usize][0] = Code::DuplicateTxid as u8;
                slots[BlockMetadataIndex::CommitHash as usize].clear();
            }
        })
    };
    let place = place();
    let before = followed(liar.clone(), &place.store).await.unwrap();
    let rerun = before.rerun.unwrap();
    assert_eq!((rerun.transactions, rerun.undecided, rerun.commit_hashes), (5, 1, false));
    // The next order builds on it.
    let next = network.ledger(CITY).submit(&channel(), "order", order(&["next"])).await.unwrap();
    let said = frozen_at(liar, &place.store, &before, Some(next.block)).await;
    says(&said, &["read \"usage\" as of 6/0 where it stood at 5/0"]);
}

#[tokio::test]
async fn honest_duplicates_are_not_suspected() {
    let network = channel_with_two().await;
    network.ledger(CITY).submit(&channel(), "order", order(&["new"])).await.unwrap();
    let last = network.blocks().pop().unwrap();
    let data = last.data.unwrap().data;
    network.append_data(data).unwrap();
    let number = network.blocks().len() as u64 - 1;
    network
        .tamper(
            number,
            Tamper::Code {
                tx: 0,
                code: Code::DuplicateTxid,
            },
        )
        .unwrap();
    network.tamper(number, Tamper::NoCommitHash).unwrap();
    let place = place();
    let progress = followed(network.ledger(CITY), &place.store).await.unwrap();
    assert_eq!(progress.rerun.unwrap().undecided, 0);
}

#[tokio::test]
async fn a_wrong_commit_hash_is_found_out() {
    let network = channel_with_two().await;
    let said = lied(&network, |network| {
        let number = network.append_other(CITY).unwrap();
        network.tamper(number, Tamper::CommitHash).unwrap();
        number
    })
    .await;
    says(&said, &["block 6", "carries commit hash 0707", "codes and writes give sha256:"]);
}

#[tokio::test]
async fn what_an_orderer_leaves_out_for_one_peer_is_found_out_by_the_next_block() {
    let network = channel_with_two().await;
    let hidden = network.ledger(CITY).submit(&channel(), "order", order(&["hidden"])).await.unwrap();
    let other = network.equivocate(Vec::new()).unwrap();
    let liar = LyingPeer::new(Arc::new(network.ledger(CITY)), move |block| {
        if block.header.as_ref().unwrap().number == hidden.block {
            *block = other.clone();
        }
    });
    let place = place();
    let before = followed(liar.clone(), &place.store).await.unwrap();
    assert_eq!(before.block, Some(hidden.block));
    network.append_other(CITY).unwrap();
    let said = frozen_at(liar, &place.store, &before, None).await;
    says(&said, &["does not follow block 6"]);
}
