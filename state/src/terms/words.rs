//! The words of ODRL 2.2 that terms may use, checked: a misspelt one would be a permission that nobody meant.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest text of terms, in characters.
pub const MAX_TEXT: usize = 400;
/// The most texts of one operand.
pub const MAX_OPERANDS: usize = 64;
/// The largest number whose canonical form is exact.
const MAX_NUMBER: i64 = (1 << 53) - 1;

/// The actions of ODRL's core and common vocabulary, without the deprecated ones.
const ACTIONS: &[&str] = &[
    "acceptTracking",
    "aggregate",
    "annotate",
    "anonymize",
    "archive",
    "attribute",
    "compensate",
    "concurrentUse",
    "delete",
    "derive",
    "digitize",
    "display",
    "distribute",
    "ensureExclusivity",
    "execute",
    "extract",
    "give",
    "grantUse",
    "include",
    "index",
    "inform",
    "install",
    "modify",
    "move",
    "nextPolicy",
    "obtainConsent",
    "play",
    "present",
    "print",
    "read",
    "reproduce",
    "reviewPolicy",
    "sell",
    "stream",
    "synchronize",
    "textToSpeech",
    "transfer",
    "transform",
    "translate",
    "uninstall",
    "use",
    "watermark",
];

/// The left operands of ODRL's common vocabulary.
const LEFT_OPERANDS: &[&str] = &[
    "absolutePosition",
    "absoluteSize",
    "absoluteSpatialPosition",
    "absoluteTemporalPosition",
    "count",
    "dateTime",
    "delayPeriod",
    "deliveryChannel",
    "elapsedTime",
    "event",
    "fileFormat",
    "industry",
    "language",
    "media",
    "meteredTime",
    "payAmount",
    "percentage",
    "product",
    "purpose",
    "recipient",
    "relativePosition",
    "relativeSize",
    "relativeSpatialPosition",
    "relativeTemporalPosition",
    "resolution",
    "spatial",
    "spatialCoordinates",
    "systemDevice",
    "timeInterval",
    "unitOfCount",
    "version",
    "virtualLocation",
];

/// A word of terms is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the {what} {value:?} is not valid: {rule}")]
pub struct WordError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The word as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = WordError;
            fn from_str(text: &str) -> Result<Self, WordError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(WordError { what: $what, value: text.chars().take(80).collect(), rule: $rule })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = WordError;
            fn try_from(text: String) -> Result<Self, WordError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> String {
                word.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_TEXT, "description": $rule })
            }
        }
    };
}

word!(
    /// What identifies a policy or an asset: a URI, or a plain name.
    Iri, "identifier", |text| is_iri(text),
    "use 1 to 400 visible ASCII characters without spaces, quotes, '<', '>' and '\\'"
);
word!(
    /// What may, must not or has to be done.
    Action, "action", |text| ACTIONS.contains(&text) || is_prefixed(text),
    "use an action of ODRL 2.2, such as use, derive or distribute, or one of another vocabulary as prefix:name"
);
word!(
    /// What a constraint is about.
    LeftOperand, "leftOperand", |text| LEFT_OPERANDS.contains(&text) || is_prefixed(text),
    "use a left operand of ODRL 2.2, such as purpose, spatial or dateTime, or one of another vocabulary as prefix:name"
);

/// How a constraint compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Operator {
    /// Equal.
    Eq,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gteq,
    /// Less.
    Lt,
    /// Less or equal.
    Lteq,
    /// Not equal.
    Neq,
    /// Of a kind.
    IsA,
    /// Has a part.
    HasPart,
    /// Is a part.
    IsPartOf,
    /// All of a set.
    IsAllOf,
    /// One of a set.
    IsAnyOf,
    /// None of a set.
    IsNoneOf,
}

/// What a constraint compares with: a text, a whole number, or several texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RightOperand {
    /// A whole number.
    Number(i64),
    /// A text: a date, a place, a purpose, an exact decimal.
    Text(String),
    /// Several.
    Texts(#[schemars(length(min = 1, max = 64))] Vec<String>),
}

impl RightOperand {
    /// Whether it is within its bounds.
    pub(super) fn fits(&self) -> bool {
        let text = |text: &String| (1..=MAX_TEXT).contains(&text.chars().count());
        match self {
            RightOperand::Number(number) => number.unsigned_abs() <= MAX_NUMBER.unsigned_abs(),
            RightOperand::Text(found) => text(found),
            RightOperand::Texts(found) => (1..=MAX_OPERANDS).contains(&found.len()) && found.iter().all(text),
        }
    }
}

fn is_iri(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'\\' | b'`' | b'{' | b'}');
    (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(plain)
}

fn is_prefixed(text: &str) -> bool {
    let word = |part: &str| {
        part.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 80 && text.split_once(':').is_some_and(|(prefix, name)| word(prefix) && word(name))
}
