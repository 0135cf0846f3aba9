//! Recorded ledgers lead to the same commits for ever: what members have on disk does not change under them.

#![allow(clippy::unwrap_used, reason = "tests and what they share")]

use std::path::{Path, PathBuf};

use ledger_sync::{Options, Reexecution};
use state::git::Store;
use state::ids::Channel;
use tests::recording::{Recording, commits};

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ledgers").join(version)
}

fn store(folder: &Path) -> Store {
    Store::init(&folder.join("store.git")).unwrap()
}

async fn leads_to_its_commits(version: &str, name: &str, channel: &str, reexecution: Reexecution) -> String {
    let channel: Channel = channel.parse().unwrap();
    let recording = Recording::read(&folder(version).join(format!("{name}.blocks")));
    let expected = std::fs::read_to_string(folder(version).join(format!("{name}.commits"))).unwrap();
    // In one batch, and block by block.
    for batch_blocks in [Options::default().batch_blocks, 1] {
        let place = tempfile::tempdir().unwrap();
        let store = store(place.path());
        let options = Options {
            batch_blocks,
            reexecution,
            ..Options::default()
        };
        recording.replay(&channel, &store, options.clone()).await.unwrap();
        assert_eq!(commits(&store, &channel), expected, "in batches of {batch_blocks}");
        // Once more from where it stands: nothing is new.
        recording.replay(&channel, &store, options).await.unwrap();
        assert_eq!(commits(&store, &channel), expected);
        let git = std::process::Command::new("git")
            .arg("-C")
            .arg(store.path())
            .args(["fsck", "--strict", "--full"])
            .output()
            .unwrap();
        assert!(git.status.success(), "{}", String::from_utf8_lossy(&git.stderr));
    }
    expected
}

#[tokio::test]
async fn the_life_of_a_channel() {
    let commits = leads_to_its_commits("v1", "life", "smart-city-1", Reexecution::Enforced).await;
    for word in ["register", "constituted", "in force", "order", "amend", "retire", "report"] {
        assert!(commits.contains(word), "the recording has no {word}");
    }
}

#[tokio::test]
async fn what_is_malformed_or_forged() {
    // No chaincode made these transactions.
    let commits = leads_to_its_commits("v1", "faults", "smart-city-1", Reexecution::Off).await;
    assert!(commits.matches("quarantine").count() >= 7, "{commits}");
}

#[tokio::test]
async fn a_market() {
    let commits = leads_to_its_commits("v2", "market", "market", Reexecution::Enforced).await;
    for word in [
        "publish offer",
        "publish a key",
        "negotiation air",
        "confirmed",
        "concluded",
        "rate breeze",
    ] {
        assert!(commits.contains(word), "the recording has no {word}");
    }
}

#[tokio::test]
async fn the_whole_life_of_an_agreement() {
    let commits = leads_to_its_commits("v2", "smart-city-2", "smart-city-2", Reexecution::Enforced).await;
    for word in [
        "propose to order",
        "import forecast as import-forecast",
        "distribute",
        "close the part of breeze",
        "transfer",
        "the agreement has ended",
    ] {
        assert!(commits.contains(word), "the recording has no {word}");
    }
}

#[tokio::test]
async fn a_recording_of_another_name_is_not_believed() {
    let place = tempfile::tempdir().unwrap();
    let recording = Recording::read(&folder("v1").join("life.blocks"));
    let other: Channel = "smart-city-2".parse().unwrap();
    let error = recording
        .replay(&other, &store(place.path()), Options::default())
        .await
        .unwrap_err();
    assert!(error.freezes(), "{error}");
    assert!(
        state::errors::chain(&error).contains("smart-city-2"),
        "{}",
        state::errors::chain(&error)
    );
}
