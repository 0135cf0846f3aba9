//! How far `up` has come: a bar on a terminal, plain lines elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// A bar, or lines.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last: RefCell<String>,
}

impl Progress {
    /// Starts with nothing done.
    pub(crate) fn start() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} in sync  {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self {
            bar,
            last: RefCell::new(String::new()),
        }
    }

    /// Shows how many of how many are done, and what is not.
    pub(crate) fn show(&self, done: usize, of: usize, open: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            bar.set_message(open.to_owned());
            bar.tick();
            return;
        }
        let line = match open {
            "" => format!("{done} of {of} in sync"),
            open => format!("{done} of {of} in sync, waiting for {open}"),
        };
        if *self.last.borrow() != line && of > 0 {
            output::note(&line);
            *self.last.borrow_mut() = line;
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
