//! How a command ends: its exit code, and an error that says what failed, why, and what to do next.

use std::error::Error;
use std::fmt::Write as _;

use super::output;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Clean,
    /// Something failed.
    Error,
    /// There is a difference.
    Difference,
    /// A policy forbids something.
    Denied,
    /// Something could not be observed.
    Unknown,
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Error => 1,
            Exit::Difference => 2,
            Exit::Denied => 3,
            Exit::Unknown => 7,
        }
    }

    /// The one of two ends that a user has to hear of first.
    pub(crate) fn worse(self, other: Exit) -> Exit {
        let rank = |exit| match exit {
            Exit::Clean => 0,
            Exit::Difference => 1,
            Exit::Denied => 2,
            Exit::Unknown => 3,
            Exit::Error => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// Whether the user has said yes already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// `--yes`.
    Given,
    /// Ask on the terminal.
    Ask,
}

impl Consent {
    /// Reads the flag.
    pub(crate) fn given(flag: bool) -> Self {
        if flag { Consent::Given } else { Consent::Ask }
    }
}

/// A command failed.
#[derive(Debug)]
pub(crate) struct CliError {
    message: String,
    causes: Vec<String>,
    next: Option<String>,
}

impl CliError {
    /// Says what failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
            next: None,
        }
    }

    /// Says why: the whole chain.
    pub(crate) fn because(mut self, error: impl Error) -> Self {
        let mut cause: Option<&dyn Error> = Some(&error);
        while let Some(present) = cause {
            let text = present.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            cause = present.source();
        }
        self
    }

    /// Says what it was part of: the message becomes the first cause.
    pub(crate) fn within(mut self, what: impl Into<String>) -> Self {
        let message = std::mem::replace(&mut self.message, what.into());
        self.causes.insert(0, message);
        self
    }

    /// Says what to do next.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The error as standard error shows it.
    pub(crate) fn render(&self) -> String {
        let mut out = format!("charter: {}\n", output::lines(&self.message));
        for cause in &self.causes {
            let _ = writeln!(out, "  because {}", output::lines(cause).replace('\n', "\n    "));
        }
        if let Some(next) = &self.next {
            let _ = writeln!(out, "  next: {}", output::lines(next));
        }
        out
    }
}

/// Says what a command was doing when something failed.
pub(crate) trait Doing<T> {
    /// Wraps an error with what was being done.
    fn doing(self, what: impl Into<String>) -> Result<T, CliError>;
}

impl<T, E: Error> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, CliError> {
        self.map_err(|error| CliError::new(what).because(error))
    }
}
