//! An example's `story.yaml`: what its members do, in order, as the commands that they would type.
//!
//! A story is data: [`crate::cli`] plays it. Every step says one thing, so that a reader can follow, and a command's step says how it has
//! to end, so that a story that goes wrong stops there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use state::ids::{Channel, MemberId};

use crate::document;
use crate::network::{NetworkError, Reader};

/// The name of the file in an example's folder.
pub const FILE_NAME: &str = "story.yaml";
/// The most that ledger time moves in one step, in seconds: ten years.
const MAX_LATER: u32 = 3_660 * 86_400;

/// A story.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// Its version, as of every document.
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    /// The channel that all members share from the start.
    pub market: Channel,
    /// The pattern of the channels that members find by themselves when they are opened.
    pub discover: String,
    /// Its chapters.
    pub chapters: Vec<Chapter>,
}

/// One chapter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chapter {
    /// What happens in it, in a line.
    pub title: String,
    /// How.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Explains.
    Say(String),
    /// Runs a command.
    Run(Run),
    /// Opens a channel on the ledger for its members.
    Open(Open),
    /// Waits until everything on these channels is as it was ordered.
    Settle(Vec<Channel>),
    /// Stops a member's Charter: it falls silent. What runs goes on running.
    Silence(MemberId),
    /// Starts a member's Charter that was stopped.
    Return(MemberId),
    /// Lets so many seconds of ledger time pass for everybody.
    Later(u32),
}

/// A command of a story.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Run {
    /// What is typed after `charter`.
    pub charter: String,
    /// How it has to end: its exit code.
    #[serde(default)]
    pub exit: u8,
    /// What it has to print, on standard output or standard error.
    #[serde(default)]
    pub shows: Vec<String>,
    /// What it must not print.
    #[serde(default)]
    pub hides: Vec<String>,
    /// It is tried again until it ends so: what it asks for is on its way.
    #[serde(default)]
    pub until: bool,
    /// What of its answer, which is JSON then, later commands may name: `{name}` stands for the text at a JSON pointer.
    #[serde(default)]
    pub keep: BTreeMap<String, String>,
    /// Its standard output goes into this file below `{work}`: a plain file name.
    #[serde(default)]
    pub save: Option<String>,
    /// Its output is not shown to the reader.
    #[serde(default)]
    pub quiet: bool,
}

/// A channel of a story.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// Its name.
    pub channel: Channel,
    /// Its members.
    pub members: Vec<MemberId>,
}

impl Story {
    /// Reads the story in an example's folder.
    pub fn read(folder: &Path) -> Result<Self, NetworkError> {
        Self::build(&folder.join(FILE_NAME), &crate::network::below(folder))
    }

    /// Reads the story of the example that is part of the binary.
    pub fn built_in() -> Result<Self, NetworkError> {
        Self::build(Path::new(FILE_NAME), &crate::network::built_in_file)
    }

    fn build(at: &Path, read: &Reader<'_>) -> Result<Self, NetworkError> {
        let invalid = |message: String| NetworkError::Invalid {
            path: at.to_owned(),
            message,
        };
        let (path, text) = read(Path::new(FILE_NAME))?;
        let value = document::yaml(&path, &text)?;
        let story: Story = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
        if story.api_version != document::API_VERSION || story.kind != "Story" {
            return Err(invalid(format!(
                "it has to start with apiVersion: {} and kind: Story",
                document::API_VERSION
            )));
        }
        for chapter in &story.chapters {
            for step in &chapter.steps {
                match step {
                    Step::Later(seconds) if !(1..=MAX_LATER).contains(seconds) => {
                        return Err(invalid(format!("{}: later is outside 1 to {MAX_LATER} seconds", chapter.title)));
                    }
                    Step::Run(run) if words(&run.charter).is_none() => {
                        return Err(invalid(format!("{}: the quotes of {:?} don't close", chapter.title, run.charter)));
                    }
                    Step::Run(Run { save: Some(name), .. }) if !is_file_name(name) => {
                        return Err(invalid(format!("{}: save {name:?} is no plain file name", chapter.title)));
                    }
                    _ => {}
                }
            }
        }
        Ok(story)
    }
}

fn is_file_name(name: &str) -> bool {
    !name.starts_with('.') && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Splits a command into words: spaces part them, and quotes keep spaces; none when a quote isn't closed.
pub fn words(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for letter in command.chars() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => word.push(letter),
            ('"' | '\'', None) => (quote, begun) = (Some(letter), true),
            (letter, None) if letter.is_whitespace() => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (letter, None) => word.push(letter),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does() {
        assert_eq!(words("a  b").unwrap(), ["a", "b"]);
        assert_eq!(words("a 'b c' \"\" d\"e f\"").unwrap(), ["a", "b c", "", "de f"]);
        assert_eq!(words("a 'b"), None);
    }
}
