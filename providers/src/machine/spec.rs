//! The specifications of `machine/directory`, `machine/file` and `machine/service`.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use state::resource::Resource;

use crate::Invalid;
use crate::fields::{Setting, Text, read};

/// The most words that a command may have, and the most variables that an environment may have.
const MAX_ITEMS: usize = 256;

/// Permission bits, written in octal: `"0640"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(&text);
        let good = digits.len() == 3 && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = good.then(|| u32::from_str_radix(digits, 8).ok()).flatten();
        bits.map(Mode)
            .ok_or_else(|| D::Error::custom("write a mode as text of three octal digits, for example \"0640\""))
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mode".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^0?[0-7]{3}$" })
    }
}

/// A TCP port on the loopback interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// `"auto"`: a free one, kept from then on.
    Auto,
    /// This one.
    Fixed(u16),
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == "auto" => Ok(Port::Auto),
            Value::Number(number) => match number.as_u64().and_then(|n| u16::try_from(n).ok()) {
                Some(port) if port > 0 => Ok(Port::Fixed(port)),
                _ => Err(D::Error::custom("a port is a number from 1 to 65535")),
            },
            _ => Err(D::Error::custom("expected \"auto\" or a number from 1 to 65535")),
        }
    }
}

impl JsonSchema for Port {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Port".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 65535 }] })
    }
}

/// When a service counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ready {
    /// When its port takes connections.
    Port(bool),
    /// When this command, one of the allowed ones, ends with 0.
    Command(Vec<Text>),
}

/// A directory below the machine's root.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectorySpec {
    /// Its permission bits.
    #[serde(default = "directory_mode")]
    #[schemars(default)]
    pub(crate) mode: Mode,
}

/// A text file below the machine's root.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSpec {
    /// Its whole content.
    pub(crate) content: Text,
    /// Its permission bits.
    #[serde(default = "file_mode")]
    #[schemars(default)]
    pub(crate) mode: Mode,
    /// The directory that it is in: the path that a machine/directory gives, or a path below the channel's folder.
    #[serde(default)]
    pub(crate) directory: Option<Text>,
    /// Its name in the directory. Without it: the resource's name.
    #[serde(default)]
    pub(crate) file_name: Option<String>,
}

/// A long-running process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceSpec {
    /// The name of a command that the machine's configuration allows, and its arguments.
    pub(crate) command: Vec<Text>,
    /// Its environment variables.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, Setting>,
    /// Its working directory. Without it: the channel's folder.
    #[serde(default)]
    pub(crate) directory: Option<Text>,
    /// The port that it is told to listen on, in the environment variable PORT.
    #[serde(default)]
    pub(crate) port: Option<Port>,
    /// When it counts as ready. Without it: as soon as it runs.
    #[serde(default)]
    pub(crate) ready: Option<Ready>,
    /// How long it may take to stop before it is killed, in seconds.
    #[serde(default = "grace")]
    #[schemars(range(max = 600))]
    pub(crate) stop_grace_seconds: u64,
}

fn directory_mode() -> Mode {
    Mode(0o750)
}

fn file_mode() -> Mode {
    Mode(0o640)
}

fn grace() -> u64 {
    10
}

impl Default for Mode {
    fn default() -> Self {
        file_mode()
    }
}

/// A specification of one of the three kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// `machine/directory`.
    Directory(DirectorySpec),
    /// `machine/file`.
    File(FileSpec),
    /// `machine/service`.
    Service(ServiceSpec),
}

/// Reads a resource's specification. References may stand for values.
pub(crate) fn typed(resource: &Resource) -> Result<Typed, Invalid> {
    let wrong = |message: String| Invalid::Spec {
        resource: resource.name.clone(),
        message,
    };
    let parsed = match resource.kind.name() {
        "directory" => read(&resource.spec).map(Typed::Directory),
        "file" => read(&resource.spec).map(Typed::File),
        "service" => read(&resource.spec).map(Typed::Service),
        _ => Err(format!(
            "{} is not a kind of this provider: use machine/directory, machine/file or machine/service",
            resource.kind
        )),
    };
    let parsed = parsed.map_err(wrong)?;
    match &parsed {
        Typed::Directory(spec) if spec.mode.0 & 0o700 != 0o700 => Err(wrong("mode: the owner of a directory needs 7".to_owned())),
        Typed::File(spec) => check_file(spec).map_err(wrong),
        Typed::Service(spec) => check_service(spec).map_err(wrong),
        Typed::Directory(_) => Ok(()),
    }?;
    Ok(parsed)
}

fn check_file(spec: &FileSpec) -> Result<(), String> {
    if spec.mode.0 & 0o400 == 0 {
        return Err("mode: the owner of a file needs to read it (4)".to_owned());
    }
    if let Some(name) = &spec.file_name {
        if spec.directory.is_none() {
            return Err("file_name: it needs a directory beside it".to_owned());
        }
        super::path::check_name(name).map_err(|error| format!("file_name: {error}"))?;
    }
    Ok(())
}

fn check_service(spec: &ServiceSpec) -> Result<(), String> {
    check_command("command", &spec.command)?;
    if spec.env.len() > MAX_ITEMS {
        return Err(format!("env: more than {MAX_ITEMS} variables"));
    }
    for name in spec.env.keys() {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(good) {
            return Err(format!("env: {name:?} is not a variable's name: use letters, digits and '_'"));
        }
    }
    if spec.port.is_some() && spec.env.contains_key("PORT") {
        return Err("env: PORT is set from port; give one of the two".to_owned());
    }
    match &spec.ready {
        Some(Ready::Port(false)) => return Err("ready: write {\"port\": true}, or leave it out".to_owned()),
        Some(Ready::Port(true)) if spec.port.is_none() => return Err("ready: it waits for a port; give one with port".to_owned()),
        Some(Ready::Command(words)) => check_command("ready.command", words)?,
        _ => {}
    }
    if spec.stop_grace_seconds > 600 {
        return Err("stop_grace_seconds: at most 600".to_owned());
    }
    Ok(())
}

fn check_command(field: &str, words: &[Text]) -> Result<(), String> {
    match words.first() {
        Some(Text::Literal(_)) if words.len() <= MAX_ITEMS => Ok(()),
        Some(Text::Literal(_)) => Err(format!("{field}: more than {MAX_ITEMS} words")),
        _ => Err(format!("{field}: its first word is the name of a command, and no reference")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: &str, spec: Value) -> Result<Typed, String> {
        let resource = serde_json::from_value(json!({ "name": "x", "kind": kind, "owner": "city", "spec": spec })).unwrap();
        typed(&resource).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (kind, spec, part) in [
            ("machine/directory", json!({ "mod": "0750" }), "unknown field `mod`"),
            ("machine/directory", json!({ "mode": 750 }), "\"mode\": 750"),
            ("machine/directory", json!({ "mode": "4755" }), "octal"),
            ("machine/directory", json!({ "mode": "0070" }), "needs 7"),
            ("machine/file", json!({}), "missing field `content`"),
            ("machine/file", json!({ "content": { "$secret": "s" } }), "environment variable"),
            ("machine/file", json!({ "content": "x", "file_name": "a" }), "needs a directory"),
            (
                "machine/file",
                json!({ "content": "x", "directory": "d", "file_name": "../a" }),
                "plain file name",
            ),
            ("machine/service", json!({ "command": [] }), "first word"),
            ("machine/service", json!({ "command": [{ "$ref": "a.outputs.b" }] }), "first word"),
            (
                "machine/service",
                json!({ "command": ["a"], "env": { "A=B": "1" } }),
                "variable's name",
            ),
            ("machine/service", json!({ "command": ["a"], "port": 70000 }), "1 to 65535"),
            (
                "machine/service",
                json!({ "command": ["a"], "ready": { "port": true } }),
                "give one with port",
            ),
            (
                "machine/service",
                json!({ "command": ["a"], "ready": { "http": 1 } }),
                "unknown variant `http`",
            ),
            ("machine/disk", json!({}), "not a kind"),
        ] {
            let error = check(kind, spec).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn references_and_numbers_are_texts() {
        let spec = json!({ "command": ["a", 5, { "$ref": "b.outputs.c" }], "env": { "K": { "$secret": "s" } }, "port": "auto" });
        let Typed::Service(spec) = check("machine/service", spec).unwrap() else {
            panic!()
        };
        assert_eq!(spec.command[1], Text::Literal("5".to_owned()));
        assert_eq!(spec.command[2], Text::Reference("b.outputs.c".to_owned()));
        assert!(matches!(&spec.env["K"], Setting::Secret(name) if name.as_str() == "s"));
    }
}
