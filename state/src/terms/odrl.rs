//! A policy of ODRL 2.2 as JSON-LD, as far as terms need it: rules with actions, constraints and duties.

use std::collections::BTreeSet;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::words::{Action, Iri, LeftOperand, Operator, RightOperand};
use crate::ids::MemberId;

/// ODRL's own JSON-LD context.
pub const ODRL: &str = "http://www.w3.org/ns/odrl.jsonld";
/// What the prefix `charter` stands for: the vocabulary of Charter's profile.
pub const CHARTER: &str = "urn:charter:odrl:";

/// The one `@context` of terms: ODRL's words, and those of Charter's profile under the prefix `charter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Context;

impl From<Context> for Value {
    fn from(_: Context) -> Value {
        json!([ODRL, { "charter": CHARTER }])
    }
}

impl TryFrom<Value> for Context {
    type Error = String;
    fn try_from(value: Value) -> Result<Self, String> {
        if value == Value::from(Context) {
            return Ok(Context);
        }
        Err(format!("@context has to be {}", Value::from(Context)))
    }
}

impl JsonSchema for Context {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Context".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": [ODRL, { "charter": CHARTER }] })
    }
}

/// The profile that terms follow, by its identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Profile {
    /// Its first version.
    #[default]
    #[serde(rename = "urn:charter:odrl:1")]
    V1,
}

/// What kind of policy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyType {
    /// Terms on the table.
    Offer,
    /// Terms that everybody has agreed to.
    Agreement,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Constraint {
    /// What is compared.
    pub left_operand: LeftOperand,
    /// How.
    pub operator: Operator,
    /// With what.
    pub right_operand: RightOperand,
    /// In which unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Iri>,
}

/// What somebody has to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Duty {
    /// What.
    pub action: Action,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Iri>,
    /// To whom it is owed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigner: Option<MemberId>,
    /// Who has to; nobody named: all assignees of the policy.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 64))]
    pub assignee: BTreeSet<MemberId>,
    /// Under which conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub constraint: Vec<Constraint>,
}

/// What somebody may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// With what.
    pub target: Iri,
    /// What.
    pub action: Action,
    /// Who allows it; nobody named: the policy's assigner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigner: Option<MemberId>,
    /// Who may; nobody named: all assignees of the policy.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 64))]
    pub assignee: BTreeSet<MemberId>,
    /// Under which conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub constraint: Vec<Constraint>,
    /// What has to be done for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub duty: Vec<Duty>,
}

/// What somebody must not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prohibition {
    /// With what.
    pub target: Iri,
    /// What.
    pub action: Action,
    /// Who forbids it; nobody named: the policy's assigner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigner: Option<MemberId>,
    /// Who must not; nobody named: all assignees of the policy.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 64))]
    pub assignee: BTreeSet<MemberId>,
    /// Under which conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub constraint: Vec<Constraint>,
    /// What has to be done when it was done all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub remedy: Vec<Duty>,
}

/// The parts of a rule that every kind of rule has.
pub(super) struct Rule<'a> {
    pub(super) assigner: Option<&'a MemberId>,
    pub(super) assignee: &'a BTreeSet<MemberId>,
    pub(super) constraint: &'a [Constraint],
    pub(super) duties: &'a [Duty],
}

impl Permission {
    pub(super) fn rule(&self) -> Rule<'_> {
        Rule {
            assigner: self.assigner.as_ref(),
            assignee: &self.assignee,
            constraint: &self.constraint,
            duties: &self.duty,
        }
    }
}

impl Prohibition {
    pub(super) fn rule(&self) -> Rule<'_> {
        Rule {
            assigner: self.assigner.as_ref(),
            assignee: &self.assignee,
            constraint: &self.constraint,
            duties: &self.remedy,
        }
    }
}

impl Duty {
    pub(super) fn rule(&self) -> Rule<'_> {
        Rule {
            assigner: self.assigner.as_ref(),
            assignee: &self.assignee,
            constraint: &self.constraint,
            duties: &[],
        }
    }
}
