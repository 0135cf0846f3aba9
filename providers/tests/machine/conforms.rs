//! Each kind holds what every provider has to hold.

use std::os::unix::fs::PermissionsExt;

use async_trait::async_trait;
use providers::conformance::{Subject, Verdict, check};
use providers::{Provider, Scope};
use serde_json::{Value, json};
use state::resource::Resource;

use super::*;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Directory,
    File,
    Service,
}

struct Yard {
    bench: Bench,
    kind: Kind,
}

impl Yard {
    fn place(&self, resource: &Resource) -> PathBuf {
        self.bench.root().join("ch-1").join(resource.name.as_str())
    }

    fn intended(&self, resource: &Resource) {
        self.bench.edit_record(resource.name.as_str(), |record| {
            record["stage"] = json!("intended");
            if self.kind == Kind::Service {
                record["thing"]["process"] = Value::Null;
            }
        });
    }
}

#[async_trait]
impl Subject for Yard {
    fn provider(&self) -> &dyn Provider {
        &self.bench.machine
    }

    fn scope(&self) -> Scope {
        scope()
    }

    fn resource(&self, name: &str) -> Resource {
        match self.kind {
            Kind::Directory => resource("machine/directory", name, json!({ "mode": "0750" })),
            Kind::File => resource("machine/file", name, json!({ "content": "air quality: good\n" })),
            Kind::Service => resource("machine/service", name, json!({ "command": ["sleep", "600"], "env": { "A": "1" } })),
        }
    }

    fn amended(&self, resource: &Resource) -> Option<Resource> {
        let mut amended = resource.clone();
        amended.spec = serde_json::from_value(match self.kind {
            Kind::Directory => json!({ "mode": "0700" }),
            Kind::File => json!({ "content": "air quality: bad\n" }),
            Kind::Service => json!({ "command": ["sleep", "601"], "env": { "A": "1" } }),
        })
        .unwrap();
        Some(amended)
    }

    async fn disturb(&self, resource: &Resource) -> String {
        match self.kind {
            Kind::Directory => {
                std::fs::set_permissions(self.place(resource), std::fs::Permissions::from_mode(0o755)).unwrap();
                "/mode".to_owned()
            }
            Kind::File => {
                std::fs::write(self.place(resource), "by hand").unwrap();
                "/content".to_owned()
            }
            Kind::Service => {
                kill(self.bench.leaders(resource.name.as_str())[0]);
                "/state".to_owned()
            }
        }
    }

    async fn count(&self, resource: &Resource) -> usize {
        match self.kind {
            Kind::Service => self.bench.leaders(resource.name.as_str()).len(),
            _ => usize::from(self.place(resource).symlink_metadata().is_ok()),
        }
    }

    async fn plant(&self, resource: &Resource) -> bool {
        let place = self.place(resource);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        match self.kind {
            Kind::Directory => std::fs::create_dir(&place).unwrap(),
            Kind::File => std::fs::write(&place, "theirs").unwrap(),
            Kind::Service => return false,
        }
        true
    }

    async fn is_untouched(&self, resource: &Resource) -> bool {
        match self.kind {
            Kind::Directory => self.place(resource).is_dir(),
            _ => std::fs::read(self.place(resource)).unwrap() == b"theirs",
        }
    }

    async fn cut_off(&self, resource: &Resource, step: u32) -> bool {
        self.bench.apply(resource).await.unwrap();
        let name = resource.name.as_str();
        match (self.kind, step) {
            // The intention is written, and nothing is made.
            (Kind::Directory, 0) => std::fs::remove_dir(self.place(resource)).unwrap(),
            (Kind::File, 0) => std::fs::remove_file(self.place(resource)).unwrap(),
            (Kind::Service, 0) => {
                kill(self.bench.leaders(name)[0]);
                until(|| self.bench.leaders(name).is_empty()).await;
            }
            // It is made, and that is not written yet.
            (_, 1) => {}
            // Half of the file is written, under its temporary name.
            (Kind::File, 2) => {
                std::fs::remove_file(self.place(resource)).unwrap();
                let temporary = self.bench.root().join("ch-1").join(format!(".charter-{name}"));
                std::fs::write(temporary, "air qu").unwrap();
            }
            // A process of an earlier start is left, and the next start is only an intention.
            (Kind::Service, 2) => {
                self.bench
                    .edit_record(name, |record| record["thing"]["start"] = json!("0123456789abcdef0123456789abcdef"));
            }
            // The record is lost.
            (Kind::Service, 3) => {
                std::fs::remove_file(self.bench.record(name)).unwrap();
                return true;
            }
            _ => {
                self.bench.vanish(resource).await;
                return false;
            }
        }
        self.intended(resource);
        true
    }

    async fn forbid(&self, _resource: &Resource) -> bool {
        // The tests may run as root, to whom nothing is forbidden: a disk that is not mounted is.
        std::fs::rename(self.bench.root(), self.bench.home.path().join("unmounted")).unwrap();
        std::fs::create_dir(self.bench.root()).unwrap();
        true
    }

    async fn permit(&self, _resource: &Resource) {
        std::fs::remove_dir(self.bench.root()).unwrap();
        std::fs::rename(self.bench.home.path().join("unmounted"), self.bench.root()).unwrap();
    }

    async fn hang(&self, _resource: &Resource) -> bool {
        false
    }
}

async fn conforms(kind: Kind) {
    let yard = Yard { bench: Bench::new(), kind };
    let verdicts = check(&yard).await.unwrap();
    let not_possible: Vec<&str> = verdicts
        .iter()
        .filter(|(_, verdict)| **verdict == Verdict::NotPossible)
        .map(|(name, _)| *name)
        .collect();
    // There is no server to hang, and no process is a service but by its label.
    let expected: &[&str] = match kind {
        Kind::Service => &[
            "a hung server does no harm",
            "a stranger's thing is not touched",
            "adopted without a change",
        ],
        _ => &["a hung server does no harm"],
    };
    assert_eq!(not_possible, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_conform() {
    conforms(Kind::Directory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_conform() {
    conforms(Kind::File).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_conform() {
    conforms(Kind::Service).await;
}
