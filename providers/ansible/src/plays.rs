//! Reading plays for what they would use: modules, lookups, roles, files and other hosts. Ansible itself is held to the same while it
//! runs; what can be told before is told in the plan.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use providers::refusal::{Refusal, denied, wrong};

use crate::config::AnsibleConfig;
use crate::files::Files;
use crate::spec::PlaybookSpec;

/// The words of a task that are no module.
const KEYWORDS: [&str; 45] = [
    "action",
    "any_errors_fatal",
    "args",
    "async",
    "become",
    "become_exe",
    "become_flags",
    "become_method",
    "become_user",
    "changed_when",
    "check_mode",
    "collections",
    "connection",
    "debugger",
    "delay",
    "delegate_facts",
    "delegate_to",
    "diff",
    "environment",
    "failed_when",
    "ignore_errors",
    "ignore_unreachable",
    "listen",
    "local_action",
    "loop",
    "loop_control",
    "module_defaults",
    "name",
    "no_log",
    "notify",
    "poll",
    "port",
    "register",
    "remote_user",
    "retries",
    "run_once",
    "tags",
    "throttle",
    "timeout",
    "until",
    "vars",
    "when",
    "block",
    "rescue",
    "always",
];
/// The lists of a play that hold tasks, and those of a block.
const TASKS: [&str; 4] = ["pre_tasks", "tasks", "post_tasks", "handlers"];
const BLOCKS: [&str; 3] = ["block", "rescue", "always"];
/// Variables that say how a host is reached: those are the order's hosts to say.
const REACHING: [&str; 12] = [
    "ansible_connection",
    "ansible_control_path",
    "ansible_host",
    "ansible_host_key_checking",
    "ansible_paramiko",
    "ansible_password",
    "ansible_pipelining",
    "ansible_port",
    "ansible_private_key",
    "ansible_scp",
    "ansible_sftp",
    "ansible_ssh",
];
/// The deepest that blocks stand in each other.
const MAX_DEPTH: usize = 16;

/// A plugin's name without the collection that every installation has.
pub(crate) fn short(name: &str) -> &str {
    let own = ["ansible.builtin.", "ansible.legacy."];
    own.iter().find_map(|collection| name.strip_prefix(collection)).unwrap_or(name)
}

/// A plugin's name with its collection, or a pattern of such names. `*` alone is every one.
pub(crate) fn whole(name: &str) -> String {
    let short = short(name);
    match short == "*" && short == name || short.contains('.') {
        true => short.to_owned(),
        false => format!("ansible.builtin.{short}"),
    }
}

/// Whether a variable says how a host is reached.
pub(crate) fn is_reaching(name: &str) -> bool {
    REACHING.iter().any(|beginning| name.starts_with(beginning))
}

/// What is known where plays are read.
pub(crate) struct Reader<'a> {
    pub(crate) config: &'a AnsibleConfig,
    pub(crate) spec: &'a PlaybookSpec,
    pub(crate) files: &'a Files,
}

impl Reader<'_> {
    /// Reads plays that stand at a place, such as `plays`.
    pub(crate) fn plays(&self, at: &str, plays: &[Value]) -> Result<(), Refusal> {
        if plays.is_empty() {
            return Err(wrong(format!("{at}: there are no plays")));
        }
        for (index, play) in plays.iter().enumerate() {
            let at = format!("{at}/{index}");
            let Value::Object(play) = play else {
                return Err(wrong(format!("{at} is no play")));
            };
            self.play(&at, play)?;
        }
        Ok(())
    }

    fn play(&self, at: &str, play: &Map<String, Value>) -> Result<(), Refusal> {
        for name in ["import_playbook", "ansible.builtin.import_playbook"] {
            if let Some(path) = play.get(name) {
                return self.ordered(&format!("{at}/{name}"), path);
            }
        }
        if !play.contains_key("hosts") {
            return Err(wrong(format!("{at}: hosts is missing")));
        }
        self.words(at, play)?;
        for path in list(play.get("vars_files")) {
            self.ordered(&format!("{at}/vars_files"), path)?;
        }
        if play.contains_key("vars_prompt") {
            return Err(denied(format!("{at}/vars_prompt: nobody is there to answer: give variables")));
        }
        for (index, role) in list(play.get("roles")).enumerate() {
            let at = format!("{at}/roles/{index}");
            let name = role.as_str().or_else(|| role.get("role").or_else(|| role.get("name"))?.as_str());
            self.role(&at, name)?;
            if let Value::Object(role) = role {
                self.words(&at, role)?;
            }
        }
        for name in TASKS {
            if let Some(tasks) = play.get(name) {
                self.tasks(&format!("{at}/{name}"), tasks, 0)?;
            }
        }
        Ok(())
    }

    /// Reads tasks.
    pub(crate) fn tasks(&self, at: &str, tasks: &Value, depth: usize) -> Result<(), Refusal> {
        let Value::Array(all) = tasks else {
            return Err(wrong(format!("{at} is no list of tasks")));
        };
        if depth > MAX_DEPTH {
            return Err(wrong(format!("{at}: blocks stand more than {MAX_DEPTH} deep in each other")));
        }
        for (index, task) in all.iter().enumerate() {
            let at = format!("{at}/{index}");
            let Value::Object(task) = task else {
                return Err(wrong(format!("{at} is no task")));
            };
            self.words(&at, task)?;
            if BLOCKS.iter().any(|name| task.contains_key(*name)) {
                for name in BLOCKS {
                    if let Some(tasks) = task.get(name) {
                        self.tasks(&format!("{at}/{name}"), tasks, depth + 1)?;
                    }
                }
                continue;
            }
            self.task(&at, task)?;
        }
        Ok(())
    }

    fn task(&self, at: &str, task: &Map<String, Value>) -> Result<(), Refusal> {
        if task.contains_key("local_action") && !self.config.local {
            return Err(denied(format!(
                "{at}/local_action: it would run on the machine that Charter runs on: ansible.local in charter.toml doesn't allow it"
            )));
        }
        let found: Vec<&str> = module_of(task).collect();
        let [module] = found[..] else {
            return Err(wrong(format!(
                "{at}: a task has one module, and this has {}",
                if found.is_empty() { "none".to_owned() } else { found.join(", ") }
            )));
        };
        if !self.config.gives_module(module) {
            return Err(denied(format!(
                "{at}/{module}: the module is none of ansible.modules in charter.toml: add it to allow it"
            )));
        }
        if matches!(short(module), "import_role" | "include_role") {
            let arguments = task.get(module);
            let name = arguments
                .and_then(|one| one.get("name").or_else(|| one.get("role")))
                .and_then(Value::as_str);
            self.role(&format!("{at}/{module}"), name)?;
        }
        Ok(())
    }

    /// What plays, roles, blocks and tasks have in common.
    fn words(&self, at: &str, one: &Map<String, Value>) -> Result<(), Refusal> {
        match one.get("connection").and_then(Value::as_str) {
            None => {}
            Some("ssh" | "ansible.builtin.ssh") => {}
            Some("local" | "ansible.builtin.local") if self.config.local => {}
            Some(other) => {
                return Err(denied(format!(
                    "{at}/connection: {other:?}: hosts are reached as the order's hosts say"
                )));
            }
        }
        match one.get("delegate_to").and_then(Value::as_str) {
            Some(host) if !is_template(host) && !self.spec.hosts.contains_key(host) => {
                return Err(denied(format!("{at}/delegate_to: {host:?} is none of the order's hosts")));
            }
            _ => {}
        }
        if let Some(bad) = one
            .keys()
            .find(|name| name.strip_prefix("with_").is_some_and(|lookup| !self.config.gives_lookup(lookup)))
        {
            return Err(lookup_denied(at, bad.trim_start_matches("with_")));
        }
        for (name, value) in one {
            // Blocks and tasks are read one by one.
            if !TASKS.contains(&name.as_str()) && !BLOCKS.contains(&name.as_str()) && name != "roles" {
                self.texts(&format!("{at}/{name}"), value)?;
            }
        }
        Ok(())
    }

    /// Reads data for references, lookups, and variables that say how hosts are reached.
    fn texts(&self, at: &str, value: &Value) -> Result<(), Refusal> {
        match value {
            Value::String(text) => match lookups(text).into_iter().find(|name| !self.config.gives_lookup(name)) {
                Some(name) => Err(lookup_denied(at, name)),
                None => Ok(()),
            },
            Value::Array(all) => all
                .iter()
                .enumerate()
                .try_for_each(|(index, one)| self.texts(&format!("{at}/{index}"), one)),
            Value::Object(map) => map.iter().try_for_each(|(name, one)| {
                if name == "$ref" || name == "$secret" {
                    return Err(wrong(format!(
                        "{at}/{name}: values of others and secrets stand in variables, and plays name the variable"
                    )));
                }
                if is_reaching(name) {
                    return Err(denied(format!("{at}/{name}: hosts are reached as the order's hosts say")));
                }
                self.texts(at, &Value::String(name.clone()))?;
                self.texts(&format!("{at}/{name}"), one)
            }),
            _ => Ok(()),
        }
    }

    /// A role: of the order's roles, of one of its collections, or in its files.
    fn role(&self, at: &str, name: Option<&str>) -> Result<(), Refusal> {
        let Some(name) = name else {
            return Err(wrong(format!("{at}: it names no role")));
        };
        if self.spec.roles.contains_key(name) || self.files.keys().any(|path| path.starts_with(&format!("roles/{name}/"))) {
            return Ok(());
        }
        let collection: Vec<&str> = name.splitn(3, '.').collect();
        if let [namespace, collection, _] = collection[..]
            && self.spec.collections.contains_key(&format!("{namespace}.{collection}"))
        {
            return Ok(());
        }
        Err(denied(format!(
            "{at}: the role {name:?} has no exact version: name it in roles or collections, or order its files"
        )))
    }

    /// A file that plays read by its name.
    fn ordered(&self, at: &str, path: &Value) -> Result<(), Refusal> {
        match path.as_str() {
            Some(path) if is_template(path) || self.files.contains_key(path) => Ok(()),
            _ => Err(denied(format!("{at}: {path} is none of the order's files"))),
        }
    }
}

fn lookup_denied(at: &str, name: &str) -> Refusal {
    denied(format!(
        "{at}: the lookup {name} is none of ansible.lookups in charter.toml: add it to allow it"
    ))
}

fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    match value {
        Some(Value::Array(all)) => all.iter().collect::<Vec<_>>(),
        Some(one) => vec![one],
        None => Vec::new(),
    }
    .into_iter()
}

/// The modules of a task: one, where it is right.
fn module_of(task: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let named = ["action", "local_action"].into_iter().filter_map(|name| {
        let action = task.get(name)?;
        let text = action.as_str().or_else(|| action.get("module")?.as_str())?;
        text.split_whitespace().next()
    });
    let own = task
        .keys()
        .map(String::as_str)
        .filter(|name| !KEYWORDS.contains(name) && !name.starts_with("with_"));
    named.chain(own)
}

/// The lookups that a text names.
fn lookups(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for function in ["lookup", "query", "q"] {
        for (from, _) in text.match_indices(function) {
            let word = |c: char| c.is_alphanumeric() || c == '_';
            if text[..from].chars().next_back().is_some_and(word) {
                continue;
            }
            let Some(arguments) = text[from + function.len()..].trim_start().strip_prefix('(') else {
                continue;
            };
            let arguments = arguments.trim_start();
            let quote = arguments.chars().next().filter(|c| matches!(c, '\'' | '"'));
            let name = quote.and_then(|quote| arguments[1..].split(quote).next());
            // One whose name is known only when it runs is held back then.
            found.extend(name);
        }
    }
    found
}

/// The modules that plays use which stand in the order itself.
pub(crate) fn modules(spec: &PlaybookSpec) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let retire = spec.retire.iter().flat_map(|retire| &retire.plays);
    for play in spec.plays.iter().chain(retire) {
        for name in TASKS {
            gather(play.get(name), &mut found, 0);
        }
    }
    found.retain(|name| !crate::config::HARMLESS.contains(&short(name)));
    found
}

fn gather(tasks: Option<&Value>, found: &mut BTreeSet<String>, depth: usize) {
    for task in list(tasks).filter_map(Value::as_object) {
        if depth < MAX_DEPTH && BLOCKS.iter().any(|name| task.contains_key(*name)) {
            for name in BLOCKS {
                gather(task.get(name), found, depth + 1);
            }
        } else {
            found.extend(module_of(task).map(str::to_owned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(tasks: &Value) -> String {
        said_of(&json!([{ "hosts": "all", "tasks": tasks }]))
    }

    fn said_of(plays: &Value) -> String {
        let mut config = AnsibleConfig::new("ansible-playbook");
        config.modules = ["copy".to_owned(), "command".to_owned()].into();
        let spec: PlaybookSpec = serde_json::from_value(json!({
            "hosts": { "web": { "address": "10.0.0.1" } }, "roles": { "geer.nginx": "1.0.0" }, "collections": { "a.b": "1.0.0" },
        }))
        .unwrap();
        let files = ["roles/own/tasks/main.yml", "vars.yml"]
            .map(|path| (path.to_owned(), Vec::new()))
            .into();
        let reader = Reader {
            config: &config,
            spec: &spec,
            files: &files,
        };
        match reader.plays("plays", plays.as_array().unwrap()) {
            Ok(()) => String::new(),
            Err(Refusal::Wrong(why) | Refusal::Denied(why)) => why,
        }
    }

    #[test]
    fn what_isnt_allowed_is_named_by_its_clause() {
        for (tasks, words) in [
            (
                json!([{ "user": { "name": "x" } }]),
                "plays/0/tasks/0/user: the module is none of ansible.modules",
            ),
            (
                json!([{ "block": [{ "rescue": [] }, { "ansible.builtin.apt": {} }] }]),
                "plays/0/tasks/0/block/1/ansible.builtin.apt",
            ),
            (json!([{ "action": "user name=x" }]), "plays/0/tasks/0/user"),
            (json!([{ "action": { "module": "user" } }]), "/user: the module"),
            (json!([{ "copy": {}, "user": {} }]), "has copy, user"),
            (json!([{ "name": "x" }]), "has none"),
            (json!([{ "local_action": "command id" }]), "ansible.local"),
            (
                json!([{ "command": "id", "delegate_to": "localhost" }]),
                "delegate_to: \"localhost\" is none of the order's hosts",
            ),
            (json!([{ "command": "id", "connection": "local" }]), "/connection: \"local\""),
            (
                json!([{ "command": "id", "vars": { "ansible_ssh_common_args": "-oProxyCommand=id" } }]),
                "/vars/ansible_ssh_common_args",
            ),
            (
                json!([{ "set_fact": { "ansible_connection": "local" } }]),
                "/set_fact/ansible_connection",
            ),
            (
                json!([{ "command": "{{ lookup('pipe', 'id') }}" }]),
                "/command: the lookup pipe is none",
            ),
            (
                json!([{ "command": "{{ query(\"ansible.builtin.env\", 'HOME') }}" }]),
                "the lookup ansible.builtin.env",
            ),
            (json!([{ "command": "x", "with_lines": "id" }]), "the lookup lines"),
            (json!([{ "command": { "$ref": "x.outputs.y" } }]), "stand in variables"),
            (json!([{ "command": { "argv": [{ "$secret": "x" }] } }]), "/command/argv/0/$secret"),
            (
                json!([{ "include_role": { "name": "other" } }]),
                "the role \"other\" has no exact version",
            ),
            (json!("x"), "is no list of tasks"),
            (json!(["x"]), "tasks/0 is no task"),
        ] {
            let why = said(&tasks);
            assert!(why.contains(words), "{tasks}: {why}");
        }
        for (plays, words) in [
            (json!([]), "there are no plays"),
            (json!([{ "tasks": [] }]), "hosts is missing"),
            (
                json!([{ "import_playbook": "other.yml" }]),
                "\"other.yml\" is none of the order's files",
            ),
            (
                json!([{ "hosts": "all", "vars_files": ["/etc/x.yml"] }]),
                "is none of the order's files",
            ),
            (
                json!([{ "hosts": "all", "roles": ["geer.other"] }]),
                "plays/0/roles/0: the role \"geer.other\"",
            ),
            (
                json!([{ "hosts": "all", "roles": [{ "role": "own", "vars": { "ansible_host": "x" } }] }]),
                "ansible_host",
            ),
            (json!([{ "hosts": "all", "vars_prompt": [] }]), "nobody is there"),
            (json!([{ "hosts": "all", "handlers": [{ "raw": "id" }] }]), "plays/0/handlers/0/raw"),
        ] {
            let why = said_of(&plays);
            assert!(why.contains(words), "{plays}: {why}");
        }
    }

    #[test]
    fn what_is_allowed_is_taken() {
        assert_eq!(
            said(&json!([
                { "name": "x", "copy": { "content": "{{ item }}", "dest": "/x" }, "with_items": ["a"], "register": "r", "when": "x" },
                { "ansible.builtin.command": "lookups (x)", "delegate_to": "web", "loop": "{{ lookup('dict', y) }}" },
                { "block": [{ "debug": { "msg": "x" } }], "rescue": [{ "action": "copy src=x dest=y" }], "become": true },
                { "import_role": { "name": "a.b.c" } },
            ])),
            ""
        );
        assert_eq!(
            said_of(&json!([{ "hosts": "web", "roles": ["own", { "role": "geer.nginx" }, "a.b.c"], "vars_files": ["vars.yml"] }])),
            ""
        );
    }

    #[test]
    fn the_modules_of_an_order_are_found() {
        let spec: PlaybookSpec = serde_json::from_value(json!({
            "plays": [{ "hosts": "all", "tasks": [{ "copy": {} }, { "block": [{ "action": "apt x=y" }] }, { "debug": {} }] }],
            "retire": { "plays": [{ "hosts": "all", "tasks": [{ "file": {} }] }] },
        }))
        .unwrap();
        assert_eq!(modules(&spec), ["apt", "copy", "file"].map(str::to_owned).into());
    }
}
