//! How commands and a member's running service speak with each other: a few files in the member's folder.
//!
//! `control/paused/<channel>` stops applying, `control/wake` asks for a pass, `service.lock` is held by whoever applies, and
//! `status.json` is what the service says of itself. Nothing here is part of any history.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger_sync::Testimony;
use ledger_sync::reexecute::Standing;
use serde::{Deserialize, Serialize};
use state::canonical::Digest;
use state::ids::Channel;
use state::locked::Locked;
use state::time::Timestamp;
use thiserror::Error;

/// How often, and how far apart, taking the right to apply is tried: a command that only asks who holds it is gone at once.
const TRIES: u32 = 25;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// What a running service says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// Where `/healthz` and `/metrics` answer.
    pub listen: Option<String>,
    /// When the certificate that it signs with expires.
    #[serde(default)]
    pub certificate_until: Option<Timestamp>,
    /// Each channel.
    pub channels: BTreeMap<Channel, ChannelStatus>,
    /// Why the peers can't be asked which channels they have joined; none: they can, or don't have to be.
    #[serde(default)]
    pub undiscovered: Option<String>,
}

/// What a running service says of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// The last block that was taken in.
    pub block: Option<u64>,
    /// How many blocks the ledger has beyond it, as far as is known.
    pub lag: u64,
    /// The peer that blocks are read from.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Whether blocks are being received.
    pub connected: bool,
    /// Whether everything that the ledger has was taken in.
    pub caught_up: bool,
    /// Why the ledger can't be followed now, if so.
    pub ledger_error: Option<String>,
    /// Why the channel is frozen, if it is.
    pub frozen: Option<String>,
    /// What running the transactions again has found.
    #[serde(default)]
    pub rerun: Option<Standing>,
    /// How far a second peer has confirmed the blocks, where there is one.
    #[serde(default)]
    pub testimony: Option<Testimony>,
    /// Whether applying is paused.
    pub paused: bool,
    /// The last pass.
    pub pass: Option<PassStatus>,
}

/// What a service says of its last pass on a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassStatus {
    /// When it ended.
    pub at: Timestamp,
    /// The plan's digest.
    pub plan: Option<Digest>,
    /// How many steps were done.
    pub done: usize,
    /// How many failed.
    pub failed: usize,
    /// Whether nothing is left to do.
    pub converged: bool,
    /// Why the pass ended early, if it did.
    pub error: Option<String>,
}

/// A control file can't be used.
#[derive(Debug, Error)]
pub enum ControlError {
    /// A file operation failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another Charter of this member is at work.
    #[error("another Charter of this member is at work (pid {pid}, lock {}); only one may apply", .path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder's process.
        pid: String,
    },
}

/// The right to apply for a member, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Held {
    _lock: Locked,
}

/// The control files of one member.
#[derive(Clone, Debug)]
pub struct Control {
    folder: PathBuf,
}

impl Control {
    /// The control files in a member's folder.
    pub fn new(member_folder: &Path) -> Self {
        Self {
            folder: member_folder.to_owned(),
        }
    }

    /// The folder whose changes wake a service. It is made when it is not there.
    pub fn watched(&self) -> Result<PathBuf, ControlError> {
        let path = self.folder.join("control");
        std::fs::create_dir_all(path.join("paused")).map_err(io_error("make", &path))?;
        Ok(path)
    }

    /// The file whose presence pauses a channel.
    pub fn paused_file(&self, channel: &Channel) -> PathBuf {
        self.folder.join("control/paused").join(channel.as_str())
    }

    /// Whether applying is paused on a channel.
    pub fn paused(&self, channel: &Channel) -> bool {
        self.paused_file(channel).exists()
    }

    /// Whether a store has ever had everything that the ledger of a channel had. Before that nothing is planned from it: it may
    /// be a store that is being rebuilt, and knows the channel's past but not its present.
    pub fn is_level(store: &Path, channel: &Channel) -> bool {
        level_file(store, channel).exists()
    }

    /// Remembers that a store has everything that the ledger of a channel had. It is kept in the store, and lost with it.
    pub fn set_level(store: &Path, channel: &Channel) -> Result<(), ControlError> {
        let path = level_file(store, channel);
        if path.exists() {
            return Ok(());
        }
        std::fs::write(&path, b"").map_err(io_error("write", &path))
    }

    /// Stops applying on a channel.
    pub fn pause(&self, channel: &Channel) -> Result<(), ControlError> {
        self.watched()?;
        let path = self.paused_file(channel);
        std::fs::write(&path, b"").map_err(io_error("write", &path))
    }

    /// Goes on applying on a channel.
    pub fn resume(&self, channel: &Channel) -> Result<(), ControlError> {
        self.watched()?;
        let path = self.paused_file(channel);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Asks a running service for a pass.
    pub fn wake(&self) -> Result<(), ControlError> {
        let path = self.watched()?.join("wake");
        std::fs::write(&path, b"").map_err(io_error("write", &path))
    }

    /// Takes the right to apply. It ends with the process, however it ends.
    pub fn hold(&self) -> Result<Held, ControlError> {
        let path = self.folder.join("service.lock");
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open().map_err(io_error("open", &path))?;
        let mut locked = file.try_lock();
        for _ in 1..TRIES {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(BETWEEN_TRIES);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = (&mut file).take(20).read_to_string(&mut pid);
                return Err(ControlError::Held {
                    path,
                    pid: pid.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io_error("write", &path))?;
        Ok(Held { _lock: Locked::new(file) })
    }

    /// Whether somebody holds the right to apply now. It writes nothing, and those who ask don't see each other.
    pub fn is_held(&self) -> bool {
        File::open(self.folder.join("service.lock")).is_ok_and(|file| match file.try_lock_shared() {
            Ok(()) => {
                drop(Locked::new(file));
                false
            }
            Err(error) => matches!(error, TryLockError::WouldBlock),
        })
    }

    /// Writes what the service says of itself, by rename.
    pub fn write_status(&self, status: &ServiceStatus) -> Result<(), ControlError> {
        let path = self.folder.join("status.json");
        let next = self.folder.join(".status.json.next");
        let bytes = serde_json::to_vec_pretty(status)
            .map_err(io::Error::other)
            .map_err(io_error("write", &path))?;
        std::fs::write(&next, bytes).map_err(io_error("write", &next))?;
        std::fs::rename(&next, &path).map_err(io_error("write", &path))
    }

    /// What a service said of itself last, if it is still there.
    pub fn read_status(&self) -> Option<ServiceStatus> {
        if !self.is_held() {
            return None;
        }
        serde_json::from_slice(&std::fs::read(self.folder.join("status.json")).ok()?).ok()
    }
}

fn level_file(store: &Path, channel: &Channel) -> PathBuf {
    store.join("charter").join(format!("{channel}.level"))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ControlError {
    let path = path.to_owned();
    move |source| ControlError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_holds_the_right_to_apply() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new(folder.path());
        let held = control.hold().unwrap();
        let error = control.hold().unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(control.is_held());
        drop(held);
        assert!(!control.is_held());
    }

    #[test]
    fn asking_who_applies_writes_nothing_and_keeps_nobody_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new(folder.path());
        assert!(!control.is_held());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(control.hold().unwrap());
        let asking = File::open(folder.path().join("service.lock")).unwrap();
        asking.try_lock_shared().unwrap();
        assert!(!control.is_held());
        let ended = std::thread::spawn(move || {
            std::thread::sleep(BETWEEN_TRIES * 3);
            drop(asking);
        });
        control.hold().unwrap();
        ended.join().unwrap();
    }

    #[test]
    fn pausing_is_by_channel_and_undone() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::new(folder.path());
        let (one, two): (Channel, Channel) = ("one".parse().unwrap(), "two".parse().unwrap());
        control.pause(&one).unwrap();
        assert!(control.paused(&one) && !control.paused(&two));
        control.resume(&one).unwrap();
        control.resume(&one).unwrap();
        assert!(!control.paused(&one));
    }
}
