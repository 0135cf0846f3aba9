//! Reading objects: through libgit2, without any configuration outside the store.

use std::path::{Path, PathBuf};

use git2::{ObjectType, Odb, OdbObject, Oid};
use sha1::{Digest, Sha1};

use super::GitError;
use super::names::DEPTH_LIMIT;
use super::object::{DIRECTORY, Line, lines};

/// The mode of a submodule's line, which names nothing in this store.
pub(super) const SUBMODULE: u32 = 0o160_000;

/// The object database of a store.
pub(super) struct Objects {
    directory: PathBuf,
    // Not a `git2::Repository`: opening one reads the user's and the system's git configuration.
    odb: Odb<'static>,
}

impl Objects {
    pub(super) fn open(directory: &Path) -> Result<Objects, GitError> {
        let text = directory.to_str().ok_or_else(|| GitError::NotAStore {
            path: directory.to_path_buf(),
            why: "its path is not UTF-8; move it".to_owned(),
        })?;
        let failed = |source| GitError::Library {
            action: "open the object database",
            source,
        };
        // Whole histories are read once, in order: a cache of objects only grows, to 256 MiB.
        git2::opts::enable_caching(false);
        // What is read is checked by `check_id`, many times faster. libgit2's own check also refuses known attacks on SHA-1:
        // those are refused where an object is written, and nothing is read here that was not.
        git2::opts::strict_hash_verification(false);
        let odb = Odb::new().map_err(failed)?;
        odb.add_disk_alternate(text).map_err(failed)?;
        Ok(Objects {
            directory: directory.to_path_buf(),
            odb,
        })
    }

    /// Returns the directory of the database.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads an object and checks its kind and that its bytes match its id.
    pub(super) fn read(&self, id: Oid, kind: ObjectType) -> Result<OdbObject<'_>, GitError> {
        let object = self.odb.read(id).map_err(|source| GitError::Object {
            id: id.to_string(),
            source: source.into(),
        })?;
        if object.kind() != kind {
            return Err(GitError::damaged(
                format!("object {id}"),
                format!("it is a {}, where a {kind} is needed", object.kind()),
            ));
        }
        check_id(id, kind, object.data())?;
        Ok(object)
    }

    /// Checks that an object is there and of that kind, without reading all of it.
    pub(super) fn check(&self, id: Oid, kind: ObjectType) -> Result<(), GitError> {
        let (_, found) = self.odb.read_header(id).map_err(|source| GitError::Object {
            id: id.to_string(),
            source: source.into(),
        })?;
        if found == kind {
            Ok(())
        } else {
            Err(GitError::damaged(
                format!("object {id}"),
                format!("it is a {found}, where a {kind} is needed"),
            ))
        }
    }

    /// Finds what a path names in a tree: its mode and id. The empty path names the tree itself.
    pub(super) fn find(&self, tree: Oid, path: &str) -> Result<Option<(u32, Oid)>, GitError> {
        let mut here = (DIRECTORY, tree);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if here.0 != DIRECTORY {
                return Ok(None);
            }
            let object = self.read(here.1, ObjectType::Tree)?;
            let mut found = None;
            for line in lines(here.1, object.data()) {
                let line = line?;
                if line.name == name {
                    found = Some((line.mode, line.id));
                    break;
                }
            }
            match found {
                Some(next) => here = next,
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// Calls `visit` with the path and line of every file below a directory, in git's order.
    pub(super) fn walk<E: From<GitError>>(
        &self,
        tree: Oid,
        path: &mut String,
        visit: &mut impl FnMut(&str, &Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk_to(DEPTH_LIMIT, tree, path, visit)
    }

    fn walk_to<E: From<GitError>>(
        &self,
        depth: usize,
        tree: Oid,
        path: &mut String,
        visit: &mut impl FnMut(&str, &Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if depth == 0 {
            return Err(too_deep(path).into());
        }
        let object = self.read(tree, ObjectType::Tree)?;
        for line in lines(tree, object.data()) {
            let line = line?;
            let above = enter(path, line.name);
            match line.mode {
                DIRECTORY => self.walk_to(depth - 1, line.id, path, visit)?,
                SUBMODULE => {}
                _ => visit(path, &line)?,
            }
            path.truncate(above);
        }
        Ok(())
    }
}

/// Checks that an object's bytes match its id.
pub(super) fn check_id(id: Oid, kind: ObjectType, bytes: &[u8]) -> Result<(), GitError> {
    let found = Sha1::new()
        .chain_update(format!("{kind} {}\0", bytes.len()))
        .chain_update(bytes)
        .finalize();
    if found.as_slice() == id.as_bytes() {
        return Ok(());
    }
    Err(GitError::damaged(format!("object {id}"), "its bytes don't match its id"))
}

/// Appends a name to a path and returns the length to cut it back to.
pub(super) fn enter(path: &mut String, name: &str) -> usize {
    let above = path.len();
    if above > 0 {
        path.push('/');
    }
    path.push_str(name);
    above
}

pub(super) fn too_deep(path: &str) -> GitError {
    GitError::damaged(format!("directory {path}"), format!("it is deeper than {DEPTH_LIMIT} directories"))
}
