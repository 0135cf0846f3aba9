//! A file whose lock this process has.

use std::fs::File;

/// The system's lock on a file, taken before, until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Locked(File);

impl Locked {
    /// Takes over a file that was just locked.
    pub fn new(file: File) -> Self {
        Self(file)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is being started has it too, until it runs its own program.
        let _ = self.0.unlock();
    }
}
