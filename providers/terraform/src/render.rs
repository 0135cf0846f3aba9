//! The files of a working directory: the configuration and its variables, each by a typed writer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use state::ids::SecretName;

use providers::fields::Variable;

use crate::check::Ordered;
use crate::config::TerraformConfig;
use crate::files::Files;
use crate::spec::ModuleSpec;

/// The name of the configuration's file.
pub(crate) const CONFIGURATION: &str = "main.tf.json";
/// The name of the file with the variables that are no secrets. The engine reads it by itself.
pub(crate) const VARIABLES: &str = "charter.auto.tfvars.json";
/// What a module is called in the configuration.
const MODULE: &str = "this";

/// What a working directory holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rendered {
    pub(crate) configuration: String,
    pub(crate) variables: String,
    /// Files of the order's own, by their paths.
    #[serde(default)]
    pub(crate) files: Files,
    /// The version of the engine that it asks for.
    #[serde(default)]
    pub(crate) version: Option<String>,
    /// The variables that are given in the environment, by the secrets that hold them.
    pub(crate) secrets: BTreeMap<String, SecretName>,
}

/// Renders a workspace. A reference stands as its name in angle brackets.
pub(crate) fn render(config: &TerraformConfig, workspace: &str, ordered: &Ordered) -> Rendered {
    let spec = &ordered.spec;
    let mut configuration = spec.configuration.clone();
    if let Some(module) = &spec.module {
        configuration = of_module(module);
    }
    let mut terraform = match configuration.remove("terraform") {
        Some(Value::Object(terraform)) => terraform,
        _ => Map::new(),
    };
    // An organization's server keeps its states itself.
    if config.cloud.is_none() {
        terraform.insert("backend".to_owned(), config.backend_block(workspace));
    }
    configuration.insert("terraform".to_owned(), Value::Object(terraform));
    declare(&mut configuration, ordered);

    let (variables, secrets) = Variable::parted(&spec.variables);
    Rendered {
        configuration: format!("{:#}\n", Value::Object(configuration)),
        variables: format!("{:#}\n", Value::Object(variables)),
        files: ordered.files.clone(),
        version: spec.engine.version.clone(),
        secrets,
    }
}

fn of_module(module: &ModuleSpec) -> Map<String, Value> {
    let mut block: Map<String, Value> = module.inputs.iter().map(|(name, value)| (name.clone(), escaped(value))).collect();
    block.insert("source".to_owned(), json!(module.source));
    block.insert("version".to_owned(), json!(module.version));
    let outputs: Map<String, Value> = module
        .outputs
        .iter()
        .map(|name| (name.clone(), json!({ "value": format!("${{module.{MODULE}.{name}}}") })))
        .collect();
    let mut configuration = Map::new();
    configuration.insert("module".to_owned(), json!({ MODULE: block }));
    if !outputs.is_empty() {
        configuration.insert("output".to_owned(), Value::Object(outputs));
    }
    configuration
}

/// Declares the variables that the configuration doesn't, and says of secrets that they are sensitive.
fn declare(configuration: &mut Map<String, Value>, ordered: &Ordered) {
    // A variable is declared once: its file says what it is.
    let all = ordered.spec.variables.iter().filter(|(name, _)| !ordered.declared.contains(*name));
    let variables: Vec<(&String, &Variable)> = all.collect();
    if variables.is_empty() {
        return;
    }
    let block = configuration.entry("variable").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(block) = block else { return };
    for (name, variable) in variables {
        let declared = block.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let (Value::Object(declared), Variable::Secret(_)) = (declared, variable) {
            declared.insert("sensitive".to_owned(), Value::Bool(true));
        }
    }
}

/// A text that the engine takes as it is: what begins a template doesn't.
pub(crate) fn data(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(data(text)),
        Value::Array(list) => Value::Array(list.iter().map(escaped).collect()),
        Value::Object(map) => Value::Object(map.iter().map(|(name, value)| (data(name), escaped(value))).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(spec: Value) -> Rendered {
        let ordered = Ordered {
            spec: serde_json::from_value(spec).unwrap(),
            files: Files::new(),
            declared: Default::default(),
        };
        render(&TerraformConfig::new("tofu"), "ch.net", &ordered)
    }

    #[test]
    fn data_stays_data_and_secrets_stay_names() {
        let rendered = rendered(json!({
            "configuration": { "resource": { "terraform_data": { "a": { "input": "${var.place}" } } } },
            "variables": { "place": "${file(\"/etc/passwd\")}", "token": { "$secret": "token" }, "at": [{ "$ref": "x.outputs.address" }] },
        }));
        let configuration: Value = serde_json::from_str(&rendered.configuration).unwrap();
        assert_eq!(
            configuration["variable"],
            json!({ "place": {}, "at": {}, "token": { "sensitive": true } })
        );
        assert_eq!(configuration["terraform"]["backend"], json!({ "local": {} }));
        let variables: Value = serde_json::from_str(&rendered.variables).unwrap();
        // The engine takes what is in this file literally.
        assert_eq!(
            variables,
            json!({ "place": "${file(\"/etc/passwd\")}", "at": ["<x.outputs.address>"] })
        );
        assert_eq!(rendered.secrets.len(), 1);
    }

    #[test]
    fn a_modules_inputs_are_never_evaluated() {
        let rendered = rendered(json!({
            "module": { "source": "a/b/c", "version": "1.2.3", "inputs": { "name": "${path.cwd}", "tags": { "%{if true}": ["%{x}", 5] } }, "outputs": ["id"] },
        }));
        let configuration: Value = serde_json::from_str(&rendered.configuration).unwrap();
        assert_eq!(
            configuration["module"]["this"],
            json!({ "source": "a/b/c", "version": "1.2.3", "name": "$${path.cwd}", "tags": { "%%{if true}": ["%%{x}", 5] } })
        );
        assert_eq!(configuration["output"]["id"]["value"], json!("${module.this.id}"));
    }
}
