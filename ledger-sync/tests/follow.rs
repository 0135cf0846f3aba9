//! A follower goes on whatever happens to its ledger, and stops where a person is needed.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::*;
use ledger_sync::testing::{Emit, MemoryLedger, MemoryNetwork, Misbehaviour, Tamper};
use ledger_sync::{
    BlockStream, BranchError, Committed, EvaluateError, FollowError, Follower, Ledger, Options, Progress, StreamError, SubmitError,
    VerifyError, catch_up,
};
use state::event::SCHEMA_VERSION;
use state::git::Store;
use state::ids::Channel;
use state::paths;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// A schema version that this Charter does not know.
const NEWER: u64 = SCHEMA_VERSION as u64 + 1;

struct Running {
    progress: watch::Receiver<Progress>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), FollowError>>,
}

fn quick() -> Options {
    Options {
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(20),
        probe: Duration::from_millis(50),
        ..options()
    }
}

fn follow(network: &Arc<MemoryNetwork>, store: &Store, options: Options) -> Running {
    let (sender, progress) = watch::channel(Progress::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let follower = Follower {
        ledger: Arc::new(network.ledger(CITY)),
        store: store.clone(),
        channel: channel(),
        options,
    };
    let task = tokio::spawn(follower.run(sender, async { drop(stopped.await) }));
    Running {
        progress,
        stop: Some(stop),
        task,
    }
}

impl Running {
    async fn until(&mut self, what: impl FnMut(&Progress) -> bool) -> Progress {
        let waited = tokio::time::timeout(Duration::from_secs(30), self.progress.wait_for(what)).await;
        waited.expect("the follower gets there").unwrap().clone()
    }

    async fn at(&mut self, network: &MemoryNetwork) -> Progress {
        let last = network.blocks().len() as u64 - 1;
        self.until(|progress| progress.block == Some(last) && progress.caught_up).await
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
    }
}

async fn expected(network: &Arc<MemoryNetwork>) -> Progress {
    let place = place();
    catch_up(Arc::new(network.ledger(ENERGY)), place.store.clone(), channel(), options())
        .await
        .unwrap()
}

#[tokio::test]
async fn catching_up_once_and_again() {
    let network = network();
    story(&network).await;
    let place = place();
    let ledger = || Arc::new(network.ledger(CITY));
    let first = catch_up(ledger(), place.store.clone(), channel(), options()).await.unwrap();
    assert_eq!(first.block, Some(network.blocks().len() as u64 - 1));
    assert!(first.caught_up && first.last_error.is_none());
    assert_eq!((first.desired, first.reported), heads(&place.store));
    assert_eq!(first.lag(), Some(0));
    // In the smallest batches, elsewhere.
    let other = common::place();
    let single = Options {
        batch_blocks: 1,
        ..options()
    };
    let second = catch_up(ledger(), other.store.clone(), channel(), single).await.unwrap();
    assert_eq!((second.desired, second.reported), (first.desired, first.reported));
    let again = catch_up(ledger(), place.store.clone(), channel(), options()).await.unwrap();
    assert_eq!(again.desired, first.desired);
}

#[tokio::test]
async fn live_blocks_arrive_and_each_is_a_signal() {
    let network = network();
    found(&network).await;
    let place = place();
    let mut running = follow(&network, &place.store, quick());
    running.at(&network).await;
    for round in 0..5 {
        network
            .append(&[ordered(CITY, "city", vec![resource(&format!("r{round}"), "city", &[])])])
            .unwrap();
        let progress = running.at(&network).await;
        assert_eq!((progress.desired, progress.reported), heads(&place.store));
        assert_eq!(
            subjects(&place.store, &paths::desired_ref(&channel()))[0],
            format!("order resource r{round}")
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn a_ledger_that_goes_and_comes_is_followed() {
    let network = network();
    found(&network).await;
    let place = place();
    network.misbehave(Misbehaviour {
        down: true,
        ..Misbehaviour::default()
    });
    let mut running = follow(&network, &place.store, quick());
    let down = running.until(|progress| progress.last_error.is_some()).await;
    assert!(!down.connected && down.last_error.unwrap().contains("connection refused"));
    network.misbehave(Misbehaviour::default());
    let up = running.at(&network).await;
    assert!(up.connected && up.last_error.is_none());
    for _ in 0..3 {
        network.misbehave(Misbehaviour {
            down: true,
            ..Misbehaviour::default()
        });
        running.until(|progress| !progress.connected).await;
        network.append_other(CITY).unwrap();
        network.misbehave(Misbehaviour {
            drop_after: Some(3),
            repeat: true,
            ..Misbehaviour::default()
        });
        running.at(&network).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn every_stream_that_breaks_or_repeats_leads_to_the_same_commits() {
    let network = network();
    story(&network).await;
    let wanted = expected(&network).await;
    for how in [
        Misbehaviour {
            drop_after: Some(2),
            ..Misbehaviour::default()
        },
        Misbehaviour {
            drop_after: Some(5),
            repeat: true,
            ..Misbehaviour::default()
        },
        Misbehaviour {
            repeat: true,
            ..Misbehaviour::default()
        },
    ] {
        let place = place();
        network.misbehave(how.clone());
        let options = Options {
            batch_blocks: 3,
            ..quick()
        };
        let mut running = follow(&network, &place.store, options);
        let last = network.blocks().len() as u64 - 1;
        running.until(|progress| progress.block == Some(last)).await;
        assert_eq!(heads(&place.store), (wanted.desired, wanted.reported), "{how:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_block_that_is_left_out_is_waited_for() {
    let network = network();
    found(&network).await;
    network.append_other(CITY).unwrap();
    let place = place();
    network.misbehave(Misbehaviour {
        leave_out: Some(3),
        ..Misbehaviour::default()
    });
    let mut running = follow(&network, &place.store, quick());
    let waiting = running.until(|progress| progress.last_error.is_some()).await;
    assert!(
        waiting
            .last_error
            .as_ref()
            .unwrap()
            .contains("block 4 arrived where block 3 was expected"),
        "{waiting:?}"
    );
    assert!(waiting.block < Some(3) && waiting.frozen.is_none());
    network.misbehave(Misbehaviour::default());
    running.at(&network).await;
    running.stop().await;
}

#[tokio::test]
async fn a_hung_stream_is_opened_again() {
    let network = network();
    found(&network).await;
    let place = place();
    let mut running = follow(&network, &place.store, quick());
    running.at(&network).await;
    network.misbehave(Misbehaviour {
        hung: true,
        ..Misbehaviour::default()
    });
    network.append_other(CITY).unwrap();
    let hung = running.until(|progress| progress.last_error.is_some()).await;
    assert!(hung.last_error.unwrap().contains("newer blocks"));
    network.misbehave(Misbehaviour::default());
    running.at(&network).await;
    running.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_opened_and_never_says_anything_is_opened_again() {
    let network = network();
    found(&network).await;
    let place = place();
    let mut running = follow(&network, &place.store, quick());
    running.at(&network).await;
    network.misbehave(Misbehaviour {
        down: true,
        ..Misbehaviour::default()
    });
    running.until(|progress| !progress.connected).await;
    // It is up again, has nothing new, and does not even repeat what it is asked for.
    network.misbehave(Misbehaviour {
        hung: true,
        ..Misbehaviour::default()
    });
    let hung = |progress: &Progress| progress.last_error.as_ref().is_some_and(|error| error.contains("sends nothing"));
    running.until(hung).await;
    network.misbehave(Misbehaviour::default());
    network.append_other(CITY).unwrap();
    running.at(&network).await;
    running.stop().await;
}

#[tokio::test]
async fn a_tampered_block_freezes_and_changes_nothing() {
    let network = network();
    found(&network).await;
    let place = place();
    let mut running = follow(&network, &place.store, quick());
    running.at(&network).await;
    running.stop().await;
    let before = heads(&place.store);
    let number = network.append(&[ordered(CITY, "city", vec![resource("x", "city", &[])])]).unwrap();
    network.tamper(number, Tamper::Data).unwrap();
    let mut running = follow(&network, &place.store, quick());
    let frozen = running.until(|progress| progress.frozen.is_some()).await;
    assert!(frozen.frozen.unwrap().contains(&format!("block {number} ")));
    let error = running.task.await.unwrap().unwrap_err();
    assert!(
        error.freezes() && matches!(error, FollowError::Verify(VerifyError::Chain { .. })),
        "{error}"
    );
    assert_eq!(heads(&place.store), before);
}

#[tokio::test]
async fn a_fork_and_a_reset_freeze() {
    let network = network();
    found(&network).await;
    network.append(&[ordered(CITY, "city", vec![resource("x", "city", &[])])]).unwrap();
    let place = place();
    let mut running = follow(&network, &place.store, quick());
    running.at(&network).await;
    let before = heads(&place.store);
    // While it runs: shorter first, then with another history.
    let last = network.blocks().len() as u64 - 1;
    network.misbehave(Misbehaviour {
        down: true,
        ..Misbehaviour::default()
    });
    running.until(|progress| !progress.connected).await;
    network.fork(last);
    network.misbehave(Misbehaviour::default());
    let behind = running
        .until(|progress| progress.last_error.as_ref().is_some_and(|error| error.contains("behind")))
        .await;
    assert!(behind.frozen.is_none());
    network.append_other(CITY).unwrap();
    let error = running.task.await.unwrap().unwrap_err();
    assert!(error.freezes(), "{error}");
    assert_eq!(heads(&place.store), before);
    // A restart changes nothing, and the ledger isn't even asked.
    let ledger = || Arc::new(network.ledger(CITY));
    for _ in 0..2 {
        let error = catch_up(ledger(), place.store.clone(), channel(), options()).await.unwrap_err();
        assert!(
            matches!(&error, FollowError::Frozen { reason, .. } if reason.contains("reset or forked")),
            "{error}"
        );
        let mut running = follow(&network, &place.store, quick());
        let progress = running.until(|progress| progress.frozen.is_some()).await;
        assert_eq!((progress.desired, progress.reported), before);
        assert!(running.task.await.unwrap().unwrap_err().freezes());
    }
    // A person who acts without having found out why sees the same again, and with another genesis block too.
    let thaw = || ledger_sync::frozen::thaw(&place.store, &channel()).unwrap().expect("it was frozen");
    thaw();
    let error = catch_up(ledger(), place.store.clone(), channel(), options()).await.unwrap_err();
    assert!(matches!(error, FollowError::Verify(VerifyError::Fork { .. })), "{error}");
    network.reset().unwrap();
    thaw();
    let error = catch_up(ledger(), place.store.clone(), channel(), options()).await.unwrap_err();
    assert!(
        matches!(error, FollowError::Branch(BranchError::Frozen { block: 0, .. })),
        "{error}"
    );
    assert_eq!(heads(&place.store), before);
}

#[tokio::test]
async fn a_refusal_is_tried_again_until_it_is_taken_back() {
    let network = network();
    found(&network).await;
    let place = place();
    let mut running = follow(&network, &place.store, quick());
    running.at(&network).await;
    for (status, says) in [
        (400, "check this machine's clock"),
        (403, "may not read the channel"),
        (404, "no such channel"),
    ] {
        // An open stream breaks first.
        network.misbehave(Misbehaviour {
            drop_after: Some(0),
            refuse: Some(status),
            ..Misbehaviour::default()
        });
        let refused = running
            .until(|progress| progress.last_error.as_ref().is_some_and(|error| error.contains(says)))
            .await;
        assert!(!refused.connected && refused.frozen.is_none(), "{refused:?}");
        let error = catch_up(Arc::new(network.ledger(CITY)), common::place().store.clone(), channel(), options())
            .await
            .unwrap_err();
        assert!(matches!(&error, FollowError::Ledger(StreamError::Refused { .. })), "{error}");
        network.misbehave(Misbehaviour::default());
        network.append_other(CITY).unwrap();
        running.at(&network).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_stranger_is_told_and_tries_again() {
    let network = network();
    let place = place();
    let stranger = Arc::new(Counted::new(network.ledger("StrangerMSP")));
    let (sender, mut progress) = watch::channel(Progress::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let follower = Follower {
        ledger: stranger.clone(),
        store: place.store.clone(),
        channel: channel(),
        options: quick(),
    };
    let task = tokio::spawn(follower.run(sender, async { drop(stopped.await) }));
    let told = progress.wait_for(|progress| progress.last_error.is_some()).await.unwrap().clone();
    assert!(told.last_error.unwrap().contains("access denied"));
    let mut asked = stranger.asked.subscribe();
    tokio::time::timeout(Duration::from_secs(30), asked.wait_for(|asked| *asked > 2))
        .await
        .expect("it is asked again")
        .unwrap();
    drop(stop);
    task.await.unwrap().unwrap();
    // Once is once.
    let error = catch_up(stranger, place.store.clone(), channel(), options()).await.unwrap_err();
    assert!(matches!(error, FollowError::Ledger(_)) && !error.transient());
}

/// A ledger that counts how often it is asked for its height.
struct Counted {
    ledger: MemoryLedger,
    asked: watch::Sender<u64>,
}

impl Counted {
    fn new(ledger: MemoryLedger) -> Self {
        let asked = watch::Sender::new(0);
        Self { ledger, asked }
    }
}

#[async_trait]
impl Ledger for Counted {
    async fn submit(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
        self.ledger.submit(channel, function, args).await
    }

    async fn evaluate(&self, channel: &Channel, function: &str, args: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
        self.ledger.evaluate(channel, function, args).await
    }

    async fn blocks(&self, channel: &Channel, from: u64) -> Result<BlockStream, StreamError> {
        self.ledger.blocks(channel, from).await
    }

    async fn height(&self, channel: &Channel) -> Result<u64, StreamError> {
        self.asked.send_modify(|asked| *asked += 1);
        self.ledger.height(channel).await
    }
}

#[tokio::test]
async fn an_event_of_a_newer_charter_ends_it() {
    let network = network();
    found(&network).await;
    let newer = ordered(CITY, "city", vec![resource("y", "city", &[])]).altered(|event| event["schemaversion"] = NEWER.into());
    network.append(&[newer]).unwrap();
    let place = place();
    let running = follow(&network, &place.store, quick());
    let error = running.task.await.unwrap().unwrap_err();
    assert!(
        matches!(&error, FollowError::Branch(BranchError::Newer { found: NEWER, .. })),
        "{error}"
    );
    let said = running.progress.borrow().clone();
    assert!(said.last_error.unwrap().contains("upgrade Charter") && said.frozen.is_none());
}

#[tokio::test]
async fn a_restart_reads_only_what_is_new() {
    let network = network();
    story(&network).await;
    network.rotate_orderer("NewOrdererMSP").unwrap();
    // Both references end after the new configuration.
    let bad = Emit::raw(CITY, "charter.report.submitted", Vec::new());
    network
        .append(&[ordered(CITY, "city", vec![resource("x", "city", &[])]), bad])
        .unwrap();
    for _ in 0..3 {
        network.append_other(CITY).unwrap();
    }
    let place = place();
    let mut running = follow(&network, &place.store, quick());
    running.at(&network).await;
    running.stop().await;
    // A broken block in the past is not read again, with the soft cursor.
    network.tamper(2, Tamper::Data).unwrap();
    let mut running = follow(&network, &place.store, quick());
    running.at(&network).await;
    running.stop().await;
    // Without it every block is verified again, since the configuration was changed.
    std::fs::remove_file(place.store.path().join("charter/smart-city-1.json")).unwrap();
    let running = follow(&network, &place.store, quick());
    let error = running.task.await.unwrap().unwrap_err();
    assert!(error.freezes(), "{error}");
}
