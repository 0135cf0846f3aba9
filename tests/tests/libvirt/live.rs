//! A guest with Linux in it, which is given devices, processors and memory while it runs, and which answers.

use providers::Applied;
use serde_json::{Value, json};
use state::observation::Observation;
use state::resource::Resource;

use crate::stage::{Stage, resource};

/// A guest with Linux, and what it stands on.
struct Linux {
    stage: Stage,
    pool: String,
}

impl Linux {
    fn new(channel: &'static str) -> Option<Self> {
        let stage = Stage::new(channel)?;
        let [kernel, initrd] = stage.host.linux()?;
        stage.make(&resource("pool", "disks", &json!({ "path": format!("{}/disks", stage.pools()) })));
        let pool = stage.external("disks");
        for (name, digest) in [("kernel", kernel), ("initrd", initrd)] {
            let image = json!({ "file": name, "sha256": digest });
            stage.make(&resource("volume", name, &json!({ "pool": pool, "format": "raw", "image": image })));
        }
        let dhcp = json!({ "from": "10.77.1.10", "to": "10.77.1.99" });
        stage.make(&resource("network", "inside", &json!({ "address": "10.77.1.1/24", "dhcp": dhcp })));
        stage.make(&resource("network", "quiet", &json!({ "address": "10.77.2.1/24" })));
        Some(Self { stage, pool })
    }

    fn path(&self, file: &str) -> String {
        format!("{}/disks/{}", self.stage.pools(), self.stage.external(file))
    }

    fn guest(&self, more: &Value) -> Resource {
        let mut spec = json!({
            // Emulated: not every processor's support takes Linux to its end.
            "cpus": 1, "max_cpus": 2, "memory_mib": 256, "max_memory_mib": 320, "virtualization": "emulated", "stop_seconds": 20,
            "kernel": { "image": self.path("kernel.raw"), "initrd": self.path("initrd.raw"), "arguments": ["console=ttyS0", "title=weather", "--", "hello"] },
            "interfaces": [{ "network": self.stage.external("inside") }], "ready": { "port": 80 },
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource("domain", "guest", &spec)
    }

    /// Changes the order, and holds the change to being made without a restart.
    #[track_caller]
    fn amend(&self, more: &Value, path: &str) {
        let name = self.stage.external("guest");
        let id = self.stage.host.does(&["domid", &name]);
        let guest = self.guest(more);
        assert_eq!(self.stage.drift(&guest), [path]);
        self.stage.make(&guest);
        assert_eq!(self.stage.host.does(&["domid", &name]), id, "the guest was not restarted");
    }
}

#[test]
fn a_guest_answers_and_is_changed_while_it_runs() {
    let Some(linux) = Linux::new("live") else { return };
    let (stage, name) = (&linux.stage, linux.stage.external("guest"));
    let volume = |name: &str, mib: u64| {
        stage.make(&resource("volume", name, &json!({ "pool": linux.pool, "capacity_mib": mib })));
    };
    volume("data", 8);
    let outputs = stage.make(&linux.guest(&json!({})));
    let outputs = serde_json::to_value(outputs).unwrap();
    let address = outputs["address"].as_str().unwrap();
    assert!(address.starts_with("10.77.1."), "{outputs}");
    let page = tests::http::get(&format!("{address}:80"), "/").unwrap();
    assert!(
        page.status == 200 && page.body.contains("<title>weather</title>") && page.body.contains("hello"),
        "{page:?}"
    );
    let mac = outputs["mac"].clone();

    // A disk comes, grows under the guest, and goes.
    let disk = json!({ "disks": [{ "volume": linux.path("data.qcow2") }] });
    linux.amend(&disk, "/disks/0");
    volume("data", 16);
    let info = stage.host.does(&["domblkinfo", &name, "vda"]);
    assert!(info.contains("16777216"), "{info}");
    // What is taken from the running guest only is seen, and given back.
    stage.host.does(&["detach-disk", &name, "vda", "--live"]);
    tests::until("the guest has let go of it", || match stage.see(&linux.guest(&disk)) {
        Observation::Present { drift, .. } if drift.len() == 1 && drift[0].path == "/disks/0" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    stage.make(&linux.guest(&disk));
    linux.amend(&json!({}), "/disks/vda");

    // Processors and memory, within what it may have.
    linux.amend(&json!({ "cpus": 2 }), "/cpus");
    let cpus = stage.host.does(&["vcpucount", &name, "--live", "--active"]);
    assert_eq!(cpus.trim(), "2");
    linux.amend(&json!({ "cpus": 2, "memory_mib": 240 }), "/memory_mib");
    let spare = json!({ "cpus": 2, "memory_mib": 240 });

    // An interface more, which then leads elsewhere.
    let on = |second: &str| {
        let mut more = spare.clone();
        more["interfaces"] = json!([{ "network": stage.external("inside") }, { "network": stage.external(second) }]);
        more
    };
    linux.amend(&on("inside"), "/interfaces/1");
    linux.amend(&on("quiet"), "/interfaces/1/network");
    let id = stage.host.does(&["domid", &name]);
    // What can't be had while it runs waits for its next start, and says so.
    let mut larger = on("quiet");
    larger["max_memory_mib"] = json!(400);
    let larger = linux.guest(&larger);
    assert!(
        matches!(stage.apply(&larger), Ok(Applied::Pending { why, .. }) if why.starts_with("/max_memory_mib: it has the change from its next start on"))
    );
    assert_eq!(stage.host.does(&["domid", &name]), id);

    // It stops when it is asked to, and has everything from its next start on; its address is still its own.
    stage.host.does(&["shutdown", &name]);
    tests::until("it has stopped", || match stage.host.does(&["domstate", &name]).trim() {
        "shut off" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(stage.drift(&larger), ["/running"]);
    let again = serde_json::to_value(stage.make(&larger)).unwrap();
    assert_eq!((&again["mac"], again["address"].as_str()), (&mac, Some(address)));

    // What the network hands out changes under its guests; where it is can't.
    let network = |address: &str, to: &str| {
        let dhcp = json!({ "from": address.replace(".1/24", ".10"), "to": to });
        resource("network", "inside", &json!({ "address": address, "dhcp": dhcp }))
    };
    let wider = network("10.77.1.1/24", "10.77.1.120");
    assert_eq!(stage.drift(&wider), ["/dhcp"]);
    stage.make(&wider);
    let running = stage.host.does(&["net-dumpxml", &stage.external("inside")]);
    assert!(running.contains("end='10.77.1.120'"), "{running}");
    let elsewhere = network("10.77.9.1/24", "10.77.9.99");
    match stage.see(&elsewhere) {
        Observation::Present { blocked: Some(why), .. } => assert!(why.contains("live.guest has an interface in it"), "{why}"),
        other => panic!("{other:?}"),
    }
    let refused = stage.apply(&elsewhere).unwrap_err();
    assert!(refused.contains("not taken from under its guests"), "{refused}");
    stage.make(&wider);

    // It is deleted gently: well within the time after which it would have been stopped.
    stage.remove(&larger);
    assert_eq!(stage.host.does(&["list", "--all", "--name"]).trim(), "");
}

#[test]
fn an_address_that_nobody_hands_out_is_told_by_the_guests_agent() {
    let Some(linux) = Linux::new("agent") else { return };
    let stage = &linux.stage;
    let mut more = json!({ "interfaces": [{ "network": stage.external("quiet") }], "ready": { "address": true } });
    more["kernel"] = linux.guest(&json!({})).spec.to_value()["kernel"].clone();
    more["kernel"]["arguments"] = json!(["console=ttyS0", "address=10.77.2.44/24"]);
    let outputs = stage.make(&linux.guest(&more));
    assert_eq!(serde_json::to_value(&outputs).unwrap()["address"], json!("10.77.2.44"));
    let page = tests::http::get("10.77.2.44:80", "/").unwrap();
    assert_eq!(page.status, 200);
}
