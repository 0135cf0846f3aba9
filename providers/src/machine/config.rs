//! What the member itself allows on its machine: `[machine]` of `charter.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::ids::SecretName;
use thiserror::Error;

/// The largest secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// Settings of environment variables that change which code a program loads. An order may set them only where the member names them.
const LOADERS: [&str; 16] = [
    "BASH_ENV",
    "CLASSPATH",
    "ENV",
    "GCONV_PATH",
    "GIT_SSH_COMMAND",
    "HOME",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "LOCPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PATH",
    "PERL5LIB",
    "PERL5OPT",
    "RUBYLIB",
    "RUBYOPT",
];
const LOADER_PREFIXES: [&str; 4] = ["LD_", "DYLD_", "PYTHON", "CHARTER_"];

/// The member's own machine: where resources live, and which commands may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// The folder below which every file, directory and log lies.
    pub root: PathBuf,
    /// A folder with one file for each secret, readable by its owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<PathBuf>,
    /// The commands that orders may run, by the name that orders use. What isn't named here never runs.
    #[serde(default)]
    pub commands: BTreeMap<String, Command>,
}

/// A command that orders may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program, as an absolute path outside of the root.
    pub program: PathBuf,
    /// Arguments that come before those of the order.
    #[serde(default)]
    pub args: Vec<String>,
    /// The environment variables that an order may set. Without it: all but those that change which code a program loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeSet<String>>,
}

/// The configuration of the machine can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The root has no absolute path.
    #[error("[machine] root: {root:?} has no absolute path")]
    Root {
        /// The root as written.
        root: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command has a bad name.
    #[error("[machine.commands.{name}]: name commands with letters, digits and . _ - (at most 63)")]
    Name {
        /// The name.
        name: String,
    },
    /// A program's path is not usable.
    #[error("[machine.commands.{name}] program: {program:?} {why}")]
    Program {
        /// The command.
        name: String,
        /// Its program.
        program: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The root could not be made.
    #[error("[machine] root: {root:?} can't be made")]
    Init {
        /// The root.
        root: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A secret can't be used. No variant ever holds the secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The configuration names no folder.
    #[error("the secret {name} is needed: name a folder of secrets with secrets in [machine]")]
    NoFolder {
        /// The secret.
        name: SecretName,
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

/// What a spec asks to run is not allowed. The text names the clause of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Denial {
    #[error("the command {0:?} is not on the list of allowed commands: add [machine.commands.{0}] to charter.toml to allow it")]
    Command(String),
    #[error(
        "the environment variable {variable} is not one that an order may set for this command: add it to env in [machine.commands.{command}] to allow it"
    )]
    Variable { command: String, variable: String },
}

impl MachineConfig {
    /// Gives the root its one spelling and checks every command.
    pub(crate) fn checked(mut self) -> Result<Self, ConfigError> {
        let absolute = std::path::absolute(&self.root).map_err(|source| ConfigError::Root {
            root: self.root.clone(),
            source,
        })?;
        // One root has one spelling: it is part of the owner label of every process.
        self.root = real(&absolute);
        for (name, command) in &self.commands {
            if !is_command_name(name) {
                return Err(ConfigError::Name {
                    name: name.chars().take(80).collect(),
                });
            }
            let wrong = |why| ConfigError::Program {
                name: name.clone(),
                program: command.program.clone(),
                why,
            };
            if !command.program.is_absolute() {
                return Err(wrong("is not an absolute path"));
            }
            // An order can write files below the root: a program there would make the list worthless.
            if real(&command.program).starts_with(&self.root) {
                return Err(wrong("lies below the root, where orders write files"));
            }
        }
        Ok(self)
    }

    /// Looks a command up in the list of allowed ones.
    pub(crate) fn command(&self, name: &str) -> Result<&Command, Denial> {
        self.commands
            .get(name)
            .ok_or_else(|| Denial::Command(name.chars().take(80).collect()))
    }

    /// Whether an order may set a variable for a command.
    pub(crate) fn variable(&self, command: &str, variable: &str) -> Result<(), Denial> {
        let allowed = match self.command(command)?.env.as_ref() {
            Some(named) => named.contains(variable) && !variable.starts_with("CHARTER_"),
            None => !LOADERS.contains(&variable) && !LOADER_PREFIXES.iter().any(|prefix| variable.starts_with(prefix)),
        };
        if allowed {
            return Ok(());
        }
        Err(Denial::Variable {
            command: command.to_owned(),
            variable: variable.to_owned(),
        })
    }

    /// Reads a secret from its file, without its last line break.
    pub(crate) fn secret(&self, name: &SecretName) -> Result<String, SecretError> {
        let folder = self.secrets.as_ref().ok_or_else(|| SecretError::NoFolder { name: name.clone() })?;
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
}

fn is_command_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// A path with its symbolic links followed as far as it exists.
fn real(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut here = path;
    loop {
        if let Ok(found) = here.canonicalize() {
            return missing.iter().rev().fold(found, |all: PathBuf, part| all.join(part));
        }
        match (here.parent(), here.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name.to_owned());
                here = parent;
            }
            _ => return path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(program: &str) -> MachineConfig {
        let command = Command {
            program: program.into(),
            args: Vec::new(),
            env: None,
        };
        MachineConfig {
            root: "/srv/charter".into(),
            secrets: None,
            commands: BTreeMap::from([("run".to_owned(), command)]),
        }
    }

    #[test]
    fn a_program_that_an_order_could_write_is_refused() {
        assert!(config("/bin/sleep").checked().is_ok());
        for bad in ["sleep", "/srv/charter/city/evil", "/srv/charter/../charter/x"] {
            assert!(matches!(config(bad).checked(), Err(ConfigError::Program { .. })), "{bad}");
        }
    }

    #[test]
    fn a_root_has_one_spelling() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("real")).unwrap();
        std::os::unix::fs::symlink(home.path().join("real"), home.path().join("link")).unwrap();
        let spelled = |path: &str| {
            let mut config = config("/bin/sleep");
            config.root = home.path().join(path);
            config.checked().unwrap().root
        };
        assert_eq!(spelled("link/root"), spelled("real/../link/root"));
        assert_eq!(spelled("link/root"), spelled("real/root"));
    }

    #[test]
    fn variables_that_load_code_are_denied_by_default() {
        let mut config = config("/bin/sleep");
        for (variable, allowed) in [
            ("DATA_DIR", true),
            ("LD_PRELOAD", false),
            ("PYTHONPATH", false),
            ("PATH", false),
            ("CHARTER_OWNER", false),
        ] {
            assert_eq!(config.variable("run", variable).is_ok(), allowed, "{variable}");
        }
        let named = BTreeSet::from(["PYTHONPATH".to_owned(), "CHARTER_OWNER".to_owned()]);
        config.commands.get_mut("run").unwrap().env = Some(named);
        assert!(config.variable("run", "PYTHONPATH").is_ok());
        assert!(config.variable("run", "DATA_DIR").is_err());
        assert!(config.variable("run", "CHARTER_OWNER").is_err());
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mut config = config("/bin/sleep");
        let name = SecretName::new("token").unwrap();
        assert!(matches!(config.secret(&name), Err(SecretError::NoFolder { .. })));
        config.secrets = Some(folder.path().to_owned());
        assert!(matches!(config.secret(&name), Err(SecretError::Read { .. })));
        let file = folder.path().join("token");
        std::fs::write(&file, "canary-4711\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = config.secret(&name).unwrap_err();
        assert!(matches!(error, SecretError::Open { .. }));
        assert!(!format!("{error:?}").contains("4711"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(config.secret(&name).unwrap(), "canary-4711");
    }
}
