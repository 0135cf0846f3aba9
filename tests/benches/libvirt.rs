//! A hypervisor with many virtual machines: a look at all of them, whether a pass that changes nothing writes anything, and how long it
//! is from an order on the ledger to a guest that runs and has spoken.
//!
//! `CHARTER=target/release/charter cargo bench -p tests --bench libvirt [-- DOMAINS]`, as root, with a Charter that has the feature `libvirt`

#![allow(clippy::unwrap_used, reason = "a benchmark ends when something is wrong")]

use std::time::{Duration, Instant};

use libvirt::{Helper, Libvirt, LibvirtConfig};
use providers::{Provider, Scope, Wanted};
use serde_json::json;
use state::resource::Resource;
use tests::hypervisor::{Hypervisor, SAYS};
use tests::world::binary;
use tests::{World, documents};

/// How many looks are taken of each size; the middle one counts.
const LOOKS: usize = 9;

fn domain(index: usize) -> Resource {
    let spec = json!({ "cpus": 1, "memory_mib": 64, "virtualization": "emulated", "running": false, "autostart": false });
    let name = format!("guest-{index}");
    serde_json::from_value(json!({ "name": name, "kind": "libvirt/domain", "owner": "city", "spec": spec })).unwrap()
}

/// What the daemon keeps of its domains on the disk, and when it was written.
fn written(host: &Hypervisor) -> Vec<(String, std::time::SystemTime)> {
    let folder = host.folder().join("own/etc/libvirt/qemu");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                entry.metadata().unwrap().modified().unwrap(),
            )
        })
        .collect();
    all.sort();
    all
}

fn looks(host: &Hypervisor, most: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config: LibvirtConfig = serde_json::from_value(json!({
        "uri": host.uri(), "pools": [host.folder().join("pools")], "logs": host.folder().join("logs"), "records": host.folder().join("records"),
    }))
    .unwrap();
    let helper = Helper {
        program: binary().to_owned(),
        arguments: vec!["libvirt-helper".to_owned()],
    };
    let provider = Libvirt::new(config, helper);
    let scope = Scope::new("bench".parse().unwrap(), "city".parse().unwrap());
    let resources: Vec<Resource> = (0..most).map(domain).collect();
    let mut made = 0;
    for size in [most / 4, most / 2, most] {
        let since = Instant::now();
        for resource in &resources[made..size] {
            runtime.block_on(provider.apply(&scope, resource)).unwrap();
        }
        let each = since.elapsed() / u32::try_from(size - made).unwrap();
        made = size;
        let wanted: Vec<Wanted<'_>> = resources[..size].iter().map(Wanted::of).collect();
        let before = written(host);
        let mut times: Vec<Duration> = (0..LOOKS)
            .map(|_| {
                let since = Instant::now();
                let seen = runtime.block_on(provider.observe(&scope, &wanted));
                assert!(
                    seen.resources.values().all(state::observation::Observation::in_sync),
                    "{:?}",
                    seen.resources.values().next()
                );
                since.elapsed()
            })
            .collect();
        times.sort();
        let wrote = if written(host) == before { "no write" } else { "WRITES" };
        println!(
            "{size} domains: made in {each:.1?} each; a look takes {:.1?} ({:.1?} to {:.1?}), {:.0?} a domain; {wrote}",
            times[LOOKS / 2],
            times[0],
            times[LOOKS - 1],
            times[LOOKS / 2] / u32::try_from(size).unwrap(),
        );
    }
}

/// From an order to a guest that has spoken, by a member's own service, which looks by itself every ten minutes only.
fn order(host: &Hypervisor) {
    let world = World::smart_city();
    let digest = host.image("boot.img");
    let path = world.config("city");
    let text = std::fs::read_to_string(&path).unwrap();
    let folder = |name: &str| host.folder().join(name).display().to_string();
    let table = format!(
        "\n[libvirt]\nuri = {:?}\npools = [{:?}]\nimages = {:?}\nlogs = {:?}\n",
        host.uri(),
        folder("pools"),
        folder("images"),
        folder("logs")
    );
    std::fs::write(&path, text + &table).unwrap();
    world.set("city", "interval_seconds", "600");
    let _ledger = world.ledger();
    let _services: Vec<_> = ["city", "breeze"].map(|member| world.serve(member)).into();
    let reference = documents::reference;
    let order = documents::order(vec![
        json!({ "name": "disks", "kind": "libvirt/pool", "owner": "city", "spec": { "path": format!("{}/disks", folder("pools")) } }),
        json!({ "name": "root", "kind": "libvirt/volume", "owner": "city", "spec": {
            "pool": reference("disks.outputs.name"), "format": "raw", "image": { "file": "boot.img", "sha256": digest },
        } }),
        json!({ "name": "guest", "kind": "libvirt/domain", "owner": "city", "spec": {
            "cpus": 1, "memory_mib": 64, "virtualization": "emulated", "stop_seconds": 0, "ready": { "serial": SAYS },
            "disks": [{ "volume": reference("root.outputs.path") }],
        } }),
    ]);
    let since = Instant::now();
    world.submit("city", "smart-city-1", &order).exits(0);
    let submitted = since.elapsed();
    tests::until("the guest is in sync", || {
        let standing = world.status().resource("city", "smart-city-1", "guest");
        match standing {
            Some(standing) if standing.is_settled() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    if std::env::var_os("SHOW").is_some() {
        let passes = world
            .store("city")
            .git(&["log", "--reverse", "-6", "--format=%ct %s", "actual/smart-city-1"]);
        println!("{}", passes.stdout);
    }
    println!("order to in sync: {:.1?} (submitted after {submitted:.1?})", since.elapsed());
}

fn main() {
    let most = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(500);
    let Some(host) = Hypervisor::start() else { return };
    host.enter();
    looks(&host, most);
    drop(host);
    let Some(host) = Hypervisor::start() else { return };
    order(&host);
}
