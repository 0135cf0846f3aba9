//! The arguments of the program's functions: one JSON document each, bounded and without unknown fields.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::agreement::Role;
use state::canonical::Digest;
use state::ids::{MemberId, ResourceName};
use state::report::MAX_PAYLOAD_BYTES;
use state::resource::Resource;

use crate::error::Refused;

/// The largest argument of every function but `report`, in bytes.
pub const MAX_ARGUMENT_BYTES: usize = 1024 * 1024;
/// The largest argument of `report`, in bytes: the largest payload in base64, and room for its signature.
pub const MAX_REPORT_BYTES: usize = MAX_PAYLOAD_BYTES / 3 * 4 + 4 + 4096;
/// The longest name of a function, in bytes.
pub const MAX_FUNCTION_BYTES: usize = 64;
/// The most resources of one page.
pub const MAX_PAGE: u32 = 1_000;
/// The resources of a page whose size nobody named.
const PAGE: u32 = 100;

/// The argument of `register`: the creator's MSP becomes this member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The member's name.
    pub member: MemberId,
    /// What it brings.
    pub role: Role,
}

/// The argument of `accept`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The digest of the channel's agreement.
    pub digest: Digest,
}

/// The argument of `order` and `amend`: whole resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// The resources.
    pub resources: Vec<Resource>,
}

/// The argument of `retire`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// The resources' names.
    pub resources: Vec<ResourceName>,
}

/// The optional argument of the read `resources`: which page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// The last name of the page before; none for the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ResourceName>,
    /// How many resources at most, 1 to [`MAX_PAGE`] (default 100).
    #[serde(default = "page")]
    pub limit: u32,
}

/// The optional argument of the reads that list records: which page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordPage {
    /// The last name of the page before; none for the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many records at most, 1 to [`MAX_PAGE`] (default 100).
    #[serde(default = "page")]
    pub limit: u32,
}

impl Default for RecordPage {
    fn default() -> Self {
        Self { after: None, limit: PAGE }
    }
}

fn page() -> u32 {
    PAGE
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: PAGE }
    }
}

/// Takes the one argument that a function has after its name.
pub(crate) fn one<'a>(function: &'static str, rest: &'a [Vec<u8>], limit: usize) -> Result<&'a [u8], Refused> {
    let [argument] = rest else {
        return Err(Refused::Arguments {
            function,
            expected: "1",
            found: rest.len(),
        });
    };
    bounded(function, argument, limit)
}

/// Takes the one argument that a function may have after its name.
pub(crate) fn optional<'a>(function: &'static str, rest: &'a [Vec<u8>], limit: usize) -> Result<Option<&'a [u8]>, Refused> {
    match rest {
        [] => Ok(None),
        [argument] => bounded(function, argument, limit).map(Some),
        _ => Err(Refused::Arguments {
            function,
            expected: "0 or 1",
            found: rest.len(),
        }),
    }
}

fn bounded<'a>(function: &'static str, argument: &'a [u8], limit: usize) -> Result<&'a [u8], Refused> {
    if argument.len() > limit {
        return Err(Refused::TooLarge {
            function,
            bytes: argument.len(),
            limit,
        });
    }
    Ok(argument)
}

/// Reads a JSON argument. serde_json bounds its depth.
pub(crate) fn json<T: DeserializeOwned>(function: &'static str, argument: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(argument).map_err(|source| Refused::Malformed { function, source })
}

/// Reads the resources of an order or amendment; an error names the resource that it is in.
pub(crate) fn resources(function: &'static str, argument: &[u8]) -> Result<Vec<Resource>, Refused> {
    json::<Resources>(function, argument)
        .map(|found| found.resources)
        .map_err(|error| blamed(argument).unwrap_or(error))
}

/// Looks for the resource that can't be read; none when the fault is elsewhere in the document.
fn blamed(argument: &[u8]) -> Option<Refused> {
    let document: Value = serde_json::from_slice(argument).ok()?;
    for (index, item) in document.get("resources")?.as_array()?.iter().enumerate() {
        if let Err(source) = Resource::deserialize(item) {
            let name = item
                .get("name")
                .and_then(Value::as_str)
                .and_then(|name| ResourceName::new(name).ok());
            let resource = name.map_or_else(|| format!("number {}", index + 1), |name| name.to_string());
            return Some(Refused::Resource { resource, source });
        }
    }
    None
}

/// Reads a record's name: a label or hexadecimal digits.
pub(crate) fn id<'a>(function: &'static str, argument: &'a [u8]) -> Result<&'a str, Refused> {
    let text = std::str::from_utf8(argument).map_err(|_| Refused::NotText(function))?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 64 || !text.bytes().all(plain) {
        return Err(Refused::Id(text.chars().take(70).collect()));
    }
    Ok(text)
}

/// Reads a plain name, which is not JSON.
pub(crate) fn name<T: std::str::FromStr<Err = state::ids::NameError>>(function: &'static str, argument: &[u8]) -> Result<T, Refused> {
    let text = std::str::from_utf8(argument).map_err(|_| Refused::NotText(function))?;
    text.parse().map_err(Refused::Name)
}
