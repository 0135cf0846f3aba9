//! What goes wrong while something is made: a disk that is full, a daemon that stops in the middle, a Charter that dies there.

use std::time::{Duration, Instant};

use providers::Provider;
use rustix::process::Signal;
use serde_json::{Value, json};
use state::observation::Observation;
use state::resource::Resource;
use tests::hypervisor::SMALL_MIB;

use crate::stage::{Stage, resource};

/// The size of a file that takes a while to be sent, in MiB.
const LARGE_MIB: usize = 768;

/// Writes an image of so many MiB that is the same at no two places; its SHA-256.
fn image(stage: &Stage, name: &str, mib: usize) -> String {
    let mut bytes = vec![0_u8; mib * 1024 * 1024];
    for (index, sector) in bytes.chunks_mut(512).enumerate() {
        sector[..8].copy_from_slice(&index.to_le_bytes());
    }
    let folder = stage.host.folder().join("images");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), &bytes).unwrap();
    state::canonical::Digest::of(&bytes).hex()
}

fn volume(pool: &str, name: &str, file: &str, digest: &str) -> Resource {
    let image = json!({ "file": file, "sha256": digest });
    resource("volume", name, &json!({ "pool": pool, "format": "raw", "image": image }))
}

fn differs(stage: &Stage, resource: &Resource) -> Vec<String> {
    match stage.see(resource) {
        Observation::Absent => vec!["absent".to_owned()],
        Observation::Present { drift, .. } => drift.into_iter().map(|field| field.path).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_pool_is_told_and_nothing_uses_what_is_in_it_in_part() {
    let Some(stage) = Stage::new("full") else { return };
    stage.make(&resource("pool", "small", &json!({ "path": format!("{}/small", stage.pools()) })));
    let pool = stage.external("small");
    let digest = image(&stage, "large.img", usize::try_from(SMALL_MIB).unwrap() + 1);
    let large = volume(&pool, "large", "large.img", &digest);
    for _ in 0..2 {
        let refused = stage.apply(&large).unwrap_err();
        assert!(refused.contains("No space left on device"), "{refused}");
        // It isn't there, or it is a part: either way it isn't what was ordered.
        assert!(matches!(differs(&stage, &large)[..], [ref path] if path == "absent" || path == "/content"));
    }
    // Once there is room it is made whole, and a smaller one at once.
    let digest = image(&stage, "large.img", 2);
    let fits = volume(&pool, "large", "large.img", &digest);
    stage.make(&fits);
    let length = |name: &str| {
        let text = stage.host.does(&["vol-dumpxml", "--pool", &pool, name]);
        let from = text.find("<capacity unit='bytes'>").unwrap() + "<capacity unit='bytes'>".len();
        text[from..].split('<').next().unwrap().to_owned()
    };
    assert_eq!(length("full.large.raw"), (2 * 1024 * 1024).to_string());
    stage.remove(&fits);
}

#[test]
fn a_daemon_that_stops_in_the_middle_of_a_pass_is_told_within_the_deadline() {
    let Some(stage) = Stage::new("stopped") else { return };
    stage.make(&resource("pool", "disks", &json!({ "path": format!("{}/disks", stage.pools()) })));
    let pool = stage.external("disks");
    let digest = image(&stage, "large.img", LARGE_MIB);
    let large = volume(&pool, "large", "large.img", &digest);
    let file = format!("{}/disks/stopped.large.raw", stage.pools());
    let blocks = || std::fs::metadata(&file).map_or(0, |file| std::os::unix::fs::MetadataExt::blocks(&file));

    // It is stopped while it is sent a file, and hangs.
    let refused = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let done = stage.apply(&large);
            (done, Instant::now())
        });
        tests::until("some of it has arrived", || {
            if blocks() > 0 { Ok(()) } else { Err("nothing yet".to_owned()) }
        });
        stage.signal(Signal::STOP);
        let since = Instant::now();
        let (done, at) = sending.join().unwrap();
        assert!(at - since < Duration::from_secs(15), "the deadline is 5 s");
        done.unwrap_err()
    });
    assert!(refused.contains("libvirt did not answer within 5 s"), "{refused}");
    // Nor can anything be seen, which says nothing of what is there.
    assert!(matches!(stage.see(&large), Observation::Unknown { why } if why.contains("did not answer")));
    stage.signal(Signal::CONT);
    tests::until("the daemon answers again", || stage.host.virsh(&["version"]).map(drop));
    assert_eq!(differs(&stage, &large), ["/content"]);
    stage.make(&large);
    assert_eq!(tests::hypervisor::sha256(&file), digest);
}

#[test]
fn a_charter_that_dies_in_the_middle_goes_on_where_it_was() {
    let Some(mut stage) = Stage::new("dies") else { return };
    stage.make(&resource("pool", "disks", &json!({ "path": format!("{}/disks", stage.pools()) })));
    let pool = stage.external("disks");
    let digest = image(&stage, "large.img", LARGE_MIB);
    let large = volume(&pool, "large", "large.img", &digest);
    let guest = |more: &Value| {
        let mut spec = json!({
            "cpus": 1, "memory_mib": 64, "virtualization": "any", "stop_seconds": 0,
            "disks": [{ "volume": format!("{}/disks/dies.large.raw", stage.pools()) }],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource("domain", "guest", &spec)
    };
    // Whatever moment it dies at: what is made next time is whole, and one.
    for (resource, moments) in [(&large, [0, 20, 80, 160, 320]), (&guest(&json!({})), [0, 5, 20, 60, 140])] {
        for moment in moments {
            // Dropping what it does in the middle kills its process, as its own death would; the next one knows what is on the disk.
            stage.renew();
            let scope = stage.scope();
            let work = stage.provider.apply(&scope, resource);
            let _ = stage
                .runtime
                .block_on(async { tokio::time::timeout(Duration::from_millis(moment), work).await });
            stage.renew();
            stage.make(resource);
            if resource.kind.name() == "volume" {
                let sum = tests::hypervisor::sha256(&format!("{}/disks/dies.large.raw", stage.pools()));
                assert_eq!(sum, digest, "{moment} ms");
            }
            if moment != moments[4] {
                stage.remove(resource);
            }
        }
    }
    let names = stage.host.does(&["list", "--all", "--name"]);
    assert_eq!(names.trim(), "dies.guest");
}
