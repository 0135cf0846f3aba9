use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ObjectType, Oid};

use super::batch::Batch;
use super::disk::{make_directories, replace};
use super::each;
use super::lock::{FOLDER, StoreLock};
use super::names::{check_path, check_reference};
use super::object::{DIRECTORY, parse_commit, without_signature};
use super::objects::Objects;
use super::{CommitId, CommitInfo, GitError, packs, refs};

/// What a new store's configuration says. Nobody but an operator collects garbage, and what other git
/// programs write here is flushed too.
const CONFIG: &str = "[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tlogAllRefUpdates = false
\tfsync = all
[gc]
\tauto = 0
[receive]
\tautogc = false
\tfsckObjects = true
";

/// Opens a bare git repository for reading, and for writing in batches.
///
/// A handle is cheap, its clones share what they have open, and it may be used from any thread; calls
/// block on the disk. Nothing outside the repository is read: no user's or system's git configuration.
#[derive(Clone)]
pub struct Store {
    root: Arc<Path>,
    open: Arc<Mutex<Open>>,
}

struct Open {
    objects: Arc<Objects>,
    generation: Vec<u8>,
}

/// Names a file's content in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) Oid);

impl Store {
    /// Makes a store, or opens and repairs the one that is there: what a killed writer or a power cut
    /// left behind is set aside.
    ///
    /// A directory with anything else in it is refused.
    pub fn init(path: &Path) -> Result<Store, GitError> {
        fs::create_dir_all(path).map_err(GitError::io("create", path))?;
        let root = fs::canonicalize(path).map_err(GitError::io("find", path))?;
        if !root.join("HEAD").exists() {
            refuse_strangers(&root)?;
        }
        let lock = StoreLock::take(&root)?;
        for directory in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
            make_directories(&root, &root.join(directory))?;
        }
        // `HEAD` last: a directory without it is no repository, and is completed the next time.
        let through = lock.file("new");
        let config = root.join("config");
        if !config.exists() {
            replace(&through, &config, CONFIG.as_bytes())?;
        }
        let head = root.join("HEAD");
        if !head.exists() {
            replace(&through, &head, b"ref: refs/heads/main\n")?;
        }
        for torn in packs::set_torn_aside(&lock, &root)? {
            tracing::warn!(store = %root.display(), pack = torn, "a torn pack was set aside");
        }
        drop(lock);
        Store::open(path)
    }

    /// Opens a store that is there; writes nothing.
    pub fn open(path: &Path) -> Result<Store, GitError> {
        let root = fs::canonicalize(path).map_err(GitError::io("find", path))?;
        check_format(&root)?;
        Ok(Store {
            open: Arc::new(Mutex::new(Open {
                generation: generation(&root),
                objects: Arc::new(Objects::open(&root.join("objects"))?),
            })),
            root: root.into(),
        })
    }

    /// Names the file of signers that plain git trusts when it verifies commits of this repository.
    pub fn trust_signers(&self, file: &Path) -> Result<(), GitError> {
        let failed = |source| GitError::Library {
            action: "name the allowed signers in the store's configuration",
            source,
        };
        let mut config = git2::Config::open(&self.root.join("config")).map_err(failed)?;
        let text = file
            .to_str()
            .ok_or_else(|| failed(git2::Error::from_str("the path is not UTF-8")))?;
        let key = "gpg.ssh.allowedSignersFile";
        if config.get_string(key).ok().as_deref() == Some(text) {
            return Ok(());
        }
        config.set_str(key, text).map_err(failed)
    }

    /// Returns the repository's directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Returns the object database, opened anew when packs were merged since.
    pub(super) fn objects(&self) -> Result<Arc<Objects>, GitError> {
        // Nothing is left half-changed under this lock, so a poisoned one is as good.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = generation(&self.root);
        if open.generation != now {
            open.objects = Arc::new(Objects::open(&self.root.join("objects"))?);
            open.generation = now;
        }
        Ok(Arc::clone(&open.objects))
    }

    /// Returns the commit a reference names, such as `refs/heads/desired/smart-city-1`.
    ///
    /// A reference to a commit that isn't in the store is an error: the store is damaged then.
    pub fn head(&self, reference: &str) -> Result<Option<CommitId>, GitError> {
        let found = refs::read(&self.root, reference)?;
        if let Some(CommitId(id)) = found {
            self.objects()?.check(id, ObjectType::Commit)?;
        }
        Ok(found)
    }

    /// Lists the references whose name starts with `prefix` and what they name, by name.
    pub fn references(&self, prefix: &str) -> Result<Vec<(String, CommitId)>, GitError> {
        Ok(refs::list(&self.root, prefix)?.into_iter().collect())
    }

    /// Reads what a commit says about itself.
    pub fn commit(&self, commit: CommitId) -> Result<CommitInfo, GitError> {
        let objects = self.objects()?;
        let object = objects.read(commit.0, ObjectType::Commit)?;
        parse_commit(commit, object.data())
    }

    /// Returns the bytes a commit's signature is over; those of an unsigned commit are the commit's own.
    pub fn signed_bytes(&self, commit: CommitId) -> Result<Vec<u8>, GitError> {
        let objects = self.objects()?;
        let object = objects.read(commit.0, ObjectType::Commit)?;
        Ok(without_signature(object.data()))
    }

    /// Reads one file of a commit.
    pub fn read(&self, commit: CommitId, path: &str) -> Result<Option<Vec<u8>>, GitError> {
        check_path(path)?;
        let objects = self.objects()?;
        match objects.find(tree_of(&objects, commit)?, path)? {
            Some((mode, id)) if mode & 0o170_000 == 0o100_000 => {
                let object = objects.read(id, ObjectType::Blob)?;
                Ok(Some(object.data().to_vec()))
            }
            _ => Ok(None),
        }
    }

    /// Reads a file's content by its id, as [`Store::diff`] returns it.
    pub fn file(&self, id: FileId) -> Result<Vec<u8>, GitError> {
        let objects = self.objects()?;
        let object = objects.read(id.0, ObjectType::Blob)?;
        Ok(object.data().to_vec())
    }

    /// Calls `visit` with the path and bytes of every file below a directory of a commit, in git's order
    /// of paths. The empty `directory` means all; one that isn't there has no files.
    pub fn read_all<E: From<GitError>>(
        &self,
        commit: CommitId,
        directory: &str,
        mut visit: impl FnMut(&str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let objects = self.objects()?;
        self.below(&objects, commit, directory, &mut |path, id| {
            visit(path, objects.read(id.0, ObjectType::Blob)?.data())
        })
    }

    /// Parses every file below a directory of a commit on all cores, and returns the values in git's order of paths.
    ///
    /// Of several files that `parse` refuses, the first in that order is the one whose error is returned.
    pub fn read_each<T: Send, E: From<GitError> + Send>(
        &self,
        commit: CommitId,
        directory: &str,
        parse: impl Fn(&str, &[u8]) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let objects = self.objects()?;
        match directory_of(&objects, commit, directory)? {
            Some(id) => each::read(&objects, id, directory, &parse),
            None => Ok(Vec::new()),
        }
    }

    /// Calls `visit` with the path and content id of every file below a directory, without reading the files.
    pub fn list<E: From<GitError>>(
        &self,
        commit: CommitId,
        directory: &str,
        mut visit: impl FnMut(&str, FileId) -> Result<(), E>,
    ) -> Result<(), E> {
        let objects = self.objects()?;
        self.below(&objects, commit, directory, &mut visit)
    }

    fn below<E: From<GitError>>(
        &self,
        objects: &Objects,
        commit: CommitId,
        directory: &str,
        visit: &mut impl FnMut(&str, FileId) -> Result<(), E>,
    ) -> Result<(), E> {
        match directory_of(objects, commit, directory)? {
            Some(id) => objects.walk(id, &mut directory.to_owned(), &mut |path, line| visit(path, FileId(line.id))),
            None => Ok(()),
        }
    }

    /// Starts a batch of commits on a reference, from the commit it names now or from nothing.
    pub fn batch(&self, reference: &str) -> Result<Batch, GitError> {
        check_reference(reference)?;
        let objects = self.objects()?;
        let start = match refs::read(&self.root, reference)? {
            Some(commit) => Some((commit, tree_of(&objects, commit)?)),
            None => None,
        };
        Batch::new(&self.root, objects, reference, start)
    }
}

/// Finds a directory of a commit; the empty one is all of it.
pub(super) fn directory_of(objects: &Objects, commit: CommitId, directory: &str) -> Result<Option<Oid>, GitError> {
    if !directory.is_empty() {
        check_path(directory)?;
    }
    let found = objects.find(tree_of(objects, commit)?, directory)?;
    Ok(found.and_then(|(mode, id)| (mode == DIRECTORY).then_some(id)))
}

/// Finds the tree of a commit.
pub(super) fn tree_of(objects: &Objects, commit: CommitId) -> Result<Oid, GitError> {
    let object = objects.read(commit.0, ObjectType::Commit)?;
    object
        .data()
        .strip_prefix(b"tree ")
        .and_then(|rest| rest.get(..40))
        .and_then(super::names::parse_oid)
        .ok_or_else(|| GitError::damaged(format!("commit {commit}"), "it names no tree"))
}

fn generation(root: &Path) -> Vec<u8> {
    // Absent before the first merge; unreadable is as good as absent, since it only saves open files.
    fs::read(packs::generation(root)).unwrap_or_default()
}

/// Refuses a directory that holds anything but the beginnings of a store.
fn refuse_strangers(root: &Path) -> Result<(), GitError> {
    let failed = |source| GitError::io("list", root)(source);
    for entry in fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let ours = [FOLDER, "objects", "refs", "config"];
        if !ours.iter().any(|our| name == *our) {
            return Err(GitError::NotAStore {
                path: root.to_path_buf(),
                why: format!("it holds {name:?}; name an empty directory or a new one"),
            });
        }
    }
    Ok(())
}

/// Checks that a directory is a repository of the format that is read here.
fn check_format(root: &Path) -> Result<(), GitError> {
    let refuse = |why: String| {
        Err(GitError::NotAStore {
            path: root.to_path_buf(),
            why,
        })
    };
    for part in ["HEAD", "objects", "refs", "config"] {
        match fs::metadata(root.join(part)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return refuse(format!("it has no `{part}`; name a bare repository, or make a new store"));
            }
            Err(error) => return Err(GitError::io("read", &root.join(part))(error)),
            Ok(_) => {}
        }
    }
    let failed = |source| GitError::Library {
        action: "read the store's configuration",
        source,
    };
    let path: PathBuf = root.join("config");
    // This one file, and not the user's or the system's.
    let config = git2::Config::open(&path).map_err(failed)?;
    let mut entries = config.entries(None).map_err(failed)?;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        let (name, value) = (
            String::from_utf8_lossy(entry.name_bytes()).to_ascii_lowercase(),
            String::from_utf8_lossy(entry.value_bytes()).into_owned(),
        );
        let unknown = name.starts_with("extensions.") || (name == "core.repositoryformatversion" && value != "0" && value != "1");
        if unknown {
            return refuse(format!("its format is unknown here ({name} = {value})"));
        }
    }
    Ok(())
}
