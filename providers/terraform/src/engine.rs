//! Running the engine: in a session of its own, with its output in files, so that it goes on to its end when Charter doesn't.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use process_wrap::tokio::{CommandWrap, ProcessSession};
use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use providers::records::private;

use crate::Hindrance;

/// Where programs that an engine starts are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long an engine that is asked to stop may take to put its state in order.
const GRACE: Duration = Duration::from_secs(30);
/// The most of what an engine says that is read, in bytes: plans are large.
const MAX_OUTPUT: u64 = 32 * 1024 * 1024;
/// The most of its complaints that is told.
const MAX_WORDS: usize = 2 * 1024;
/// The file that names a run while it goes on.
const RUN: &str = "run.json";

/// A process, told apart from another one of the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RunId {
    pid: i32,
    ticks: u64,
    what: String,
    /// When it has to be done, in seconds since 1970.
    until: u64,
}

/// What a run is.
pub(crate) struct Run<'a> {
    pub(crate) program: &'a Path,
    /// The working directory.
    pub(crate) folder: &'a Path,
    /// In words, for whoever waits for it.
    pub(crate) what: &'a str,
    pub(crate) arguments: &'a [&'a str],
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) deadline: Duration,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its exit code; none: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) output: Vec<u8>,
    pub(crate) complaints: String,
    /// The secrets that it was given, by name: what it says of them is not told.
    pub(crate) secrets: BTreeMap<String, String>,
}

impl Ended {
    /// What it complains of, in one line.
    pub(crate) fn words(&self) -> String {
        let said = diagnostics(&self.output);
        let text = if said.is_empty() {
            self.complaints.clone()
        } else {
            said.join("; ")
        };
        // Frames and colours are for terminals.
        let plain: String = text
            .chars()
            .map(|c| if c.is_control() || "│╷╵".contains(c) { ' ' } else { c })
            .collect();
        let mut words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        for (name, secret) in self.secrets.iter().filter(|(_, secret)| !secret.trim().is_empty()) {
            // As it is, and as it is told in a line.
            for told in [secret.clone(), secret.split_whitespace().collect::<Vec<_>>().join(" ")] {
                words = words.replace(&told, &format!("<{name}>"));
            }
        }
        if words.len() > MAX_WORDS {
            let at = (0..=MAX_WORDS).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
            words.truncate(at);
            words.push('…');
        }
        words
    }
}

/// The errors among the lines of JSON that an engine says.
fn diagnostics(output: &[u8]) -> Vec<String> {
    let lines = output.split(|byte| *byte == b'\n');
    let errors = lines.filter_map(|line| {
        let line: serde_json::Value = serde_json::from_slice(line).ok()?;
        let diagnostic = line.get("diagnostic").filter(|one| one["severity"] == "error")?;
        let text = |name: &str| diagnostic[name].as_str().unwrap_or_default().to_owned();
        let at = text("address");
        let at = if at.is_empty() { at } else { format!("{at}: ") };
        let detail = text("detail");
        let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
        Some(format!("{at}{}{detail}", text("summary")))
    });
    errors.collect()
}

/// What an earlier Charter has started in a working directory and still goes on.
pub(crate) fn going_on(folder: &Path) -> Option<String> {
    let bytes = fs::read(folder.join(RUN)).ok()?;
    let run: RunId = serde_json::from_slice(&bytes).ok()?;
    let lives = Process::new(run.pid)
        .and_then(|process| process.stat())
        .is_ok_and(|stat| stat.starttime == run.ticks && stat.state != 'Z');
    if !lives {
        return None;
    }
    let late = now().saturating_sub(run.until);
    if late > 0 {
        let signal = if late > GRACE.as_secs() { Signal::KILL } else { Signal::INT };
        stop(Some(run.pid), signal);
        return Some(format!(
            "{} of before takes too long, and is stopped (process {})",
            run.what, run.pid
        ));
    }
    Some(format!("{} of before still goes on (process {})", run.what, run.pid))
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Runs an engine to its end. Who is dropped while waiting leaves it running: the next one finds it by [`going_on`].
pub(crate) async fn run(run: &Run<'_>) -> Result<Ended, Hindrance> {
    let out = run.folder.join("output");
    let err = run.folder.join("complaints");
    let mut command = tokio::process::Command::new(run.program);
    command
        .args(run.arguments.iter().map(OsStr::new))
        .current_dir(run.folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .envs(run.environment)
        .stdin(Stdio::null())
        // What an engine says may hold secrets.
        .stdout(private(&out)?)
        .stderr(private(&err)?);
    let started = CommandWrap::from(command).wrap(ProcessSession).spawn();
    let mut child = started
        .map_err(|source| Hindrance::Start {
            program: run.program.to_owned(),
            source,
        })?
        .into_inner();
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let id = pid.and_then(|pid| Process::new(pid).ok()?.stat().ok()).map(|stat| RunId {
        pid: stat.pid,
        ticks: stat.starttime,
        what: run.what.to_owned(),
        until: now() + run.deadline.as_secs(),
    });
    if let Some(id) = &id {
        fs::write(run.folder.join(RUN), serde_json::to_vec(id).map_err(io::Error::from)?)?;
    }
    let status = match tokio::time::timeout(run.deadline, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            stop(pid, Signal::INT);
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                stop(pid, Signal::KILL);
                let _ = child.wait().await;
            }
            return Err(Hindrance::Late {
                what: run.what.to_owned(),
                seconds: run.deadline.as_secs(),
            });
        }
    };
    let _ = fs::remove_file(run.folder.join(RUN));
    Ok(Ended {
        code: status.code(),
        output: read(&out, run.what)?,
        complaints: String::from_utf8_lossy(&read(&err, run.what)?).into_owned(),
        secrets: BTreeMap::new(),
    })
}

fn stop(pid: Option<i32>, signal: Signal) {
    // It is a child that nobody has waited for, or was just seen to be the one that was started: its number is its own.
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn read(path: &PathBuf, what: &str) -> Result<Vec<u8>, Hindrance> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_OUTPUT + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_OUTPUT) {
        true => Ok(bytes),
        false => Err(Hindrance::Long {
            what: what.to_owned(),
            most: MAX_OUTPUT,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ran(folder: &Path, text: &str, deadline: u64) -> Result<Ended, Hindrance> {
        let once = Run {
            program: Path::new("/bin/sh"),
            folder,
            what: "the plan",
            arguments: &["-c", text, "engine", "plan"],
            environment: &BTreeMap::from([("TOKEN".to_owned(), "s3cret".to_owned())]),
            deadline: Duration::from_secs(deadline),
        };
        run(&once).await
    }

    #[tokio::test]
    async fn what_it_says_is_told_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let ended = ran(
            folder.path(),
            "echo \"$1 $TOKEN $HOME\"; printf '╷\\n│ Error: no\\n│ way\\n╵\\n' >&2; exit 3",
            10,
        )
        .await
        .unwrap();
        assert_eq!((ended.code, ended.output.as_slice()), (Some(3), &b"plan s3cret \n"[..]));
        assert_eq!(ended.words(), "Error: no way");
        let lines = r#"{"@level":"info"}
{"@level":"error","diagnostic":{"severity":"error","summary":"Broken","detail":"in half","address":"terraform_data.a"}}"#;
        let ended = Ended {
            code: Some(1),
            output: lines.as_bytes().to_vec(),
            complaints: "other".into(),
            secrets: BTreeMap::from([("how".to_owned(), "in half".to_owned()), ("none".to_owned(), String::new())]),
        };
        assert_eq!(ended.words(), "terraform_data.a: Broken: <how>");
        assert!(going_on(folder.path()).is_none());
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(folder.path().join("output")).unwrap());
        assert_eq!(mode & 0o777, 0o600);
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
