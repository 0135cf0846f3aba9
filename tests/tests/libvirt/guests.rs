//! Guests that really run, from images to what their serial ports say; and what others do to them.

use providers::{Applied, Provider};
use serde_json::{Value, json};
use state::observation::Observation;
use state::resource::Resource;
use tests::hypervisor::{Hypervisor, SAYS};

use crate::stage::{Stage, resource};

/// A pool, an image in a volume, a network, and a guest of them.
struct Guest {
    pool: Resource,
    disk: Resource,
    network: Resource,
    domain: Resource,
}

impl Guest {
    fn new(stage: &Stage, digest: &str, more: &Value) -> Self {
        let pool = stage.external("disks");
        let path = format!("{}/disks/{}.raw", stage.pools(), stage.external("root"));
        let mut spec = json!({
            "cpus": 1, "memory_mib": 64, "virtualization": "any", "stop_seconds": 0, "ready": { "serial": SAYS },
            "disks": [{ "volume": path }], "interfaces": [{ "network": stage.external("inside") }],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self {
            pool: resource("pool", "disks", &json!({ "path": format!("{}/disks", stage.pools()) })),
            disk: resource(
                "volume",
                "root",
                &json!({ "pool": pool, "format": "raw", "image": { "file": "boot.img", "sha256": digest } }),
            ),
            network: resource(
                "network",
                "inside",
                &json!({ "address": "10.77.1.1/24", "dhcp": { "from": "10.77.1.10", "to": "10.77.1.99" } }),
            ),
            domain: resource("domain", "guest", &spec),
        }
    }

    fn all(&self) -> [&Resource; 4] {
        [&self.pool, &self.disk, &self.network, &self.domain]
    }
}

#[test]
fn a_guest_runs_from_an_image_and_stays_as_it_was_ordered() {
    let Some(stage) = Stage::new("guests") else { return };
    let digest = stage.host.image("boot.img");
    let guest = Guest::new(&stage, &digest, &json!({}));
    // An image that is another one is never put anywhere.
    let wrong = Guest::new(&stage, &"0".repeat(64), &json!({}));
    stage.make(&guest.pool);
    let refused = stage.apply(&wrong.disk).unwrap_err();
    assert!(refused.contains("is another one: its SHA-256 is"), "{refused}");
    assert_eq!(stage.see(&wrong.disk), Observation::Absent);
    for resource in guest.all() {
        stage.make(resource);
    }
    let calm = || {
        for resource in guest.all() {
            for _ in 0..2 {
                assert!(stage.see(resource).in_sync(), "{:?}", stage.see(resource));
            }
        }
    };
    calm();
    let name = stage.external("guest");
    let before = stage.host.does(&["dumpxml", "--inactive", &name]);
    assert!(matches!(stage.apply(&guest.domain), Ok(Applied::Done { .. })));
    assert_eq!(
        stage.host.does(&["dumpxml", "--inactive", &name]),
        before,
        "applying again changes nothing"
    );

    // After a restart of the guest, and of the daemon. Who waits for changes is woken.
    let wakes = |what: &dyn Fn()| {
        let scope = stage.scope();
        let waits = stage.provider.changed(&scope);
        let woken = async {
            tokio::pin!(waits);
            let quiet = tokio::time::timeout(std::time::Duration::from_millis(500), &mut waits).await;
            assert!(quiet.is_err(), "nothing has happened");
            what();
            tokio::time::timeout(std::time::Duration::from_secs(10), waits)
                .await
                .expect("who waits is woken");
        };
        stage.runtime.block_on(woken);
    };
    // It begins to listen with the first wait, and says so.
    stage.runtime.block_on(stage.provider.changed(&stage.scope()));
    calm();
    wakes(&|| {
        stage.host.does(&["destroy", &name]);
    });
    assert_eq!(stage.drift(&guest.domain), ["/running"]);
    stage.make(&guest.domain);
    calm();
    // The daemon tells nothing of this one.
    wakes(&|| {
        stage.host.does(&["setmem", &name, "32M", "--config"]);
    });
    assert_eq!(stage.drift(&guest.domain), ["/memory_mib"]);
    stage.make(&guest.domain);
    calm();
    let range = "<range start='10.77.1.10' end='10.77.1.99'/>";
    wakes(&|| {
        stage
            .host
            .does(&["net-update", &stage.external("inside"), "delete", "ip-dhcp-range", range, "--live"]);
    });
    assert_eq!(stage.drift(&guest.network), ["/dhcp"]);
    stage.make(&guest.network);
    let daemon = rustix::process::Pid::from_raw(stage.host.daemon().unwrap()).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    tests::until("the daemon is back", || stage.host.virsh(&["version"]).map(drop));
    tests::until("all is seen again", || match stage.see(&guest.domain) {
        seen if seen.in_sync() => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    calm();

    // One change with virsh is one difference.
    let change = |words: &[&str], resource: &Resource, path: &str| {
        stage.host.does(words);
        assert_eq!(stage.drift(resource), [path], "{words:?}");
        stage.make(resource);
    };
    change(&["setvcpus", &name, "2", "--config", "--maximum"], &guest.domain, "/max_cpus");
    change(&["setmem", &name, "32M", "--config"], &guest.domain, "/memory_mib");
    change(&["autostart", &name, "--disable"], &guest.domain, "/autostart");
    change(
        &["net-autostart", &stage.external("inside"), "--disable"],
        &guest.network,
        "/autostart",
    );
    change(
        &["pool-autostart", &stage.external("disks"), "--disable"],
        &guest.pool,
        "/autostart",
    );
    let stranger = format!("{}/stranger.raw", stage.pools());
    std::fs::write(&stranger, [0; 1024]).unwrap();
    change(&["attach-disk", &name, &stranger, "vdb", "--config"], &guest.domain, "/disks/vdb");
    change(
        &[
            "attach-interface",
            &name,
            "network",
            &stage.external("inside"),
            "--mac",
            "52:54:00:00:00:01",
            "--config",
        ],
        &guest.domain,
        "/interfaces/52:54:00:00:00:01",
    );

    // Everything goes, what stands on others first; a network with a guest in it, and a pool with a volume, wait.
    let gone = |resource: &Resource| {
        let external = stage.external(resource.name.as_str());
        let scope = stage.scope();
        let done = stage.provider.delete(&scope, &resource.kind, &resource.name, &external);
        let done = stage.runtime.block_on(done);
        format!("{done:?}")
    };
    assert!(gone(&guest.network).contains("guests.guest has an interface in it"));
    assert!(gone(&guest.pool).contains("it still holds guests.root.raw"));
    for resource in guest.all().into_iter().rev() {
        tests::until("it is gone", || match gone(resource) {
            done if done == "Ok(Gone)" => Ok(()),
            done => Err(done),
        });
        assert_eq!(stage.see(resource), Observation::Absent);
    }
    assert_eq!(stage.host.does(&["list", "--all", "--name"]).trim(), "");
    assert!(!std::path::Path::new(&format!("{}/disks", stage.pools())).exists());
}

#[test]
fn what_needs_a_restart_waits_for_it_unless_the_order_allows_it() {
    let Some(stage) = Stage::new("restarts") else { return };
    let domain = |memory: u64, restart: &str| {
        let spec = json!({ "cpus": 1, "memory_mib": memory, "virtualization": "any", "stop_seconds": 0, "restart": restart });
        resource("domain", "guest", &spec)
    };
    stage.make(&domain(64, "never"));
    let name = stage.external("guest");
    let id = || stage.host.does(&["domid", &name]);
    let first = id();
    assert!(matches!(stage.apply(&domain(96, "never")), Ok(Applied::Pending { why, .. }) if why.contains("from its next start on")));
    match stage.see(&domain(96, "never")) {
        Observation::Pending { why, .. } => assert!(why.starts_with("/memory_mib: "), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(id(), first, "the guest was left alone");
    assert_eq!(stage.drift(&domain(96, "allowed")), ["/restart"]);
    stage.make(&domain(96, "allowed"));
    assert_ne!(id(), first);
    // An address that another domain has is nobody else's.
    let mac = json!({ "cpus": 1, "memory_mib": 64, "virtualization": "any", "running": false, "interfaces": [{ "network": stage.external("inside"), "mac": "52:54:00:aa:bb:cc" }] });
    stage.make(&resource("network", "inside", &json!({ "address": "10.77.2.1/24" })));
    stage.make(&resource("domain", "one", &mac));
    let taken = stage.apply(&resource("domain", "two", &mac)).unwrap_err();
    assert!(taken.contains("the address 52:54:00:aa:bb:cc is restarts.one's already"), "{taken}");
}

#[test]
fn what_kvm_does_not_run_is_told_with_what_to_order() {
    let Some(host) = Hypervisor::emulating() else { return };
    let stage = Stage::on(host, "slow");
    let domain = |virtualization: &str| {
        let spec = json!({ "cpus": 1, "memory_mib": 64, "virtualization": virtualization, "stop_seconds": 0 });
        resource("domain", "guest", &spec)
    };
    let refused = stage.apply(&domain("kvm")).unwrap_err();
    assert!(refused.contains("`virtualization: emulated`"), "{refused}");
    stage.make(&domain("any"));
    assert!(
        stage
            .host
            .does(&["dumpxml", &stage.external("guest")])
            .contains("<domain type='qemu'")
    );
}

#[test]
fn volumes_grow_and_never_shrink_and_a_part_is_never_used() {
    let Some(mut stage) = Stage::new("volumes") else { return };
    stage.make(&resource("pool", "disks", &json!({ "path": format!("{}/disks", stage.pools()) })));
    let pool = stage.external("disks");
    let volume = |mib: u64| resource("volume", "data", &json!({ "pool": pool, "capacity_mib": mib }));
    stage.make(&volume(8));
    assert_eq!(stage.drift(&volume(16)), ["/capacity_mib"]);
    stage.make(&volume(16));
    match stage.see(&volume(8)) {
        Observation::Present { blocked: Some(why), .. } => assert!(why.contains("never made smaller"), "{why}"),
        other => panic!("{other:?}"),
    }
    let refused = stage.apply(&volume(8)).unwrap_err();
    assert!(refused.contains("never made smaller"), "{refused}");
    // One that stands on another.
    let path = |name: &str| format!("{}/disks/{}.qcow2", stage.pools(), stage.external(name));
    let above = resource(
        "volume",
        "above",
        &json!({ "pool": pool, "capacity_mib": 16, "base": path("data") }),
    );
    stage.make(&above);
    let info = stage.host.does(&["vol-dumpxml", "--pool", &pool, "volumes.above.qcow2"]);
    assert!(info.contains(&format!("<path>{}</path>", path("data"))), "{info}");
    // A stranger's volume of that name is not touched.
    stage
        .host
        .does(&["vol-create-as", &pool, "volumes.foreign.qcow2", "8M", "--format", "qcow2"]);
    let foreign = resource("volume", "foreign", &json!({ "pool": pool, "capacity_mib": 8 }));
    assert!(matches!(stage.see(&foreign), Observation::Present { owned: false, .. }));
    assert!(stage.apply(&foreign).unwrap_err().contains("exists and is not Charter's"));
    // Charter died while it filled one: what is there is a part, and is made anew.
    let digest = stage.host.image("boot.img");
    let image = resource(
        "volume",
        "image",
        &json!({ "pool": pool, "format": "raw", "image": { "file": "boot.img", "sha256": digest } }),
    );
    stage.make(&image);
    let record = stage.host.folder().join("records/volumes.image.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"whole\":true", "\"whole\":false")).unwrap();
    let file = format!("{}/disks/volumes.image.raw", stage.pools());
    std::fs::write(&file, b"a part").unwrap();
    stage.renew();
    let again = stage;
    assert!(again.drift(&image).contains(&"/content".to_owned()));
    again.make(&image);
    assert_eq!(std::fs::read(&file).unwrap().len(), 1024 * 1024);
    // A seed is a disk that cloud-init finds; with other data it is another one.
    let seed = |name: &str| {
        let data = json!({ "hostname": name });
        resource("cloud-init", "seed", &json!({ "pool": pool, "user_data": data }))
    };
    again.make(&seed("one"));
    assert_eq!(again.drift(&seed("two")), ["/content"]);
    again.make(&seed("two"));
    let bytes = std::fs::read(format!("{}/disks/volumes.seed.raw", again.pools())).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("CIDATA") && holds("\"hostname\": \"two\"") && !holds("\"hostname\": \"one\""));
}
