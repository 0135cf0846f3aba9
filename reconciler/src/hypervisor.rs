//! The process that speaks to libvirt: this program again, under another command.

use std::path::PathBuf;

use libvirt::Helper;

/// The command, which is in no help: Charter itself types it.
pub const COMMAND: &str = "libvirt-helper";

/// How that process is started from this program.
pub fn helper(program: PathBuf) -> Helper {
    Helper {
        program,
        arguments: vec![COMMAND.to_owned()],
    }
}

/// What that process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It makes the calls that it is asked for.
    Calls,
    /// It tells of what happens.
    Events,
}

/// Is that process, until nobody asks it anything any more. The text says why it ended otherwise.
#[cfg(feature = "libvirt")]
pub fn serve(uri: &str, part: Part) -> Result<(), String> {
    match part {
        Part::Calls => libvirt::helper::run(uri),
        Part::Events => libvirt::events::run(uri),
    }
}

/// This program was built without the library.
#[cfg(not(feature = "libvirt"))]
pub fn serve(_uri: &str, _part: Part) -> Result<(), String> {
    Err(
        "this charter was built without libvirt: cargo build --release --features libvirt, with libvirt's headers (Debian: libvirt-dev)"
            .to_owned(),
    )
}
