//! What the member itself allows Ansible to do: `[ansible]` of `charter.toml`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::ids::SecretName;
use state::resource::Resource;

use providers::fields::{self, Text};
use providers::secrets::{self, SecretError};

use crate::plays;
use crate::spec::{Connection, PlaybookSpec, split};

/// Modules that change no host, and need no word.
pub(crate) const HARMLESS: [&str; 17] = [
    "assert",
    "debug",
    "fail",
    "gather_facts",
    "group_by",
    "import_role",
    "import_tasks",
    "include_role",
    "include_tasks",
    "include_vars",
    "meta",
    "ping",
    "set_fact",
    "set_stats",
    "setup",
    "validate_argument_spec",
    "wait_for_connection",
];
/// Lookups that only arrange what is there already, or read files of the playbook's.
pub(crate) const ARRANGING: [&str; 17] = [
    "dict",
    "file",
    "first_found",
    "flattened",
    "indexed_items",
    "inventory_hostnames",
    "items",
    "list",
    "nested",
    "random_choice",
    "sequence",
    "subelements",
    "template",
    "together",
    "unvault",
    "varnames",
    "vars",
];
/// Modules that read or write files of the machine that Charter runs on: they have to be named, and not by a pattern.
pub(crate) const HERE: [&str; 4] = ["ansible.posix.synchronize", "add_host", "assemble", "fetch"];

/// An installation of Ansible on this machine, and what orders may run by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnsibleConfig {
    /// The program on this machine.
    #[serde(default = "program")]
    pub playbook: PathBuf,
    /// The member's hosts that orders may reach by SSH: names, names that begin with `*.`, IP addresses and networks (`10.1.0.0/16`).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
    /// Whether orders may configure the machine that Charter runs on.
    #[serde(default)]
    pub local: bool,
    /// The modules that orders may use, by their names, or by patterns with `*`. What changes nothing needs no word.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub modules: BTreeSet<String>,
    /// The lookups that orders may use beside those that arrange data. Lookups run on the machine that Charter runs on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lookups: BTreeSet<String>,
    /// Whether tasks that say `check_mode: false` run when Charter only looks.
    #[serde(default)]
    pub run_in_check: bool,
    /// The roles that orders may use.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// The collections that orders may use. Their plugins run on the machine that Charter runs on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub collections: BTreeSet<String>,
    /// A folder of packages of roles and collections, `NAME-VERSION.tar.gz`; without it they come from their server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<PathBuf>,
    /// A folder of playbooks and what belongs to them, which orders name by their digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playbooks: Option<PathBuf>,
    /// A folder with one file for each secret, readable by its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
    /// Whether orders may log in with the keys of the SSH agent that `SSH_AUTH_SOCK` names.
    #[serde(default)]
    pub agent: bool,
    /// The folder of working directories and of what Charter remembers.
    #[serde(default = "folder")]
    pub folder: PathBuf,
    /// How long one run may take, in seconds.
    #[serde(default = "deadline_seconds")]
    pub deadline_seconds: u64,
    /// How long what was seen to be as ordered counts as that, in seconds, where its order doesn't say.
    #[serde(default = "recheck_seconds")]
    pub recheck_seconds: u64,
    /// How many playbooks run at a time.
    #[serde(default = "runs")]
    pub runs: u32,
}

fn program() -> PathBuf {
    "ansible-playbook".into()
}

fn folder() -> PathBuf {
    "ansible".into()
}

fn deadline_seconds() -> u64 {
    1_800
}

fn recheck_seconds() -> u64 {
    3_600
}

fn runs() -> u32 {
    2
}

impl AnsibleConfig {
    /// An installation by its program.
    pub fn new(playbook: impl Into<PathBuf>) -> Self {
        Self {
            playbook: playbook.into(),
            hosts: BTreeSet::new(),
            local: false,
            modules: BTreeSet::new(),
            lookups: BTreeSet::new(),
            run_in_check: false,
            roles: BTreeSet::new(),
            collections: BTreeSet::new(),
            packages: None,
            playbooks: None,
            secrets: None,
            agent: false,
            folder: folder(),
            deadline_seconds: deadline_seconds(),
            recheck_seconds: recheck_seconds(),
            runs: runs(),
        }
    }

    /// Gives orders the modules, hosts, roles and collections that a resource names.
    pub fn give(&mut self, resource: &Resource) {
        let Ok(spec) = fields::read::<PlaybookSpec>(&resource.spec) else {
            return;
        };
        self.modules.extend(plays::modules(&spec));
        for host in spec.hosts.values() {
            match (&host.connection, &host.address) {
                (Connection::Local, _) => self.local = true,
                (Connection::Ssh, Some(Text::Literal(address))) => {
                    self.hosts.insert(split(address).0.to_owned());
                }
                (Connection::Ssh, _) => {}
            }
        }
        self.roles.extend(spec.roles.into_keys());
        self.collections.extend(spec.collections.into_keys());
    }

    /// Makes its paths those below a folder, where they are relative. A program's name alone is looked for where programs are.
    pub fn resolve(&mut self, folder: &Path) {
        self.folder = folder.join(&self.folder);
        if self.playbook.components().count() > 1 {
            self.playbook = folder.join(&self.playbook);
        }
        for path in [&mut self.packages, &mut self.playbooks, &mut self.secrets].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    /// Checks what can be checked without Ansible; the text names the setting.
    pub fn check(&self) -> Result<(), String> {
        if self.playbook.as_os_str().is_empty() {
            return Err("ansible.playbook is empty: name ansible-playbook".into());
        }
        for (setting, value, most) in [
            ("deadline_seconds", self.deadline_seconds, 86_400),
            ("runs", u64::from(self.runs), 64),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("ansible.{setting} has to be between 1 and {most}"));
            }
        }
        let pattern = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'*' | b'-'))
        };
        for (setting, all) in [
            ("modules", &self.modules),
            ("lookups", &self.lookups),
            ("roles", &self.roles),
            ("collections", &self.collections),
        ] {
            if let Some(bad) = all.iter().find(|text| !pattern(text)) {
                return Err(format!("ansible.{setting}: {bad:?} is no name, and no pattern with *"));
            }
        }
        match self.hosts.iter().find(|rule| Reach::read(rule).is_none()) {
            Some(bad) => Err(format!(
                "ansible.hosts: {bad:?} is no host's name, *.DOMAIN, IP address or network such as 10.1.0.0/16"
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// Whether orders may reach a host of this address.
    pub(crate) fn gives_host(&self, address: &str) -> bool {
        let rules = || self.hosts.iter().filter_map(|rule| Reach::read(rule));
        let address = address.to_ascii_lowercase();
        match address.parse::<IpAddr>() {
            Ok(ip) => rules().any(|rule| matches!(rule, Reach::Net(net) if net.contains(&ip))),
            Err(_) => rules().any(|rule| match rule {
                Reach::Net(_) => false,
                Reach::Name(name) => name == address,
                Reach::Below(domain) => address.strip_suffix(&domain).is_some_and(|before| before.ends_with('.')),
            }),
        }
    }

    /// Whether orders may use a module.
    pub(crate) fn gives_module(&self, name: &str) -> bool {
        HARMLESS.contains(&plays::short(name)) || given(&self.modules, name)
    }

    /// Whether orders may use a lookup.
    pub(crate) fn gives_lookup(&self, name: &str) -> bool {
        ARRANGING.contains(&plays::short(name)) || given(&self.lookups, name)
    }

    pub(crate) fn secret(&self, name: &SecretName) -> Result<String, SecretError> {
        secrets::read("ansible", self.secrets.as_deref(), name)
    }

    /// What runs are held to, in the words of the plugin that does.
    pub(crate) fn guard(&self, local: bool) -> Value {
        let with = |rules: &BTreeSet<String>, more: &[&str]| -> Vec<String> {
            rules.iter().cloned().chain(more.iter().map(|name| (*name).to_owned())).collect()
        };
        serde_json::json!({
            "modules": with(&self.modules, &HARMLESS),
            "lookups": with(&self.lookups, &ARRANGING),
            "connections": if local && self.local { vec!["ssh", "local"] } else { vec!["ssh"] },
            "here": HERE,
            "roots": ["."],
            "hidden": [crate::render::KEYS],
            "run_in_check": self.run_in_check,
        })
    }
}

/// Which hosts a rule means.
enum Reach {
    Net(IpNet),
    Name(String),
    /// Those below a domain.
    Below(String),
}

impl Reach {
    fn read(rule: &str) -> Option<Self> {
        if let Ok(net) = rule.parse::<IpNet>() {
            return Some(Self::Net(net));
        }
        if let Ok(ip) = rule.parse::<IpAddr>() {
            return Some(Self::Net(ip.into()));
        }
        let lower = rule.to_ascii_lowercase();
        match lower.strip_prefix("*.") {
            Some(domain) => is_host(domain).then(|| Self::Below(domain.to_owned())),
            None => is_host(&lower).then_some(Self::Name(lower)),
        }
    }
}

/// Whether a text is a host's name or IP address, and nothing that a command line could take for an option.
pub(crate) fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether rules name a plugin, or fit it. What works on the machine that Charter runs on has to be named.
fn given(rules: &BTreeSet<String>, name: &str) -> bool {
    let whole = plays::whole(name);
    let named = rules.iter().any(|rule| plays::whole(rule) == whole);
    named || !HERE.contains(&plays::short(name)) && rules.iter().any(|rule| fits(&plays::whole(rule), &whole))
}

/// Whether a name is what a pattern with `*` says.
fn fits(rule: &str, name: &str) -> bool {
    match rule.split_once('*') {
        None => rule == name,
        Some((before, after)) => {
            let Some(rest) = name.strip_prefix(before) else { return false };
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(after, &rest[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_the_members_by_name_address_and_network() {
        let mut config = AnsibleConfig::new("ansible-playbook");
        config.hosts = ["10.1.0.0/16", "192.0.2.7", "web.city.example", "*.farm.example", "2001:db8::/32"]
            .map(str::to_owned)
            .into();
        config.check().unwrap();
        for good in ["10.1.2.3", "192.0.2.7", "WEB.city.example", "a.b.farm.example", "2001:db8::1"] {
            assert!(config.gives_host(good), "{good}");
        }
        for bad in [
            "10.2.0.1",
            "192.0.2.8",
            "city.example",
            "farm.example",
            "xfarm.example",
            "2001:db9::1",
            "-oProxyCommand=id",
        ] {
            assert!(!config.gives_host(bad), "{bad}");
        }
        for bad in ["", "*", "a b", "-x", "*.", "10.1.0.0/99"] {
            config.hosts = [bad.to_owned()].into();
            assert!(config.check().is_err(), "{bad}");
        }
    }

    #[test]
    fn modules_are_named_or_fit_and_what_works_here_is_named() {
        let mut config = AnsibleConfig::new("ansible-playbook");
        config.modules = ["ansible.builtin.*".to_owned(), "community.*.x*".to_owned()].into();
        for good in ["copy", "ansible.builtin.apt", "ansible.legacy.command", "community.a.xy", "debug"] {
            assert!(config.gives_module(good), "{good}");
        }
        for bad in ["fetch", "ansible.builtin.assemble", "community.a.y", "ansible.posix.mount"] {
            assert!(!config.gives_module(bad), "{bad}");
        }
        config.modules.insert("fetch".to_owned());
        assert!(config.gives_module("ansible.builtin.fetch"));
        assert!(config.gives_lookup("items") && !config.gives_lookup("pipe") && !config.gives_lookup("ansible.builtin.env"));
    }
}
