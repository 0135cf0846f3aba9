//! The files below the root. Every folder on the way is opened by itself without following symbolic links, so nothing can lead out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, fsync, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use thiserror::Error;

use super::path::{Below, OWN};

/// A file or folder below the root could not be used.
#[derive(Debug, Error)]
pub(crate) enum TreeError {
    /// The root is not there, or is not the one that was made for Charter (an unmounted disk leaves an empty folder).
    #[error("the machine's root {} is not there or holds no {OWN} folder: mount or create it, or correct root in [machine]", root.display())]
    NoRoot { root: PathBuf },
    /// A symbolic link stands where a folder should be.
    #[error("{path} goes through a symbolic link, or through something that is no directory: remove it")]
    Detour { path: String },
    /// The operating system refused.
    #[error("cannot {operation} {path}")]
    Io {
        operation: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

impl TreeError {
    /// Whether the thing is simply not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, TreeError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether a directory is not empty.
    pub(crate) fn is_not_empty(&self) -> bool {
        matches!(self, TreeError::Io { source, .. } if source.kind() == io::ErrorKind::DirectoryNotEmpty)
    }
}

/// Says what failed, on which path.
fn io(operation: &'static str, path: impl ToString) -> impl FnOnce(Errno) -> TreeError {
    move |errno| match errno {
        Errno::LOOP | Errno::NOTDIR => TreeError::Detour { path: path.to_string() },
        _ => TreeError::Io {
            operation,
            path: path.to_string(),
            source: errno.into(),
        },
    }
}

fn std_io(operation: &'static str, path: impl ToString) -> impl FnOnce(io::Error) -> TreeError {
    move |source| TreeError::Io {
        operation,
        path: path.to_string(),
        source,
    }
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A regular file.
    File { mode: u32, size: u64 },
    /// A directory.
    Directory { mode: u32 },
    /// Anything else: a symbolic link, a device, a socket.
    Other,
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The mode of folders that Charter makes on its own account.
pub(crate) const FOLDER_MODE: u32 = 0o755;
const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// The folder below which everything lies.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Takes an absolute root; it need not be there yet.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The whole path of something below the root.
    pub(crate) fn absolute(&self, path: &Below) -> PathBuf {
        path.parts().iter().fold(self.root.clone(), |all, part| all.join(part))
    }

    /// Makes the root and its mark.
    pub(crate) fn init(&self) -> Result<(), TreeError> {
        std::fs::create_dir_all(&self.root).map_err(std_io("create", self.root.display()))?;
        let root = self.open_root()?;
        make(&root, OWN, PRIVATE_FOLDER, OWN)?;
        Ok(())
    }

    /// Checks that the root is the one that was made for Charter.
    pub(crate) fn check(&self) -> Result<(), TreeError> {
        self.dir(&[OWN.to_owned()]).map(drop).map_err(|error| match error {
            error if error.is_missing() => TreeError::NoRoot { root: self.root.clone() },
            error => error,
        })
    }

    fn open_root(&self) -> Result<OwnedFd, TreeError> {
        // The root itself is the operator's word: it may be a symbolic link.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, &self.root, flags, Mode::empty()).map_err(io("open", self.root.display()))
    }

    /// Opens a folder.
    pub(crate) fn dir(&self, parts: &[String]) -> Result<OwnedFd, TreeError> {
        parts.iter().try_fold(self.open_root()?, |fd, part| {
            openat(&fd, part, FOLDER, Mode::empty()).map_err(io("open", parts.join("/")))
        })
    }

    /// Makes what is missing of a folder, and opens it.
    pub(crate) fn make_dirs(&self, parts: &[String], mode: u32) -> Result<OwnedFd, TreeError> {
        parts
            .iter()
            .try_fold(self.open_root()?, |fd, part| make(&fd, part, mode, &parts.join("/")))
    }

    /// Says what stands at a path; none when it or its folder is not there.
    pub(crate) fn look(&self, path: &Below) -> Result<Option<Found>, TreeError> {
        match self.dir(path.parent()) {
            Ok(dir) => look_at(&dir, path.name(), path),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a regular file up to a limit; none when it is longer.
    pub(crate) fn read(&self, path: &Below, limit: u64) -> Result<Option<Vec<u8>>, TreeError> {
        read_in(&self.dir(path.parent())?, path.name(), limit, path)
    }

    /// Writes a file whole or not at all: to a temporary name, to the disk, then to its own name.
    pub(crate) fn write(&self, path: &Below, temporary: &str, bytes: &[u8], mode: u32) -> Result<(), TreeError> {
        write_in(&self.dir(path.parent())?, path.name(), temporary, bytes, mode, path)
    }

    /// Sets the mode of a regular file or a directory.
    pub(crate) fn chmod(&self, path: &Below, mode: u32) -> Result<(), TreeError> {
        let dir = self.dir(path.parent())?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&dir, path.name(), flags, Mode::empty()).map_err(io("open", path))?;
        fchmod(&fd, Mode::from_raw_mode(mode)).map_err(io("set the mode of", path))?;
        fsync(&fd).map_err(io("flush", path))
    }

    /// Makes one directory, whose folder is there.
    pub(crate) fn mkdir(&self, path: &Below, mode: u32) -> Result<(), TreeError> {
        make(&self.dir(path.parent())?, path.name(), mode, &path.to_string()).map(drop)
    }

    /// Removes a file or a link by its name; it is fine when it is gone.
    pub(crate) fn remove_file(&self, path: &Below, temporary: &str) -> Result<(), TreeError> {
        match self.dir(path.parent()) {
            Ok(dir) => {
                remove_in(&dir, temporary, AtFlags::empty(), path)?;
                remove_in(&dir, path.name(), AtFlags::empty(), path)
            }
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes an empty directory; it is fine when it is gone.
    pub(crate) fn remove_dir(&self, path: &Below) -> Result<(), TreeError> {
        match self.dir(path.parent()) {
            Ok(dir) => remove_in(&dir, path.name(), AtFlags::REMOVEDIR, path),
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The names in a folder, sorted; none when it isn't there.
    pub(crate) fn list(&self, parts: &[String]) -> Result<Vec<String>, TreeError> {
        let dir = match self.dir(parts) {
            Ok(dir) => dir,
            Err(error) if error.is_missing() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir).map_err(io("list", parts.join("/")))? {
            let entry = entry.map_err(io("list", parts.join("/")))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Reads a file of Charter's own folder; none when it isn't there.
    pub(crate) fn read_own(&self, folder: &[String], name: &str, limit: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let dir = match self.dir(folder) {
            Ok(dir) => dir,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        match read_in(&dir, name, limit, name) {
            Err(error) if error.is_missing() => Ok(None),
            // Too long is not «not there»: that would give up what the file stands for.
            Ok(None) => Err(std_io("read", name)(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is larger than Charter ever writes it",
            ))),
            other => other,
        }
    }

    /// Writes a file of Charter's own folder, private and whole or not at all.
    pub(crate) fn write_own(&self, folder: &[String], name: &str, bytes: &[u8]) -> Result<(), TreeError> {
        let dir = self.make_dirs(folder, PRIVATE_FOLDER)?;
        write_in(&dir, name, &own_temporary(name), bytes, PRIVATE_FILE, name)
    }

    /// Removes a file of Charter's own folder, and what a crash left of it; it is fine when it is gone.
    pub(crate) fn remove_own(&self, folder: &[String], name: &str) -> Result<(), TreeError> {
        match self.dir(folder) {
            Ok(dir) => {
                remove_in(&dir, &own_temporary(name), AtFlags::empty(), name)?;
                remove_in(&dir, name, AtFlags::empty(), name)
            }
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Opens a private file of Charter's own folder to append to; one that outgrew the limit is put aside first, in the place of the last one.
    pub(crate) fn append_own(&self, folder: &[String], name: &str, limit: u64) -> Result<File, TreeError> {
        let dir = self.make_dirs(folder, PRIVATE_FOLDER)?;
        if let Some(Found::File { size, .. }) = look_at(&dir, name, name)?
            && size > limit
        {
            renameat(&dir, name, &dir, format!("{name}.1")).map_err(io("put aside", name))?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&dir, name, flags, Mode::from_raw_mode(PRIVATE_FILE)).map_err(io("open", name))?;
        Ok(File::from(fd))
    }
}

fn own_temporary(name: &str) -> String {
    format!("{name}.tmp")
}

fn make(parent: &OwnedFd, name: &str, mode: u32, path: &str) -> Result<OwnedFd, TreeError> {
    let made = match mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(io("create", path)(errno)),
    };
    let fd = openat(parent, name, FOLDER, Mode::empty()).map_err(io("open", path))?;
    if made {
        // mkdir's mode went through the umask.
        fchmod(&fd, Mode::from_raw_mode(mode)).map_err(io("set the mode of", path))?;
        fsync(&fd).map_err(io("flush", path))?;
        fsync(parent).map_err(io("flush the folder of", path))?;
    }
    Ok(fd)
}

fn look_at(dir: &OwnedFd, name: &str, path: impl ToString) -> Result<Option<Found>, TreeError> {
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(io("look at", path)(errno)),
    };
    let mode = stat.st_mode & 0o7777;
    Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Found::File {
            mode,
            size: u64::try_from(stat.st_size).unwrap_or(0),
        },
        FileType::Directory => Found::Directory { mode },
        _ => Found::Other,
    }))
}

fn read_in(dir: &OwnedFd, name: &str, limit: u64, path: impl ToString) -> Result<Option<Vec<u8>>, TreeError> {
    let path = path.to_string();
    // A pipe that somebody put here must not block the open.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat(dir, name, flags, Mode::empty()).map_err(io("open", &path))?);
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(std_io("read", path))?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

fn write_in(dir: &OwnedFd, name: &str, temporary: &str, bytes: &[u8], mode: u32, path: impl ToString) -> Result<(), TreeError> {
    let path = path.to_string();
    // What a crash left behind under the temporary name is ours: the name is.
    remove_in(dir, temporary, AtFlags::empty(), &path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(dir, temporary, flags, Mode::from_raw_mode(PRIVATE_FILE)).map_err(io("create", &path))?);
    file.write_all(bytes).map_err(std_io("write", &path))?;
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(io("set the mode of", &path))?;
    fsync(&file).map_err(io("flush", &path))?;
    renameat(dir, temporary, dir, name).map_err(io("write", &path))?;
    fsync(dir.as_fd()).map_err(io("flush the folder of", &path))
}

fn remove_in(dir: &OwnedFd, name: &str, flags: AtFlags, path: impl ToString) -> Result<(), TreeError> {
    match unlinkat(dir, name, flags) {
        Ok(()) => fsync(dir).map_err(io("flush the folder of", path)),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(io("remove", path)(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_symbolic_link_is_followed() {
        let outside = tempfile::tempdir().unwrap();
        let home = tempfile::tempdir().unwrap();
        let tree = Tree::new(home.path().join("root"));
        assert!(matches!(tree.check(), Err(TreeError::NoRoot { .. })));
        tree.init().unwrap();
        tree.check().unwrap();
        std::os::unix::fs::symlink(outside.path(), tree.root().join("city")).unwrap();
        let path = Below::new("city/x").unwrap();
        assert!(matches!(tree.write(&path, "tmp", b"x", 0o644), Err(TreeError::Detour { .. })));
        assert!(matches!(tree.look(&path), Err(TreeError::Detour { .. })));
        assert!(matches!(tree.mkdir(&path, 0o755), Err(TreeError::Detour { .. })));
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_replaced_and_not_written_through() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("target");
        std::fs::write(&target, "theirs").unwrap();
        let home = tempfile::tempdir().unwrap();
        let tree = Tree::new(home.path().to_owned());
        tree.make_dirs(&["city".to_owned()], FOLDER_MODE).unwrap();
        std::os::unix::fs::symlink(&target, home.path().join("city/x")).unwrap();
        let path = Below::new("city/x").unwrap();
        tree.write(&path, "tmp", b"ours", 0o640).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
        assert_eq!(tree.look(&path).unwrap(), Some(Found::File { mode: 0o640, size: 4 }));
    }
}
