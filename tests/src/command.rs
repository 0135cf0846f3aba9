//! Commands with their output, their exit code and a deadline.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What was run, for messages.
    pub what: String,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ended {
    /// Demands an exit code.
    ///
    /// # Panics
    /// With all that the command said, if it ended otherwise.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of {self}");
        self
    }

    /// Demands words on standard output or standard error.
    ///
    /// # Panics
    /// With all that the command said, if one is missing.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stdout.contains(word) || self.stderr.contains(word), "no {word:?} in {self}");
        }
        self
    }

    /// Reads standard output as JSON.
    ///
    /// # Panics
    /// With all that the command said, if it isn't JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("{error}: no JSON from {self}"),
        }
    }

    /// The lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        write!(
            formatter,
            "{}\nended with {code} after {} ms\n-- stdout\n{}\n-- stderr\n{}",
            self.what,
            self.took.as_millis(),
            self.stdout,
            self.stderr
        )
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it can't be started, or is not done in time; it is killed then.
#[track_caller]
pub fn run(mut command: Command, deadline: Duration) -> Ended {
    let what = words(&command);
    let started = Instant::now();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => panic!("{what} can't be started: {error}"),
    };
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let status = wait(&mut child, started, deadline);
    let ended = |status: Option<ExitStatus>| Ended {
        what: what.clone(),
        code: status.and_then(|status| status.code()),
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
        took: started.elapsed(),
    };
    match status {
        Some(status) => ended(Some(status)),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("not done within {} s, and killed: {}", deadline.as_secs(), ended(None));
        }
    }
}

/// Writes a script of the shell's that can be run. This process never has it open: another thread's child would have it too, and what is
/// open for writing can't be run.
///
/// # Panics
/// When it can't be written.
pub fn script(path: &std::path::Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-c", "printf '#!/bin/sh\\n' > \"$0\" && cat >> \"$0\" && chmod 700 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell is there");
    let mut input = shell.stdin.take().expect("it was asked for");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("the shell reads it");
    drop(input);
    assert!(
        shell.wait().expect("the shell ends").success(),
        "{} can't be written",
        path.display()
    );
}

/// A command as one types it.
pub fn words(command: &Command) -> String {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Waits for a child's end until a deadline.
fn wait(child: &mut Child, started: Instant, deadline: Duration) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if started.elapsed() > deadline => return None,
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("a child can't be waited for: {error}"),
        }
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
