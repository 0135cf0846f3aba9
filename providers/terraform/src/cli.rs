//! An engine's command line: what it is told of its surroundings, and what it says it is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// How engines call themselves.
pub const TOFU: &str = "OpenTofu";
/// How engines call themselves.
pub const TERRAFORM: &str = "Terraform";

/// What an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// [`TOFU`] or [`TERRAFORM`].
    pub name: &'static str,
    /// Its version.
    pub version: String,
}

impl Version {
    /// Reads what an engine says when it is asked for its version. What it warns of may stand before that.
    pub fn read(output: &[u8]) -> Option<Self> {
        String::from_utf8_lossy(output).lines().find_map(|line| {
            let (said, version) = line.split_once(" v")?;
            let name = [TOFU, TERRAFORM].into_iter().find(|known| *known == said)?;
            let version = version.trim().to_owned();
            Some(Self { name, version })
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

/// What an engine is started with: nobody is there to answer it, its home is a folder of its own, and its configuration is this.
pub fn environment(home: &Path, config: &Path) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("TF_IN_AUTOMATION".to_owned(), "1".to_owned()),
        ("TF_INPUT".to_owned(), "0".to_owned()),
        ("CHECKPOINT_DISABLE".to_owned(), "1".to_owned()),
        ("HOME".to_owned(), home.display().to_string()),
        ("TF_CLI_CONFIG_FILE".to_owned(), config.display().to_string()),
    ])
}

/// Writes its configuration, if it is another one than what is there, which says where providers come from: a folder of provider packages, or the registries. Nothing of the user's who runs
/// the engine counts.
pub fn write(path: &Path, mirror: Option<&Path>) -> io::Result<()> {
    let text = match mirror {
        None => "disable_checkpoint = true\n".to_owned(),
        Some(mirror) => {
            let mirror = serde_json::to_string(&mirror.display().to_string())?;
            format!("disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{\n    path = {mirror}\n  }}\n}}\n")
        }
    };
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Engines that start at the same time read the one or the other, whole.
    let next = path.with_extension(format!("{}.next", std::process::id()));
    fs::write(&next, text)?;
    fs::rename(&next, path)
}
