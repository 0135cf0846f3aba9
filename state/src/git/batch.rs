use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ObjectType, Oid};

use super::names::check_path;
use super::object::{commit_bytes, with_signature};
use super::objects::Objects;
use super::pack::Body;
use super::tree::Directory;
use super::{CommitId, GitError, Person};

/// Signs a commit's bytes and returns the armored signature.
pub type Signer<'a> = dyn Fn(&[u8]) -> Result<String, Box<dyn Error + Send + Sync>> + 'a;

/// Builds commits on one reference in memory. Nothing is written before [`finish`](super::finish);
/// a batch that is dropped leaves no trace.
///
/// A commit costs what its changed paths cost, whatever the size of the tree. The batch holds the
/// bytes of every file it changed and of the pack it builds: see [`Batch::size`].
pub struct Batch {
    pub(super) root: PathBuf,
    pub(super) reference: String,
    pub(super) start: Option<CommitId>,
    pub(super) head: Option<CommitId>,
    pub(super) body: Body,
    objects: Arc<Objects>,
    files: Directory,
    tree: Option<Oid>,
    held: usize,
}

impl Batch {
    pub(super) fn new(root: &Path, objects: Arc<Objects>, reference: &str, start: Option<(CommitId, Oid)>) -> Result<Batch, GitError> {
        let files = match start {
            Some((_, tree)) => Directory::load(&objects, tree)?,
            None => Directory::default(),
        };
        Ok(Batch {
            root: root.to_path_buf(),
            reference: reference.to_owned(),
            start: start.map(|(commit, _)| commit),
            head: start.map(|(commit, _)| commit),
            body: Body::new(),
            objects,
            files,
            tree: start.map(|(_, tree)| tree),
            held: 0,
        })
    }

    /// Returns the reference this batch moves.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Returns the last commit: the newest of this batch, or the one it started from.
    pub fn head(&self) -> Option<CommitId> {
        self.head
    }

    /// Returns about how many bytes of memory the batch holds; finish it before that is too many.
    pub fn size(&self) -> usize {
        self.held + self.body.bytes.len()
    }

    /// Puts a file into the next commit; tells whether that changes anything.
    pub fn put(&mut self, path: &str, bytes: &[u8]) -> Result<bool, GitError> {
        check_path(path)?;
        let changed = self.files.put(&self.objects, path, bytes)?;
        if changed {
            self.held += bytes.len() + path.len();
        }
        Ok(changed)
    }

    /// Removes a file, or a directory with all below it; tells whether anything was there.
    pub fn remove(&mut self, path: &str) -> Result<bool, GitError> {
        check_path(path)?;
        self.files.remove(&self.objects, path)
    }

    /// Returns a file as the next commit would have it.
    pub fn get(&mut self, path: &str) -> Result<Option<Arc<[u8]>>, GitError> {
        check_path(path)?;
        self.files.get(&self.objects, path)
    }

    /// Lists the paths of the files below a directory as the next commit would have them, in git's order.
    /// The empty `directory` means all.
    pub fn list(&mut self, directory: &str) -> Result<Vec<String>, GitError> {
        if !directory.is_empty() {
            check_path(directory)?;
        }
        let mut found = Vec::new();
        self.files.list(&self.objects, directory, &mut found)?;
        Ok(found)
    }

    /// Commits what was put and removed, also when that is nothing, and returns the new commit's id.
    ///
    /// The id depends on nothing but the arguments, the files and the parent. After an error the batch
    /// stands where it stood before the call.
    pub fn commit(&mut self, author: &Person, committer: &Person, message: &str, sign: Option<&Signer<'_>>) -> Result<CommitId, GitError> {
        author.check()?;
        committer.check()?;
        let tree = self.files.write(&mut self.body, self.tree)?;
        // At once, and not with the head: a commit that can't be signed now is tried again with these files.
        self.tree = Some(tree);
        let plain = commit_bytes(tree, self.head, author, committer, message)?;
        let bytes = match sign {
            Some(sign) => {
                let signature = sign(&plain).map_err(|source| GitError::Sign { source })?;
                with_signature(&plain, &signature)?
            }
            None => plain,
        };
        let (id, _) = self.body.add(ObjectType::Commit, &bytes, None)?;
        self.head = Some(CommitId(id));
        Ok(CommitId(id))
    }
}
