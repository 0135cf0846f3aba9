//! What users of terraform-provider-libvirt have reported as differences that are none, or as things made anew that needn't be: each by
//! its number there.

use serde_json::{Value, json};
use state::observation::Observation;
use state::resource::Resource;
use tests::hypervisor::SAYS;

use crate::stage::{Stage, resource};

/// Whether a resource is in sync: looked at twice, applied again, after the daemon's restart.
#[track_caller]
fn calm(stage: &Stage, resource: &Resource) {
    for _ in 0..2 {
        assert!(stage.see(resource).in_sync(), "{}: {:?}", resource.name, stage.see(resource));
    }
    stage.apply(resource).unwrap();
    assert!(stage.see(resource).in_sync(), "{}: {:?}", resource.name, stage.see(resource));
}

fn domain(more: &Value) -> Resource {
    let mut spec = json!({ "cpus": 1, "memory_mib": 64, "virtualization": "any", "stop_seconds": 0 });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    resource("domain", "guest", &spec)
}

/// What a domain is told apart by: its UUID, and its interfaces' addresses.
fn identity(stage: &Stage) -> Vec<String> {
    let text = stage.host.does(&["dumpxml", "--inactive", &stage.external("guest")]);
    let told = |line: &&str| line.contains("<uuid>") || line.contains("<mac address");
    text.lines().filter(told).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn what_others_have_seen_differ_is_in_sync() {
    let Some(stage) = Stage::new("reports") else { return };
    let digest = stage.host.image("boot.img");
    stage.make(&resource("pool", "disks", &json!({ "path": format!("{}/disks", stage.pools()) })));
    let pool = stage.external("disks");
    let path = |file: &str| format!("{}/disks/{}", stage.pools(), stage.external(file));
    let volume = |name: &str, more: &Value| {
        let mut spec = json!({ "pool": pool });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource("volume", name, &spec)
    };

    // 160: a network was made anew at each run: its length was read as another text. 998: one without DHCP was seen as one with it.
    let network = resource("network", "inside", &json!({ "address": "10.77.4.1/22" }));
    stage.make(&network);
    calm(&stage, &network);

    // 741: a volume is a little larger than was asked for, for ever. 1349: what it has by now is what is looked at.
    let odd = volume("odd", &json!({ "capacity_mib": 7 }));
    stage.make(&odd);
    calm(&stage, &odd);
    stage.host.does(&["vol-resize", "--pool", &pool, "reports.odd.qcow2", "9M"]);
    calm(&stage, &volume("odd", &json!({ "capacity_mib": 9 })));
    // 1017: one that is made larger keeps what is in it.
    let file = path("odd.qcow2");
    let node = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&file).unwrap());
    let before = node();
    stage.make(&volume("odd", &json!({ "capacity_mib": 12 })));
    assert_eq!(node(), before, "it is the same file");

    // 1252: a mode of 600 and one of 0600 are the same.
    let root = volume(
        "root",
        &json!({ "format": "raw", "image": { "file": "boot.img", "sha256": digest } }),
    );
    stage.make(&root);
    let mode = stage.host.does(&["vol-dumpxml", "--pool", &pool, "reports.root.raw"]);
    assert!(mode.contains("<mode>0600</mode>"), "{mode}");
    calm(&stage, &root);

    // 23, 851: an interface with an address of one's own was seen to differ in how it is written, and in what it was given besides.
    let plain = json!({
        "disks": [{ "volume": path("root.raw") }], "ready": { "serial": SAYS },
        "interfaces": [{ "network": stage.external("inside"), "mac": "52:54:00:a1:a3:61" }, { "network": stage.external("inside") }],
    });
    stage.make(&domain(&plain));
    calm(&stage, &domain(&plain));
    // 1326: what a running interface is called on the host is no difference, after another start neither.
    let name = stage.external("guest");
    stage.host.does(&["destroy", &name]);
    stage.host.does(&["start", &name]);
    tests::until("it is ready again", || match stage.see(&domain(&plain)) {
        seen if seen.in_sync() => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    calm(&stage, &domain(&plain));

    // 1062: what it runs on was not said before; said now, nothing is made anew.
    let kind = stage.host.does(&["dumpxml", &name]);
    let runs_on = if kind.contains("<domain type='kvm'") { "kvm" } else { "emulated" };
    let mut said = plain.clone();
    said["virtualization"] = json!(runs_on);
    calm(&stage, &domain(&said));

    // 657: fields that its order didn't have before, at what they are without a word, make nothing anew.
    let mut all = plain.clone();
    let defaults = json!({
        "machine": "q35", "firmware": "bios", "boot": ["hd"], "autostart": true, "running": true, "restart": "never",
        "max_cpus": null, "max_memory_mib": null, "kernel": null, "xml": null,
    });
    all.as_object_mut().unwrap().extend(defaults.as_object().unwrap().clone());
    calm(&stage, &domain(&all));

    // 751, 792: a disk more is no other machine. 1069: nor is more memory, or one processor more.
    let before = identity(&stage);
    let mut more = plain.clone();
    more["disks"] = json!([{ "volume": path("root.raw") }, { "volume": path("odd.qcow2") }]);
    let replaced = |resource: &Resource| match stage.see(resource) {
        Observation::Present { replace, .. } => replace,
        other => panic!("{other:?}"),
    };
    assert_eq!(replaced(&domain(&more)), None);
    more["restart"] = json!("allowed");
    stage.make(&domain(&more));
    more["memory_mib"] = json!(96);
    more["cpus"] = json!(2);
    assert_eq!(replaced(&domain(&more)), None);
    stage.make(&domain(&more));
    assert_eq!(identity(&stage), before);
    calm(&stage, &domain(&more));

    // 1269: a processor like the host's is defined as that, whatever it is when it runs.
    if runs_on == "kvm" {
        more["xml"] = json!("<domain><cpu mode='host-model'/></domain>");
        stage.make(&domain(&more));
        calm(&stage, &domain(&more));
        more.as_object_mut().unwrap().remove("xml");
        stage.make(&domain(&more));
    }

    // 1150: other user data is written to the seed that is there.
    let seed = |host: &str| resource("cloud-init", "seed", &json!({ "pool": pool, "user_data": { "hostname": host } }));
    stage.make(&seed("one"));
    calm(&stage, &seed("one"));
    stage.make(&seed("two"));
    calm(&stage, &seed("two"));

    // 1339: what is to run is started again.
    stage.host.does(&["destroy", &name]);
    assert_eq!(stage.drift(&domain(&more)), ["/running"]);
    stage.make(&domain(&more));

    // 423, 921: what was left of an earlier try is gone on with. (Defined, and not started.)
    stage.host.does(&["destroy", &name]);
    stage.make(&domain(&more));
    stage.remove(&domain(&more));
}

#[test]
fn firmware_keeps_its_variables_and_snapshots_go_with_their_domain() {
    let Some(stage) = Stage::new("firmware") else { return };
    let name = stage.external("guest");
    let efi = |memory: u64| domain(&json!({ "firmware": "uefi", "running": false, "memory_mib": memory, "virtualization": "emulated" }));
    // 1225, 1232, 1270: a domain with variables of its firmware's could not be changed, or lost them.
    stage.make(&efi(64));
    calm(&stage, &efi(64));
    stage.host.does(&["start", &name, "--paused"]);
    let variables = || {
        let text = stage.host.does(&["dumpxml", &name]);
        let from = text.find("<nvram").map(|from| &text[from..]).unwrap_or_default();
        from.split(['>', '<']).nth(2).unwrap_or_default().to_owned()
    };
    let before = variables();
    assert!(before.ends_with("_VARS.fd"), "{before}");
    stage.host.does(&["destroy", &name]);
    stage.make(&efi(96));
    stage.host.does(&["start", &name, "--paused"]);
    assert_eq!(variables(), before);
    stage.remove(&efi(96));

    // A snapshot keeps a domain from being undefined, unless it goes with it.
    stage.make(&resource("pool", "disks", &json!({ "path": format!("{}/disks", stage.pools()) })));
    let pool = stage.external("disks");
    stage.make(&resource("volume", "data", &json!({ "pool": pool, "capacity_mib": 8 })));
    let data = format!("{}/disks/firmware.data.qcow2", stage.pools());
    let bios = domain(&json!({ "running": false, "disks": [{ "volume": data }] }));
    stage.make(&bios);
    stage.host.does(&["snapshot-create-as", &name, "before"]);
    calm(&stage, &bios);
    stage.host.does(&["managedsave-remove", &name]);
    stage.remove(&bios);
    assert_eq!(stage.host.does(&["list", "--all", "--name"]).trim(), "");
}

#[test]
fn a_fragment_of_xml_is_added_kept_and_taken_out_again() {
    let Some(stage) = Stage::new("fragments") else { return };
    let name = stage.external("guest");
    let with = |xml: &str| domain(&json!({ "running": false, "xml": xml }));
    let both = with(
        "<domain><title>Air &amp; water</title><clock offset='localtime'/><devices><watchdog model='i6300esb' action='poweroff'/></devices></domain>",
    );
    stage.make(&both);
    calm(&stage, &both);
    let text = stage.host.does(&["dumpxml", "--inactive", &name]);
    assert!(
        text.contains("<watchdog model='i6300esb' action='poweroff'>") && text.contains("<title>Air &amp; water</title>"),
        "{text}"
    );
    stage.host.does(&["desc", &name, "--title", "--config", "--new-desc", "another"]);
    assert_eq!(stage.drift(&both), ["/xml/title"]);
    stage.make(&both);
    let one = with("<domain><clock offset='localtime'/></domain>");
    assert_eq!(stage.drift(&one), ["/xml"]);
    stage.make(&one);
    let text = stage.host.does(&["dumpxml", "--inactive", &name]);
    assert!(
        !text.contains("i6300esb") && !text.contains("<title>") && text.contains("localtime"),
        "{text}"
    );
    stage.make(&domain(&json!({ "running": false })));
    calm(&stage, &domain(&json!({ "running": false })));
    let refused = stage.apply(&with("<domain><devices><disk/></devices></domain>")).unwrap_err();
    assert!(refused.contains("devices/disk may not stand in a fragment"), "{refused}");
}
