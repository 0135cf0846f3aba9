//! Holding a configuration to what the member allows, before an engine reads it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use state::resource::Resource;

use providers::Invalid;
use providers::fields;
use providers::refusal::{Refusal, denied, wrong};

use crate::config::TerraformConfig;
use crate::spec::{ModuleSpec, WorkspaceSpec};

/// The functions that read files.
const READERS: [&str; 11] = [
    "file",
    "filebase64",
    "filebase64sha256",
    "filebase64sha512",
    "fileexists",
    "filemd5",
    "fileset",
    "filesha1",
    "filesha256",
    "filesha512",
    "templatefile",
];
/// The name under which a comment stands.
const COMMENT: &str = "//";
/// What a workspace's blocks are.
const BLOCKS: [&str; 11] = [
    "check",
    "data",
    "locals",
    "module",
    "moved",
    "output",
    "provider",
    "removed",
    "resource",
    "terraform",
    "variable",
];

/// Reads what a resource asks for, and holds it to what the member gives.
pub(crate) fn read(config: &TerraformConfig, resource: &Resource) -> Result<WorkspaceSpec, Invalid> {
    let read: Result<WorkspaceSpec, String> = match resource.kind.name() {
        "workspace" => fields::read(&resource.spec),
        _ => Err(format!(
            "{} is no kind of this provider: its kind is terraform/workspace",
            resource.kind
        )),
    };
    let checked = read.map_err(Refusal::Wrong).and_then(|spec| check(config, &spec).map(|()| spec));
    checked.map_err(|refusal| refusal.of(&resource.name))
}

fn check(config: &TerraformConfig, spec: &WorkspaceSpec) -> Result<(), Refusal> {
    if let Some(bad) = spec.variables.keys().find(|name| !is_identifier(name)) {
        return Err(wrong(format!("variables: {bad:?} is no name of a variable")));
    }
    match (&spec.module, spec.configuration.is_empty()) {
        (None, true) => Err(wrong("configuration, module: a workspace has one of the two")),
        (Some(_), false) => Err(wrong("configuration, module: a workspace has one of the two, not both")),
        (Some(module), true) => of_module(config, "module", module),
        (None, false) => configuration(config, &spec.configuration),
    }
}

fn of_module(config: &TerraformConfig, at: &str, module: &ModuleSpec) -> Result<(), Refusal> {
    if let Some(bad) = module.inputs.keys().find(|name| !is_identifier(name) || is_meta(name)) {
        return Err(wrong(format!("{at}/inputs: {bad:?} is no name of an input")));
    }
    if let Some(bad) = module.outputs.iter().find(|name| !is_identifier(name)) {
        return Err(wrong(format!("{at}/outputs: {bad:?} is no name of an output")));
    }
    registry_module(config, at, &module.source, Some(&module.version))
}

/// A module has to come from a registry, in one version that never changes.
fn registry_module(config: &TerraformConfig, at: &str, source: &str, version: Option<&str>) -> Result<(), Refusal> {
    let parts: Vec<&str> = source.split('/').collect();
    let plain = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !matches!(parts.len(), 3 | 4) || !parts.iter().all(plain) || source.starts_with('.') {
        return Err(denied(format!(
            "{at}/source: {source:?} is no module of a registry: only those have versions that never change"
        )));
    }
    match version {
        Some(version) if is_exact(version) => {}
        Some(version) => {
            return Err(denied(format!(
                "{at}/version: {version:?} is no exact version: write one, such as 1.2.3"
            )));
        }
        None => {
            return Err(denied(format!(
                "{at}/version is missing: a module has an exact version, such as 1.2.3"
            )));
        }
    }
    match config.gives_module(source) {
        true => Ok(()),
        false => Err(denied(format!(
            "{at}/source: {source} is none of terraform.modules in charter.toml: add it to allow it"
        ))),
    }
}

fn configuration(config: &TerraformConfig, all: &Map<String, Value>) -> Result<(), Refusal> {
    if let Some(bad) = all.keys().find(|name| *name != COMMENT && !BLOCKS.contains(&name.as_str())) {
        return Err(wrong(format!(
            "configuration/{bad} is no block that a workspace has: it has {}",
            BLOCKS.join(", ")
        )));
    }
    all.iter()
        .try_for_each(|(name, value)| texts(value, &format!("configuration/{name}")))?;
    settings(all.get("terraform"))?;
    let sources = sources(all.get("terraform"))?;
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    let mut blocks: Vec<(&str, Option<&Value>)> = vec![("resource", all.get("resource")), ("data", all.get("data"))];
    // A check has data of its own.
    for (_, body) in objects(all.get("check"), "check")? {
        blocks.extend(bodies(body).into_iter().map(|body| ("data", body.get("data"))));
    }
    for (block, within) in blocks {
        for (kind, instances) in objects(within, block)? {
            if block == "data" && kind == "terraform_remote_state" {
                return Err(denied(
                    "configuration/data/terraform_remote_state reads other states: take other resources' outputs by references",
                ));
            }
            for (name, body) in objects(Some(instances), &format!("{block}/{kind}"))? {
                for body in bodies(body) {
                    let at = format!("configuration/{block}/{kind}/{name}");
                    if body.contains_key("provisioner") && !config.provisioners {
                        return Err(denied(format!(
                            "{at}/provisioner runs a program: terraform.provisioners in charter.toml doesn't allow it"
                        )));
                    }
                    let local = match body.get("provider").and_then(Value::as_str) {
                        Some(named) => named.split('.').next().unwrap_or_default().to_owned(),
                        None => kind.split('_').next().unwrap_or_default().to_owned(),
                    };
                    used.insert((local, at));
                }
            }
        }
    }
    for (name, _) in objects(all.get("provider"), "provider")? {
        used.insert((name.clone(), format!("configuration/provider/{name}")));
    }
    for name in sources.keys() {
        used.insert((name.clone(), format!("configuration/terraform/required_providers/{name}")));
    }
    for (local, at) in used {
        provider(config, &sources, &local, &at)?;
    }
    for (name, body) in objects(all.get("module"), "module")? {
        for body in bodies(body) {
            let at = format!("configuration/module/{name}");
            let source = body.get("source").and_then(Value::as_str).unwrap_or_default();
            registry_module(config, &at, source, body.get("version").and_then(Value::as_str))?;
        }
    }
    Ok(())
}

fn provider(config: &TerraformConfig, sources: &BTreeMap<String, String>, local: &str, at: &str) -> Result<(), Refusal> {
    // What the engine has in itself.
    if local == "terraform" && !sources.contains_key(local) {
        return Ok(());
    }
    let implied = format!("hashicorp/{local}");
    let source = sources.get(local).unwrap_or(&implied);
    if source == "terraform.io/builtin/terraform" {
        return Ok(());
    }
    if source.ends_with("hashicorp/external") && !config.provisioners {
        return Err(denied(format!(
            "{at}: {source} runs programs: terraform.provisioners in charter.toml doesn't allow it"
        )));
    }
    match config.gives_provider(source) {
        true => Ok(()),
        false => Err(denied(format!(
            "{at}: the provider {source} is none of terraform.providers in charter.toml: add it to allow it"
        ))),
    }
}

/// Of the block `terraform` only what says which versions are needed is an order's: where states are kept is the member's.
fn settings(block: Option<&Value>) -> Result<(), Refusal> {
    for (name, _) in objects(block, "terraform")? {
        if !matches!(name.as_str(), "required_providers" | "required_version") {
            return Err(denied(format!(
                "configuration/terraform/{name}: where states are kept and how the engine runs is said in charter.toml"
            )));
        }
    }
    Ok(())
}

/// The sources of the providers, by their local names.
fn sources(block: Option<&Value>) -> Result<BTreeMap<String, String>, Refusal> {
    let mut all = BTreeMap::new();
    for one in block.into_iter().flat_map(values) {
        for required in one.get("required_providers").into_iter().flat_map(values) {
            for (name, body) in objects(Some(required), "terraform/required_providers")? {
                let source = match body {
                    Value::Object(body) => body.get("source").and_then(Value::as_str).map(str::to_owned),
                    _ => None,
                };
                all.insert(name.clone(), source.unwrap_or_else(|| format!("hashicorp/{name}")));
            }
        }
    }
    Ok(all)
}

/// A block that stands once, or several times in a list.
fn values(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        other => vec![other],
    }
}

fn bodies(value: &Value) -> Vec<&Map<String, Value>> {
    values(value).into_iter().filter_map(Value::as_object).collect()
}

/// What stands in a block by its names.
fn objects<'a>(value: Option<&'a Value>, at: &str) -> Result<Vec<(&'a String, &'a Value)>, Refusal> {
    let mut all = Vec::new();
    for one in value.into_iter().flat_map(values) {
        match one {
            Value::Object(map) => all.extend(map.iter().filter(|(name, _)| *name != COMMENT)),
            _ => return Err(wrong(format!("configuration/{at} holds no names"))),
        }
    }
    Ok(all)
}

/// Looks at every text for what reads files: they may be read in the configuration's own folder only, where nothing is that isn't ordered.
/// A specification is bounded in size and depth.
fn texts(value: &Value, at: &str) -> Result<(), Refusal> {
    match value {
        Value::String(text) => match reader(text) {
            Some(function) => Err(denied(format!("{at}: {function}(…) reads files of this machine"))),
            None => Ok(()),
        },
        Value::Array(list) => list
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| texts(value, &format!("{at}/{index}"))),
        Value::Object(map) => map.iter().try_for_each(|(name, value)| match reader(name) {
            Some(function) => Err(denied(format!("{at}: {function}(…) reads files of this machine"))),
            None => texts(value, &format!("{at}/{name}")),
        }),
        _ => Ok(()),
    }
}

/// The function in a text's templates that reads files. OpenTofu has each of them below `core::` too.
fn reader(text: &str) -> Option<&'static str> {
    if !text.contains("${") && !text.contains("%{") {
        return None;
    }
    READERS.into_iter().find(|function| {
        text.match_indices(function).any(|(from, _)| {
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            let is_part = text[..from].chars().next_back().is_some_and(word);
            !is_part && text[from + function.len()..].trim_start().starts_with('(')
        })
    })
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        && name.len() <= 128
}

/// The arguments of a module's block that are no inputs.
fn is_meta(name: &str) -> bool {
    matches!(
        name,
        "source" | "version" | "providers" | "count" | "for_each" | "depends_on" | "lifecycle" | "locals"
    )
}

fn is_exact(version: &str) -> bool {
    let (numbers, rest) = version.split_once(['-', '+']).unwrap_or((version, "x"));
    let numbers: Vec<&str> = numbers.split('.').collect();
    numbers.len() == 3
        && numbers
            .iter()
            .all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        && !rest.is_empty()
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(spec: &Value) -> String {
        let config: TerraformConfig =
            serde_json::from_value(json!({ "engine": "tofu", "providers": ["hashicorp/time"], "modules": ["our/net/aws"] })).unwrap();
        let resource: Resource = serde_json::from_value(json!({
            "name": "net", "kind": "terraform/workspace", "owner": "city", "spec": spec,
        }))
        .unwrap();
        read(&config, &resource).map_or_else(|invalid| invalid.to_string(), |_| String::new())
    }

    #[test]
    fn what_reaches_beyond_what_the_member_gives_is_refused() {
        let data = |input: &str| json!({ "configuration": { "resource": { "terraform_data": { "a": { "input": input } } } } });
        let provisioner = json!({ "local-exec": { "command": "id" } });
        for (spec, words) in [
            (json!({}), "has one of the two"),
            (
                json!({ "configuration": { "output": {} }, "module": { "source": "our/net/aws", "version": "1.0.0" } }),
                "not both",
            ),
            (data("${file(\"/etc/passwd\")}"), "file(…) reads files"),
            (data("${core::file (\"/etc/passwd\")}"), "file(…) reads files"),
            (data("${templatefile(\"../x\", {})}"), "templatefile(…)"),
            (data("%{ if fileexists(\"/x\") }a%{ endif }"), "fileexists(…)"),
            (json!({ "configuration": { "locals": { "a${file(\"x\")}": 1 } } }), "file(…)"),
            (
                json!({ "configuration": { "resource": { "terraform_data": { "a": { "provisioner": provisioner } } } } }),
                "terraform.provisioners",
            ),
            (
                json!({ "configuration": { "resource": { "terraform_data": [{ "a": [{ "provisioner": [provisioner] }] }] } } }),
                "terraform.provisioners",
            ),
            (
                json!({ "configuration": { "data": { "external": { "x": { "program": ["id"] } } } } }),
                "terraform.provisioners",
            ),
            (
                json!({ "configuration": { "resource": { "local_file": { "x": {} } } } }),
                "the provider hashicorp/local is none of terraform.providers",
            ),
            (
                json!({ "configuration": { "resource": { "time_static": { "x": { "provider": "other.east" } } } } }),
                "hashicorp/other is none",
            ),
            (
                json!({ "configuration": { "terraform": { "required_providers": { "time": { "source": "evil.example/hashicorp/time" } } } } }),
                "evil.example/hashicorp/time is none",
            ),
            (
                json!({ "configuration": { "terraform": { "required_providers": { "terraform": { "source": "evil/terraform" } } }, "resource": {} } }),
                "evil/terraform is none",
            ),
            (
                json!({ "configuration": { "terraform": { "backend": { "http": {} } } } }),
                "configuration/terraform/backend",
            ),
            (
                json!({ "configuration": { "terraform": [{ "cloud": {} }] } }),
                "configuration/terraform/cloud",
            ),
            (
                json!({ "configuration": { "check": { "x": { "data": { "http": { "y": {} } } } } } }),
                "hashicorp/http is none",
            ),
            (
                json!({ "configuration": { "data": { "terraform_remote_state": { "x": {} } } } }),
                "reads other states",
            ),
            (json!({ "configuration": { "import": [] } }), "configuration/import is no block"),
            (
                json!({ "configuration": { "module": { "x": { "source": "./x" } } } }),
                "no module of a registry",
            ),
            (
                json!({ "configuration": { "module": { "x": { "source": "our/net/aws" } } } }),
                "version is missing",
            ),
            (
                json!({ "module": { "source": "our/net/aws", "version": "~> 1.0" } }),
                "\"~> 1.0\" is no exact version",
            ),
            (
                json!({ "module": { "source": "their/net/aws", "version": "1.0.0" } }),
                "none of terraform.modules",
            ),
            (
                json!({ "module": { "source": "git::https://x/y", "version": "1.0.0" } }),
                "no module of a registry",
            ),
            (
                json!({ "module": { "source": "our/net/aws", "version": "1.0.0", "inputs": { "count": 2 } } }),
                "no name of an input",
            ),
            (
                json!({ "configuration": { "output": {} }, "variables": { "a b": 1 } }),
                "no name of a variable",
            ),
        ] {
            let said = refused(&spec);
            assert!(said.contains(words), "{spec:.200}: {said}");
        }
    }

    #[test]
    fn what_it_gives_is_taken() {
        for good in [
            json!({ "configuration": { "resource": { "terraform_data": { "a": { "input": "a profile(s) and ${var.file}" } } } } }),
            json!({ "configuration": { "resource": { "time_static": { "x": {} } }, "terraform": { "required_providers": { "time": { "source": "hashicorp/time", "version": "0.14.2" } } } } }),
            json!({ "module": { "source": "our/net/aws", "version": "1.0.0", "inputs": { "name": "${x}" } } }),
            json!({ "configuration": { "resource": { "//": "why", "terraform_data": { "//": "how", "a": { "//": "what" } } } } }),
        ] {
            assert_eq!(refused(&good), "");
        }
    }
}
