//! Holding a configuration to what the member allows, before an engine reads it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use state::resource::Resource;

use providers::Invalid;
use providers::fields::{self, Variable};
use providers::refusal::{Refusal, denied, wrong};

use crate::config::TerraformConfig;
use crate::files::{self, Files};
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

/// What was ordered, and holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ordered {
    pub(crate) spec: WorkspaceSpec,
    /// The texts of its files.
    pub(crate) files: Files,
    /// The variables that its files declare.
    pub(crate) declared: BTreeSet<String>,
}

/// Where a configuration stands: whole in its order, or in files, one of them this.
#[derive(Clone, Copy)]
enum Place<'a> {
    Order,
    File(&'a Files, &'a str),
}

impl Place<'_> {
    fn at(&self) -> String {
        match self {
            Self::Order => "configuration".to_owned(),
            Self::File(_, path) => format!("files/{path}"),
        }
    }
}

/// Reads what a resource asks for, and holds it to what the member gives.
pub(crate) fn read(config: &TerraformConfig, resource: &Resource) -> Result<Ordered, Invalid> {
    let read: Result<WorkspaceSpec, String> = match resource.kind.name() {
        "workspace" => fields::read(&resource.spec),
        _ => Err(format!(
            "{} is no kind of this provider: its kind is terraform/workspace",
            resource.kind
        )),
    };
    let checked = read.map_err(Refusal::Wrong).and_then(|spec| {
        let files = files::read(config.configurations.as_deref(), &spec.files)?;
        let declared = check(config, &spec, &files)?;
        Ok(Ordered { spec, files, declared })
    });
    checked.map_err(|refusal| refusal.of(&resource.name))
}

/// Holds a specification to what the member gives; the variables that its files declare.
fn check(config: &TerraformConfig, spec: &WorkspaceSpec, files: &Files) -> Result<BTreeSet<String>, Refusal> {
    if let Some(bad) = spec.variables.keys().find(|name| !is_identifier(name)) {
        return Err(wrong(format!("variables: {bad:?} is no name of a variable")));
    }
    if let Some(version) = spec.engine.version.as_ref().filter(|version| !is_exact(version)) {
        return Err(wrong(format!("engine/version: {version:?} is no exact version, such as 1.2.3")));
    }
    match (&spec.module, spec.configuration.is_empty(), spec.files.is_empty()) {
        (Some(module), true, true) => of_module(config, "module", module)?,
        (None, false, true) => {
            let sources = sources(spec.configuration.get("terraform"))?;
            blocks_of(config, &spec.configuration, Place::Order, &sources)?;
        }
        (None, true, false) => return in_files(config, spec, files),
        _ => return Err(wrong("configuration, files, module: a workspace has one of the three")),
    }
    Ok(BTreeSet::new())
}

/// Checks every file that is configuration, be it of the workspace itself or of a module beside it; the workspace's own variables.
fn in_files(config: &TerraformConfig, spec: &WorkspaceSpec, files: &Files) -> Result<BTreeSet<String>, Refusal> {
    let mut declared = BTreeSet::new();
    let bodies = files::bodies(files)?;
    // A file may use the providers that another one of its folder requires: what is required is checked where it stands.
    let mut required: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for (path, body) in &bodies {
        required
            .entry(files::folder_of(path))
            .or_default()
            .extend(sources(body.get("terraform"))?);
    }
    for (path, body) in &bodies {
        let known = required.get(files::folder_of(path)).cloned().unwrap_or_default();
        blocks_of(config, body, Place::File(files, path), &known)?;
        if !files::folder_of(path).is_empty() {
            continue;
        }
        for (name, variable) in objects(body.get("variable"), "variable")? {
            declared.insert(name.clone());
            let secret = matches!(spec.variables.get(name), Some(Variable::Secret(_)));
            let sensitive = bodies_of(variable)
                .iter()
                .any(|body| body.get("sensitive") == Some(&Value::Bool(true)));
            if secret && !sensitive {
                return Err(wrong(format!(
                    "files/{path}/variable/{name}: a secret is given to it, so it has to say sensitive = true"
                )));
            }
        }
    }
    Ok(declared)
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

/// Checks blocks that take providers from these sources, by their local names.
fn blocks_of(
    config: &TerraformConfig,
    all: &Map<String, Value>,
    place: Place<'_>,
    sources: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let whole = place.at();
    if let Some(bad) = all.keys().find(|name| *name != COMMENT && !BLOCKS.contains(&name.as_str())) {
        return Err(wrong(format!(
            "{whole}/{bad} is no block that a workspace has: it has {}",
            BLOCKS.join(", ")
        )));
    }
    all.iter()
        .try_for_each(|(name, value)| texts(value, &format!("{whole}/{name}"), place))?;
    settings(all.get("terraform"), &whole)?;
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    let mut blocks: Vec<(&str, Option<&Value>)> = vec![("resource", all.get("resource")), ("data", all.get("data"))];
    // A check has data of its own.
    for (_, body) in objects(all.get("check"), "check")? {
        blocks.extend(bodies_of(body).into_iter().map(|body| ("data", body.get("data"))));
    }
    for (block, within) in blocks {
        for (kind, instances) in objects(within, block)? {
            if block == "data" && kind == "terraform_remote_state" {
                return Err(denied(format!(
                    "{whole}/data/terraform_remote_state reads other states: take other resources' outputs by references"
                )));
            }
            for (name, body) in objects(Some(instances), &format!("{block}/{kind}"))? {
                for body in bodies_of(body) {
                    let at = format!("{whole}/{block}/{kind}/{name}");
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
        used.insert((name.clone(), format!("{whole}/provider/{name}")));
    }
    for name in sources.keys() {
        used.insert((name.clone(), format!("{whole}/terraform/required_providers/{name}")));
    }
    for (local, at) in used {
        provider(config, sources, &local, &at)?;
    }
    for (name, body) in objects(all.get("module"), "module")? {
        for body in bodies_of(body) {
            let at = format!("{whole}/module/{name}");
            let source = body.get("source").and_then(Value::as_str).unwrap_or_default();
            if matches!(place, Place::File(files, path) if files::is_module(files, path, source)) {
                continue;
            }
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
fn settings(block: Option<&Value>, whole: &str) -> Result<(), Refusal> {
    for (name, _) in objects(block, "terraform")? {
        if !matches!(name.as_str(), "required_providers" | "required_version") {
            return Err(denied(format!(
                "{whole}/terraform/{name}: where states are kept and how the engine runs is said in charter.toml"
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

fn bodies_of(value: &Value) -> Vec<&Map<String, Value>> {
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
fn texts(value: &Value, at: &str, place: Place<'_>) -> Result<(), Refusal> {
    match value {
        Value::String(text) => match reader(text, place) {
            Some(function) => Err(denied(format!("{at}: {function}(…) reads files of this machine"))),
            None => Ok(()),
        },
        Value::Array(list) => list
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| texts(value, &format!("{at}/{index}"), place)),
        Value::Object(map) => map.iter().try_for_each(|(name, value)| match reader(name, place) {
            Some(function) => Err(denied(format!("{at}: {function}(…) reads files of this machine"))),
            None => texts(value, &format!("{at}/{name}"), place),
        }),
        _ => Ok(()),
    }
}

/// The function in a text's templates that reads files which aren't ordered. OpenTofu has each of them below `core::` too.
fn reader(text: &str, place: Place<'_>) -> Option<&'static str> {
    if !text.contains("${") && !text.contains("%{") {
        return None;
    }
    READERS.into_iter().find(|function| {
        text.match_indices(function).any(|(from, _)| {
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            let is_part = text[..from].chars().next_back().is_some_and(word);
            let rest = text[from + function.len()..].trim_start();
            let ordered = || match place {
                Place::Order => false,
                Place::File(files, path) => literal(rest).is_some_and(|said| files::leads(files, path, said)),
            };
            !is_part && rest.starts_with('(') && !ordered()
        })
    })
}

/// The one literal text that a call is given first.
fn literal(call: &str) -> Option<&str> {
    let inside = call.strip_prefix('(')?.trim_start().strip_prefix('"')?;
    let (text, after) = inside.split_once('"')?;
    let whole = !text.contains('\\') && matches!(after.trim_start().chars().next(), Some(')' | ','));
    whole.then_some(text)
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
            (json!({}), "has one of the three"),
            (
                json!({ "configuration": { "output": {} }, "module": { "source": "our/net/aws", "version": "1.0.0" } }),
                "has one of the three",
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

    /// What is said of a configuration that is in files.
    fn said(given: &Value, files: &[(&str, &str)], variables: &Value) -> String {
        let config: TerraformConfig = serde_json::from_value(given.clone()).unwrap();
        let files: Files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let digests: BTreeMap<&String, &str> = files.keys().map(|path| (path, "0")).collect();
        let spec: WorkspaceSpec = serde_json::from_value(json!({ "files": digests, "variables": variables })).unwrap();
        match check(&config, &spec, &files) {
            Ok(_) => String::new(),
            Err(Refusal::Wrong(why) | Refusal::Denied(why)) => why,
        }
    }

    #[test]
    fn files_are_held_to_what_whole_configurations_are_held_to() {
        let given = json!({ "engine": "tofu", "providers": ["hashicorp/time"], "modules": ["our/net/aws"] });
        let none = json!({});
        for (text, words) in [
            (
                "resource \"local_file\" \"x\" {}",
                "files/main.tf/resource/local_file/x: the provider hashicorp/local is none",
            ),
            (
                "resource \"terraform_data\" \"x\" {\n provisioner \"local-exec\" { command = \"id\" }\n}",
                "terraform.provisioners",
            ),
            ("data \"external\" \"x\" { program = [\"id\"] }", "terraform.provisioners"),
            (
                "output \"x\" { value = file(\"/etc/passwd\") }",
                "file(…) reads files of this machine",
            ),
            ("output \"x\" { value = file(\"${path.module}/../x\") }", "file(…)"),
            ("output \"x\" { value = file(var.path) }", "file(…)"),
            ("output \"x\" { value = file(\"list.json\", \"x\") + file(\"other\") }", "file(…)"),
            (
                "output \"x\" {\n value = <<EOT\n${templatefile(\"/x\", {})}\nEOT\n}",
                "templatefile(…)",
            ),
            ("locals { x = { (file(\"/x\")) = 1 } }", "file(…)"),
            ("terraform {\n backend \"http\" {}\n}", "files/main.tf/terraform/backend"),
            ("terraform {\n cloud {}\n}", "files/main.tf/terraform/cloud"),
            ("module \"x\" { source = \"../x\" }", "no module of a registry"),
            ("module \"x\" { source = \"./other\" }", "no module of a registry"),
            (
                "module \"x\" {\n source = \"our/net/aws\"\n version = \"~> 1\"\n}",
                "no exact version",
            ),
            ("import {\n to = x.y\n id = 1\n}", "files/main.tf/import is no block"),
            ("provider \"aws\" {}", "hashicorp/aws is none"),
            ("resource {", "files/main.tf is no configuration"),
        ] {
            let why = said(&given, &[("main.tf", text), ("list.json", "[]")], &none);
            assert!(why.contains(words), "{text}: {why}");
        }
        let inner = [
            ("main.tf", "module \"x\" { source = \"./net\" }"),
            ("net/a.tf", "resource \"local_file\" \"x\" {}"),
        ];
        assert!(said(&given, &inner, &none).contains("files/net/a.tf/resource/local_file/x"));
        let secret = json!({ "token": { "$secret": "token" } });
        let open = [("main.tf", "variable \"token\" {}")];
        assert!(said(&given, &open, &secret).contains("sensitive = true"));
        assert!(said(&given, &[("net/a.tf", "")], &none).contains("none of them is a configuration"));

        let good = [
            (
                "main.tf",
                "module \"x\" { source = \"./net\" }\nresource \"time_static\" \"x\" {}\nvariable \"token\" { sensitive = true }\n",
            ),
            (
                "versions.tf.json",
                "{\"terraform\": {\"required_providers\": {\"time\": {\"source\": \"hashicorp/time\"}}}}",
            ),
            (
                "net/a.tf",
                "# file(\"/etc/passwd\")\noutput \"x\" { value = jsondecode(file(\"${path.module}/list.json\")) }",
            ),
            ("net/list.json", "[]"),
        ];
        assert_eq!(said(&given, &good, &secret), "");
    }
}
