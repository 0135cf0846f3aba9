//! Terms as a file, and the documents that they come to.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::{Schema, schema_for};
use serde::Serialize;
use serde_json::{Value, json};
use state::agreement::Agreement;
use state::resource::Resource;
use state::terms::Terms;

use crate::document::{self, API_VERSION, DocumentError, DocumentKind};

/// The name of their schema in `docs/schemas/`.
pub const SCHEMA_NAME: &str = "terms";

/// Their JSON schema.
pub fn schema() -> Schema {
    let mut schema = schema_for!(Terms);
    schema.insert("title".into(), Value::String("Charter Terms".into()));
    schema
}

/// Reads terms from a file, YAML or JSON.
pub fn read(path: &Path) -> Result<Terms, DocumentError> {
    parse(path, &document::text(path)?)
}

/// Reads terms from text; the path is only named in errors.
pub fn parse(path: &Path, text: &str) -> Result<Terms, DocumentError> {
    let value = document::yaml(path, text)?;
    document::fits(path, SCHEMA_NAME, &schema(), &value)?;
    // What the schema can't say, such as the words of ODRL, the types do.
    serde_json::from_value(value).map_err(|error| DocumentError::Kind {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

/// An agreement as the document that its parties submit in their channel.
pub fn agreement(agreement: &Agreement) -> Result<Value, serde_json::Error> {
    headed(DocumentKind::Agreement, agreement)
}

/// What a party orders, as the document that it submits there.
pub fn order(resources: &[Resource]) -> Result<Value, serde_json::Error> {
    headed(DocumentKind::Order, &json!({ "resources": resources }))
}

/// A field in which two terms differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which: names and numbers from 0, with slashes between them.
    pub field: String,
    /// What it was; none: nothing.
    pub before: Option<Value>,
    /// What it is; none: nothing.
    pub after: Option<Value>,
}

/// Everything in which two terms differ, down to single fields.
pub fn differences(before: &Terms, after: &Terms) -> Result<Vec<Difference>, serde_json::Error> {
    let mut found = Vec::new();
    compare(
        String::new(),
        Some(&serde_json::to_value(before)?),
        Some(&serde_json::to_value(after)?),
        &mut found,
    );
    Ok(found)
}

fn compare(field: String, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Difference>) {
    match (before, after) {
        (one, other) if one == other => {}
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                compare(format!("{field}/{name}"), one.get(name), other.get(name), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                compare(format!("{field}/{index}"), one.get(index), other.get(index), found);
            }
        }
        _ => found.push(Difference {
            field,
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

fn headed<T: Serialize>(kind: DocumentKind, content: &T) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(content)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("apiVersion".into(), API_VERSION.into());
        fields.insert("kind".into(), kind.word().into());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    const EXAMPLE: &str = include_str!("../../examples/smart-city/market/terms.yaml");

    fn parsed(text: &str) -> Result<Terms, String> {
        parse(Path::new("terms.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_comes_to_documents_that_are_submitted() {
        let terms = parsed(EXAMPLE).unwrap();
        let outcome = terms.outcome().unwrap();
        let text = serde_saphyr::to_string(&agreement(outcome.agreement).unwrap()).unwrap();
        let Document::Agreement(read) = Document::parse(Path::new("agreement.yaml"), &text).unwrap() else {
            panic!("{text}")
        };
        assert_eq!(read.digest().unwrap(), outcome.agreement.digest().unwrap());
        let own = outcome.orders_of(&"city".parse().unwrap());
        let text = serde_saphyr::to_string(&order(own).unwrap()).unwrap();
        let read = Document::parse(Path::new("order.yaml"), &text).unwrap();
        assert_eq!(read, Document::Order(own.to_vec()));
    }

    /// What the examples negotiate is what they submit: the agreement, and each member's orders.
    #[test]
    fn the_examples_come_to_the_examples_documents() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/smart-city");
        for (file, version, members) in [
            ("counter.yaml", "v1", &["city", "breeze"][..]),
            ("terms-2.yaml", "v2", &["city", "breeze", "tram"]),
        ] {
            let terms = super::read(&folder.join("market").join(file)).unwrap();
            let outcome = terms.outcome().unwrap();
            let document = |name: &str| Document::read(&folder.join(version).join(format!("{name}.yaml"))).unwrap();
            assert_eq!(document("agreement"), Document::Agreement(Box::new(outcome.agreement.clone())));
            for member in members {
                let own = outcome.orders_of(&member.parse().unwrap());
                assert_eq!(document(member), Document::Order(own.to_vec()), "{file} {member}");
            }
        }
    }

    #[test]
    fn a_counter_offer_differs_in_what_it_changes() {
        let (before, mut after) = (parsed(EXAMPLE).unwrap(), parsed(EXAMPLE).unwrap());
        assert_eq!(differences(&before, &after).unwrap(), []);
        after.agreement.parties[1].beta = "0.7".parse().ok();
        after.permission.clear();
        after.infrastructure[1].resources.pop();
        let found = differences(&before, &after).unwrap();
        let fields: Vec<&str> = found.iter().map(|one| one.field.as_str()).collect();
        let expected = [
            "/charter:agreement/parties/1/beta",
            "/charter:infrastructure/1/resources/1",
            "/permission",
        ];
        assert_eq!(fields, expected);
        assert_eq!((&found[0].before, &found[0].after), (&Some(json!("0.8")), &Some(json!("0.7"))));
        assert!(found[1].before.is_some() && found[1].after.is_none());
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_clause() {
        for (change, clause) in [
            (("action: distribute", "action: distrbute"), "distrbute"),
            (("operator: isAnyOf", "operator: among"), "/permission/0/constraint/0/operator"),
            (("assigner: city\n", "assigner: city\nshares: 1\n"), "shares"),
            (("beta: \"0.80\"", "beta: \"2\""), "/charter:agreement/parties/1/beta"),
            (("urn:charter:odrl:1", "urn:charter:odrl:2"), "/profile"),
        ] {
            let text = EXAMPLE.replacen(change.0, change.1, 1);
            assert_ne!(text, EXAMPLE, "{clause}");
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(clause) && error.contains("terms.yaml"), "{error}");
        }
    }
}
