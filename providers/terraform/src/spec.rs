//! The specification of `terraform/workspace`, as an order writes it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use state::ids::Kind;

use providers::fields::Variable;

/// A module of a registry.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModuleSpec {
    /// Its source: `namespace/name/provider`.
    pub(crate) source: String,
    /// Its exact version.
    pub(crate) version: String,
    /// Its inputs, as data: nothing in them is evaluated.
    #[serde(default)]
    pub(crate) inputs: Map<String, Value>,
    /// Those of its outputs that the workspace gives.
    #[serde(default)]
    pub(crate) outputs: Vec<String>,
}

/// Which engine makes a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineSpec {
    /// `tofu` or `terraform`; without it: the member's choice.
    #[serde(default)]
    pub(crate) name: Option<EngineName>,
    /// Its exact version; without it: the member's choice.
    #[serde(default)]
    pub(crate) version: Option<String>,
}

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EngineName {
    /// OpenTofu.
    Tofu,
    /// Terraform.
    Terraform,
}

/// A Terraform configuration, and what it makes.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkspaceSpec {
    /// A configuration in Terraform's JSON syntax.
    #[serde(default)]
    pub(crate) configuration: Map<String, Value>,
    /// In its place: files of the member's folder of configurations, by their paths in it, each with the SHA-256 that it has to have.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// In its place: a module of a registry.
    #[serde(default)]
    pub(crate) module: Option<ModuleSpec>,
    /// The configuration's variables, as data: nothing in them is evaluated. `{"$secret": "name"}` is a secret's value, which is sensitive.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, Variable>,
    /// The engine, where another one than the member's won't do.
    #[serde(default)]
    pub(crate) engine: EngineSpec,
}

/// The kind.
pub(crate) fn kind() -> Kind {
    Kind::new("terraform/workspace").expect("a literal kind of this crate is valid")
}

/// The JSON schema of the kind's specification.
pub(crate) fn schema() -> Value {
    schemars::schema_for!(WorkspaceSpec).to_value()
}
