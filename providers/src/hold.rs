//! The right to work on something, for one Charter of a member at a time, and while nothing goes on that an earlier one has started.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long is waited for it, and how often it is tried.
const WAIT: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(50);

/// The right, for as long as this is held. It goes with its process.
#[derive(Debug)]
pub struct Hold(File);

impl Drop for Hold {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is being started has it too, until it runs its own program.
        let _ = self.0.unlock();
    }
}

/// Waits for a while until nobody works on what has this name: no other Charter, and nothing that goes on. `Err`: who does.
pub async fn hold(locks: &Path, name: &str, going_on: impl Fn() -> Option<String>) -> io::Result<Result<Hold, String>> {
    // Nobody takes a lock's file away: another one of its name would be another lock.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(locks)?;
    let open = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).open(locks.join(name))
    };
    let file = open()?;
    let end = Instant::now() + WAIT;
    loop {
        let why = match file.try_lock() {
            Ok(()) => match going_on() {
                None => return Ok(Ok(Hold(file))),
                Some(why) => why,
            },
            Err(TryLockError::WouldBlock) => "another Charter of this member works on it".to_owned(),
            Err(TryLockError::Error(error)) => return Err(error),
        };
        if Instant::now() > end {
            return Ok(Err(why));
        }
        let _ = file.unlock();
        tokio::time::sleep(PAUSE).await;
    }
}
