//! What every provider has to hold, on a real daemon.

use async_trait::async_trait;
use providers::conformance::{Subject, check};
use providers::{Provider, Scope};
use serde_json::json;
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

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
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

    fn amended(&self, resource: &Resource) -> Resource {
        let mut spec = resource.spec.to_value();
        spec["memory_mib"] = json!(96);
        crate::stage::resource("domain", resource.name.as_str(), &spec)
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
        let from = text.find("<metadata>").unwrap();
        let to = text.find("</metadata>").unwrap() + "</metadata>".len();
        std::fs::write(&file, format!("{}{}", &text[..from], &text[to..])).unwrap();
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
        let daemon = self.0.host.daemon().unwrap();
        signal(daemon, rustix::process::Signal::STOP);
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_secs(7));
            signal(daemon, rustix::process::Signal::CONT);
        });
        true
    }
}

#[test]
fn domains_conform() {
    let Some(stage) = Stage::new("conforms") else { return };
    let handle = stage.runtime.handle().clone();
    let subject = Domains(stage);
    let verdicts = handle.block_on(check(&subject)).unwrap();
    assert!(verdicts.len() >= 15, "{verdicts:?}");
}
