//! Terraform: what a pass that changes nothing costs over many workspaces on a server, in requests and in Charter's own time; and what
//! Charter adds to an engine's own time on this machine.
//!
//! `TERRAFORM=tofu CHARTER=target/release/charter cargo bench -p tests --bench terraform [-- WORKSPACES]`

#![allow(clippy::unwrap_used, reason = "a benchmark ends when something is wrong")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use providers::{Applied, Provider, Scope, Wanted};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use state::resource::Resource;
use terraform::{Terraform, TerraformConfig};
use tests::relay::Relay;
use tests::tfc::Served;

/// How many passes are taken; the middle one counts.
const PASSES: usize = 5;
/// How often an engine makes something.
const ROUNDS: usize = 7;

fn workspace(index: usize, size: &str) -> Resource {
    let spec = json!({
        "configuration": {
            "resource": { "terraform_data": { "station": { "input": "${var.size}" } } },
            "output": { "size": { "value": "${terraform_data.station.output}" } },
        },
        "variables": { "size": size },
    });
    let name = format!("net-{index}");
    serde_json::from_value(json!({ "name": name, "kind": "terraform/workspace", "owner": "city", "spec": spec })).unwrap()
}

fn scope() -> Scope {
    Scope::new("bench".parse().unwrap(), "city".parse().unwrap())
}

fn provider(config: &Value) -> Terraform {
    let config: TerraformConfig = serde_json::from_value(config.clone()).unwrap();
    config.check().unwrap();
    Terraform::new(config).unwrap()
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

fn many(engine: &Path, count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(&folder.path().join("server"), engine, "127.0.0.1:0");
    let secrets = folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::rename(folder.path().join("server/token"), secrets.join("token")).unwrap();
    // Who counts works on threads of his own: only Charter's are on this one.
    let others = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let relay = others.block_on(Relay::on(served.address().parse().unwrap()));
    let provider = provider(&json!({
        "cloud": { "address": relay.address(), "organization": "acme", "token": "token" },
        "folder": folder.path().join("work"), "secrets": secrets,
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let resources: Vec<Resource> = (0..count).map(|index| workspace(index, "small")).collect();
    let since = Instant::now();
    runtime.block_on(async {
        let all = resources.chunks(4).map(|few| async {
            futures::future::join_all(
                few.iter()
                    .map(|one| async { while !matches!(provider.apply(&scope(), one).await, Ok(Applied::Done { .. })) {} }),
            )
            .await
        });
        for few in all {
            few.await;
        }
    });
    println!("{count} workspaces on a server, made in {:.1?}", since.elapsed());
    let wanted: Vec<Wanted<'_>> = resources.iter().map(Wanted::of).collect();
    relay.seen();
    let mut passes: Vec<(Duration, Duration, usize)> = (0..PASSES)
        .map(|_| {
            let (wall, own) = (Instant::now(), cpu());
            let seen = runtime.block_on(provider.observe(&scope(), &wanted));
            let (wall, own) = (wall.elapsed(), cpu() - own);
            assert!(seen.resources.values().all(state::observation::Observation::in_sync));
            let asked = relay.seen();
            assert!(asked.iter().all(|one| one.starts_with("GET ")), "nothing is begun");
            (own, wall, asked.len())
        })
        .collect();
    passes.sort();
    let (own, wall, asked) = passes[PASSES / 2];
    println!(
        "a pass that changes nothing: {asked} requests, all of them reads; Charter's own time {own:.1?}, {:.0?} a workspace; done after {wall:.1?}",
        own / u32::try_from(count).unwrap()
    );
}

/// A script in an engine's place that writes down how long each run of it takes.
fn timed(folder: &Path, engine: &Path) -> PathBuf {
    let path = folder.join("engine");
    let log = folder.join("times").display().to_string();
    let script = format!(
        "a=$(date +%s%N)\n{} \"$@\"\ncode=$?\necho $(( $(date +%s%N) - a )) >> {log}\nexit $code\n",
        engine.display()
    );
    tests::command::script(&path, &script);
    path
}

fn overhead(engine: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let engine = timed(folder.path(), engine);
    let provider = provider(&json!({ "engine": engine, "folder": folder.path().join("work"), "recheck_seconds": 0 }));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rounds: Vec<(Duration, Duration)> = (0..ROUNDS)
        .map(|round| {
            let _ = std::fs::remove_file(folder.path().join("times"));
            let resource = workspace(round, "small");
            let since = Instant::now();
            runtime.block_on(provider.apply(&scope(), &resource)).unwrap();
            let seen = runtime.block_on(provider.observe(&scope(), &[Wanted::of(&resource)]));
            assert!(seen.resources[&resource.name].in_sync());
            let whole = since.elapsed();
            let times = std::fs::read_to_string(folder.path().join("times")).unwrap();
            let engines = times.lines().map(|line| Duration::from_nanos(line.parse().unwrap())).sum();
            (whole, engines)
        })
        .collect();
    rounds.sort();
    let (whole, engines) = rounds[ROUNDS / 2];
    let share = (whole - engines).as_secs_f64() / engines.as_secs_f64() * 100.0;
    println!("an engine here: made and looked at in {whole:.1?}, of which the engine takes {engines:.1?}; Charter adds {share:.1} %");
}

fn main() {
    let Some(engine) = std::env::var_os("TERRAFORM").map(PathBuf::from) else {
        println!("missing: TERRAFORM, the path of tofu or terraform");
        return;
    };
    let count = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(200);
    overhead(&engine);
    many(&engine, count);
}
