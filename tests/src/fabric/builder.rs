//! The external builder that lets a peer take chaincode that runs as a service: three small scripts.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Says whether it is a package of this kind: `detect SOURCE METADATA`.
const DETECT: &str = "#!/bin/sh\ngrep -q '\"type\": *\"ccaas\"' \"$2/metadata.json\"\n";
/// Keeps where the chaincode's server listens: `build SOURCE METADATA OUTPUT`.
const BUILD: &str = "#!/bin/sh\nset -e\ncp \"$1/connection.json\" \"$3/connection.json\"\nif [ -d \"$1/META-INF\" ]; then cp -R \"$1/META-INF\" \"$3/\"; fi\n";
/// Tells the peer where it listens: `release OUTPUT RELEASE`.
const RELEASE: &str =
    "#!/bin/sh\nset -e\nmkdir -p \"$2/chaincode/server\"\ncp \"$1/connection.json\" \"$2/chaincode/server/connection.json\"\n";

/// Writes the builder into a folder.
///
/// # Panics
/// When it can't be written.
pub(super) fn write(folder: &Path) {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).expect("the world's folder can be written");
    for (name, script) in [("detect", DETECT), ("build", BUILD), ("release", RELEASE)] {
        let path = bin.join(name);
        std::fs::write(&path, script).expect("the world's folder can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the script was just written");
    }
}
