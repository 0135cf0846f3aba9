//! Fabric's own programs, as its install script leaves them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use crate::command;

/// The programs that a network is made with.
const PROGRAMS: [&str; 5] = ["peer", "orderer", "configtxgen", "cryptogen", "osnadmin"];

/// How long a program may take to tell its version.
const VERSION: Duration = Duration::from_secs(30);

/// Where Fabric's programs are.
#[derive(Clone, Debug)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Finds them in the folder that `FABRIC_BIN` names, or in one of `PATH`. Where they are missing it says so, on one line for the
    /// whole test binary, and that line isn't captured.
    pub fn find() -> Option<Self> {
        let folders: Vec<PathBuf> = match std::env::var_os("FABRIC_BIN") {
            Some(folder) => vec![PathBuf::from(folder)],
            None => std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect(),
        };
        let missing = |folder: &Path| {
            PROGRAMS
                .iter()
                .copied()
                .filter(|name| !folder.join(name).is_file())
                .collect::<Vec<_>>()
        };
        if let Some(folder) = folders.iter().find(|folder| missing(folder).is_empty()) {
            return Some(Self(folder.canonicalize().unwrap_or_else(|_| folder.clone())));
        }
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            let place = match folders.as_slice() {
                [named] if std::env::var_os("FABRIC_BIN").is_some() => format!("{} has no {}", named.display(), missing(named).join(", ")),
                _ => format!("no folder of PATH has {}; FABRIC_BIN can name one", PROGRAMS.join(", ")),
            };
            let _ = writeln!(
                std::io::stderr(),
                "Hyperledger Fabric's binaries are missing, and the live tests did nothing: {place}"
            );
        });
        None
    }

    /// The folder that they are in.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The release that they are of, as `3.1.5`; none: they tell none.
    ///
    /// # Panics
    /// When `peer` can't be run.
    pub fn release(&self) -> Option<String> {
        let mut version = Command::new(self.program("peer"));
        version.arg("version");
        let said = command::run(version, VERSION).exits(0).stdout;
        let told = said.split("Version: ").nth(1)?.lines().next()?;
        // Releases have been built with and without the letter.
        let release = told.trim_start_matches('v');
        release
            .starts_with(|first: char| first.is_ascii_digit())
            .then(|| release.to_owned())
    }

    /// The path of one.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
