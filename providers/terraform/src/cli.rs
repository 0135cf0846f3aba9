//! The configuration of an engine's command line: where providers come from.

use std::fs;
use std::io;
use std::path::Path;

/// Writes it, if it is another one than what is there: a folder of provider packages, or the registries. Nothing of the user's who runs
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
