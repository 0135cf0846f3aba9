//! The specification of `ansible/playbook`, as an order writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use state::ids::{Kind, OutputName};

use providers::fields::{SecretRef, Text, Variable};

/// Plays, and the hosts that they configure.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaybookSpec {
    /// The plays, as data: what a playbook's file holds.
    #[serde(default)]
    pub(crate) plays: Vec<Map<String, Value>>,
    /// Files of the member's folder of playbooks, by their paths in it, each with the SHA-256 that it has to have: playbooks, roles,
    /// templates, whatever plays read.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// In the place of `plays`: which of the files is run.
    #[serde(default)]
    pub(crate) playbook: Option<String>,
    /// Roles of a Galaxy server, each with its exact version.
    #[serde(default)]
    pub(crate) roles: BTreeMap<String, String>,
    /// Collections of a Galaxy server, each with its exact version.
    #[serde(default)]
    pub(crate) collections: BTreeMap<String, String>,
    /// Variables, as data: nothing in them is evaluated. `{"$secret": "name"}` is a secret's text.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, Variable>,
    /// The hosts, by the names that plays know them by.
    #[serde(default)]
    pub(crate) hosts: BTreeMap<String, HostSpec>,
    /// Hosts that others are reached through. No play runs on them.
    #[serde(default)]
    pub(crate) jumps: BTreeMap<String, JumpSpec>,
    /// Hosts and groups that it is limited to.
    #[serde(default)]
    pub(crate) limit: BTreeSet<String>,
    /// Tags of the tasks that run.
    #[serde(default)]
    pub(crate) tags: BTreeSet<String>,
    /// Tags of the tasks that don't.
    #[serde(default)]
    pub(crate) skip_tags: BTreeSet<String>,
    /// Names of tasks of which nobody has to know, before they run, whether they would change something.
    #[serde(default)]
    pub(crate) unknown: BTreeSet<String>,
    /// Names of the data that plays set with `set_stats`, and that are given to others.
    #[serde(default)]
    pub(crate) outputs: BTreeSet<OutputName>,
    /// What undoes it when it is retired; without it the hosts are left as they are.
    #[serde(default)]
    pub(crate) retire: Option<RetireSpec>,
    /// How long what was seen to be as ordered counts as that, in seconds; without it: the member's choice.
    #[serde(default)]
    pub(crate) recheck_seconds: Option<u64>,
}

/// What undoes a playbook.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetireSpec {
    /// Plays, as data.
    #[serde(default)]
    pub(crate) plays: Vec<Map<String, Value>>,
    /// In their place: one of the files.
    #[serde(default)]
    pub(crate) playbook: Option<String>,
}

/// How a host is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Connection {
    /// By SSH.
    #[default]
    Ssh,
    /// It is the machine that Charter runs on.
    Local,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostSpec {
    /// How it is reached.
    #[serde(default)]
    pub(crate) connection: Connection,
    /// A host's name or IP address, with a port or without; none where it is this machine.
    #[serde(default)]
    pub(crate) address: Option<Text>,
    /// A port; without it: 22.
    #[serde(default)]
    pub(crate) port: Option<Text>,
    /// Who logs in; without it: whoever Charter runs as.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Its host key, as `ssh-keyscan` says it: a type and a key in base64. Without it the first one that is seen counts from then on.
    #[serde(default)]
    pub(crate) host_key: Option<Text>,
    /// The private key that is logged in with; without it: the member's SSH agent.
    #[serde(default)]
    pub(crate) key: Option<SecretRef>,
    /// The groups that it is in.
    #[serde(default)]
    pub(crate) groups: BTreeSet<String>,
    /// The host that it is reached through: one of `jumps`.
    #[serde(default)]
    pub(crate) jump: Option<String>,
    /// The Python interpreter on it; without it Ansible looks for one.
    #[serde(default)]
    pub(crate) python: Option<String>,
    /// The password that its user becomes another one with.
    #[serde(default)]
    pub(crate) become_password: Option<SecretRef>,
    /// Variables of its own, as data.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, Value>,
}

/// A host that others are reached through.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JumpSpec {
    /// A host's name or IP address, with a port or without.
    pub(crate) address: Text,
    /// A port; without it: 22.
    #[serde(default)]
    pub(crate) port: Option<Text>,
    /// Who logs in; without it: whoever Charter runs as.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// Its host key.
    #[serde(default)]
    pub(crate) host_key: Option<Text>,
    /// The private key that is logged in with; without it: the member's SSH agent.
    #[serde(default)]
    pub(crate) key: Option<SecretRef>,
}

/// A host and its port, from an address that may name both: `HOST`, `HOST:PORT` or `[IP]:PORT`.
pub(crate) fn split(address: &str) -> (&str, Option<&str>) {
    if address.parse::<IpAddr>().is_ok() {
        return (address, None);
    }
    match address.rsplit_once(':') {
        Some((host, port)) => (host.trim_start_matches('[').trim_end_matches(']'), Some(port)),
        None => (address, None),
    }
}

/// How somebody is reached by SSH.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    /// Its name in the order.
    pub(crate) name: &'a str,
    /// The field that it stands in.
    pub(crate) field: &'static str,
    pub(crate) address: Option<&'a Text>,
    pub(crate) port: Option<&'a Text>,
    pub(crate) user: Option<&'a str>,
    pub(crate) host_key: Option<&'a Text>,
    pub(crate) key: Option<&'a SecretRef>,
    pub(crate) jump: Option<&'a str>,
}

impl Way<'_> {
    /// Its host, as far as it is known.
    pub(crate) fn host(&self) -> String {
        match self.address {
            Some(Text::Literal(address)) => split(address).0.to_owned(),
            Some(reference) => reference.shown(),
            None => String::new(),
        }
    }

    /// Its port: of its own, or beside its address.
    pub(crate) fn port(&self) -> Option<String> {
        match (self.port, self.address) {
            (Some(port), _) => Some(port.shown()),
            (None, Some(Text::Literal(address))) => split(address).1.map(str::to_owned),
            _ => None,
        }
    }
}

impl HostSpec {
    /// How it is reached by SSH, under its name.
    pub(crate) fn way<'a>(&'a self, name: &'a str) -> Way<'a> {
        Way {
            name,
            field: "hosts",
            address: self.address.as_ref(),
            port: self.port.as_ref(),
            user: self.user.as_deref(),
            host_key: self.host_key.as_ref(),
            key: self.key.as_ref(),
            jump: self.jump.as_deref(),
        }
    }
}

impl PlaybookSpec {
    /// Everybody who is reached by SSH, jumps first.
    pub(crate) fn ways(&self) -> impl Iterator<Item = Way<'_>> {
        let jumps = self.jumps.iter().map(|(name, jump)| Way {
            name,
            field: "jumps",
            address: Some(&jump.address),
            port: jump.port.as_ref(),
            user: jump.user.as_deref(),
            host_key: jump.host_key.as_ref(),
            key: jump.key.as_ref(),
            jump: None,
        });
        let by_ssh = self.hosts.iter().filter(|(_, host)| host.connection == Connection::Ssh);
        jumps.chain(by_ssh.map(|(name, host)| host.way(name)))
    }
}

/// The kind.
pub(crate) fn kind() -> Kind {
    Kind::new("ansible/playbook").expect("a literal kind of this crate is valid")
}

/// The JSON schema of the kind's specification.
pub(crate) fn schema() -> Value {
    schemars::schema_for!(PlaybookSpec).to_value()
}
