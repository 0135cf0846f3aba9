//! What every provider has to hold, on a real daemon.

use async_trait::async_trait;
use providers::conformance::{Subject, check};
use providers::{Provider, Scope};
use serde_json::{Value, json};
use state::resource::Resource;

use crate::stage::{Stage, resource};

/// Virtual machines that find nothing to start from.
struct Domains(Stage);

impl Domains {
    fn external(&self, resource: &Resource) -> String {
        self.0.external(resource.name.as_str())
    }

    fn definition(&self, resource: &Resource) -> String {
        let scripts = self.0.provider.render(&self.0.scope(), resource).unwrap();
        let path = self.0.host.folder().join(&scripts[0].name);
        std::fs::write(&path, &scripts[0].bytes).unwrap();
        path.display().to_string()
    }
}

#[async_trait]
impl Subject for Domains {
    fn provider(&self) -> &dyn Provider {
        &self.0.provider
    }

    fn scope(&self) -> Scope {
        self.0.scope()
    }

    fn resource(&self, name: &str) -> Resource {
        resource(
            "domain",
            name,
            &json!({ "cpus": 1, "memory_mib": 64, "virtualization": "emulated", "restart": "allowed", "stop_seconds": 0 }),
        )
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        let mut spec = resource.spec.to_value();
        spec["memory_mib"] = json!(96);
        Some(crate::stage::resource("domain", resource.name.as_str(), &spec))
    }

    async fn disturb(&self, resource: &Resource) -> String {
        self.0.host.does(&["setmem", &self.external(resource), "48M", "--config"]);
        "/memory_mib".to_owned()
    }

    async fn count(&self, resource: &Resource) -> usize {
        let external = self.external(resource);
        let names = self.0.host.does(&["list", "--all", "--name"]);
        names.lines().filter(|name| *name == external).count()
    }

    async fn plant(&self, resource: &Resource) -> bool {
        let file = self.definition(resource);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, without_metadata(text)).unwrap();
        self.0.host.does(&["define", &file]);
        true
    }

    async fn is_untouched(&self, resource: &Resource) -> bool {
        let external = self.external(resource);
        let text = self.0.host.does(&["dumpxml", "--inactive", &external]);
        text.contains("<memory unit='KiB'>65536</memory>") && !text.contains("charter:resource")
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        let external = self.external(resource);
        let file = self.definition(resource);
        match step {
            0 => self.0.host.does(&["define", &file]),
            1 => {
                self.0.host.does(&["define", &file]);
                self.0.host.does(&["start", &external])
            }
            _ => return false,
        };
        true
    }

    async fn forbid(&self, _resource: &Resource) -> bool {
        // Who may speak to the daemon may see all of it.
        false
    }

    async fn permit(&self, _resource: &Resource) {}

    async fn hang(&self, _resource: &Resource) -> bool {
        self.0.hang();
        true
    }
}

/// Networks, each of an address of its own, so that several can run.
struct Networks(Stage);

impl Networks {
    fn spec(name: &str, last: u8) -> Value {
        let place = name.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        json!({ "address": format!("10.77.{place}.1/24"), "dhcp": { "from": format!("10.77.{place}.10"), "to": format!("10.77.{place}.{last}") } })
    }

    fn define(&self, resource: &Resource, change: impl Fn(String) -> String) -> String {
        let scripts = self.0.provider.render(&self.0.scope(), resource).unwrap();
        let path = self.0.host.folder().join(&scripts[0].name).display().to_string();
        std::fs::write(&path, change(String::from_utf8(scripts[0].bytes.clone()).unwrap())).unwrap();
        self.0.host.does(&["net-define", &path]);
        self.0.external(resource.name.as_str())
    }
}

#[async_trait]
impl Subject for Networks {
    fn provider(&self) -> &dyn Provider {
        &self.0.provider
    }

    fn scope(&self) -> Scope {
        self.0.scope()
    }

    fn resource(&self, name: &str) -> Resource {
        resource("network", name, &Self::spec(name, 99))
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        let name = resource.name.as_str();
        Some(crate::stage::resource("network", name, &Self::spec(name, 120)))
    }

    async fn disturb(&self, resource: &Resource) -> String {
        self.0.host.does(&["net-destroy", &self.0.external(resource.name.as_str())]);
        "/active".to_owned()
    }

    async fn count(&self, resource: &Resource) -> usize {
        let external = self.0.external(resource.name.as_str());
        let names = self.0.host.does(&["net-list", "--all", "--name"]);
        names.lines().filter(|name| name.trim() == external).count()
    }

    async fn plant(&self, resource: &Resource) -> bool {
        let name = self.define(resource, without_metadata);
        self.0.host.does(&["net-start", &name]);
        self.0.host.does(&["net-autostart", &name]);
        true
    }

    async fn is_untouched(&self, resource: &Resource) -> bool {
        let text = self.0.host.does(&["net-dumpxml", &self.0.external(resource.name.as_str())]);
        text.contains(".99'") && !text.contains("charter:resource")
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        if step > 1 {
            return false;
        }
        let name = self.define(resource, |text| text);
        if step == 1 {
            self.0.host.does(&["net-start", &name]);
        }
        true
    }

    async fn forbid(&self, _resource: &Resource) -> bool {
        false
    }

    async fn permit(&self, _resource: &Resource) {}

    async fn hang(&self, _resource: &Resource) -> bool {
        self.0.hang();
        true
    }
}

/// Pools and volumes, which carry no label: whose they are is remembered beside Charter.
struct Stored {
    stage: Stage,
    /// The kind: a pool, or a volume in one that stands all the while.
    kind: &'static str,
}

impl Stored {
    fn volume(&self, resource: &Resource) -> String {
        format!("{}.qcow2", self.stage.external(resource.name.as_str()))
    }

    fn make(&self, resource: &Resource) {
        let (host, external) = (&self.stage.host, self.stage.external(resource.name.as_str()));
        match self.kind {
            "pool" => {
                let path = resource.spec.to_value()["path"].as_str().unwrap().to_owned();
                host.does(&["pool-define-as", &external, "dir", "--target", &path]);
                host.does(&["pool-build", &external]);
                host.does(&["pool-start", &external]);
                host.does(&["pool-autostart", &external]);
            }
            _ => {
                let pool = self.stage.external("stands");
                host.does(&["vol-create-as", &pool, &self.volume(resource), "8M", "--format", "qcow2"]);
            }
        }
    }
}

#[async_trait]
impl Subject for Stored {
    fn provider(&self) -> &dyn Provider {
        &self.stage.provider
    }

    fn scope(&self) -> Scope {
        self.stage.scope()
    }

    fn resource(&self, name: &str) -> Resource {
        match self.kind {
            "pool" => resource("pool", name, &json!({ "path": format!("{}/{name}", self.stage.pools()) })),
            kind => resource(kind, name, &json!({ "pool": self.stage.external("stands"), "capacity_mib": 8 })),
        }
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        if self.kind == "pool" {
            return None;
        }
        let mut spec = resource.spec.to_value();
        spec["capacity_mib"] = json!(16);
        Some(crate::stage::resource(self.kind, resource.name.as_str(), &spec))
    }

    async fn disturb(&self, resource: &Resource) -> String {
        let external = self.stage.external(resource.name.as_str());
        if self.kind == "pool" {
            self.stage.host.does(&["pool-destroy", &external]);
            return "/active".to_owned();
        }
        // Smaller than was ordered: it is made larger again.
        let file = format!("{}/stands/{}", self.stage.pools(), self.volume(resource));
        let done = std::process::Command::new("qemu-img")
            .args(["resize", "--shrink", &file, "4M"])
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        self.stage.host.does(&["pool-refresh", &self.stage.external("stands")]);
        "/capacity_mib".to_owned()
    }

    async fn count(&self, resource: &Resource) -> usize {
        let external = self.stage.external(resource.name.as_str());
        if self.kind == "pool" {
            let names = self.stage.host.does(&["pool-list", "--all", "--name"]);
            return names.lines().filter(|name| name.trim() == external).count();
        }
        let names = self.stage.host.does(&["vol-list", &self.stage.external("stands")]);
        names
            .lines()
            .filter(|line| line.split_whitespace().next() == Some(&self.volume(resource)))
            .count()
    }

    async fn plant(&self, resource: &Resource) -> bool {
        self.make(resource);
        true
    }

    async fn is_untouched(&self, resource: &Resource) -> bool {
        self.count(resource).await == 1
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        if step > u32::from(self.kind == "pool") {
            return false;
        }
        // Whose it is to be is written down before anything is made: that is left, and what came of it so far.
        let applied = self.stage.provider.apply(&self.stage.scope(), resource).await;
        applied.unwrap();
        let (host, external) = (&self.stage.host, self.stage.external(resource.name.as_str()));
        match self.kind {
            "pool" => {
                host.does(&["pool-destroy", &external]);
                if step == 0 {
                    host.does(&["pool-undefine", &external]);
                }
            }
            _ => {
                host.does(&["vol-delete", "--pool", &self.stage.external("stands"), &self.volume(resource)]);
            }
        }
        true
    }

    async fn forbid(&self, _resource: &Resource) -> bool {
        // What is in a pool that is not active can't be seen.
        if self.kind == "pool" {
            return false;
        }
        self.stage.host.does(&["pool-destroy", &self.stage.external("stands")]);
        true
    }

    async fn permit(&self, _resource: &Resource) {
        self.stage.host.does(&["pool-start", &self.stage.external("stands")]);
    }

    async fn hang(&self, _resource: &Resource) -> bool {
        self.stage.hang();
        true
    }
}

/// A definition as a stranger would have written it.
fn without_metadata(text: String) -> String {
    let from = text.find("<metadata>").unwrap();
    let to = text.find("</metadata>").unwrap() + "</metadata>".len();
    format!("{}{}", &text[..from], &text[to..])
}

fn conform(stage: &Stage, subject: &dyn Subject) {
    let verdicts = stage.runtime.block_on(check(subject)).unwrap();
    assert!(verdicts.len() >= 15, "{verdicts:?}");
}

#[test]
fn domains_conform() {
    let Some(stage) = Stage::new("conforms") else { return };
    let subject = Domains(stage);
    conform(&subject.0, &subject);
}

#[test]
fn networks_conform() {
    let Some(stage) = Stage::new("networks") else { return };
    let subject = Networks(stage);
    conform(&subject.0, &subject);
}

#[test]
fn pools_and_volumes_conform() {
    let Some(stage) = Stage::new("stored") else { return };
    let mut subject = Stored { stage, kind: "pool" };
    conform(&subject.stage, &subject);
    let path = json!({ "path": format!("{}/stands", subject.stage.pools()) });
    let stands = resource("pool", "stands", &path);
    subject.stage.make(&stands);
    // It is no part of what is checked.
    let (scope, external) = (subject.stage.scope(), subject.stage.external("stands"));
    let released = subject.stage.provider.release(&scope, &stands.kind, &stands.name, &external);
    subject.stage.runtime.block_on(released).unwrap();
    subject.kind = "volume";
    conform(&subject.stage, &subject);
}
