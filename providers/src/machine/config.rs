//! What the member itself allows on its machine: `[machine]` of `charter.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::ids::SecretName;
use thiserror::Error;

use crate::secrets::{self, SecretError};

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
        secrets::read("machine", self.secrets.as_deref(), name)
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
}
