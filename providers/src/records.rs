//! What a provider remembers beside Charter: a folder with a small JSON file for each thing, written durably and read by its owner only.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the names of the files end in.
const ENDING: &str = ".json";

/// Makes a new, empty file that its owner only can read, in the place of what is there.
pub fn private(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Writes a file that its owner only can read, in the place of the one that is there. Whoever reads it finds the one or the other, whole.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    let mut file = private(&next)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&next, path)
}

/// A folder of records.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    most: u64,
}

impl Folder {
    /// Names a folder, and the largest record that is read from it, in bytes. Nothing is made yet.
    pub fn new(path: &Path, most: u64) -> Self {
        Self {
            path: path.to_owned(),
            most,
        }
    }

    /// Makes the folder, if it is not there.
    pub fn make(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)
    }

    /// Reads every record, by name; none: there is no folder.
    pub fn read(&self) -> io::Result<Option<BTreeMap<String, Vec<u8>>>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut all = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|name| name.strip_suffix(ENDING)) else {
                continue;
            };
            let mut bytes = Vec::new();
            File::open(entry.path())?.take(self.most).read_to_end(&mut bytes)?;
            all.insert(name.to_owned(), bytes);
        }
        Ok(Some(all))
    }

    /// Reads one record; none: there is none of this name.
    pub fn one(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.file(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(self.most).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes a record, which is on the disk when this returns. The name has to be one of a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.make()?;
        let next = self.path.join(format!(".{name}.next"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&next, self.file(name))?;
        File::open(&self.path)?.sync_all()
    }

    /// Removes a record. One that isn't there is fine.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{ENDING}"))
    }
}
