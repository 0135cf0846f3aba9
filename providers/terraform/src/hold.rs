//! One Charter at a time works on a workspace: a service and a person's plan take turns.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::workspace::Workspace;
use crate::{Hindrance, Site};

/// How long it is waited for somebody else, and how long between two tries.
const WAIT: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(50);

/// The right to work on a workspace, for as long as this is held. It goes with its process.
pub(crate) struct Hold(#[expect(dead_code, reason = "its lock is what counts")] fs::File);

/// Waits for a while until nobody works on it: no other Charter, and nothing that an earlier one has left running. `Err`: who does.
pub(crate) async fn hold(site: &Site, external: &str, workspace: &dyn Workspace) -> Result<Result<Hold, String>, Hindrance> {
    // Nobody takes a lock's file away: another one of its name would be another lock.
    let locks = site.config.folder.join("locks");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&locks)?;
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(locks.join(external))?;
    let end = Instant::now() + WAIT;
    loop {
        let why = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => match workspace.going_on() {
                None => return Ok(Ok(Hold(file))),
                Some(why) => why,
            },
            Err(Errno::WOULDBLOCK) => "another Charter of this member works on it".to_owned(),
            Err(error) => return Err(Hindrance::Folder(error.into())),
        };
        if Instant::now() > end {
            return Ok(Err(why));
        }
        let _ = flock(&file, FlockOperation::Unlock);
        tokio::time::sleep(PAUSE).await;
    }
}
