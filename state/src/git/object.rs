//! The bytes of commits and trees, as git defines them.

use git2::{ObjectType, Oid};

use super::names::parse_oid;
use super::{CommitId, GitError, Person};

/// The mode of a plain file in a tree.
pub(super) const FILE: u32 = 0o100_644;
/// The mode of a directory in a tree.
pub(super) const DIRECTORY: u32 = 0o040_000;

/// Computes an object's id. It is libgit2's hash, which refuses known attacks on SHA-1.
pub(super) fn id_of(kind: ObjectType, bytes: &[u8]) -> Result<Oid, GitError> {
    Oid::hash_object(kind, bytes).map_err(|source| GitError::Library {
        action: "compute an object's id",
        source,
    })
}

/// One line of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) mode: u32,
    pub(super) name: &'a str,
    pub(super) id: Oid,
}

impl Line<'_> {
    pub(super) fn is_directory(&self) -> bool {
        self.mode == DIRECTORY
    }
}

/// Reads a tree's lines in the order they stand in.
pub(super) fn lines(tree: Oid, bytes: &[u8]) -> impl Iterator<Item = Result<Line<'_>, GitError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match next_line(rest) {
            Some((line, after)) => {
                rest = after;
                Some(Ok(line))
            }
            None => {
                rest = &[];
                Some(Err(GitError::damaged(format!("tree {tree}"), "a line can't be read")))
            }
        }
    })
}

fn next_line(bytes: &[u8]) -> Option<(Line<'_>, &[u8])> {
    let space = bytes.iter().take(8).position(|&b| b == b' ')?;
    let mode = u32::from_str_radix(std::str::from_utf8(&bytes[..space]).ok()?, 8).ok()?;
    let bytes = &bytes[space + 1..];
    let end = bytes.iter().position(|&b| b == 0)?;
    let name = std::str::from_utf8(&bytes[..end]).ok()?;
    // Names of foreign trees end up in paths that callers may write to disk.
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return None;
    }
    let bytes = &bytes[end + 1..];
    let id = Oid::from_bytes(bytes.get(..20)?).ok()?;
    Some((Line { mode, name, id }, &bytes[20..]))
}

/// Appends one line to a tree's bytes.
pub(super) fn push_line(bytes: &mut Vec<u8>, mode: u32, name: &str, id: Oid) {
    match mode {
        FILE => bytes.extend_from_slice(b"100644 "),
        DIRECTORY => bytes.extend_from_slice(b"40000 "),
        other => bytes.extend_from_slice(format!("{other:o} ").as_bytes()),
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(id.as_bytes());
}

/// Compares names as git orders them in a tree: a directory as if its name ended in `/`.
pub(super) fn tree_order(a: (&str, bool), b: (&str, bool)) -> std::cmp::Ordering {
    let bytes = |(name, directory): (&str, bool), at: usize| match name.as_bytes().get(at) {
        Some(&byte) => byte,
        None if directory => b'/',
        None => 0,
    };
    let common = a.0.len().min(b.0.len());
    a.0.as_bytes()[..common]
        .cmp(&b.0.as_bytes()[..common])
        .then_with(|| bytes(a, common).cmp(&bytes(b, common)))
        .then_with(|| a.0.len().cmp(&b.0.len()))
}

/// Describes a commit: who, when and why; its files are read through the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The commit itself.
    pub id: CommitId,
    /// The commits it follows; the first is the branch it was made on.
    pub parents: Vec<CommitId>,
    /// Who the change comes from, and when.
    pub author: Person,
    /// Who wrote the commit, and when.
    pub committer: Person,
    /// The whole message, trailers included.
    pub message: String,
    /// The `Key: value` lines of the message's last paragraph, in their order.
    pub trailers: Vec<(String, String)>,
    /// The armored signature, where the commit has one.
    pub signature: Option<String>,
    pub(super) tree: Oid,
}

impl CommitInfo {
    /// Returns the first line of the message.
    pub fn title(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }

    /// Returns the first trailer of that name, compared exactly.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Builds the bytes that are signed, or stored when nobody signs.
pub(super) fn commit_bytes(
    tree: Oid,
    parent: Option<CommitId>,
    author: &Person,
    committer: &Person,
    message: &str,
) -> Result<Vec<u8>, GitError> {
    author.check()?;
    committer.check()?;
    if message.contains('\0') || message.trim().is_empty() {
        return Err(GitError::CommitField {
            field: "message",
            why: "it is empty or holds a NUL",
        });
    }
    let parent = match parent {
        Some(id) => format!("parent {id}\n"),
        None => String::new(),
    };
    // Git ends every message with a line end; without it `git log` and `commit-tree` would differ.
    let end = if message.ends_with('\n') { "" } else { "\n" };
    Ok(format!(
        "tree {tree}\n{parent}author {} <{}> {} +0000\ncommitter {} <{}> {} +0000\n\n{message}{end}",
        author.name, author.email, author.seconds, committer.name, committer.email, committer.seconds,
    )
    .into_bytes())
}

/// Longest signature taken, in bytes.
const SIGNATURE_LIMIT: usize = 16 * 1024;

/// Puts a signature into a commit's bytes as its last header, as `git commit -S` does.
pub(super) fn with_signature(commit: &[u8], signature: &str) -> Result<Vec<u8>, GitError> {
    let armored = signature.trim_end_matches('\n');
    if armored.is_empty() || armored.len() > SIGNATURE_LIMIT || armored.contains(['\0', '\r']) {
        return Err(GitError::CommitField {
            field: "signature",
            why: "it is empty, longer than 16 KiB, or not plain armored text",
        });
    }
    let headers = commit
        .windows(2)
        .position(|two| two == b"\n\n")
        .ok_or_else(|| GitError::damaged("a commit", "it has no message"))?;
    let mut signed = Vec::with_capacity(commit.len() + armored.len() + 64);
    signed.extend_from_slice(&commit[..headers + 1]);
    signed.extend_from_slice(b"gpgsig ");
    signed.extend_from_slice(armored.replace('\n', "\n ").as_bytes());
    signed.push(b'\n');
    signed.extend_from_slice(&commit[headers + 1..]);
    Ok(signed)
}

/// Takes the signature out of a commit's bytes: what is left is what was signed.
pub(super) fn without_signature(commit: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(commit.len());
    let mut inside = false;
    let mut headers = true;
    for line in commit.split_inclusive(|&b| b == b'\n') {
        if headers {
            headers = line != b"\n";
            inside = line.starts_with(b"gpgsig ") || (inside && line.starts_with(b" "));
            if inside {
                continue;
            }
        }
        rest.extend_from_slice(line);
    }
    rest
}

/// Reads a commit's bytes.
pub(super) fn parse_commit(id: CommitId, bytes: &[u8]) -> Result<CommitInfo, GitError> {
    let damaged = |why: &str| GitError::damaged(format!("commit {id}"), why);
    let text = String::from_utf8_lossy(bytes);
    let (headers, message) = text.split_once("\n\n").ok_or_else(|| damaged("it has no message"))?;
    let (mut tree, mut author, mut committer) = (None, None, None);
    let mut parents = Vec::new();
    let mut signature: Option<String> = None;
    let mut inside_signature = false;
    for line in headers.split('\n') {
        if let Some(more) = line.strip_prefix(' ') {
            if let (true, Some(signature)) = (inside_signature, &mut signature) {
                signature.push_str(more);
                signature.push('\n');
            }
            continue;
        }
        let (key, value) = line.split_once(' ').ok_or_else(|| damaged("a header has no value"))?;
        inside_signature = false;
        match key {
            "tree" => tree = parse_oid(value.as_bytes()),
            "parent" => parents.push(CommitId(parse_oid(value.as_bytes()).ok_or_else(|| damaged("a parent is no id"))?)),
            "author" => author = parse_person(value),
            "committer" => committer = parse_person(value),
            "gpgsig" => {
                signature = Some(format!("{value}\n"));
                inside_signature = true;
            }
            _ => {}
        }
    }
    Ok(CommitInfo {
        id,
        parents,
        author: author.ok_or_else(|| damaged("its author can't be read"))?,
        committer: committer.ok_or_else(|| damaged("its committer can't be read"))?,
        message: message.to_owned(),
        trailers: trailers(message),
        signature,
        tree: tree.ok_or_else(|| damaged("it names no tree"))?,
    })
}

/// Reads `Name <address> seconds zone`; the zone doesn't change the moment and is left out.
fn parse_person(text: &str) -> Option<Person> {
    let (name, rest) = text.split_once('<')?;
    let (email, rest) = rest.split_once('>')?;
    Some(Person {
        name: name.trim().to_owned(),
        email: email.to_owned(),
        seconds: rest.split_ascii_whitespace().next()?.parse().ok()?,
    })
}

/// Reads the last paragraph's `Key: value` lines, if it has no other lines and isn't the title.
fn trailers(message: &str) -> Vec<(String, String)> {
    let Some((_, last)) = message.trim_end().rsplit_once("\n\n") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for line in last.lines() {
        let Some((key, value)) = line.split_once(": ") else {
            return Vec::new();
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if key.is_empty() || !key.bytes().all(plain) {
            return Vec::new();
        }
        found.push((key.to_owned(), value.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    fn person(name: &str) -> Person {
        Person {
            name: name.to_owned(),
            email: "m@dao".to_owned(),
            seconds: 1_700_000_000,
        }
    }

    #[test]
    fn trees_are_ordered_as_git_does() {
        assert_eq!(tree_order(("a", true), ("a.b", false)), Ordering::Greater);
        assert_eq!(tree_order(("a", false), ("a.b", false)), Ordering::Less);
        assert_eq!(tree_order(("a", true), ("a0", false)), Ordering::Less);
        assert_eq!(tree_order(("a", true), ("a", true)), Ordering::Equal);
        assert_eq!(tree_order(("b", false), ("a0", true)), Ordering::Greater);
    }

    #[test]
    fn a_commit_reads_back_as_it_was_written() {
        let tree = id_of(ObjectType::Tree, b"").unwrap();
        let message = "order web-1\n\nwhy\n\nLedger-Block: 7\nMember: acme: the first";
        let plain = commit_bytes(tree, None, &person("Å B"), &person("Charter"), message).unwrap();
        let signed = with_signature(&plain, "-----BEGIN\n\nabc\n-----END\n").unwrap();
        assert_eq!(without_signature(&signed), plain);
        let info = parse_commit(CommitId(tree), &signed).unwrap();
        assert_eq!(info.signature.as_deref(), Some("-----BEGIN\n\nabc\n-----END\n"));
        assert_eq!((info.author, info.committer), (person("Å B"), person("Charter")));
        assert_eq!(info.message, format!("{message}\n"));
        assert_eq!(
            info.trailers,
            [
                ("Ledger-Block".to_owned(), "7".to_owned()),
                ("Member".to_owned(), "acme: the first".to_owned())
            ]
        );
    }

    #[test]
    fn damaged_trees_and_commits_are_errors() {
        let id = id_of(ObjectType::Tree, b"").unwrap();
        for bytes in [&b"100644 a"[..], b"100644 a\0short", b"x a\0", b"100644 ..\0aaaaaaaaaaaaaaaaaaaa"] {
            assert!(lines(id, bytes).any(|line| line.is_err()), "{bytes:?}");
        }
        for bytes in [&b""[..], b"tree x\n\nm", b"tree\n\n", b"\n\n"] {
            assert!(parse_commit(CommitId(id), bytes).is_err(), "{bytes:?}");
        }
    }
}
