//! Paths below the root, as plain names: what can't be written here can't be reached.

use std::fmt;

use serde::{Deserialize, Serialize};
use state::ids::Channel;
use state::resource::Origin;
use thiserror::Error;

/// The most folders that a path may go down.
const MAX_DEPTH: usize = 16;
/// The longest file name that Linux file systems take, less what a temporary name adds.
const MAX_NAME: usize = 180;
/// The folder of records and logs, directly below the root. A channel's name has no dot, so no channel is called like it.
pub(crate) const OWN: &str = ".charter";

/// A path may not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PathError {
    /// One of its parts is not a plain name.
    #[error(
        "{part:?} is not a plain file name: use letters, digits, space and . _ - + @ = , (at most {MAX_NAME}), and neither '.', '..' nor a name that starts with {OWN}"
    )]
    Part { part: String },
    /// It is an absolute path elsewhere.
    #[error("the path does not lie below this channel's folder of the machine's root")]
    Outside,
    /// It goes down too far.
    #[error("the path has more than {MAX_DEPTH} parts")]
    Deep,
}

/// Whether a text is one plain file name.
pub(crate) fn check_name(part: &str) -> Result<(), PathError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '@' | '=' | ',' | ' ');
    let bad = part.is_empty() || part == "." || part == ".." || part.len() > MAX_NAME || part.starts_with(OWN) || !part.chars().all(plain);
    if bad {
        let part = part.chars().take(80).collect();
        return Err(PathError::Part { part });
    }
    Ok(())
}

/// A path below the root: one or more plain names, the first of which is a channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Below(Vec<String>);

impl Below {
    /// Checks and takes a path relative to the root.
    pub(crate) fn new(text: &str) -> Result<Self, PathError> {
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        parts.iter().try_for_each(|part| check_name(part))?;
        if parts.len() > MAX_DEPTH {
            return Err(PathError::Deep);
        }
        Ok(Self(parts))
    }

    /// The folder of a channel.
    pub(crate) fn channel(channel: &Channel) -> Self {
        Self(vec![channel.to_string()])
    }

    /// The place that a resource has when its specification names none.
    pub(crate) fn resource(origin: &Origin) -> Self {
        Self(vec![origin.channel.to_string(), origin.resource.to_string()])
    }

    /// A plain name in this folder.
    pub(crate) fn join(&self, name: &str) -> Result<Self, PathError> {
        check_name(name)?;
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        if parts.len() > MAX_DEPTH {
            return Err(PathError::Deep);
        }
        Ok(Self(parts))
    }

    /// All its parts.
    pub(crate) fn parts(&self) -> &[String] {
        &self.0
    }

    /// The parts of the folder that it is in.
    pub(crate) fn parent(&self) -> &[String] {
        &self.0[..self.0.len() - 1]
    }

    /// Its last part.
    pub(crate) fn name(&self) -> &str {
        &self.0[self.0.len() - 1]
    }
}

impl fmt::Display for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl TryFrom<String> for Below {
    type Error = PathError;
    fn try_from(text: String) -> Result<Self, PathError> {
        Self::new(&text)
    }
}

impl From<Below> for String {
    fn from(path: Below) -> String {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_make_a_path() {
        assert_eq!(Below::new("city/data/a b.txt").unwrap().name(), "a b.txt");
        for bad in [
            "",
            "/etc",
            "city/../x",
            "city/./x",
            "city//x",
            "..",
            ".charter/x",
            "city/.charter-tmp",
            "a\\b",
            "a\0b",
            "a\u{202e}b",
            "a\nb",
            "${x}",
            "C:/x",
        ] {
            assert!(Below::new(bad).is_err(), "{bad:?}");
        }
        assert!(Below::new(&["a"; 17].join("/")).is_err());
    }
}
