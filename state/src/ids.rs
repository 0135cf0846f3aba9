//! Validated names. Nothing that was not checked here reaches a path, a ref, a process or a document.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;
use thiserror::Error;

/// A name was refused, with the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct NameError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

/// The longest part of an offending value that an error repeats.
const QUOTED: usize = 80;

fn refused(what: &'static str, value: &str, rule: &'static str) -> NameError {
    NameError {
        what,
        value: value.chars().take(QUOTED).collect(),
        rule,
    }
}

/// A lower-case DNS label that starts with a letter.
const LABEL: &str = "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$";
const LABEL_RULE: &str = "use 1 to 63 lower-case letters, digits and '-', starting with a letter and not ending with '-'";

fn is_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// A label that leaves room for a round's number in a record's name.
const SHORT_LABEL: &str = "^[a-z]([-a-z0-9]{0,46}[a-z0-9])?$";
const SHORT_LABEL_RULE: &str = "use 1 to 48 lower-case letters, digits and '-', starting with a letter and not ending with '-'";

fn is_short_label(value: &str) -> bool {
    value.len() <= 48 && is_label(value)
}

fn is_msp_id(value: &str) -> bool {
    (1..=64).contains(&value.len())
        && value.as_bytes()[0].is_ascii_alphanumeric()
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn is_output(value: &str) -> bool {
    let bytes = value.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

fn is_tx_id(value: &str) -> bool {
    value.len() == 64 && value.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Reads a name without a copy of its text in between: a state has tens of thousands of them.
struct Named<T>(fn(&str) -> Result<T, NameError>);

impl<T> Visitor<'_> for Named<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident, $pattern:expr, $rule:expr) => {
        $(#[$doc])*
        // Short ones lie in place and long ones are shared: one name stands in many places of a state.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks and takes a name.
            pub fn new(value: impl AsRef<str>) -> Result<Self, NameError> {
                let value = value.as_ref();
                if $check(value) { Ok(Self(value.into())) } else { Err(refused($what, value, $rule)) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Named(|text| Self::new(text)))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $rule })
            }
        }
    };
}

name!(
    /// The name of a ledger channel: one DAO version lives in one channel.
    Channel, "the channel name", is_label, LABEL, LABEL_RULE
);
name!(
    /// The name of a DAO, the same in all its versions.
    DaoId, "the DAO's name", is_label, LABEL, LABEL_RULE
);
name!(
    /// The name of a member, bound to its MSP id when it registers.
    MemberId, "the member's name", is_label, LABEL, LABEL_RULE
);
name!(
    /// The name of a resource, unique in its channel.
    ResourceName, "the resource's name", is_label, LABEL, LABEL_RULE
);
name!(
    /// A region where a resource may live, in the words of the agreement.
    Region, "the region", is_label, LABEL, LABEL_RULE
);
name!(
    /// The name of a secret on a member's machine. The secret itself is never part of any state.
    SecretName, "the secret's name", is_label, LABEL, LABEL_RULE
);
name!(
    /// The name of one output of a resource.
    OutputName, "the output's name", is_output, "^[a-z][-_a-z0-9]{0,62}$",
    "use 1 to 63 lower-case letters, digits, '-' and '_', starting with a letter"
);
name!(
    /// The id of a Fabric membership service provider, for example `CityMSP`.
    MspId, "the MSP id", is_msp_id, "^[A-Za-z0-9][-._A-Za-z0-9]{0,63}$",
    "use 1 to 64 letters, digits, '.', '-' and '_', starting with a letter or digit"
);
name!(
    /// The name of an offer, unique on its market.
    OfferId, "the offer's name", is_label, LABEL, LABEL_RULE
);
name!(
    /// The period of a profit, unique on its channel, for example `q1-2027`.
    PeriodId, "the period's name", is_label, LABEL, LABEL_RULE
);
name!(
    /// The name of a negotiation, unique on its market.
    NegotiationId, "the negotiation's name", is_short_label, SHORT_LABEL, SHORT_LABEL_RULE
);
name!(
    /// A Fabric transaction id: 64 lower-case hexadecimal digits.
    TxId, "the transaction id", is_tx_id, "^[0-9a-f]{64}$", "use 64 lower-case hexadecimal digits"
);

/// What a resource is, and so which provider makes it: `provider/kind`, for example `machine/service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    text: SmolStr,
    slash: usize,
}

impl Kind {
    const RULE: &'static str = "use provider/kind, each a lower-case DNS label, for example machine/service";

    /// Checks and takes a kind.
    pub fn new(value: impl AsRef<str>) -> Result<Self, NameError> {
        let text = value.as_ref();
        match text.split_once('/') {
            Some((provider, kind)) if is_label(provider) && is_label(kind) => Ok(Self {
                slash: provider.len(),
                text: text.into(),
            }),
            _ => Err(refused("the kind", text, Self::RULE)),
        }
    }

    /// The part before the slash: the provider.
    pub fn provider(&self) -> &str {
        &self.text[..self.slash]
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        &self.text[self.slash + 1..]
    }

    /// The whole as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl FromStr for Kind {
    type Err = NameError;
    fn from_str(value: &str) -> Result<Self, NameError> {
        Self::new(value)
    }
}

impl TryFrom<String> for Kind {
    type Error = NameError;
    fn try_from(value: String) -> Result<Self, NameError> {
        Self::new(value)
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> String {
        kind.as_str().to_owned()
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Named(|text| Self::new(text)))
    }
}

impl JsonSchema for Kind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Kind".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?/[a-z]([-a-z0-9]{0,61}[a-z0-9])?$",
            "description": Self::RULE
        })
    }
}

/// The version of a DAO: 1 for the first agreement, one more for each member that joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Version(#[schemars(range(min = 1))] pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_paths_and_refs_safe() {
        for good in ["a", "city", "air-quality-2", &"a".repeat(63)] {
            assert!(ResourceName::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "..",
            ".git",
            "a/b",
            "a b",
            "2nd",
            "a_b",
            "C:x",
            "${x}",
            "%{x}",
            "a\u{202e}b",
            "é",
            &long,
        ] {
            assert!(ResourceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_names_the_value_and_the_rule() {
        let error = MemberId::new("../city").unwrap_err().to_string();
        assert!(error.contains("the member's name \"../city\""), "{error}");
        assert!(error.contains("lower-case letters"), "{error}");
    }

    #[test]
    fn a_kind_splits_in_two() {
        let kind = Kind::new("machine/service").unwrap();
        assert_eq!((kind.provider(), kind.name()), ("machine", "service"));
        for bad in ["machine", "machine/", "/service", "a/b/c", "Machine/x"] {
            assert!(Kind::new(bad).is_err(), "{bad}");
        }
    }
}
