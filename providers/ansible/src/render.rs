//! The files of a working directory: playbook, inventory, variables and SSH's configuration, each by a typed writer, and no machine's
//! path or secret's text in any of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use state::ids::SecretName;

use providers::fields::{Text, Variable, shown};

use crate::check::Ordered;
use crate::config::AnsibleConfig;
use crate::files::Files;
use crate::spec::{Connection, HostSpec, PlaybookSpec};

/// The names of the files.
pub(crate) const PLAYBOOK: &str = "playbook.yml";
pub(crate) const RETIRE: &str = "retire.yml";
pub(crate) const INVENTORY: &str = "inventory.yml";
pub(crate) const VARIABLES: &str = "variables.yml";
pub(crate) const CONNECTION: &str = "connection.yml";
pub(crate) const SSH: &str = "ssh_config";
pub(crate) const REQUIREMENTS: &str = "requirements.yml";
pub(crate) const KNOWN_HOSTS: &str = "known_hosts";
/// Where private keys are while a run goes on.
pub(crate) const KEYS: &str = "keys";
/// The variable that a host's password for becoming another user stands in.
const BECOME: &str = "charter_become_";

/// What a working directory holds, and how it is run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rendered {
    /// The files, by their paths.
    pub(crate) files: Files,
    /// Which of them is run.
    pub(crate) playbook: String,
    /// Which of them undoes it.
    pub(crate) retire: Option<String>,
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
    /// Variables that hold secrets.
    pub(crate) secrets: BTreeMap<String, SecretName>,
    /// Private keys, by the names of hosts.
    pub(crate) keys: BTreeMap<String, SecretName>,
    /// Host keys that are pinned; none: the first one that is seen counts.
    pub(crate) host_keys: BTreeMap<String, Option<String>>,
    /// What runs may use.
    pub(crate) guard: Value,
}

/// Renders a playbook. References stand as their names in angle brackets.
pub(crate) fn render(config: &AnsibleConfig, ordered: &Ordered) -> Rendered {
    let spec = &ordered.spec;
    let mut files = ordered.files.clone();
    let mut text = |name: &str, text: String| {
        files.insert(name.to_owned(), text.into_bytes());
    };
    let playbook = match &spec.playbook {
        Some(path) => path.clone(),
        None => {
            text(PLAYBOOK, format!("{:#}\n", json!(spec.plays)));
            PLAYBOOK.to_owned()
        }
    };
    let retire = spec.retire.as_ref().map(|retire| match &retire.playbook {
        Some(path) => path.clone(),
        None => {
            text(RETIRE, format!("{:#}\n", json!(retire.plays)));
            RETIRE.to_owned()
        }
    });
    let (variables, mut secrets) = Variable::parted(&spec.variables);
    for (index, host) in spec.hosts.values().enumerate() {
        if let Some(password) = &host.become_password {
            secrets.insert(become_variable(index), password.0.clone());
        }
    }
    text(VARIABLES, data(&Value::Object(variables)));
    text(INVENTORY, inventory(spec));
    text(CONNECTION, connection());
    text(SSH, ssh(spec));
    if !spec.roles.is_empty() || !spec.collections.is_empty() {
        text(
            REQUIREMENTS,
            format!("{:#}\n", requirements(spec, |_, name, _| json!({ "name": name }))),
        );
    }
    let local = spec.hosts.values().any(|host| host.connection == Connection::Local);
    Rendered {
        files,
        playbook,
        retire,
        arguments: arguments(spec),
        secrets,
        keys: spec
            .ways()
            .filter_map(|way| Some((way.name.to_owned(), way.key?.0.clone())))
            .collect(),
        host_keys: spec
            .ways()
            .map(|way| (way.name.to_owned(), way.host_key.map(Text::shown)))
            .collect(),
        guard: config.guard(local),
    }
}

/// What of a Galaxy server's is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Roles,
    Collections,
}

/// What is installed: each with its version, and with what is made of its field, name and version.
pub(crate) fn requirements(spec: &PlaybookSpec, entry: impl Fn(Field, &str, &str) -> Value) -> Value {
    let all = |field: Field, wanted: &BTreeMap<String, String>| -> Vec<Value> {
        let with_version = |(name, version): (&String, &String)| {
            let mut one = entry(field, name, version);
            one["version"] = json!(version);
            one
        };
        wanted.iter().map(with_version).collect()
    };
    json!({ "roles": all(Field::Roles, &spec.roles), "collections": all(Field::Collections, &spec.collections) })
}

fn become_variable(index: usize) -> String {
    format!("{BECOME}{index}")
}

fn arguments(spec: &PlaybookSpec) -> Vec<String> {
    let mut arguments = Vec::new();
    for (option, all) in [("--limit", &spec.limit), ("--tags", &spec.tags), ("--skip-tags", &spec.skip_tags)] {
        if !all.is_empty() {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            arguments.push(format!("{option}={}", all.join(",")));
        }
    }
    arguments
}

/// Data as YAML that Ansible takes as it is: a text in which a template could begin is marked as none.
pub(crate) fn data(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text.push('\n');
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            if ["{{", "{%", "{#"].iter().any(|begin| text.contains(begin)) {
                out.push_str("!unsafe ");
            }
            out.push_str(&quoted(text));
        }
        Value::Array(all) => {
            out.push('[');
            for (index, one) in all.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write(one, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (index, (name, one)) in map.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                out.push_str(&quoted(name));
                out.push_str(": ");
                write(one, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// A text in YAML's double quotes.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{2030}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' => quoted.push(c),
            other => quoted.push_str(&format!("\\U{:08x}", u32::from(other))),
        }
    }
    quoted.push('"');
    quoted
}

/// A host's variable.
enum Setting {
    /// Data.
    Data(Value),
    /// A template of Charter's own.
    Template(String),
}

fn inventory(spec: &PlaybookSpec) -> String {
    let mut text = "{\"all\": {\"hosts\": {".to_owned();
    let mut groups: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (index, (name, host)) in spec.hosts.iter().enumerate() {
        text.push_str(if index > 0 { "},\n" } else { "\n" });
        text.push_str(&format!("  {}: {{", quoted(name)));
        for (place, (variable, setting)) in settings(index, name, host).iter().enumerate() {
            text.push_str(if place > 0 { ", " } else { "" });
            text.push_str(&format!("{}: ", quoted(variable)));
            match setting {
                Setting::Data(value) => write(value, &mut text),
                Setting::Template(template) => text.push_str(&quoted(template)),
            }
        }
        for group in &host.groups {
            groups.entry(group).or_default().insert(name.clone(), json!({}));
        }
    }
    text.push_str("}\n}, \"children\": ");
    let children: Map<String, Value> = groups
        .into_iter()
        .map(|(group, hosts)| (group.to_owned(), json!({ "hosts": hosts })))
        .collect();
    write(&Value::Object(children), &mut text);
    text.push_str("}}\n");
    text
}

fn settings(index: usize, name: &str, host: &HostSpec) -> BTreeMap<String, Setting> {
    let own = host
        .variables
        .iter()
        .map(|(name, value)| (name.clone(), Setting::Data(shown(value))));
    let mut all: BTreeMap<String, Setting> = own.collect();
    let mut set = |name: &str, setting: Setting| all.insert(name.to_owned(), setting);
    match host.connection {
        Connection::Local => {
            set("ansible_connection", Setting::Data(json!("local")));
            set(
                "ansible_python_interpreter",
                Setting::Template("{{ ansible_playbook_python }}".to_owned()),
            );
        }
        Connection::Ssh => {
            // SSH knows a host by its name here, wherever it is.
            set("ansible_ssh_host", Setting::Data(json!(name)));
            if host.address.is_some() {
                set("ansible_host", Setting::Data(json!(host.way(name).host())));
            }
            if let Some(user) = &host.user {
                set("ansible_user", Setting::Data(json!(user)));
            }
        }
    }
    if let Some(python) = &host.python {
        set("ansible_python_interpreter", Setting::Data(json!(python)));
    }
    if host.become_password.is_some() {
        set(
            "ansible_become_password",
            Setting::Template(format!("{{{{ {} }}}}", become_variable(index))),
        );
    }
    all
}

/// What no play may say: how programs are started here to reach hosts. Given last and from outside, it counts before everything else.
fn connection() -> String {
    data(&json!({
        "ansible_ssh_args": format!("-F {SSH}"),
        "ansible_ssh_common_args": "",
        "ansible_ssh_extra_args": "",
        "ansible_sftp_extra_args": "",
        "ansible_scp_extra_args": "",
        "ansible_ssh_executable": "ssh",
        "ansible_sftp_executable": "sftp",
        "ansible_scp_executable": "scp",
        "ansible_ssh_pkcs11_provider": "",
        "ansible_host_key_checking": true,
        "ansible_ssh_host_key_checking": true,
    }))
}

/// Who may be reached, and as whom. A host that isn't here can't be.
fn ssh(spec: &PlaybookSpec) -> String {
    let mut text = String::new();
    let mut addresses: BTreeMap<String, u32> = BTreeMap::new();
    for way in spec.ways() {
        *addresses.entry(way.host()).or_default() += 1;
    }
    for way in spec.ways() {
        let address = way.host();
        // Tasks that are delegated name the address, where that is one host's.
        let alone = addresses.get(&address) == Some(&1) && address != way.name;
        let also = if alone { format!(" {address}") } else { String::new() };
        text.push_str(&format!("Host {}{also}\n", way.name));
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name} {value}\n"));
        line("HostName", &address);
        line("HostKeyAlias", way.name);
        if let Some(port) = way.port() {
            line("Port", &port);
        }
        if let Some(user) = way.user {
            line("User", user);
        }
        if way.key.is_some() {
            line("IdentityFile", &format!("{KEYS}/{}", way.name));
            line("IdentitiesOnly", "yes");
            line("IdentityAgent", "none");
        }
        line("StrictHostKeyChecking", if way.host_key.is_some() { "yes" } else { "accept-new" });
        match way.jump {
            Some(jump) => line("ProxyJump", jump),
            None => line("ProxyCommand", "none"),
        }
    }
    text.push_str("Host *\n");
    for (name, value) in [
        ("ProxyCommand", "false"),
        ("StrictHostKeyChecking", "yes"),
        ("UserKnownHostsFile", KNOWN_HOSTS),
        ("GlobalKnownHostsFile", "none"),
        ("HashKnownHosts", "no"),
        ("UpdateHostKeys", "no"),
        ("BatchMode", "yes"),
        ("PreferredAuthentications", "publickey"),
        ("ForwardAgent", "no"),
        ("ConnectTimeout", "10"),
        ("ServerAliveInterval", "10"),
        ("ServerAliveCountMax", "3"),
        ("ControlMaster", "auto"),
        ("ControlPersist", "10"),
        ("ControlPath", "cp/%C"),
    ] {
        text.push_str(&format!("  {name} {value}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(value: Value) -> PlaybookSpec {
        serde_json::from_value(value).unwrap()
    }

    fn rendered(value: Value) -> (Rendered, BTreeMap<String, String>) {
        let ordered = Ordered {
            spec: spec(value),
            files: Files::new(),
        };
        let rendered = render(&AnsibleConfig::new("ansible-playbook"), &ordered);
        let texts = rendered
            .files
            .iter()
            .map(|(name, bytes)| (name.clone(), String::from_utf8(bytes.clone()).unwrap()));
        let texts = texts.collect();
        (rendered, texts)
    }

    #[test]
    fn data_stays_data() {
        let value =
            json!({ "a": "{{ 7 * 7 }}", "b": ["{% x %}", "{# y", "plain: #x", 5, true, null], "c\"": { "d": "tab\t\u{1f600}\u{85}" } });
        let text = data(&value);
        assert_eq!(
            text,
            "{\"a\": !unsafe \"{{ 7 * 7 }}\", \"b\": [!unsafe \"{% x %}\", !unsafe \"{# y\", \"plain: #x\", 5, true, null], \
             \"c\\\"\": {\"d\": \"tab\\U00000009\\U0001f600\\U00000085\"}}\n"
        );
        let read: Value = serde_saphyr::from_str(&text.replace("!unsafe ", "")).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn hosts_come_to_an_inventory_and_to_ssh() {
        let (rendered, texts) = rendered(json!({
            "plays": [{ "hosts": "all" }],
            "hosts": {
                "web1": { "address": { "$ref": "vm.outputs.address" }, "port": 2222, "user": "deploy", "key": { "$secret": "deploy" },
                    "jump": "gate", "groups": ["web"], "become_password": { "$secret": "sudo" }, "variables": { "x": "{{ evil }}" } },
                "here": { "connection": "local" },
            },
            "jumps": { "gate": { "address": "192.0.2.1", "host_key": "ssh-ed25519 AAAA" } },
            "variables": { "token": { "$secret": "token" }, "at": { "$ref": "x.outputs.y" } },
            "limit": ["web"], "tags": ["a", "b"],
        }));
        assert_eq!(
            texts[INVENTORY],
            "{\"all\": {\"hosts\": {\n  \"here\": {\"ansible_connection\": \"local\", \"ansible_python_interpreter\": \
             \"{{ ansible_playbook_python }}\"},\n  \"web1\": {\"ansible_become_password\": \"{{ charter_become_1 }}\", \"ansible_host\": \
             \"<vm.outputs.address>\", \"ansible_ssh_host\": \"web1\", \"ansible_user\": \"deploy\", \"x\": !unsafe \"{{ evil }}\"}\n}, \
             \"children\": {\"web\": {\"hosts\": {\"web1\": {}}}}}}\n"
        );
        assert_eq!(texts[VARIABLES], "{\"at\": \"<x.outputs.y>\"}\n");
        assert_eq!(
            texts[SSH].split("Host *").next().unwrap(),
            "Host gate 192.0.2.1\n  HostName 192.0.2.1\n  HostKeyAlias gate\n  StrictHostKeyChecking yes\n  ProxyCommand none\n\
             Host web1 <vm.outputs.address>\n  HostName <vm.outputs.address>\n  HostKeyAlias web1\n  Port 2222\n  User deploy\n  \
             IdentityFile keys/web1\n  IdentitiesOnly yes\n  IdentityAgent none\n  StrictHostKeyChecking accept-new\n  ProxyJump gate\n"
        );
        assert_eq!(rendered.arguments, ["--limit=web", "--tags=a,b"]);
        assert_eq!(rendered.secrets.keys().collect::<Vec<_>>(), ["charter_become_1", "token"]);
        assert_eq!(
            rendered.host_keys,
            [("gate".to_owned(), Some("ssh-ed25519 AAAA".to_owned())), ("web1".to_owned(), None)].into()
        );
    }
}
