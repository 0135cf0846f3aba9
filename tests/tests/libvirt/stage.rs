//! A hypervisor, and a provider on it.

use std::path::Path;

use libvirt::{Helper, Libvirt, LibvirtConfig};
use providers::{Applied, Deleted, Provider, Scope, Wanted};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use state::observation::Observation;
use state::resource::{Outputs, Resource};
use tests::hypervisor::Hypervisor;
use tests::world::binary;

/// Everything that a test needs.
pub(crate) struct Stage {
    pub(crate) host: Hypervisor,
    pub(crate) provider: Libvirt,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) channel: &'static str,
}

impl Stage {
    /// Starts it; none when something is missing. What bridges are called is a function of the channel: each test has its own.
    pub(crate) fn new(channel: &'static str) -> Option<Self> {
        Some(Self::on(Hypervisor::start()?, channel))
    }

    /// The same on a host that is there.
    pub(crate) fn on(host: Hypervisor, channel: &'static str) -> Self {
        host.enter();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self {
            provider: provider(&host, &host.folder().join("records")),
            host,
            runtime,
            channel,
        }
    }

    /// Puts another provider in the place of the one that is there, as after a Charter's death.
    pub(crate) fn renew(&mut self) {
        self.provider = provider(&self.host, &self.host.folder().join("records"));
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::new(self.channel.parse().unwrap(), "city".parse().unwrap())
    }

    pub(crate) fn external(&self, name: &str) -> String {
        format!("{}.{name}", self.channel)
    }

    /// A path in a pool of ours.
    pub(crate) fn pools(&self) -> String {
        self.host.folder().join("pools").display().to_string()
    }

    /// Stops a process of the host's, or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        let daemon = Pid::from_raw(self.host.daemon().unwrap()).unwrap();
        rustix::process::kill_process(daemon, signal).unwrap();
    }

    /// Stops the daemon for longer than its deadline.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
        let daemon = Pid::from_raw(self.host.daemon().unwrap()).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_secs(7));
            let _ = rustix::process::kill_process(daemon, Signal::CONT);
        });
    }

    pub(crate) fn see(&self, resource: &Resource) -> Observation {
        let wanted = Wanted::of(resource);
        let mut seen = self.runtime.block_on(self.provider.observe(&self.scope(), &[wanted]));
        seen.resources.remove(&resource.name).unwrap()
    }

    pub(crate) fn apply(&self, resource: &Resource) -> Result<Applied, String> {
        let done = self.runtime.block_on(self.provider.apply(&self.scope(), resource));
        done.map_err(|error| state::errors::chain(&error))
    }

    /// Does what passes do until it is in sync.
    #[track_caller]
    pub(crate) fn make(&self, resource: &Resource) -> Outputs {
        tests::passes::passes(|| self.see(resource), || self.apply(resource))
    }

    /// Does what passes do until it is gone.
    #[track_caller]
    pub(crate) fn remove(&self, resource: &Resource) {
        let external = self.external(resource.name.as_str());
        let scope = self.scope();
        tests::until("it is gone", || {
            let done = self.provider.delete(&scope, &resource.kind, &resource.name, &external);
            match self.runtime.block_on(done) {
                Ok(Deleted::Gone) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// The one field that differs.
    #[track_caller]
    pub(crate) fn drift(&self, resource: &Resource) -> Vec<String> {
        tests::passes::paths(self.see(resource))
    }
}

/// A provider on a host, which remembers what it made in a folder.
pub(crate) fn provider(host: &Hypervisor, records: &Path) -> Libvirt {
    provider_at(host, &host.uri(), records)
}

/// A provider on a host that is reached in some way.
pub(crate) fn provider_at(host: &Hypervisor, uri: &str, records: &Path) -> Libvirt {
    let watched = ["etc/libvirt", "run/libvirt/network", "run/libvirt/qemu"].map(|name| host.folder().join("own").join(name));
    let config: LibvirtConfig = serde_json::from_value(json!({
        "uri": uri, "pools": [host.folder().join("pools")], "networks": ["10.77.0.0/16"], "images": host.folder().join("images"),
        "logs": host.folder().join("logs"), "watch": watched, "records": records, "deadline_seconds": 5,
    }))
    .unwrap();
    config.check().unwrap();
    Libvirt::new(
        config,
        Helper {
            program: binary().to_owned(),
            arguments: vec!["libvirt-helper".to_owned()],
        },
    )
}

pub(crate) fn resource(kind: &str, name: &str, spec: &Value) -> Resource {
    serde_json::from_value(json!({ "name": name, "kind": format!("libvirt/{kind}"), "owner": "city", "spec": spec })).unwrap()
}
