//! Files of a member's own that orders name, each by its path in a folder and the SHA-256 that it has to have.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use state::canonical::Digest;

use crate::refusal::{Refusal, denied, wrong};

/// The most files of an order, and the largest of them, in bytes.
const MAX_FILES: usize = 200;
const MAX_BYTES: u64 = 1024 * 1024;

/// Whether a path stays in its folder, and names a file that everybody takes for the same.
pub fn is_plain(path: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    path.len() <= 200 && path.split('/').count() <= 8 && path.split('/').all(part)
}

/// Reads the files that an order names, from the folder that this setting of `charter.toml` names. Some names are taken.
pub fn read(
    setting: &str,
    folder: Option<&Path>,
    wanted: &BTreeMap<String, String>,
    taken: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, Refusal> {
    let mut files = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(files);
    }
    let Some(folder) = folder else {
        return Err(denied(format!(
            "files: there is no folder for them: name one with {setting} in charter.toml"
        )));
    };
    if wanted.len() > MAX_FILES {
        return Err(wrong(format!("files: there are more than {MAX_FILES}")));
    }
    for (path, digest) in wanted {
        if !is_plain(path) {
            return Err(wrong(format!(
                "files: {path:?} is no name of a file: letters, digits, '.', '-' and '_', below the folder"
            )));
        }
        if taken(path) {
            return Err(wrong(format!(
                "files: {path:?} is a name that Charter writes, or that is read unseen: give the file another one"
            )));
        }
        let unread = |why: String| {
            wrong(format!(
                "files/{path} can't be read from the folder that {setting} in charter.toml names: {why}"
            ))
        };
        let mut bytes = Vec::new();
        let file = File::open(folder.join(path)).map_err(|error| unread(error.to_string()))?;
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unread(error.to_string()))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(unread(format!("it is larger than {MAX_BYTES} bytes")));
        }
        let found = Digest::of(&bytes).hex();
        if found != *digest {
            return Err(denied(format!(
                "files/{path}: its SHA-256 is {found}, and the order's is {digest:.64}"
            )));
        }
        files.insert(path.clone(), bytes);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_held_to_their_digests_and_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("main.yml"), "a: 1").unwrap();
        let digest = Digest::of(b"a: 1").hex();
        let said = |folder: Option<&Path>, path: &str, digest: &str| {
            let wanted = [(path.to_owned(), digest.to_owned())].into();
            match read("x.files", folder, &wanted, |path| path == "ours.yml") {
                Ok(files) => String::from_utf8(files[path].clone()).unwrap(),
                Err(Refusal::Wrong(why) | Refusal::Denied(why)) => why,
            }
        };
        let here = Some(folder.path());
        assert_eq!(said(here, "main.yml", &digest), "a: 1");
        assert!(said(here, "main.yml", "0").contains(&format!("its SHA-256 is {digest}, and the order's is 0")));
        assert!(said(None, "main.yml", &digest).contains("name one with x.files"));
        assert!(said(here, "ours.yml", &digest).contains("is a name that Charter writes"));
        assert!(said(here, "gone.yml", &digest).contains("can't be read"));
        for bad in ["../main.yml", "/main.yml", ".hidden", "a//b", "a b.yml", "a/.git/x", ""] {
            assert!(said(here, bad, &digest).contains("is no name of a file"), "{bad}");
        }
    }
}
