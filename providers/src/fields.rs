//! Reading specifications: texts that may stand for values, and errors that show the line that is wrong.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use state::ids::SecretName;
use state::spec::Spec;

/// A text that may be another resource's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// The text itself; a number is taken as its digits.
    Literal(String),
    /// `{"$ref": …}`: the value is not known yet.
    Reference(String),
}

impl Text {
    /// As it is shown before its value is known: a reference is its name in angle brackets.
    pub fn shown(&self) -> String {
        match self {
            Text::Literal(text) => text.clone(),
            Text::Reference(reference) => format!("<{reference}>"),
        }
    }
}

/// A text that may be another resource's output or a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The text or the reference.
    Text(Text),
    /// `{"$secret": …}`: a secret of this machine.
    Secret(SecretName),
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("expected a text, an integer, {\"$ref\": \"resource.outputs.name\"} or {\"$secret\": \"name\"}");
        match Value::deserialize(deserializer)? {
            Value::String(text) if text.contains('\0') => Err(D::Error::custom("a text can't hold NUL")),
            Value::String(text) => Ok(Setting::Text(Text::Literal(text))),
            Value::Number(number) if !number.is_f64() => Ok(Setting::Text(Text::Literal(number.to_string()))),
            Value::Object(map) if map.len() == 1 => match (map.get("$ref"), map.get("$secret")) {
                (Some(Value::String(reference)), None) => Ok(Setting::Text(Text::Reference(reference.clone()))),
                (None, Some(Value::String(name))) => SecretName::new(name.as_str()).map(Setting::Secret).map_err(D::Error::custom),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Setting::deserialize(deserializer)? {
            Setting::Text(text) => Ok(text),
            Setting::Secret(_) => Err(D::Error::custom("a secret can only be the value of an environment variable")),
        }
    }
}

/// `{"$secret": …}`: a secret of this machine, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef(pub SecretName);

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Setting::deserialize(deserializer) {
            Ok(Setting::Secret(name)) => Ok(Self(name)),
            _ => Err(D::Error::custom(
                "expected {\"$secret\": \"name\"}: what is secret never stands in an order",
            )),
        }
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object", "properties": { "$secret": { "type": "string" } }, "required": ["$secret"], "additionalProperties": false
        })
    }
}

impl JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": ["string", "integer"] },
            { "type": "object", "properties": { "$ref": { "type": "string" } }, "required": ["$ref"], "additionalProperties": false }
        ] })
    }
}

impl JsonSchema for Setting {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Setting".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": ["string", "integer"] },
            { "type": "object", "properties": { "$ref": { "type": "string" } }, "required": ["$ref"], "additionalProperties": false },
            { "type": "object", "properties": { "$secret": { "type": "string" } }, "required": ["$secret"], "additionalProperties": false }
        ] })
    }
}

/// A variable's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Variable {
    /// Data, in which outputs of other resources may stand.
    Data(Value),
    /// A secret's text.
    Secret(SecretName),
}

impl Variable {
    /// The data of variables, as it is shown, and the secrets that stand for the others.
    pub fn parted(variables: &BTreeMap<String, Self>) -> (Map<String, Value>, BTreeMap<String, SecretName>) {
        let (mut data, mut secrets) = (Map::new(), BTreeMap::new());
        for (name, variable) in variables {
            match variable {
                Self::Data(value) => {
                    data.insert(name.clone(), shown(value));
                }
                Self::Secret(secret) => {
                    secrets.insert(name.clone(), secret.clone());
                }
            }
        }
        (data, secrets)
    }
}

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.get("$secret") {
            Some(name) if value.as_object().is_some_and(|map| map.len() == 1) => {
                let name = name.as_str().unwrap_or_default();
                SecretName::new(name).map(Variable::Secret).map_err(D::Error::custom)
            }
            _ => Ok(Variable::Data(value)),
        }
    }
}

impl JsonSchema for Variable {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Variable".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }
}

/// A value as it is shown before all of it is known: a reference is its name in angle brackets.
pub fn shown(value: &Value) -> Value {
    match value {
        Value::Object(map) => match map.get("$ref").and_then(Value::as_str).filter(|_| map.len() == 1) {
            Some(reference) => Value::String(format!("<{reference}>")),
            None => Value::Object(map.iter().map(|(name, value)| (name.clone(), shown(value))).collect()),
        },
        Value::Array(list) => Value::Array(list.iter().map(shown).collect()),
        other => other.clone(),
    }
}

/// A text whose references are values by now.
pub fn literal<'a>(field: &str, text: &'a Text) -> Result<&'a str, String> {
    match text {
        Text::Literal(text) => Ok(text),
        Text::Reference(reference) => Err(format!("{field}: the value of {reference} is not known yet")),
    }
}

/// Reads a specification, and shows the line of it that is wrong.
pub fn read<T: DeserializeOwned>(spec: &Spec) -> Result<T, String> {
    // serde's errors don't name the field of a bad value; the line of an indented document does.
    let text = serde_json::to_string_pretty(&spec.to_value()).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| {
        let whole = error.to_string();
        let message = whole.split(" at line ").next().unwrap_or(&whole);
        let line: String = text
            .lines()
            .nth(error.line().saturating_sub(1))
            .unwrap_or_default()
            .trim()
            .chars()
            .take(100)
            .collect();
        if message.contains("unknown field") || message.contains("missing field") || line.len() < 3 {
            message.to_owned()
        } else {
            format!("{message}, found {}", line.trim_end_matches(','))
        }
    })
}
