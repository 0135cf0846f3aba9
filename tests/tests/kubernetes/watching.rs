//! A service looks again and again: from the second look on it reads nothing, is woken, and sees what happens all the same.

use std::time::{Duration, Instant};

use providers::{Provider, Wanted};
use serde_json::json;
use state::observation::Observation;
use state::resource::Resource;
use tests::between::Fault;
use tests::cluster::until_async;

use crate::stage::{Stage, config_map, manifest, scope};

const CONFIG_MAPS: &str = "/api/v1/namespaces/air-tests/configmaps";

/// How many requests for config maps the server has answered, watches apart.
async fn reads(stage: &Stage) -> u64 {
    let text = stage.admin.text("metrics").await;
    let lines = text.lines().filter(|line| {
        line.starts_with("apiserver_request_total{") && line.contains("resource=\"configmaps\"") && !line.contains("verb=\"WATCH\"")
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_pass_that_changes_nothing_reads_nothing_and_misses_nothing() {
    let Some(mut stage) = Stage::without_controllers() else { return };
    let web = manifest("web", &[config_map("web", &json!({ "a": "1" }))]);
    let other = manifest("other", &[config_map("other", &json!({ "a": "1" }))]);
    stage.runtime.block_on(async {
        for resource in [&web, &other] {
            until_async("it is made", async || {
                match look(&stage, &[&web, &other]).await.remove(&resource.name).unwrap() {
                    seen if seen.in_sync() => Ok(()),
                    seen => Err(format!("{seen:?} {:?}", stage.apply(resource).await)),
                }
            })
            .await;
        }
        for _ in 0..3 {
            look(&stage, &[&web, &other]).await;
        }
        let before = reads(&stage).await;
        for _ in 0..20 {
            assert!(look(&stage, &[&web, &other]).await.values().all(Observation::in_sync));
        }
        assert_eq!(reads(&stage).await, before);
        // What somebody changes, deletes, or makes with our labels is seen by the watch, and wakes who waits. What we do ourselves doesn't.
        let quiet = tokio::time::timeout(Duration::from_millis(300), stage.provider.changed(&scope())).await;
        assert!(quiet.is_err(), "nothing has happened");
        stage.admin.merge(CONFIG_MAPS, "web", &json!({ "data": { "a": "2" } })).await;
        let woken = tokio::time::timeout(Duration::from_secs(30), stage.provider.changed(&scope())).await;
        woken.expect("who waits is woken");
        drifts(&stage, &web, &other, "/objects/0/data/a").await;
        stage.apply(&web).await.unwrap();
        assert!(
            look(&stage, &[&web, &other]).await[&web.name].in_sync(),
            "what we wrote is seen at once"
        );
        stage.admin.delete(CONFIG_MAPS, "web").await;
        until_async("its absence is seen", async || {
            match look(&stage, &[&web, &other]).await.remove(&web.name).unwrap() {
                Observation::Absent => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        stage.apply(&web).await.unwrap();
        assert!(look(&stage, &[&web, &other]).await[&web.name].in_sync());
        let orphans = stage.provider.observe(&scope(), &[]).await.orphans;
        assert_eq!(orphans.len(), 2, "{orphans:?}");
    });
    // A server that went and came back, and one that hangs: what was heard before is no longer believed.
    stage.cluster.kill_server();
    stage.runtime.block_on(async {
        let seen = look(&stage, &[&web, &other]).await;
        assert!(seen.values().all(|seen| matches!(seen, Observation::Unknown { .. })), "{seen:?}");
    });
    stage.cluster.start_server();
    stage.runtime.block_on(async {
        stage.admin.merge(CONFIG_MAPS, "web", &json!({ "data": { "a": "3" } })).await;
        drifts(&stage, &web, &other, "/objects/0/data/a").await;
    });
    let pid = i32::try_from(stage.cluster.server_pid().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    stage.runtime.block_on(async {
        let looking = tokio::time::timeout(Duration::from_secs(3), look(&stage, &[&web, &other])).await;
        assert!(
            looking.is_err() || looking.is_ok_and(|seen| seen.values().all(|seen| matches!(seen, Observation::Unknown { .. }))),
            "a server that hangs is not believed to have said something"
        );
    });
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
}

#[test]
fn a_watch_that_has_expired_lists_again() {
    let Some((stage, between, web)) = Stage::watched() else { return };
    stage.runtime.block_on(async {
        let wanted = [Wanted::of(&web)];
        let look = async || {
            between.seen();
            let seen = stage.provider.observe(&scope(), &wanted).await.resources.remove(&web.name).unwrap();
            // A watch is asked for by a task of its own, now or later.
            let lists = |one: &&String| one.contains("/configmaps?") && !one.contains("watch=true");
            let lists = between.seen().iter().filter(lists).count();
            (seen.in_sync(), lists)
        };
        // The account may list its namespace, which is found out first.
        assert_eq!(look().await, (true, 2));
        between.spoil(&[Fault::Expire]);
        // Who waits is woken, for what was kept can't be relied on any more.
        stage.provider.changed(&scope()).await;
        assert_eq!(between.left(), 0);
        stage.admin.merge(CONFIG_MAPS, "web", &json!({ "data": { "a": "2" } })).await;
        assert_eq!(look().await, (false, 1), "what happened in between is seen");
        let _ = tokio::time::timeout(Duration::ZERO, stage.provider.changed(&scope())).await;
        assert_eq!(look().await, (false, 0), "and it is watched again");
    });
}

#[test]
fn a_watch_that_is_refused_or_ends_at_once_is_not_asked_for_again_and_again() {
    let Some((stage, between, web)) = Stage::watched() else { return };
    stage.runtime.block_on(async {
        let wanted = [Wanted::of(&web)];
        let asked = |watch: bool| {
            let all = between.seen();
            all.iter()
                .filter(|one| one.contains("/configmaps?") && one.contains("watch=true") == watch)
                .count()
        };
        let sees = async || stage.provider.observe(&scope(), &wanted).await.resources.remove(&web.name).unwrap();
        let waits = async || tokio::time::timeout(Duration::from_millis(500), stage.provider.changed(&scope())).await;
        // An account that may list and not watch: nobody is woken for it, and each look lists.
        between.spoil(&[Fault::Forbid]);
        assert!(sees().await.in_sync());
        assert!(waits().await.is_err(), "there is no reason to look");
        until_async(
            "it is refused",
            async || if between.left() == 0 { Ok(()) } else { Err("it is not asked") },
        )
        .await;
        assert!(waits().await.is_err(), "there is no reason to look");
        assert_eq!(asked(true), 1);
        stage.admin.merge(CONFIG_MAPS, "web", &json!({ "data": { "a": "2" } })).await;
        assert!(!sees().await.in_sync());
        assert_eq!(asked(false), 1);
        // Whoever stands between ends each watch at once: it goes on from where it stood, with a pause, and misses nothing.
        between.spoil(&[Fault::End; 3]);
        let began = Instant::now();
        assert!(waits().await.is_err(), "there is no reason to look");
        stage.admin.merge(CONFIG_MAPS, "web", &json!({ "data": { "a": "1" } })).await;
        stage.provider.changed(&scope()).await;
        assert!(sees().await.in_sync());
        assert_eq!((between.left(), asked(false)), (0, 0));
        assert!(began.elapsed() >= Duration::from_secs(3), "a second for each that ended");
    });
}

type Seen = std::collections::BTreeMap<state::ids::ResourceName, Observation>;

async fn look(stage: &Stage, all: &[&Resource]) -> Seen {
    let wanted: Vec<Wanted<'_>> = all.iter().copied().map(Wanted::of).collect();
    let seen = stage.provider.observe(&scope(), &wanted).await.resources;
    // Between its looks a service waits for changes.
    let _ = tokio::time::timeout(Duration::ZERO, stage.provider.changed(&scope())).await;
    seen
}

async fn drifts(stage: &Stage, web: &Resource, other: &Resource, path: &str) {
    until_async(&format!("{path} is seen"), async || {
        let seen = look(stage, &[web, other]).await;
        match &seen[&web.name] {
            Observation::Present { drift, .. } if drift.len() == 1 && drift[0].path == path => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
