//! Secrets of a member: one file each, in a folder that a provider's table of `charter.toml` names.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use state::ids::SecretName;
use thiserror::Error;

/// The largest secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// A secret can't be used. No variant ever holds the secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The configuration names no folder.
    #[error("the secret {name} is needed: name a folder of secrets with secrets in [{table}]")]
    NoFolder {
        /// The secret.
        name: SecretName,
        /// The provider's table in charter.toml.
        table: &'static str,
    },
    /// Others could read it.
    #[error("the secret {name} is open to others (mode {mode:04o}): chmod 600 its file in the folder of secrets")]
    Open {
        /// The secret.
        name: SecretName,
        /// Its file's mode.
        mode: u32,
    },
    /// It can't be an environment variable.
    #[error("the secret {name} is longer than {MAX_SECRET} bytes, or is no text without NUL")]
    Form {
        /// The secret.
        name: SecretName,
    },
    /// Its file can't be read.
    #[error("the secret {name} can't be read: put it into a file of that name in the folder of secrets")]
    Read {
        /// The secret.
        name: SecretName,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Reads a secret from its file in a folder that the table of this name gives, without its last line break.
pub fn read(table: &'static str, folder: Option<&Path>, name: &SecretName) -> Result<String, SecretError> {
    let folder = folder.ok_or_else(|| SecretError::NoFolder { name: name.clone(), table })?;
    let read = |source| SecretError::Read {
        name: name.clone(),
        source,
    };
    let form = || SecretError::Form { name: name.clone() };
    let file = std::fs::File::open(folder.join(name.as_str())).map_err(read)?;
    let mode = file.metadata().map_err(read)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Open { name: name.clone(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > MAX_SECRET || bytes.contains(&0) {
        return Err(form());
    }
    let mut text = String::from_utf8(bytes).map_err(|_| form())?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// A text with the names of secrets, in angle brackets, in the place of what they are.
pub fn masked(text: &str, secrets: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (name, secret) in secrets.iter().filter(|(_, secret)| !secret.trim().is_empty()) {
        // As it is, and as it is told in a line.
        for told in [secret.trim().to_owned(), secret.split_whitespace().collect::<Vec<_>>().join(" ")] {
            text = text.replace(&told, &format!("<{name}>"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let name = SecretName::new("token").unwrap();
        let get = || read("machine", Some(folder.path()), &name);
        assert!(matches!(read("machine", None, &name), Err(SecretError::NoFolder { .. })));
        assert!(matches!(get(), Err(SecretError::Read { .. })));
        let file = folder.path().join("token");
        std::fs::write(&file, "canary-4711\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = get().unwrap_err();
        assert!(matches!(error, SecretError::Open { .. }));
        assert!(!format!("{error:?}").contains("4711"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(get().unwrap(), "canary-4711");
    }
}
