//! A provider with a real Ansible, behind a script that counts its runs, and hangs or fails when it is told to; and hosts for it.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ansible::{Ansible, AnsibleConfig};
use providers::Provider;
use serde_json::{Value, json};
use state::resource::Resource;
use tests::passes::{Acting, runtime};
use tokio::runtime::Runtime;

use crate::hosts::{Host, PORT, pair};

/// What is never found anywhere but on hosts.
pub(crate) const CANARY: &str = "canary-4711-and-nothing-else";

/// Everything that a test needs.
pub(crate) struct Stage {
    pub(crate) hosts: Vec<Host>,
    pub(crate) provider: Ansible,
    pub(crate) runtime: Runtime,
    folder: tempfile::TempDir,
    more: Value,
}

/// The Ansible to try; none, and one line, where there is none.
pub(crate) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("ANSIBLE").map(PathBuf::from);
    if named.is_none() {
        eprintln!("missing: ANSIBLE, which tests/run ansible sets; nothing was tried with Ansible");
    }
    named
}

/// Whether hosts with users of their own can be made here; if not, one line says so.
pub(crate) fn can_make_hosts() -> bool {
    tests::spaces::allowed("nothing was tried on hosts")
}

/// Makes scripts in the place of Ansible's programs.
pub(crate) fn scripts(folder: &Path, program: &Path) -> PathBuf {
    let root = folder.display();
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in ["ansible-playbook", "ansible-galaxy"] {
        let script = format!(
            "case \"$*\" in *--version*) exec {program} \"$@\";; esac\n\
             echo \"{name} $*\" >> {root}/runs\n\
             if [ -e {root}/hang ]; then rm {root}/hang; exec sleep 4; fi\n\
             if [ -e {root}/forbid ]; then echo 'ERROR! not allowed' >&2; exit 1; fi\n\
             exec {program} \"$@\"\n",
            program = program.with_file_name(name).display(),
        );
        tests::command::script(&bin.join(name), &script);
    }
    bin.join("ansible-playbook")
}

impl Acting for Stage {
    fn provider(&self) -> &dyn Provider {
        &self.provider
    }

    fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

impl Stage {
    /// Makes one with these hosts; none where that can't be. `more` are settings of the provider's.
    pub(crate) fn new(hosts: &[&str], more: &Value) -> Option<Self> {
        let program = program()?;
        if !can_make_hosts() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("charter-ansible-").tempdir().unwrap();
        // Hosts' users go through it.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (private, public) = pair(folder.path());
        scripts(folder.path(), &program);
        std::fs::create_dir_all(folder.path().join("secrets")).unwrap();
        secret(folder.path(), "login", &private);
        secret(folder.path(), "canary", CANARY);
        let hosts = hosts
            .iter()
            .map(|name| Host::start(&folder.path().join("hosts"), name, &public))
            .collect();
        Some(Self {
            hosts,
            provider: provider(folder.path(), more),
            runtime: runtime(),
            folder,
            more: more.clone(),
        })
    }

    /// Puts another provider in the place of the one that is there, as after a Charter's death.
    pub(crate) fn renew(&mut self) {
        self.provider = provider(self.folder.path(), &self.more);
    }

    /// Puts a file into the member's folder of playbooks; its digest.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path("playbooks").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        state::canonical::Digest::of(text.as_bytes()).hex()
    }

    /// Gives the provider other settings.
    pub(crate) fn set(&mut self, more: &Value) {
        self.more = more.clone();
        self.renew();
    }

    /// A path of the stage's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The working directory of a resource.
    pub(crate) fn work(&self, resource: &Resource) -> PathBuf {
        self.path("work/work").join(format!("air.{}", resource.name))
    }

    /// Tells Ansible to do something another way, once or until it is told otherwise.
    pub(crate) fn tell(&self, word: &str) {
        std::fs::write(self.path(word), "").unwrap();
    }

    pub(crate) fn untell(&self, word: &str) {
        std::fs::remove_file(self.path(word)).unwrap();
    }

    /// What Ansible was run for since the last call.
    pub(crate) fn runs(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("runs")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("runs"));
        let kind = |line: &str| match () {
            () if line.starts_with("ansible-galaxy") => "galaxy".to_owned(),
            () if line.contains("--check") => "check".to_owned(),
            () => "run".to_owned(),
        };
        text.lines().map(kind).collect()
    }

    /// The hosts as an order writes them.
    pub(crate) fn inventory(&self) -> Value {
        let host = |host: &Host| {
            let one = json!({
                "address": host.address.to_string(), "port": PORT, "user": host.name, "host_key": host.key(),
                "key": { "$secret": "login" }, "groups": ["web"], "python": "/usr/bin/python3",
            });
            (host.name.clone(), one)
        };
        Value::Object(self.hosts.iter().map(host).collect())
    }

    /// A playbook on all hosts, with what else its order says.
    pub(crate) fn playbook(&self, name: &str, tasks: &Value, more: &Value) -> Resource {
        let mut spec = json!({
            "hosts": self.inventory(),
            "plays": [{ "hosts": "all", "gather_facts": false, "tasks": tasks }],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        resource(name, &spec)
    }
}

/// Puts a secret into the stage's folder of secrets.
pub(crate) fn secret(folder: &Path, name: &str, text: &str) {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(folder.join("secrets").join(name));
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

fn provider(folder: &Path, more: &Value) -> Ansible {
    let mut config = json!({
        "playbook": folder.join("bin/ansible-playbook"), "folder": folder.join("work"), "secrets": folder.join("secrets"),
        "playbooks": folder.join("playbooks"), "hosts": ["127.0.0.0/8"], "modules": ["copy", "file", "command", "shell", "slurp"], "deadline_seconds": 60,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config: AnsibleConfig = serde_json::from_value(config).unwrap();
    config.check().unwrap();
    Ansible::new(config)
}

pub(crate) fn resource(name: &str, spec: &Value) -> Resource {
    serde_json::from_value(json!({ "name": name, "kind": "ansible/playbook", "owner": "city", "spec": spec })).unwrap()
}
