//! A resource's specification: bounded JSON without floating point, with references to outputs and to secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::ids::{NameError, OutputName, ResourceName, SecretName};

/// The largest specification, in bytes of compact JSON.
pub const MAX_BYTES: usize = 64 * 1024;
/// The deepest nesting of a specification.
pub const MAX_DEPTH: usize = 32;
/// The largest integer that JSON readers agree on (2^53 - 1).
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A specification was refused, with the place inside it as a JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Over [`MAX_BYTES`].
    #[error("the spec has {bytes} bytes; the limit is {MAX_BYTES}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// Over [`MAX_DEPTH`].
    #[error("the spec is nested deeper than {MAX_DEPTH} levels at {at}")]
    TooDeep {
        /// Where, as a JSON pointer.
        at: String,
    },
    /// A number with a fraction or beyond 2^53.
    #[error("the number at {at} is not an integer below 2^53; write exact numbers as strings of digits")]
    Number {
        /// Where, as a JSON pointer.
        at: String,
    },
    /// An object that looks like a reference and isn't one.
    #[error(
        "the object at {at} is not a reference: write {{\"$ref\": \"resource.outputs.name\"}} or {{\"$secret\": \"name\"}} and nothing else in it"
    )]
    Reference {
        /// Where, as a JSON pointer.
        at: String,
    },
    /// A reference holds a name that is not valid.
    #[error("the reference at {at} is not valid")]
    Name {
        /// Where, as a JSON pointer.
        at: String,
        /// The rule that it breaks.
        #[source]
        source: NameError,
    },
    /// A key with control characters or of unreasonable length.
    #[error("a key at {at} is longer than 256 bytes or has control characters")]
    Key {
        /// Where, as a JSON pointer.
        at: String,
    },
    /// A referenced value holds what would be read as a reference itself.
    #[error(
        "the value of {reference} that belongs at {at} has a key that starts with '$'; outputs may hold neither references nor secrets"
    )]
    Value {
        /// Where in the specification, as a JSON pointer.
        at: String,
        /// The reference that has the value.
        reference: Reference,
    },
}

/// A checked specification.
///
/// It is kept as its compact JSON with sorted keys, which is equal for equal specifications: a state holds tens of thousands of
/// them, most are only compared, and the text is a tenth of the tree.
#[derive(Clone)]
pub struct Spec {
    text: Arc<str>,
    references: Arc<[Placed]>,
    map: OnceLock<Arc<Map<String, Value>>>,
}

/// A reference, and where in the text it stands.
#[derive(Clone, Debug)]
struct Placed {
    at: Range<usize>,
    reference: Reference,
}

/// `{"$ref": "resource.outputs.output"}`: a value that another resource gives once it is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The resource that gives the value.
    pub resource: ResourceName,
    /// Which of its outputs.
    pub output: OutputName,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.outputs.{}", self.resource, self.output)
    }
}

impl Spec {
    /// Checks and takes a specification.
    pub fn new(map: Map<String, Value>) -> Result<Self, SpecError> {
        let mut writer = Writer::default();
        writer.map(&map, 0)?;
        let bytes = writer.text.len();
        if bytes > MAX_BYTES {
            return Err(SpecError::TooLarge { bytes });
        }
        Ok(Self {
            text: writer.text.into(),
            references: writer.references.into(),
            map: OnceLock::new(),
        })
    }

    /// The checked JSON, compact and with sorted keys.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The checked JSON.
    pub fn as_map(&self) -> &Map<String, Value> {
        self.map.get_or_init(|| Arc::new(self.parse()))
    }

    /// The checked JSON as one value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.parse())
    }

    fn parse(&self) -> Map<String, Value> {
        serde_json::from_str(&self.text).expect("the text was written from a JSON object")
    }

    /// Whether it refers to another resource's output.
    pub fn refers(&self) -> bool {
        !self.references.is_empty()
    }

    /// Every reference to another resource's output.
    pub fn references(&self) -> BTreeSet<Reference> {
        self.references.iter().map(|placed| placed.reference.clone()).collect()
    }

    /// The resources whose outputs it refers to, each as often as it does.
    pub fn referred(&self) -> impl Iterator<Item = &ResourceName> {
        self.references.iter().map(|placed| &placed.reference.resource)
    }

    /// Every secret that the specification names.
    pub fn secrets(&self) -> BTreeSet<SecretName> {
        fn walk(value: &Value, found: &mut BTreeSet<SecretName>) {
            match value {
                Value::Object(map) => {
                    if let Ok(Some(Special::Secret(name))) = special(map, "") {
                        found.insert(name);
                    }
                    map.values().for_each(|inner| walk(inner, found));
                }
                Value::Array(items) => items.iter().for_each(|inner| walk(inner, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        if self.text.contains("\"$secret\"") {
            walk(&self.to_value(), &mut found);
        }
        found
    }

    /// Whether another specification is this one with values in the place of its references; none while one is not known.
    pub fn becomes<'v>(&self, applied: &Spec, value: &dyn Fn(&Reference) -> Option<&'v Value>) -> Option<bool> {
        let mut text = String::with_capacity(applied.text.len());
        let mut from = 0;
        for Placed { at, reference } in self.references.iter() {
            let value = value(reference)?;
            if refers(value) {
                return Some(false);
            }
            text.push_str(&self.text[from..at.start]);
            text.push_str(&value.to_string());
            from = at.end;
        }
        text.push_str(&self.text[from..]);
        Some(*text == *applied.text)
    }

    /// Puts a value in the place of each reference; `Err` holds the references that have none yet.
    ///
    /// Values come from other members' reports: one that holds a reference or names a secret itself is refused, so that
    /// nobody can have a secret of the owner's machine read by what they report.
    pub fn resolve(&self, lookup: &dyn Fn(&Reference) -> Option<Value>) -> Result<Spec, Unresolved> {
        let mut resolver = Resolver {
            lookup,
            at: String::new(),
            missing: BTreeSet::new(),
            refused: None,
        };
        let map = resolver.map(&self.parse());
        if let Some(error) = resolver.refused {
            return Err(Unresolved::Invalid(error));
        }
        if !resolver.missing.is_empty() {
            return Err(Unresolved::Missing(resolver.missing));
        }
        // Outputs come from providers: the result is held to the same bounds as what was ordered.
        Spec::new(map).map_err(Unresolved::Invalid)
    }

    /// Gives the resources that it refers to other names; those that are not listed keep theirs.
    pub fn renamed(&self, names: &BTreeMap<ResourceName, ResourceName>) -> Result<Spec, SpecError> {
        let mut text = String::with_capacity(self.text.len());
        let mut from = 0;
        for Placed { at, reference } in self.references.iter() {
            let name = names.get(&reference.resource).unwrap_or(&reference.resource);
            text.push_str(&self.text[from..at.start]);
            // Names have no characters that JSON escapes.
            text.push_str(&format!("{{\"$ref\":\"{name}.outputs.{}\"}}", reference.output));
            from = at.end;
        }
        text.push_str(&self.text[from..]);
        Spec::new(serde_json::from_str(&text).expect("references take the place of references in a JSON object"))
    }
}

/// Why references could not be replaced by values.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unresolved {
    /// These outputs are not known yet.
    #[error("waiting for {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Missing(BTreeSet<Reference>),
    /// With the values in place the specification breaks a rule.
    #[error("the referenced values don't fit")]
    Invalid(#[source] SpecError),
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            text: "{}".into(),
            references: Arc::default(),
            map: OnceLock::new(),
        }
    }
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Spec {}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.parse().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Spec::new(Map::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for Spec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Spec".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "description": "What the provider makes; each kind has its own schema. {\"$ref\": \"resource.outputs.name\"} stands for another resource's output, {\"$secret\": \"name\"} for a secret of the owner's machine." })
    }
}

enum Special {
    Reference(Reference),
    Secret(SecretName),
}

/// Reads an object whose only key starts with `$`. `None`: an ordinary object.
fn special(map: &Map<String, Value>, at: &str) -> Result<Option<Special>, SpecError> {
    if !map.keys().any(|key| key.starts_with('$')) {
        return Ok(None);
    }
    let wrong = || SpecError::Reference { at: at.to_owned() };
    let named = |source| SpecError::Name { at: at.to_owned(), source };
    let mut entries = map.iter();
    let (Some((key, Value::String(text))), None) = (entries.next(), entries.next()) else {
        return Err(wrong());
    };
    match key.as_str() {
        "$ref" => {
            let mut parts = text.split('.');
            let (Some(resource), Some("outputs"), Some(output), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
                return Err(wrong());
            };
            let resource = ResourceName::new(resource).map_err(named)?;
            let output = OutputName::new(output).map_err(named)?;
            Ok(Some(Special::Reference(Reference { resource, output })))
        }
        "$secret" => Ok(Some(Special::Secret(SecretName::new(text.as_str()).map_err(named)?))),
        _ => Err(wrong()),
    }
}

fn to_text<T: Serialize + ?Sized>(part: &T) -> String {
    serde_json::to_string(part).expect("strings and maps of JSON have a text")
}

/// Writes a specification's text, and checks it on the way.
#[derive(Default)]
struct Writer {
    text: String,
    references: Vec<Placed>,
    /// Where it stands, as a JSON pointer.
    at: String,
}

impl Writer {
    fn map(&mut self, map: &Map<String, Value>, depth: usize) -> Result<(), SpecError> {
        if let Some(found) = special(map, &self.at)? {
            let start = self.text.len();
            self.text.push_str(&to_text(map));
            // At the top there is no field that could take the value.
            if let (Special::Reference(reference), 1..) = (found, depth) {
                let at = start..self.text.len();
                self.references.push(Placed { at, reference });
            }
            return Ok(());
        }
        self.text.push('{');
        for (index, (key, value)) in map.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            if key.len() > 256 || key.chars().any(char::is_control) {
                return Err(SpecError::Key { at: self.at.clone() });
            }
            self.string(key);
            self.text.push(':');
            self.below(value, depth + 1, |at| {
                at.push('/');
                at.push_str(&pointer_token(key));
            })?;
        }
        self.text.push('}');
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), SpecError> {
        if depth > MAX_DEPTH {
            return Err(SpecError::TooDeep { at: self.at.clone() });
        }
        match value {
            Value::Object(map) => self.map(map, depth)?,
            Value::Array(items) => {
                self.text.push('[');
                for (index, inner) in items.iter().enumerate() {
                    if index > 0 {
                        self.text.push(',');
                    }
                    self.below(inner, depth + 1, |at| at.push_str(&format!("/{index}")))?;
                }
                self.text.push(']');
            }
            Value::Number(number) => {
                let fits =
                    number.as_u64().is_some_and(|n| n <= MAX_INTEGER) || number.as_i64().is_some_and(|n| n.unsigned_abs() <= MAX_INTEGER);
                if !fits {
                    return Err(SpecError::Number { at: self.at.clone() });
                }
                self.text.push_str(&number.to_string());
            }
            Value::String(text) => self.string(text),
            Value::Bool(true) => self.text.push_str("true"),
            Value::Bool(false) => self.text.push_str("false"),
            Value::Null => self.text.push_str("null"),
        }
        Ok(())
    }

    fn below(&mut self, value: &Value, depth: usize, name: impl Fn(&mut String)) -> Result<(), SpecError> {
        let above = self.at.len();
        name(&mut self.at);
        self.value(value, depth)?;
        self.at.truncate(above);
        Ok(())
    }

    fn string(&mut self, text: &str) {
        if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            self.text.push('"');
            self.text.push_str(text);
            self.text.push('"');
        } else {
            self.text.push_str(&to_text(text));
        }
    }
}

/// Escapes a key for a JSON pointer (RFC 6901).
pub fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Whether a value holds a key that is reserved for references, at any depth.
fn refers(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, inner)| key.starts_with('$') || refers(inner)),
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

/// Puts values in the place of references.
struct Resolver<'a> {
    lookup: &'a dyn Fn(&Reference) -> Option<Value>,
    /// Where it stands, as a JSON pointer.
    at: String,
    missing: BTreeSet<Reference>,
    /// The first value that can't be taken.
    refused: Option<SpecError>,
}

impl Resolver<'_> {
    fn map(&mut self, map: &Map<String, Value>) -> Map<String, Value> {
        map.iter()
            .map(|(key, inner)| (key.clone(), self.below(&pointer_token(key), inner)))
            .collect()
    }

    fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(map) => match special(map, &self.at) {
                Ok(Some(Special::Reference(reference))) => self.known(reference),
                Ok(Some(Special::Secret(_))) => value.clone(),
                _ => Value::Object(self.map(map)),
            },
            Value::Array(items) => {
                let inner = items.iter().enumerate();
                Value::Array(inner.map(|(index, inner)| self.below(&index.to_string(), inner)).collect())
            }
            other => other.clone(),
        }
    }

    fn known(&mut self, reference: Reference) -> Value {
        match (self.lookup)(&reference) {
            Some(value) if refers(&value) => {
                let at = self.at.clone();
                self.refused.get_or_insert(SpecError::Value { at, reference });
                Value::Null
            }
            Some(value) => value,
            None => {
                self.missing.insert(reference);
                Value::Null
            }
        }
    }

    fn below(&mut self, token: &str, value: &Value) -> Value {
        let above = self.at.len();
        self.at.push('/');
        self.at.push_str(token);
        let resolved = self.value(value);
        self.at.truncate(above);
        resolved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: Value) -> Result<Spec, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn references_are_found_and_resolved() {
        let spec = spec(json!({ "env": [{ "$ref": "db.outputs.address" }], "key": { "$secret": "token" }, "n": 3 })).unwrap();
        let references: Vec<String> = spec.references().iter().map(ToString::to_string).collect();
        assert_eq!(references, ["db.outputs.address"]);
        assert_eq!(spec.secrets().len(), 1);
        assert!(matches!(spec.resolve(&|_| None), Err(Unresolved::Missing(_))));
        let done = spec.resolve(&|_| Some(json!("127.0.0.1:1"))).unwrap();
        assert_eq!(
            done.to_value(),
            json!({ "env": ["127.0.0.1:1"], "key": { "$secret": "token" }, "n": 3 })
        );
    }

    #[test]
    fn a_value_can_name_neither_a_secret_nor_a_reference() {
        let ordered = spec(json!({ "env": { "a/b": [1, { "$ref": "db.outputs.address" }] } })).unwrap();
        for value in [
            json!({ "$secret": "token" }),
            json!({ "$ref": "db.outputs.address" }),
            json!([{ "deep": [{ "$secret": "token" }] }]),
            json!({ "$secret": "token", "more": 1 }),
            json!({ "$else": 1 }),
        ] {
            let refused = ordered.resolve(&|_| Some(value.clone())).unwrap_err();
            let Unresolved::Invalid(SpecError::Value { at, reference }) = &refused else {
                panic!("{refused}")
            };
            assert_eq!((at.as_str(), reference.to_string().as_str()), ("/env/a~1b/1", "db.outputs.address"));
            // What a secret was ordered for is not what such a value makes of it.
            let applied = spec(json!({ "env": { "a/b": [1, { "$secret": "token" }] } })).unwrap();
            assert_eq!(ordered.becomes(&applied, &|_| Some(&value)), Some(false));
        }
        let plain = json!({ "price": "$3", "of": ["$secret"] });
        assert!(ordered.resolve(&|_| Some(plain.clone())).is_ok());
        // One that is refused says so, whatever else is still missing.
        let two = spec(json!({ "a": { "$ref": "x.outputs.y" }, "b": { "$ref": "db.outputs.address" } })).unwrap();
        let some = |reference: &Reference| (reference.resource.as_str() == "db").then(|| json!({ "$secret": "token" }));
        assert!(matches!(two.resolve(&some), Err(Unresolved::Invalid(_))));
    }

    #[test]
    fn what_breaks_a_rule_is_named_by_its_pointer() {
        for (value, part) in [
            (json!({ "a": { "b": 1.5 } }), "/a/b"),
            (json!({ "a": 9_007_199_254_740_992_u64 }), "/a"),
            (json!({ "a": { "$ref": "x.y" } }), "/a"),
            (json!({ "a": { "$ref": "../x.outputs.y" } }), "/a"),
            (json!({ "a": { "$ref": "x.outputs.y", "more": 1 } }), "/a"),
            (json!({ "a": { "$exec": "x" } }), "/a"),
            (json!({ "a": "x".repeat(MAX_BYTES) }), "limit"),
        ] {
            let error = spec(value).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
