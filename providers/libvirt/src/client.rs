//! The process that speaks to the daemon, as Charter sees it: it is asked one thing at a time, within a deadline, and killed when it is late.
//!
//! A daemon that hangs, or a crash of the C library, ends that process and nothing else.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::wire::{Answer, Ask, Seen};

/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;
/// The most of a failed process's last words that is told.
const MAX_WORDS: u64 = 4 * 1024;
/// How long the daemon waits for a guest that is asked to let go of a device, beside its own deadline.
const LET_GO: Duration = Duration::from_secs(10);

/// The program that speaks to the daemon, and its first words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// The program.
    pub program: PathBuf,
    /// What it is started with, before the daemon's URI.
    pub arguments: Vec<String>,
}

impl Helper {
    /// How it is started for a daemon. It goes with who holds it.
    pub(crate) fn command(&self, more: &[&str], uri: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(more)
            .arg(uri)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// A call failed.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    #[error("the process that speaks to libvirt can't be started")]
    Start(#[source] io::Error),
    #[error("the process that speaks to libvirt can't be spoken to")]
    Speak(#[source] io::Error),
    /// It has ended, with its last words.
    #[error("the process that speaks to libvirt has ended: {0}")]
    Ended(String),
    #[error("libvirt did not answer within {0} s")]
    Late(u64),
    #[error("libvirt gave an answer that can't be read")]
    Answer(#[source] serde_json::Error),
    #[error("libvirt says: {0}")]
    Refused(String),
    #[error("it went while it was worked on")]
    Missing,
}

/// One process, which is started when it is needed.
pub(crate) struct Client {
    helper: Helper,
    uri: String,
    deadline: Duration,
    // Taken out for a call: who is dropped in the middle of one takes the process with it, and the next call starts another.
    running: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn new(helper: Helper, uri: String, deadline: Duration) -> Self {
        Self {
            helper,
            uri,
            deadline,
            running: Mutex::default(),
        }
    }

    /// Looks at everything that the daemon has.
    pub(crate) async fn look(&self) -> Result<Seen, Trouble> {
        match self.ask(&Ask::Look).await? {
            Answer::Seen(seen) => Ok(*seen),
            _ => Err(Trouble::Missing),
        }
    }

    /// Looks at what has a name, and at a pool.
    pub(crate) async fn look_at(&self, name: &str, pool: Option<&str>) -> Result<Seen, Trouble> {
        let (name, pool) = (name.to_owned(), pool.map(str::to_owned));
        match self.ask(&Ask::LookAt { name, pool }).await? {
            Answer::Seen(seen) => Ok(*seen),
            _ => Err(Trouble::Missing),
        }
    }

    /// Has something done.
    pub(crate) async fn do_it(&self, ask: Ask) -> Result<(), Trouble> {
        match self.ask(&ask).await? {
            Answer::Missing => Err(Trouble::Missing),
            _ => Ok(()),
        }
    }

    /// Has something done away with: what isn't there is fine.
    pub(crate) async fn undo(&self, ask: Ask) -> Result<(), Trouble> {
        self.ask(&ask).await.map(drop)
    }

    async fn ask(&self, ask: &Ask) -> Result<Answer, Trouble> {
        if let Ask::UploadVolume { .. } = ask {
            // It takes long: others are not kept waiting.
            let done = self.call(self.start()?, ask, self.deadline).await;
            return done.and_then(|(answer, _)| taken(answer));
        }
        let mut place = self.running.lock().await;
        let mut running = match place.take() {
            Some(running) => running,
            None => self.start()?,
        };
        if running.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            running = self.start()?;
        }
        let deadline = match ask {
            Ask::DetachDevice { .. } => self.deadline + LET_GO,
            _ => self.deadline,
        };
        let (answer, running) = self.call(running, ask, deadline).await?;
        *place = Some(running);
        taken(answer)
    }

    fn start(&self) -> Result<Running, Trouble> {
        let mut child = self.helper.command(&[], &self.uri).spawn().map_err(Trouble::Start)?;
        let pipe = || Trouble::Start(io::Error::other("it has no pipes"));
        let (to, from) = (child.stdin.take().ok_or_else(pipe)?, child.stdout.take().ok_or_else(pipe)?);
        Ok(Running {
            child,
            to,
            from: BufReader::new(from),
        })
    }

    async fn call(&self, mut running: Running, ask: &Ask, deadline: Duration) -> Result<(Answer, Running), Trouble> {
        let mut line = serde_json::to_vec(ask).map_err(Trouble::Answer)?;
        line.push(b'\n');
        let late = || Trouble::Late(deadline.as_secs());
        let said = tokio::time::timeout(deadline, running.to.write_all(&line))
            .await
            .map_err(|_| late())?;
        loop {
            let mut answer = Vec::new();
            if said.is_ok() {
                let mut from = (&mut running.from).take(MAX_ANSWER);
                let heard = tokio::time::timeout(deadline, from.read_until(b'\n', &mut answer)).await;
                // The process is killed as it is dropped.
                heard.map_err(|_| late())?.map_err(Trouble::Speak)?;
            }
            if answer.last() != Some(&b'\n') {
                let words = tokio::time::timeout(deadline, last_words(&mut running.child)).await;
                return Err(Trouble::Ended(words.map_err(|_| late())?));
            }
            match serde_json::from_slice(&answer).map_err(Trouble::Answer)? {
                // As long as it goes on there is no hurry.
                Answer::Sent(bytes) => tracing::debug!(bytes, "sent to libvirt"),
                answer => return Ok((answer, running)),
            }
        }
    }
}

fn taken(answer: Answer) -> Result<Answer, Trouble> {
    match answer {
        Answer::Refused(words) => Err(Trouble::Refused(words)),
        answer => Ok(answer),
    }
}

async fn last_words(child: &mut Child) -> String {
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(MAX_WORDS).read_to_end(&mut words).await;
    }
    let ended = child.wait().await.map(|status| status.to_string()).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    match words.trim() {
        "" => ended,
        words => words.lines().next_back().unwrap_or(words).to_owned(),
    }
}
