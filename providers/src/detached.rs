//! Programs that outlive Charter: each in a session of its own, with its output in files, so that it goes on to its end when Charter
//! doesn't, and the next Charter finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use process_wrap::tokio::{CommandWrap, ProcessSession};
use procfs::process::{Process, Stat};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::records::private;

/// Where programs that it starts are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long a program that is asked to stop may take to put things in order.
const GRACE: Duration = Duration::from_secs(30);
/// The most of what a program says that is read, in bytes.
const MAX_OUTPUT: u64 = 32 * 1024 * 1024;
/// The file that says what goes on. It stands before anything does, and may outlast it.
const RUN: &str = "run.json";
/// The file that a run has as its standard input, and nobody else has: by it its processes are found, whoever has died meanwhile. It is
/// empty.
const INPUT: &str = "run.input";

/// The file of what it says.
pub const OUTPUT: &str = "output";
/// The file of what it complains of.
pub const COMPLAINTS: &str = "complaints";

/// The names of all that a run's notes are.
pub const NOTES: [&str; 4] = [RUN, INPUT, OUTPUT, COMPLAINTS];

/// What goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    what: String,
    /// When it has to be done, in seconds since 1970.
    until: u64,
}

/// What a run is.
pub struct Run<'a> {
    /// The program: a path, or a name that is looked for where programs are.
    pub program: &'a Path,
    /// The working directory.
    pub folder: &'a Path,
    /// Where it is written down, and what it says is kept: the working directory, or beside it where that may have files of any name. One
    /// run at a time goes on by it.
    pub notes: &'a Path,
    /// In words, for whoever waits for it.
    pub what: &'a str,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// Its environment. Nothing else is in there but `PATH`.
    pub environment: &'a BTreeMap<String, String>,
    /// How long it may take before it is asked to stop.
    pub deadline: Duration,
    /// A file that all it says is added to, instead of giving it back.
    pub log: Option<&'a Path>,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; none: a signal ended it.
    pub code: Option<i32>,
    /// What it has said.
    pub output: Vec<u8>,
    /// What it has complained of.
    pub complaints: String,
}

/// A run came to nothing.
#[derive(Debug, Error)]
pub enum RunError {
    /// The program can't be started.
    #[error("{} can't be started", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("{what} was not done within {seconds} s, and was stopped")]
    Late {
        /// The run.
        what: String,
        /// How long it had.
        seconds: u64,
    },
    /// It says too much.
    #[error("{what} says more than {MAX_OUTPUT} bytes")]
    Long {
        /// The run.
        what: String,
    },
    /// The working directory can't be used.
    #[error("its working directory can't be used")]
    Folder(#[from] io::Error),
}

/// What an earlier Charter has started by these notes and still goes on.
pub fn going_on(notes: &Path) -> Option<String> {
    let (run, processes) = lives(notes)?;
    let late = now().saturating_sub(run.until);
    let first = processes.first()?;
    if late > 0 {
        stop(&processes, if late > GRACE.as_secs() { Signal::KILL } else { Signal::INT });
        return Some(format!("{} of before takes too long, and is stopped (process {first})", run.what));
    }
    Some(format!("{} of before still goes on (process {first})", run.what))
}

/// The run that stands in notes and its processes, while there are any.
fn lives(notes: &Path) -> Option<(Begun, Vec<i32>)> {
    let bytes = fs::read(notes.join(RUN)).ok()?;
    let run: Begun = serde_json::from_slice(&bytes).ok()?;
    let processes = reading(&notes.join(INPUT));
    (!processes.is_empty()).then_some((run, processes))
}

/// The processes whose standard input is a file, the one that was started before those that it has started.
fn reading(path: &Path) -> Vec<i32> {
    let same = |one: &fs::Metadata, other: &fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    let Ok(file) = fs::metadata(path) else { return Vec::new() };
    // What isn't ours can't be looked at.
    let has_it = |process: &Process| fs::metadata(format!("/proc/{}/fd/0", process.pid())).is_ok_and(|input| same(&input, &file));
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    let mut found: Vec<Stat> = all.filter(has_it).filter_map(|process| process.stat().ok()).collect();
    found.sort_by_key(|stat| (stat.session != stat.pid, stat.starttime, stat.pid));
    found.into_iter().map(|stat| stat.pid).collect()
}

/// Asks what goes on by these notes to stop, or ends it at once.
pub fn interrupt(notes: &Path, at_once: bool) {
    if let Some((_, processes)) = lives(notes) {
        stop(&processes, if at_once { Signal::KILL } else { Signal::INT });
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Runs a program to its end. Who is dropped while waiting leaves it running: the next one finds it by [`going_on`].
pub async fn run(run: &Run<'_>) -> Result<Ended, RunError> {
    let out = run.notes.join(OUTPUT);
    let err = run.notes.join(COMPLAINTS);
    // What it says may hold secrets.
    let (said, complained) = match run.log {
        None => (private(&out)?, private(&err)?),
        Some(log) => {
            let file = OpenOptions::new().append(true).open(log)?;
            (file.try_clone()?, file)
        }
    };
    let input = run.notes.join(INPUT);
    fs::write(&input, "")?;
    let mut command = tokio::process::Command::new(run.program);
    command
        .args(run.arguments.iter().map(OsStr::new))
        .current_dir(run.folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .envs(run.environment)
        .stdin(File::open(&input)?)
        .stdout(said)
        .stderr(complained);
    // Whoever comes after a death finds it from its first moment on.
    let begun = Begun {
        what: run.what.to_owned(),
        until: now() + run.deadline.as_secs(),
    };
    let note = run.notes.join(RUN);
    fs::write(&note, serde_json::to_vec(&begun).map_err(io::Error::from)?)?;
    let done = ended(run, command).await;
    let _ = fs::remove_file(&note);
    let code = done?.code();
    let (output, complaints) = match run.log {
        None => (read(&out, run.what)?, read(&err, run.what)?),
        Some(_) => (Vec::new(), Vec::new()),
    };
    Ok(Ended {
        code,
        output,
        complaints: String::from_utf8_lossy(&complaints).into_owned(),
    })
}

/// Starts a program, and waits for its end until it has to be done.
async fn ended(run: &Run<'_>, command: tokio::process::Command) -> Result<ExitStatus, RunError> {
    let started = CommandWrap::from(command).wrap(ProcessSession).spawn();
    let mut child = started
        .map_err(|source| RunError::Start {
            program: run.program.to_owned(),
            source,
        })?
        .into_inner();
    let own: Vec<i32> = child.id().and_then(|pid| i32::try_from(pid).ok()).into_iter().collect();
    if let Ok(status) = tokio::time::timeout(run.deadline, child.wait()).await {
        return Ok(status?);
    }
    stop(&own, Signal::INT);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        stop(&own, Signal::KILL);
        let _ = child.wait().await;
    }
    Err(RunError::Late {
        what: run.what.to_owned(),
        seconds: run.deadline.as_secs(),
    })
}

/// Asks a run to stop, whose first process comes first, or ends all of it.
fn stop(processes: &[i32], signal: Signal) {
    // They are children that nobody has waited for, or were just seen to be those that were started: their numbers are their own.
    let all = match signal {
        // Who isn't asked can't end what he has started himself: that is found before he is gone.
        Signal::KILL => processes.iter().flat_map(|pid| [vec![*pid], descendants(*pid)].concat()).collect(),
        _ => processes.iter().take(1).copied().collect::<BTreeSet<i32>>(),
    };
    for pid in all.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The processes that a process has started, and those that they have.
fn descendants(pid: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for stat in procfs::process::all_processes()
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|process| process.stat())
    {
        children.entry(stat.ppid).or_default().push(stat.pid);
    }
    let mut all = Vec::new();
    let mut left = vec![pid];
    while let Some(next) = left.pop() {
        let own = children.remove(&next).unwrap_or_default();
        all.extend(&own);
        left.extend(own);
    }
    all
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, RunError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_OUTPUT + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_OUTPUT) {
        true => Ok(bytes),
        false => Err(RunError::Long { what: what.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once<'a>(folder: &'a Path, arguments: &'a [&'a str], environment: &'a BTreeMap<String, String>, deadline: u64) -> Run<'a> {
        Run {
            program: Path::new("/bin/sh"),
            folder,
            notes: folder,
            what: "the plan",
            arguments,
            environment,
            deadline: Duration::from_secs(deadline),
            log: None,
        }
    }

    async fn ran(folder: &Path, text: &str, deadline: u64) -> Result<Ended, RunError> {
        let environment = BTreeMap::from([("TOKEN".to_owned(), "s3cret".to_owned())]);
        run(&once(folder, &["-c", text, "engine", "plan"], &environment, deadline)).await
    }

    #[tokio::test]
    async fn what_it_says_is_kept_for_its_owner_or_added_to_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let ended = ran(folder.path(), "echo \"$1 $TOKEN $HOME\"; echo no >&2; exit 3", 10)
            .await
            .unwrap();
        assert_eq!((ended.code, ended.output.as_slice()), (Some(3), &b"plan s3cret \n"[..]));
        assert_eq!(ended.complaints, "no\n");
        assert!(going_on(folder.path()).is_none());
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(folder.path().join("output")).unwrap());
        assert_eq!(mode & 0o777, 0o600);

        let log = folder.path().join("log");
        fs::write(&log, "before ").unwrap();
        let none = BTreeMap::new();
        let logged = Run {
            log: Some(&log),
            ..once(folder.path(), &["-c", "echo both; echo streams >&2"], &none, 10)
        };
        assert_eq!(run(&logged).await.unwrap().output, b"");
        assert_eq!(fs::read_to_string(&log).unwrap(), "before both\nstreams\n");
    }

    #[tokio::test]
    async fn who_is_late_is_asked_to_stop_and_who_is_left_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let text = "trap 'echo gently > stopped; exit 0' INT; while true; do sleep 0.05; done";
        let late = ran(folder.path(), text, 1).await.unwrap_err();
        assert_eq!(late.to_string(), "the plan was not done within 1 s, and was stopped");
        assert_eq!(fs::read_to_string(folder.path().join("stopped")).unwrap(), "gently\n");

        let left = tokio::time::timeout(Duration::from_millis(300), ran(folder.path(), "sleep 2; echo done > done", 10)).await;
        assert!(left.is_err());
        assert!(going_on(folder.path()).unwrap().starts_with("the plan of before still goes on"));
        while going_on(folder.path()).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(fs::read_to_string(folder.path().join("done")).unwrap(), "done\n");
    }
}
