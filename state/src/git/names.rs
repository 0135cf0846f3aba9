//! What may name something in the store: commits, people, references and paths.

use std::fmt;
use std::str::FromStr;

use git2::Oid;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::GitError;

/// Names a commit: a git object id, forty lower-case hexadecimal digits when shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub(super) Oid);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitId({})", self.0)
    }
}

/// Reports text that is not forty lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a commit id is forty lower-case hexadecimal digits")]
pub struct BadCommitId;

impl FromStr for CommitId {
    type Err = BadCommitId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_oid(text.as_bytes()).map(CommitId).ok_or(BadCommitId)
    }
}

impl Serialize for CommitId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CommitId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Parses a full object id; short ones are refused, which `Oid::from_str` would pad.
pub(super) fn parse_oid(text: &[u8]) -> Option<Oid> {
    let hex_digits = text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 40 || !hex_digits {
        return None;
    }
    Oid::from_str(std::str::from_utf8(text).ok()?).ok()
}

/// Names who made a commit and when. The zone is always `+0000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name, without `<`, `>`, line ends and control characters.
    pub name: String,
    /// The address, under the same rule; it may be empty.
    pub email: String,
    /// Seconds since 1970-01-01T00:00:00Z, between 0 and the end of the year 9999.
    pub seconds: i64,
}

/// The last second of the year 9999: later ones are refused by some of git's own tools.
const LAST_SECOND: i64 = 253_402_300_799;
/// Longer names are no names; the bound keeps a commit's header small.
const PERSON_LIMIT: usize = 256;

impl Person {
    /// Checks what `git fsck --strict` would check, and that nothing can break out of the header line.
    pub(super) fn check(&self) -> Result<(), GitError> {
        check_person_text("name", &self.name)?;
        if self.name.is_empty() {
            return Err(GitError::CommitField {
                field: "name",
                why: "it is empty",
            });
        }
        check_person_text("email", &self.email)?;
        if !(0..=LAST_SECOND).contains(&self.seconds) {
            return Err(GitError::CommitField {
                field: "time",
                why: "it is before 1970 or after 9999",
            });
        }
        Ok(())
    }
}

fn check_person_text(field: &'static str, text: &str) -> Result<(), GitError> {
    let why = if text.len() > PERSON_LIMIT {
        "it is longer than 256 bytes"
    } else if text.chars().any(|c| matches!(c, '<' | '>') || hidden(c)) {
        "it holds `<`, `>`, a control character or an invisible one"
    } else if text.trim() != text {
        "it starts or ends with white space"
    } else {
        return Ok(());
    };
    Err(GitError::CommitField { field, why })
}

/// Tells control characters and those that make a line read differently from what it is.
fn hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Checks that a reference is a branch with a plain name.
pub(super) fn check_reference(name: &str) -> Result<(), GitError> {
    let refuse = |why| {
        Err(GitError::ReferenceName {
            name: name.chars().take(300).collect(),
            why,
        })
    };
    let Some(branch) = name.strip_prefix("refs/heads/") else {
        return refuse("it is not below refs/heads/");
    };
    if name.len() > 255 {
        return refuse("it is longer than 255 bytes");
    }
    for component in branch.split('/') {
        if component.is_empty() {
            return refuse("a component is empty");
        }
        if !component
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        {
            return refuse("only ASCII letters, digits, `.`, `_` and `-` are taken");
        }
        if component.starts_with(['.', '-']) || component.ends_with('.') || component.contains("..") {
            return refuse("a component starts with `.` or `-`, ends with `.` or holds `..`");
        }
        if component.to_ascii_lowercase().ends_with(".lock") {
            return refuse("a component ends with `.lock`");
        }
    }
    Ok(())
}

/// Longest path, in bytes: what common file systems still check out below a working directory.
const PATH_LIMIT: usize = 1024;
/// Longest component, in bytes, of common file systems.
const COMPONENT_LIMIT: usize = 255;
/// Deepest path, in components; it bounds recursion.
pub(super) const DEPTH_LIMIT: usize = 32;

/// Checks that a path is made of plain components that every git on every system checks out alike.
pub(super) fn check_path(path: &str) -> Result<(), GitError> {
    let refuse = |why| {
        Err(GitError::Path {
            path: path.chars().take(300).collect(),
            why,
        })
    };
    if path.len() > PATH_LIMIT {
        return refuse("it is longer than 1024 bytes");
    }
    let mut depth = 0;
    for component in path.split('/') {
        depth += 1;
        if depth > DEPTH_LIMIT {
            return refuse("it is deeper than 32 directories");
        }
        if component.is_empty() {
            return refuse("a component is empty");
        }
        if component.len() > COMPONENT_LIMIT {
            return refuse("a component is longer than 255 bytes");
        }
        if !component.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+=@,".contains(&b)) {
            return refuse("only ASCII letters, digits and `._-+=@,` are taken");
        }
        if component == "." || component == ".." || component.ends_with('.') {
            return refuse("a component is `.` or `..`, or ends with `.`");
        }
        // One rule for .git, .gitmodules, .gitattributes and what comes to mean something later.
        if component.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(".git")) {
            return refuse("a component starts with `.git`");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        for path in [
            "",
            "/",
            "a//b",
            "a/",
            "/a",
            ".",
            "..",
            "a/../b",
            ".git",
            "a/.GIT/hooks",
            ".gitmodules",
            ".gitattributes",
            "a\\b",
            "C:/x",
            "a\nb",
            "a\0b",
            "git~1",
            "a b",
            "a\u{202e}b",
            "ä",
            "a.",
            "${x}",
            "%{x}",
            "]]>",
            "a&b",
            ".g\u{200c}it",
        ] {
            assert!(check_path(path).is_err(), "{path:?} was taken");
        }
        assert!(check_path(&"a/".repeat(40)).is_err());
        assert!(check_path(&"a".repeat(256)).is_err());
        for path in ["a", "a/b.json", ".terraform.lock.hcl", "machine/service/0f/web-1.json", "-"] {
            assert!(check_path(path).is_ok(), "{path:?} was refused");
        }
    }

    #[test]
    fn only_plain_branches_are_references() {
        for name in [
            "HEAD",
            "refs/tags/x",
            "refs/heads/",
            "refs/heads/../x",
            "refs/heads/a..b",
            "refs/heads/a.lock",
            "refs/heads/a.LOCK/b",
            "refs/heads/a b",
            "refs/heads/.a",
            "refs/heads/a.",
            "refs/heads/a//b",
            "refs/heads/-a",
            "refs/heads/a@{1}",
            "refs/heads/a\n",
        ] {
            assert!(check_reference(name).is_err(), "{name:?} was taken");
        }
        assert!(check_reference("refs/heads/desired/smart-city-1").is_ok());
    }

    #[test]
    fn people_who_would_break_a_commit_are_refused() {
        let person = |name: &str, email: &str, seconds| Person {
            name: name.to_owned(),
            email: email.to_owned(),
            seconds,
        };
        for bad in [
            person("", "a@b", 0),
            person("a\nparent", "a@b", 0),
            person("a <x>", "a@b", 0),
            person("a", "a>b", 0),
            person(" a", "a@b", 0),
            person("a\u{202e}b", "a@b", 0),
            person("a", "a@b", -1),
            person("a", "a@b", i64::MAX),
        ] {
            assert!(bad.check().is_err(), "{bad:?} was taken");
        }
        assert!(person("Ållan", "", LAST_SECOND).check().is_ok());
    }

    #[test]
    fn commit_ids_are_whole_or_nothing() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        let id: CommitId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!("abc".parse::<CommitId>(), Err(BadCommitId));
        assert!(serde_json::from_str::<CommitId>("\"ABC\"").is_err());
    }
}
