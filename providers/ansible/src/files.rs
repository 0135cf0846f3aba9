//! Playbooks and roles in files: read as YAML, as far as they are checked.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_saphyr::granit_parser::Parser;

use providers::refusal::{Refusal, wrong};

use crate::plays::Reader;

/// The files of an order, by their paths.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Reads a file of an order as YAML without tags.
pub(crate) fn yaml(files: &Files, path: &str) -> Result<Value, Refusal> {
    let Some(bytes) = files.get(path) else {
        return Err(wrong(format!("{path:?} is none of the order's files")));
    };
    let unread = |why: String| wrong(format!("files/{path} is no YAML that Charter reads: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|_| unread("it is no text".to_owned()))?;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| unread(error.to_string()))?;
        if event.tag().is_some() {
            return Err(unread(format!(
                "line {}: tags (!…) make something else of data, and are not read",
                span.start.line()
            )));
        }
    }
    serde_saphyr::from_str(text).map_err(|error| unread(error.to_string()))
}

/// Reads what a file of plays holds.
pub(crate) fn plays(files: &Files, path: &str) -> Result<Vec<Value>, Refusal> {
    match yaml(files, path)? {
        Value::Array(plays) => Ok(plays),
        _ => Err(wrong(format!("files/{path} holds no plays"))),
    }
}

/// Whether Ansible reads a file as YAML.
fn is_yaml(path: &str) -> bool {
    path.ends_with(".yml") || path.ends_with(".yaml")
}

/// Whether a file holds data, by where it is in a role or beside a playbook.
fn holds_data(path: &str) -> bool {
    let folders: Vec<&str> = path.split('/').collect();
    let [folders @ .., _] = &folders[..] else { return false };
    let data = ["defaults", "files", "group_vars", "host_vars", "meta", "templates", "vars"];
    folders.iter().any(|folder| data.contains(folder))
}

/// Checks every file that Ansible reads as YAML.
pub(crate) fn check(reader: &Reader<'_>) -> Result<(), Refusal> {
    for path in reader.files.keys().filter(|path| is_yaml(path)) {
        let at = format!("files/{path}");
        match yaml(reader.files, path)? {
            Value::Array(all) if all.iter().any(is_play) => reader.plays(&at, &all)?,
            // What isn't data is what a play may include.
            Value::Array(all) if !holds_data(path) => reader.tasks(&at, &Value::Array(all), 0)?,
            _ => {}
        }
    }
    Ok(())
}

fn is_play(one: &Value) -> bool {
    one.get("hosts").is_some() || one.get("import_playbook").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let files = [("a.yml".to_owned(), text.as_bytes().to_vec())].into();
        match yaml(&files, "a.yml") {
            Ok(value) => value.to_string(),
            Err(Refusal::Wrong(why) | Refusal::Denied(why)) => why,
        }
    }

    #[test]
    fn what_plays_may_include_is_read_as_tasks() {
        let config = crate::config::AnsibleConfig::new("ansible-playbook");
        let spec = serde_json::from_value(serde_json::json!({})).unwrap();
        let said = |path: &str, text: &str| {
            let files = [(path.to_owned(), text.as_bytes().to_vec())].into();
            let reader = Reader {
                config: &config,
                spec: &spec,
                files: &files,
            };
            match check(&reader) {
                Ok(()) => String::new(),
                Err(Refusal::Wrong(why) | Refusal::Denied(why)) => why,
            }
        };
        let task = "- user: { name: evil }\n";
        assert!(said("more.yml", task).contains("files/more.yml/0/user: the module is none"));
        assert!(said("roles/x/tasks/main.yml", task).contains("files/roles/x/tasks/main.yml/0/user"));
        assert!(said("site.yml", &format!("- hosts: all\n  tasks:\n  {task}")).contains("files/site.yml/0/tasks/0/user"));
        for data in [
            "vars/list.yml",
            "roles/x/defaults/main.yml",
            "roles/x/files/a.yml",
            "more.txt",
            "more.yml.j2",
        ] {
            assert_eq!(said(data, task), "", "{data}");
        }
        assert_eq!(said("empty.yml", ""), "");
    }

    #[test]
    fn yaml_is_data() {
        assert_eq!(said("- a: x != y\n  b: '!c'\n"), r#"[{"a":"x != y","b":"!c"}]"#);
        assert_eq!(said("a: &x [1]\nb: *x\n"), r#"{"a":[1],"b":[1]}"#);
        for tagged in ["a: !vault x", "- !unsafe '{{ x }}'", "a: !!python/object:os.system x", "!x {}"] {
            assert!(said(tagged).contains("tags (!…)"), "{tagged}: {}", said(tagged));
        }
        assert!(said("a: [").contains("no YAML"));
        // Anchors that explode.
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 10].join(", ")));
        }
        assert!(said(&bomb).contains("no YAML"), "{:.300}", said(&bomb));
    }
}
