//! `charter tfc-server` as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::world::binary;

/// A server, which is killed with this.
pub struct Served {
    child: Child,
    address: String,
}

impl Served {
    /// Starts one that keeps everything in a folder, has the organization `acme`, and answers as often as it is asked.
    ///
    /// # Panics
    /// When it doesn't start.
    pub fn start(folder: &Path, engine: &Path, listen: &str) -> Self {
        let mut child = Command::new(binary())
            .args(["tfc-server", "--organization", "acme", "--rate", "2000", "--listen", listen])
            .arg("--engine")
            .arg(engine)
            .arg("--folder")
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program is there");
        let mut line = String::new();
        let output = child.stdout.take().expect("it was piped");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let address = line.trim().strip_prefix("listening on http://").expect("it says where it listens");
        Self {
            address: address.to_owned(),
            child,
        }
    }

    /// Where it listens: an address and a port.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
