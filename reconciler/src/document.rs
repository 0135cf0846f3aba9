//! What a member submits, as a file: an agreement, an order, an amendment, a retirement or an offer, in YAML or JSON.
//!
//! A file is bounded, read, checked against its published JSON schema (`docs/schemas/`), and only then typed.

use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::acts::offers::Offer;
use state::agreement::Agreement;
use state::ids::ResourceName;
use state::resource::Resource;
use thiserror::Error;

/// The version of the documents that this binary reads.
pub const API_VERSION: &str = "charter/v1";
/// The largest document, in bytes: what fits in one transaction.
pub const MAX_BYTES: u64 = 1024 * 1024;
/// The most schema errors that one message lists.
const MAX_ERRORS: usize = 8;

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A DAO version's agreement: submitted by each party.
    Agreement(Box<Agreement>),
    /// New resources.
    Order(Vec<Resource>),
    /// Changed resources, whole.
    Amendment(Vec<Resource>),
    /// Resources that are no longer wanted.
    Retirement(Vec<ResourceName>),
    /// What a member offers on a market.
    Offer(Box<Offer>),
}

/// A document can't be taken. Nothing was submitted.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// The file can't be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large.
    #[error("{} has {bytes} bytes; a document has at most {MAX_BYTES}: split it into several orders", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not YAML.
    #[error("{} is not valid YAML: {message}", .path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// Not a document that this binary knows.
    #[error("{}: {message}", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What is missing or unknown.
        message: String,
    },
    /// Not what its schema says.
    #[error("{} does not fit docs/schemas/{schema}.json:\n{}", .path.display(), .errors.join("\n"))]
    Schema {
        /// The file.
        path: PathBuf,
        /// The schema's name.
        schema: &'static str,
        /// Each clause that doesn't fit.
        errors: Vec<String>,
    },
}

/// A field that holds one known word.
macro_rules! constant {
    ($name:ident, $word:literal) => {
        #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
        enum $name {
            #[serde(rename = $word)]
            Word,
        }
    };
}

constant!(ApiVersion, "charter/v1");
constant!(OrderKind, "Order");
constant!(AmendmentKind, "Amendment");
constant!(RetirementKind, "Retirement");
constant!(OfferDocumentKind, "Offer");

macro_rules! head {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $($field:ident: $type:ty, $length:meta)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "apiVersion and kind are there for the schema")]
        struct $name {
            #[serde(rename = "apiVersion")]
            api_version: ApiVersion,
            kind: $kind,
            $(#[$length] $field: $type,)?
        }
    };
}

head!(
    /// New resources of a DAO version.
    OrderFile, OrderKind, resources: Vec<Resource>, schemars(length(min = 1, max = 1000))
);
head!(
    /// Resources of a DAO version as they are from now on, each whole.
    AmendmentFile, AmendmentKind, resources: Vec<Resource>, schemars(length(min = 1, max = 1000))
);
head!(
    /// Names of resources that are no longer wanted.
    RetirementFile, RetirementKind, resources: Vec<ResourceName>, schemars(length(min = 1, max = 1000))
);

head!(
    /// What a member offers on a market, for everybody there to find.
    OfferFile, OfferDocumentKind, offer: Offer, doc = "The offer, whole."
);

/// A kind of document with its published schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// [`Document::Agreement`].
    Agreement,
    /// [`Document::Order`].
    Order,
    /// [`Document::Amendment`].
    Amendment,
    /// [`Document::Retirement`].
    Retirement,
    /// [`Document::Offer`].
    Offer,
}

impl DocumentKind {
    /// Every kind.
    pub const ALL: [DocumentKind; 5] = [Self::Agreement, Self::Order, Self::Amendment, Self::Retirement, Self::Offer];

    /// The value of a document's `kind`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Agreement => "Agreement",
            Self::Order => "Order",
            Self::Amendment => "Amendment",
            Self::Retirement => "Retirement",
            Self::Offer => "Offer",
        }
    }

    /// The name of its schema in `docs/schemas/`.
    pub fn schema_name(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Order => "order",
            Self::Amendment => "amendment",
            Self::Retirement => "retirement",
            Self::Offer => "offer",
        }
    }

    /// Its JSON schema.
    pub fn schema(self) -> Schema {
        let mut schema = match self {
            Self::Agreement => agreement_schema(),
            Self::Order => schema_for!(OrderFile),
            Self::Amendment => schema_for!(AmendmentFile),
            Self::Retirement => schema_for!(RetirementFile),
            Self::Offer => schema_for!(OfferFile),
        };
        schema.insert("title".into(), Value::String(format!("Charter {}", self.word())));
        schema
    }
}

/// The agreement's own schema, with the two head fields beside its own.
fn agreement_schema() -> Schema {
    let mut schema = schema_for!(Agreement);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert("apiVersion".into(), serde_json::json!({ "const": API_VERSION }));
        properties.insert("kind".into(), serde_json::json!({ "const": "Agreement" }));
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.extend(["apiVersion".into(), "kind".into()]);
    }
    schema
}

impl Document {
    /// The resources that it asks for.
    pub fn resources(&self) -> &[Resource] {
        match self {
            Self::Order(resources) | Self::Amendment(resources) => resources,
            Self::Agreement(_) | Self::Retirement(_) | Self::Offer(_) => &[],
        }
    }

    /// Reads a document from a file.
    pub fn read(path: &Path) -> Result<Self, DocumentError> {
        Self::parse(path, &text(path)?)
    }

    /// Reads a document from text; the path is only named in errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, DocumentError> {
        let mut value = yaml(path, text)?;
        let wrong = |message: String| DocumentError::Kind {
            path: path.to_owned(),
            message,
        };
        match value.get("apiVersion").and_then(Value::as_str) {
            Some(API_VERSION) => {}
            Some(other) => {
                return Err(wrong(format!(
                    "apiVersion {other:?} is unknown; this Charter reads {API_VERSION:?}"
                )));
            }
            None => return Err(wrong(format!("apiVersion is missing; write apiVersion: {API_VERSION}"))),
        }
        let known = DocumentKind::ALL.map(DocumentKind::word).join(", ");
        let kind = match value.get("kind").and_then(Value::as_str) {
            Some(word) => DocumentKind::ALL.into_iter().find(|kind| kind.word() == word),
            None => return Err(wrong(format!("kind is missing; it is one of {known}"))),
        };
        let kind = kind.ok_or_else(|| wrong(format!("this kind is not one of {known}")))?;
        check(path, kind, &value)?;
        if let (DocumentKind::Agreement, Value::Object(map)) = (kind, &mut value) {
            map.remove("apiVersion");
            map.remove("kind");
        }
        let typed = match kind {
            DocumentKind::Agreement => serde_json::from_value(value).map(|agreement| Document::Agreement(Box::new(agreement))),
            DocumentKind::Order => serde_json::from_value(value).map(|file: OrderFile| Document::Order(file.resources)),
            DocumentKind::Amendment => serde_json::from_value(value).map(|file: AmendmentFile| Document::Amendment(file.resources)),
            DocumentKind::Retirement => serde_json::from_value(value).map(|file: RetirementFile| Document::Retirement(file.resources)),
            DocumentKind::Offer => serde_json::from_value(value).map(|file: OfferFile| Document::Offer(Box::new(file.offer))),
        };
        // What the schema can't say (a number's range inside a spec, the form of a reference) the types do.
        typed.map_err(|error| wrong(error.to_string()))
    }
}

/// Reads the text of a document's file, within its bound.
pub(crate) fn text(path: &Path) -> Result<String, DocumentError> {
    let failed = |source| DocumentError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_BYTES {
        return Err(DocumentError::TooLarge {
            path: path.to_owned(),
            bytes,
        });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Parses YAML (and so JSON) within the parser's budget for nesting, aliases and size.
pub fn yaml(path: &Path, text: &str) -> Result<Value, DocumentError> {
    serde_saphyr::from_str(text).map_err(|error| DocumentError::Yaml {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

fn check(path: &Path, kind: DocumentKind, value: &Value) -> Result<(), DocumentError> {
    fits(path, kind.schema_name(), &kind.schema(), value)
}

/// Checks a value against a published schema; the path is only named in errors.
pub(crate) fn fits(path: &Path, schema_name: &'static str, schema: &Schema, value: &Value) -> Result<(), DocumentError> {
    let misfits = misfits(schema.as_value(), value).map_err(|error| DocumentError::Kind {
        path: path.to_owned(),
        message: format!("its schema can't be used: {error}"),
    })?;
    if misfits.is_empty() {
        return Ok(());
    }
    Err(DocumentError::Schema {
        path: path.to_owned(),
        schema: schema_name,
        errors: misfits.iter().map(|misfit| format!("  {misfit}")).collect(),
    })
}

/// Where a value doesn't fit a schema, and why.
pub(crate) fn misfits(schema: &Value, value: &Value) -> Result<Vec<String>, Box<jsonschema::ValidationError<'static>>> {
    let validator = jsonschema::validator_for(schema)?;
    let errors = validator.iter_errors(value).take(MAX_ERRORS);
    let told = errors.map(|error| {
        let at = error.instance_path().to_string();
        let text: String = error.to_string().chars().take(300).collect();
        format!("{}: {text}", if at.is_empty() { "/" } else { &at })
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Document, String> {
        Document::parse(Path::new("order.yaml"), text).map_err(|error| error.to_string())
    }

    const ORDER: &str = "apiVersion: charter/v1\nkind: Order\nresources:\n  - { name: a, kind: machine/directory, owner: city }\n";

    #[test]
    fn an_order_reads() {
        let Document::Order(resources) = parse(ORDER).unwrap() else {
            panic!("not an order")
        };
        assert_eq!(resources[0].name.as_str(), "a");
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_clause() {
        for (change, clause) in [
            (("owner: city", "owner: city, colour: red"), "colour"),
            (("name: a", "name: ../a"), "/resources/0/name"),
            (("machine/directory", "machine"), "/resources/0/kind"),
            (("kind: Order", "kind: Wish"), "one of Agreement, Order"),
            (("charter/v1", "charter/v9"), "charter/v9"),
            (("owner: city", "owner: city, spec: { a: { $ref: x } }"), "/a"),
        ] {
            let error = parse(&ORDER.replace(change.0, change.1)).unwrap_err();
            assert!(error.contains(clause) && error.contains("order.yaml"), "{error}");
        }
    }

    #[test]
    fn a_share_outside_0_and_1_is_refused() {
        let text = include_str!("../../examples/smart-city/v1/agreement.yaml");
        assert!(matches!(parse(text), Ok(Document::Agreement(_))));
        for share in ["\"1.0\"", "\"0\"", "\"-0.3\"", "0.7"] {
            let error = parse(&text.replace("\"0.70\"", share)).unwrap_err();
            assert!(error.contains("beta") || error.contains("share"), "{error}");
        }
        let error = parse(&text.replace("\"0.70\"", "\"0.0\"")).unwrap_err();
        assert!(error.contains("share β \"0.0\""), "{error}");
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut text = String::from("a: &a [x]\n");
        for i in 0..40 {
            text.push_str(
                &format!("b{i}: &b{i} [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n")
                    .replace("*a", &if i == 0 { "*a".into() } else { format!("*b{}", i - 1) }),
            );
        }
        assert!(parse(&text).is_err());
    }
}
