//! A folder's content at one moment, to see what has changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use state::canonical::Digest;

/// What a path is, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Type and permission bits.
    pub mode: u32,
    /// A file's content, as a digest.
    pub content: Option<Digest>,
    /// When it was changed last: seconds and nanoseconds.
    pub changed: (i64, i64),
}

/// Everything below a folder.
///
/// # Panics
/// When something can't be read.
pub fn entries(folder: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder of the world can be listed") {
            let path = entry.expect("a folder of the world can be listed").path();
            let about = std::fs::symlink_metadata(&path).expect("a file of the world is there");
            let content = about
                .is_file()
                .then(|| Digest::of(&std::fs::read(&path).expect("a file of the world can be read")));
            if about.is_dir() {
                folders.push(path.clone());
            }
            let entry = Entry {
                mode: about.mode(),
                content,
                changed: (about.mtime(), about.mtime_nsec()),
            };
            found.insert(path, entry);
        }
    }
    found
}

/// The paths that differ between two looks at one folder.
pub fn changes(before: &BTreeMap<PathBuf, Entry>, after: &BTreeMap<PathBuf, Entry>) -> Vec<PathBuf> {
    let all: std::collections::BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    all.into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .cloned()
        .collect()
}

/// Copies a folder with everything in it.
///
/// # Panics
/// When something can't be read or written.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder is this test's");
    for entry in std::fs::read_dir(from).expect("the folder is there") {
        let path = entry.expect("the folder can be listed").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("the folder is this test's");
        }
    }
}
