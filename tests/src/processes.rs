//! The processes of a world, found by what is in their environment: never by name.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use procfs::process::{Process, all_processes};
use rustix::process::{Pid, Signal, kill_process};

/// A running service with the owner label that it was started with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// `<channel>/<member>/<resource>`.
    pub owner: String,
    /// Its process.
    pub pid: i32,
    /// When it started, in ticks since the machine did: a number that is used again differs here.
    pub started: u64,
}

/// Every service that lives below a folder, by its owner. A process that such a service started itself is none.
///
/// # Panics
/// When `/proc` can't be read.
pub fn services(below: &Path) -> Vec<Service> {
    let mut found: Vec<Service> = labelled(below, "CHARTER_ROOT")
        .into_iter()
        .filter_map(|process| {
            let stat = process.stat().ok().filter(|stat| !matches!(stat.state, 'Z' | 'X' | 'x'))?;
            let environ = process.environ().ok()?;
            let owner = environ.get(&OsString::from("CHARTER_OWNER"))?.to_str()?.to_owned();
            (stat.session == stat.pid).then_some(Service {
                owner,
                pid: stat.pid,
                started: stat.starttime,
            })
        })
        .collect();
    found.sort();
    found
}

/// Kills every process that a world has left behind, and waits until they are gone.
pub fn kill_all(world: &Path) {
    for _ in 0..200 {
        let mut left = labelled(world, "CHARTER_ROOT");
        left.extend(labelled(world, WORLD));
        left.retain(|process| process.stat().is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'x')));
        if left.is_empty() {
            return;
        }
        for process in left {
            kill(process.pid());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Kills one process at once.
///
/// # Panics
/// When the number is none of a process.
pub fn kill(pid: i32) {
    let pid = Pid::from_raw(pid).expect("the number of a process is positive");
    // One that has just ended needs no killing.
    let _ = kill_process(pid, Signal::KILL);
}

/// The variable that every command of a world carries.
pub const WORLD: &str = "CHARTER_TEST_WORLD";

fn labelled(below: &Path, variable: &str) -> Vec<Process> {
    let own = std::process::id();
    let below = below.canonicalize().unwrap_or_else(|_| below.to_owned());
    let inside = |process: &Process| {
        let environ = process.environ().ok()?;
        let value = environ.get(&OsString::from(variable))?;
        Path::new(value).starts_with(&below).then_some(())
    };
    all_processes()
        .expect("/proc can be read")
        .flatten()
        .filter(|process| u32::try_from(process.pid()) != Ok(own) && inside(process).is_some())
        .collect()
}
