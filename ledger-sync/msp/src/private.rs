//! Files that hold a secret: read only where nobody but their owner can read them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::MspError;

/// Reads a file that only its owner may read or write, at most `limit` bytes of it. `what` names its content in errors,
/// for example `private key`.
///
/// A link is followed, and the file that it leads to is the one that is judged: what is looked at and what is read are one
/// open file, so nothing can be exchanged between the two.
///
/// # Errors
/// [`MspError::Exposed`] where the group or others may read, write or execute it.
pub fn read(path: &Path, what: &'static str, limit: usize) -> Result<Vec<u8>, MspError> {
    let unusable = |reason: String| MspError::SecretFile {
        what,
        path: path.to_owned(),
        reason,
    };
    // Opening a named pipe would wait for its other end.
    let found = std::fs::metadata(path).map_err(MspError::io("read", path))?;
    if !found.is_file() {
        return Err(unusable("it is not a file".into()));
    }
    let file = File::open(path).map_err(MspError::io("read", path))?;
    let opened = file.metadata().map_err(MspError::io("read", path))?;
    let mode = opened.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(MspError::Exposed {
            what,
            path: path.to_owned(),
            mode,
        });
    }
    let most = limit as u64;
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content).map_err(MspError::io("read", path))?;
    if content.len() as u64 > most {
        return Err(unusable(format!("it is larger than {limit} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_the_owners_file_is_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        fs::write(&path, "secret").unwrap();
        for mode in [0o600, 0o400, 0o700] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, "private key", 6).unwrap(), b"secret");
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o660, 0o644, 0o777, 0o610] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read(&path, "private key", 6).unwrap_err();
            assert!(matches!(error, MspError::Exposed { mode: found, .. } if found == mode), "{error}");
            let text = error.to_string();
            assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_link_is_judged_by_the_file_that_it_leads_to() {
        let place = tempfile::tempdir().unwrap();
        let (path, link) = (place.path().join("key"), place.path().join("link"));
        fs::write(&path, "secret").unwrap();
        symlink(&path, &link).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&link, "private key", 100).unwrap(), b"secret");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read(&link, "private key", 100), Err(MspError::Exposed { .. })));
    }

    #[test]
    fn what_is_no_small_file_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let error = read(place.path(), "PIN", 100).unwrap_err();
        assert!(error.to_string().contains("it is not a file"), "{error}");
        let error = read(&place.path().join("none"), "PIN", 100).unwrap_err();
        assert!(matches!(error, MspError::Io { .. }), "{error}");
        let path = place.path().join("large");
        fs::write(&path, "0123456789").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = read(&path, "PIN", 9).unwrap_err().to_string();
        assert!(error.contains("larger than 9 bytes") && !error.contains("0123"), "{error}");
    }
}
