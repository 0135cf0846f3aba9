//! Reading many objects on one thread, without a lock between threads.
//!
//! libgit2 reads through locks that all threads of a process share, and sets up decompression anew for each object: two threads read
//! with it no faster than one. gitoxide does neither, so it reads where there is much to read; everything else is libgit2's.

use std::path::Path;

use git2::{ObjectType, Oid};
use gix_hash::ObjectId;
use gix_odb::pack::Find;

use super::GitError;
use super::object::{DIRECTORY, lines};
use super::objects::{SUBMODULE, check_id, enter, too_deep};

/// One thread's way to the objects of a store.
pub(super) struct Reader {
    odb: gix_odb::Handle,
}

impl Reader {
    /// Opens the object database in a directory; no git configuration is read.
    pub(super) fn open(directory: &Path) -> Result<Self, GitError> {
        let odb = gix_odb::at(directory, gix_hash::Kind::Sha1).map_err(GitError::io("open the object database", directory))?;
        Ok(Self { odb })
    }

    /// Reads an object into a buffer, and checks its kind and that its bytes match its id.
    pub(super) fn read<'a>(&self, id: Oid, kind: ObjectType, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], GitError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| GitError::Object {
            id: id.to_string(),
            source,
        };
        let key = ObjectId::try_from(id.as_bytes()).map_err(|error| failed(error.to_string().into()))?;
        let found = self.odb.try_find(&key, buffer).map_err(|error| failed(error.to_string().into()))?;
        let (object, _) = found.ok_or_else(|| failed("it is not there".into()))?;
        // The kind is part of what the id is made from.
        check_id(id, kind, object.data)?;
        Ok(object.data)
    }

    /// Calls `visit` with the path, id and bytes of every file below a directory, in git's order.
    pub(super) fn files<E: From<GitError>>(
        &self,
        depth: usize,
        tree: Oid,
        path: &mut String,
        buffer: &mut Vec<u8>,
        visit: &mut impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if depth == 0 {
            return Err(too_deep(path).into());
        }
        let mut bytes = Vec::new();
        self.read(tree, ObjectType::Tree, &mut bytes)?;
        for line in lines(tree, &bytes) {
            let line = line?;
            let above = enter(path, line.name);
            match line.mode {
                DIRECTORY => self.files(depth - 1, line.id, path, buffer, visit)?,
                SUBMODULE => {}
                _ => visit(path, self.read(line.id, ObjectType::Blob, buffer)?)?,
            }
            path.truncate(above);
        }
        Ok(())
    }
}
