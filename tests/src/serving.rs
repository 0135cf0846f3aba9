//! Processes that go on until they are told to stop: `serve`, `ledger serve`, `up`.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

/// A process that runs until it is told to stop. It is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts a command, with its output to files `<name>.out` and `<name>.err`.
    ///
    /// # Panics
    /// When it can't be started.
    #[track_caller]
    pub fn start(mut command: Command, stdout: PathBuf, stderr: PathBuf) -> Self {
        let what = crate::command::words(&command);
        let file = |path: &PathBuf| File::create(path).expect("the world's folder can be written");
        let spawned = command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr)).spawn();
        match spawned {
            Ok(child) => Self {
                what,
                child,
                stdout,
                stderr,
            },
            Err(error) => panic!("{what} can't be started: {error}"),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has written to standard output.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Everything that it has written to standard error.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for words on its output or standard error, and returns the line that has them.
    ///
    /// # Panics
    /// When they don't come in time, or the process ends first.
    #[track_caller]
    pub fn says(&mut self, words: &str) -> String {
        let what = format!("{} says {words:?}", self.what);
        until(&what, || {
            let all = self.stdout() + &self.stderr();
            match all.lines().find(|line| line.contains(words)) {
                Some(line) => Ok(line.to_owned()),
                None if !self.runs() => panic!("it ended before it said {words:?}: {}\n{all}", self.what),
                None => Err(all),
            }
        })
    }

    /// How many lines of its output have these words by now.
    pub fn said(&self, words: &str) -> usize {
        (self.stdout() + &self.stderr()).lines().filter(|line| line.contains(words)).count()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process has no number.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // One that is gone already has nothing to hear.
        let _ = kill_process(pid.expect("a child has a number"), signal);
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Panics
    /// When it doesn't end in time.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        let what = format!("{} ends", self.what);
        until(&what, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            Ok(None) => Err("it still runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Kills it at once, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop with SIGTERM.
    ///
    /// # Panics
    /// When it doesn't end in time, or doesn't end well.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ended(), Some(0), "{} after SIGTERM:\n{}", self.what, self.stderr());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let text = self.stderr();
            let tail: Vec<&str> = text.lines().rev().take(40).collect();
            eprintln!("-- the last words of {}", self.what);
            for line in tail.iter().rev() {
                eprintln!("   {line}");
            }
        }
    }
}
