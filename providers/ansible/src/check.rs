//! Holding an order to what the member allows, before Ansible reads anything of it.

use std::collections::BTreeSet;

use serde_json::Value;
use state::resource::Resource;

use providers::Invalid;
use providers::digests;
use providers::fields::{self, Text, Variable};
use providers::refusal::{Refusal, denied, wrong};

use crate::config::{AnsibleConfig, is_host};
use crate::files::{self, Files};
use crate::plays::{self, Reader};
use crate::render::{PLAYBOOK, RETIRE};
use crate::run::is_own;
use crate::spec::{Connection, PlaybookSpec, Way};

/// The output under which host keys are told that were learnt.
pub(crate) const HOST_KEYS: &str = "host_keys";
/// The most hosts of a playbook.
const MAX_HOSTS: usize = 1_000;
/// The longest that what was seen may count, in seconds.
const MAX_RECHECK: u64 = 30 * 86_400;

/// What was ordered, and holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ordered {
    pub(crate) spec: PlaybookSpec,
    pub(crate) files: Files,
}

/// Reads what a resource asks for, and holds it to what the member gives.
pub(crate) fn read(config: &AnsibleConfig, resource: &Resource) -> Result<Ordered, Invalid> {
    let read: Result<PlaybookSpec, String> = match resource.kind.name() {
        "playbook" => fields::read(&resource.spec),
        _ => Err(format!(
            "{} is no kind of this provider: its kind is ansible/playbook",
            resource.kind
        )),
    };
    let checked = read.map_err(Refusal::Wrong).and_then(|spec| {
        let written = [
            (PLAYBOOK, !spec.plays.is_empty()),
            (RETIRE, spec.retire.as_ref().is_some_and(|retire| !retire.plays.is_empty())),
        ];
        let taken = |path: &str| is_own(path) || written.contains(&(path, true));
        let files = digests::read("ansible.playbooks", config.playbooks.as_deref(), &spec.files, taken)?;
        check(config, &spec, &files)?;
        keys_are_told(resource, &spec)?;
        Ok(Ordered { spec, files })
    });
    checked.map_err(|refusal| refusal.of(&resource.name))
}

/// What is learnt of a host stands in a report: everybody sees when it is another one.
fn keys_are_told(resource: &Resource, spec: &PlaybookSpec) -> Result<(), Refusal> {
    let learnt = spec.ways().find(|way| way.host_key.is_none());
    match learnt {
        Some(way) if !resource.exports.iter().any(|name| name.as_str() == HOST_KEYS) => Err(wrong(format!(
            "{}/{}/host_key is missing: pin it, or add {HOST_KEYS} to the resource's exports, so that the key that is learnt stands in a report",
            way.field, way.name
        ))),
        _ => Ok(()),
    }
}

fn check(config: &AnsibleConfig, spec: &PlaybookSpec, files: &Files) -> Result<(), Refusal> {
    hosts(config, spec)?;
    words(spec)?;
    packages(config, spec)?;
    let reader = Reader { config, spec, files };
    one_of(&reader, "", &spec.plays, spec.playbook.as_deref())?;
    if let Some(retire) = &spec.retire {
        one_of(&reader, "retire/", &retire.plays, retire.playbook.as_deref())?;
    }
    files::check(&reader)
}

/// Plays stand in the order or in one of its files.
fn one_of(reader: &Reader<'_>, at: &str, own: &[serde_json::Map<String, Value>], playbook: Option<&str>) -> Result<(), Refusal> {
    match (own.is_empty(), playbook) {
        (false, None) => {
            let own: Vec<Value> = own.iter().cloned().map(Value::Object).collect();
            reader.plays(&format!("{at}plays"), &own)
        }
        (true, Some(path)) => {
            let plays = files::plays(reader.files, path)?;
            reader.plays(&format!("files/{path}"), &plays)
        }
        _ => Err(wrong(format!("{at}plays, {at}playbook: it has one of the two"))),
    }
}

/// A name that stands in inventories, on command lines and in file names as it is.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && name.len() <= 64
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 128
}

fn hosts(config: &AnsibleConfig, spec: &PlaybookSpec) -> Result<(), Refusal> {
    if spec.hosts.is_empty() {
        return Err(wrong("hosts: there are none"));
    }
    if spec.hosts.len() > MAX_HOSTS {
        return Err(wrong(format!("hosts: there are more than {MAX_HOSTS}")));
    }
    let mut groups: BTreeSet<&str> = ["all", "ungrouped"].into();
    for (name, host) in &spec.hosts {
        let at = format!("hosts/{name}");
        if !is_name(name) || matches!(name.as_str(), "all" | "ungrouped" | "localhost") {
            return Err(wrong(format!("{at}: it is no name of a host: letters, digits, '.', '-' and '_'")));
        }
        if let Some(bad) = host
            .groups
            .iter()
            .find(|group| !is_identifier(group) || spec.hosts.contains_key(*group))
        {
            return Err(wrong(format!(
                "{at}/groups: {bad:?} is no name of a group: letters, digits and '_'"
            )));
        }
        groups.extend(host.groups.iter().map(String::as_str));
        if let Some(bad) = host.variables.keys().find(|name| !is_identifier(name) || plays::is_reaching(name)) {
            return Err(wrong(format!(
                "{at}/variables: {bad:?} is no name of a variable that an order gives"
            )));
        }
        if host.variables.values().any(names_secret) {
            return Err(wrong(format!("{at}/variables: a secret stands in the playbook's own variables")));
        }
        if let Some(bad) = host.python.as_ref().filter(|path| !is_program(path)) {
            return Err(wrong(format!("{at}/python: {bad:?} is no absolute path of a program")));
        }
        if host.connection == Connection::Ssh {
            continue;
        }
        if !config.local {
            return Err(denied(format!(
                "{at}/connection: it is the machine that Charter runs on: ansible.local in charter.toml doesn't allow it"
            )));
        }
        let by_ssh = [
            ("address", host.address.is_some()),
            ("port", host.port.is_some()),
            ("user", host.user.is_some()),
            ("host_key", host.host_key.is_some()),
            ("key", host.key.is_some()),
            ("jump", host.jump.is_some()),
        ];
        if let Some((field, _)) = by_ssh.into_iter().find(|(_, set)| *set) {
            return Err(wrong(format!("{at}/{field}: a local host is not reached by SSH")));
        }
    }
    for way in spec.ways() {
        reached(config, spec, &way)?;
    }
    if let Some(bad) = spec
        .limit
        .iter()
        .find(|name| !spec.hosts.contains_key(*name) && !groups.contains(name.as_str()))
    {
        return Err(wrong(format!("limit: {bad:?} is none of the hosts and their groups")));
    }
    Ok(())
}

fn reached(config: &AnsibleConfig, spec: &PlaybookSpec, way: &Way<'_>) -> Result<(), Refusal> {
    let at = format!("{}/{}", way.field, way.name);
    if !is_name(way.name) || way.field == "jumps" && spec.hosts.contains_key(way.name) {
        return Err(wrong(format!("{at}: it is no name of a host of its own")));
    }
    let host = way.host();
    match way.address {
        None => return Err(wrong(format!("{at}/address is missing"))),
        Some(Text::Literal(_)) if !is_host(&host) => {
            return Err(wrong(format!("{at}/address: {host:?} is no name or address of a host")));
        }
        Some(Text::Literal(_)) if !config.gives_host(&host) => {
            return Err(denied(format!(
                "{at}/address: {host} is none of this member's ansible.hosts in charter.toml: add it to allow it"
            )));
        }
        Some(_) => {}
    }
    let known = !matches!(way.port, Some(Text::Reference(_)));
    if let Some(port) = way.port().filter(|port| known && !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(wrong(format!("{at}/port: {port:?} is no port")));
    }
    if let Some(bad) = way.user.filter(|user| !is_user(user)) {
        return Err(wrong(format!("{at}/user: {bad:?} is no name of a user")));
    }
    if let Some(Text::Literal(key)) = way.host_key
        && !is_host_key(key)
    {
        return Err(wrong(format!(
            "{at}/host_key: it is no host key: a type and a key in base64, as ssh-keyscan says it"
        )));
    }
    if way.key.is_none() && !config.agent {
        return Err(denied(format!(
            "{at}/key is missing: name a secret that holds a private key; ansible.agent in charter.toml doesn't allow the SSH agent"
        )));
    }
    match way.jump.filter(|jump| !spec.jumps.contains_key(*jump)) {
        Some(jump) => Err(wrong(format!("{at}/jump: {jump:?} is none of jumps"))),
        None => Ok(()),
    }
}

fn is_user(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && name.len() <= 32
}

fn is_program(path: &str) -> bool {
    path.starts_with('/')
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-'))
}

/// Whether a text is a host key: a type and a key, and nothing that a line of known hosts could be made of.
pub(crate) fn is_host_key(text: &str) -> bool {
    let Some((kind, key)) = text.split_once(' ') else { return false };
    let kind_fits = kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'@' | b'.'));
    let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|beginning| kind.starts_with(beginning));
    known && kind_fits && key.len() >= 40 && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
}

fn names_secret(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.contains_key("$secret") || map.values().any(names_secret),
        Value::Array(all) => all.iter().any(names_secret),
        _ => false,
    }
}

fn words(spec: &PlaybookSpec) -> Result<(), Refusal> {
    for (name, variable) in &spec.variables {
        if !is_identifier(name) || plays::is_reaching(name) || name.starts_with("charter_") {
            return Err(wrong(format!("variables: {name:?} is no name of a variable that an order gives")));
        }
        if matches!(variable, Variable::Data(value) if names_secret(value)) {
            return Err(wrong(format!("variables/{name}: a secret is the whole value of a variable")));
        }
    }
    let tag = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
    };
    for (field, all) in [("tags", &spec.tags), ("skip_tags", &spec.skip_tags)] {
        if let Some(bad) = all.iter().find(|text| !tag(text) || text.starts_with('-')) {
            return Err(wrong(format!("{field}: {bad:?} is no tag")));
        }
    }
    if spec.outputs.iter().any(|name| name.as_str() == HOST_KEYS) {
        return Err(wrong(format!("outputs: {HOST_KEYS} is what Charter tells of host keys")));
    }
    match spec.recheck_seconds {
        Some(seconds) if seconds > MAX_RECHECK => Err(wrong(format!("recheck_seconds has to be at most {MAX_RECHECK}"))),
        _ => Ok(()),
    }
}

fn packages(config: &AnsibleConfig, spec: &PlaybookSpec) -> Result<(), Refusal> {
    for (field, setting, wanted, given) in [
        ("roles", "ansible.roles", &spec.roles, &config.roles),
        ("collections", "ansible.collections", &spec.collections, &config.collections),
    ] {
        for (name, version) in wanted {
            let at = format!("{field}/{name}");
            let dots = name.split('.').count();
            if !is_name(name) || field == "collections" && dots != 2 || dots > 2 {
                return Err(wrong(format!("{at}: it is no name of a Galaxy server's: NAMESPACE.NAME")));
            }
            if !is_exact(version) {
                return Err(denied(format!("{at}: {version:?} is no exact version, such as 1.2.3")));
            }
            if !given.contains(name) {
                return Err(denied(format!("{at}: it is none of {setting} in charter.toml: add it to allow it")));
            }
        }
    }
    Ok(())
}

/// One version, and no range: what begins with a digit, or with `v` and one, and holds numbers between dots.
fn is_exact(version: &str) -> bool {
    let numbers = version.strip_prefix('v').unwrap_or(version);
    numbers.split('.').count() >= 2
        && numbers.starts_with(|c: char| c.is_ascii_digit())
        && numbers.split('.').all(|part| !part.is_empty())
        && numbers
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'))
        && version.len() <= 64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1eD3vqZ3cX0mYxE6o5bqkqgq1pP9V9mCkXy8yNn2Zc";

    fn said(change: impl Fn(&mut Value)) -> String {
        let config: AnsibleConfig = serde_json::from_value(json!({
            "hosts": ["10.0.0.0/8"], "modules": ["copy"], "roles": ["geer.nginx"], "collections": ["a.b"], "playbooks": "/nowhere",
        }))
        .unwrap();
        let mut spec = json!({
            "plays": [{ "hosts": "web", "tasks": [{ "copy": { "dest": "/x", "content": "{{ y }}" } }] }],
            "hosts": { "web1": { "address": "10.0.0.5", "user": "deploy", "host_key": KEY, "key": { "$secret": "deploy" }, "groups": ["web"] } },
            "variables": { "y": { "$ref": "x.outputs.y" } },
        });
        change(&mut spec);
        let resource: Resource =
            serde_json::from_value(json!({ "name": "site", "kind": "ansible/playbook", "owner": "city", "spec": spec })).unwrap();
        read(&config, &resource).map_or_else(|invalid| invalid.to_string(), |_| String::new())
    }

    #[test]
    fn what_the_member_doesnt_give_is_refused_by_its_clause() {
        let host = |field: &'static str, value: Value| move |spec: &mut Value| spec["hosts"]["web1"][field] = value.clone();
        assert_eq!(said(|_| {}), "");
        assert_eq!(said(host("address", json!({ "$ref": "vm.outputs.address" }))), "");
        for (why, words) in [
            (
                said(host("address", json!("192.0.2.1"))),
                "hosts/web1/address: 192.0.2.1 is none of this member's ansible.hosts",
            ),
            (said(host("address", json!("-oProxyCommand=id"))), "is no name or address of a host"),
            (said(host("port", json!(0))), "hosts/web1/port"),
            (said(host("user", json!("a b"))), "hosts/web1/user"),
            (said(host("user", json!("-x"))), "hosts/web1/user"),
            (said(host("host_key", json!("ssh-ed25519 x\nevil"))), "hosts/web1/host_key"),
            (
                said(host("host_key", Value::Null)),
                "hosts/web1/host_key is missing: pin it, or add host_keys to the resource's exports",
            ),
            (said(host("key", Value::Null)), "hosts/web1/key is missing"),
            (said(host("key", json!("-----BEGIN"))), "what is secret never stands in an order"),
            (said(host("jump", json!("x"))), "hosts/web1/jump: \"x\" is none of jumps"),
            (said(host("groups", json!(["a b"]))), "hosts/web1/groups"),
            (said(host("python", json!("python; id"))), "hosts/web1/python"),
            (said(host("variables", json!({ "ansible_ssh_args": "" }))), "hosts/web1/variables"),
            (said(host("connection", json!("local"))), "ansible.local in charter.toml"),
            (said(|spec| spec["hosts"] = json!({})), "hosts: there are none"),
            (said(|spec| spec["hosts"]["a b"] = spec["hosts"]["web1"].clone()), "hosts/a b"),
            (said(|spec| spec["limit"] = json!(["other"])), "limit: \"other\""),
            (said(|spec| spec["tags"] = json!(["-e"])), "tags: \"-e\" is no tag"),
            (
                said(|spec| spec["variables"]["ansible_host"] = json!("x")),
                "variables: \"ansible_host\"",
            ),
            (said(|spec| spec["variables"]["y"] = json!([{ "$secret": "x" }])), "variables/y"),
            (
                said(|spec| spec["playbook"] = json!("x.yml")),
                "plays, playbook: it has one of the two",
            ),
            (said(|spec| spec["retire"] = json!({})), "retire/plays, retire/playbook"),
            (
                said(|spec| spec["roles"] = json!({ "geer.nginx": "latest" })),
                "roles/geer.nginx: \"latest\" is no exact version",
            ),
            (
                said(|spec| spec["roles"] = json!({ "geer.nginx": ">=1.0.0" })),
                "is no exact version",
            ),
            (
                said(|spec| spec["roles"] = json!({ "other.nginx": "1.0.0" })),
                "none of ansible.roles",
            ),
            (said(|spec| spec["collections"] = json!({ "a": "1.0.0" })), "collections/a"),
            (said(|spec| spec["files"] = json!({ "x.yml": "0" })), "ansible.playbooks"),
            (
                said(|spec| spec["files"] = json!({ "plugins/callback/charter.py": "0" })),
                "\"plugins/callback/charter.py\" is a name that Charter writes",
            ),
            (
                said(|spec| spec["files"] = json!({ "ansible.cfg": "0" })),
                "is a name that Charter writes",
            ),
            (
                said(|spec| spec["files"] = json!({ "playbook.yml": "0" })),
                "is a name that Charter writes",
            ),
            (said(|spec| spec["outputs"] = json!(["host_keys"])), "outputs"),
            (said(|spec| spec["nothing"] = json!(1)), "unknown field"),
        ] {
            assert!(why.contains(words), "{words}: {why}");
        }
    }
}
