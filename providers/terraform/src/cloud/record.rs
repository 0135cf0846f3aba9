//! What is remembered of a workspace on a server: what was begun there, under which mark.

use serde::{Deserialize, Serialize};
use state::canonical::Digest;

/// What is remembered of a workspace on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloudRecord {
    /// What the server knows it by before anybody knows its identity.
    pub(super) mark: String,
    /// Its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) workspace: Option<String>,
    /// The configuration that was uploaded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) configuration: Option<Configuration>,
    /// The configuration that was applied last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) applied: Option<String>,
    /// The version of the engine that was chosen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    /// A digest of the secrets that were given last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secrets: Option<String>,
    /// The run that goes on, or whose plan is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<RunRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Configuration {
    pub(super) digest: String,
    pub(super) id: String,
}

/// What a run is for, and how far it was brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunRecord {
    pub(super) mark: String,
    /// Its identity; none: the server's answer was not heard yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// The digest of what it is to reach; none: that nothing is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) aim: Option<String>,
    pub(super) configuration: String,
    /// The digest of its plan, and when that was made, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) planned: Option<Planned>,
    /// Whether it was told to go ahead.
    #[serde(default)]
    pub(super) confirmed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Planned {
    pub(super) digest: String,
    pub(super) at: u64,
}

/// Something that is not there twice.
pub(super) fn mark(of: &str) -> String {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let text = format!("{of}\0{}\0{}", time.map_or(0, |time| time.as_nanos()), std::process::id());
    Digest::of(text.as_bytes()).hex()[..16].to_owned()
}

impl CloudRecord {
    pub(crate) fn new(external: &str) -> Self {
        Self {
            mark: mark(external),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ() {
        assert_ne!(mark("a"), mark("b"));
        assert_eq!(mark("a").len(), 16);
    }
}
