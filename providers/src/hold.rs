//! The right to work on something, for one Charter of a member at a time, and while nothing goes on that an earlier one has started.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use state::locked::Locked;

/// How long is waited for it, and how often it is tried.
const WAIT: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(50);

/// Waits for a while until nobody works on what has this name: no other Charter, and nothing that goes on. `Err`: who does.
pub async fn hold(locks: &Path, name: &str, going_on: impl Fn() -> Option<String>) -> io::Result<Result<Locked, String>> {
    let end = Instant::now() + WAIT;
    loop {
        let why = match try_hold(locks, name)? {
            Some(held) => match going_on() {
                None => return Ok(Ok(held)),
                Some(why) => why,
            },
            None => "another Charter of this member works on it".to_owned(),
        };
        if Instant::now() > end {
            return Ok(Err(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes the right to work on what has this name; none: somebody has it.
pub fn try_hold(locks: &Path, name: &str) -> io::Result<Option<Locked>> {
    let file = open(locks, name)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Locked::new(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Opens a lock's file. Nobody takes it away: another one of its name would be another lock.
fn open(locks: &Path, name: &str) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(locks)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(locks.join(name))
}
