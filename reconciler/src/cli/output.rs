//! What a command prints: data on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::error::{CliError, Consent, Doing};
use crate::planner::render;

/// The longest text of somebody else that is shown on one line, in characters.
const LONGEST: usize = 300;

/// Somebody else's text on one line, bounded, without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    let spaced: String = text
        .chars()
        .take(LONGEST + 1)
        .map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c })
        .collect();
    let mut shown = render::plain(&spaced);
    if shown.chars().count() > LONGEST {
        shown = shown.chars().take(LONGEST - 1).chain(['…']).collect();
    }
    shown
}

/// Text of several lines without what a terminal would obey. Whoever puts somebody else's text into it makes that [`plain`] first: a
/// line break in it would pass for one of ours.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(render::plain).collect::<Vec<_>>().join("\n")
}

/// Prints one line of data. A reader that has gone away (`| head`) is not an error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", lines(text));
}

/// Prints text as it is.
pub(crate) fn text(text: &str) {
    let _ = write!(std::io::stdout().lock(), "{text}");
}

/// Says something to the user that is no data.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", lines(text));
}

/// Prints a value as JSON, keys sorted.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let value = serde_json::to_value(value).doing("cannot write JSON")?;
    let encoded = serde_json::to_string_pretty(&value).doing("cannot write JSON")?;
    let _ = writeln!(std::io::stdout().lock(), "{}", escaped(&encoded));
    Ok(())
}

/// JSON of the same value, with what a terminal would obey as escapes. Outside of strings there is nothing of that but line breaks.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || !render::is_unseen(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// Prints rows under headings, as wide as they need to be. Each cell is made [`plain`].
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for printed in table.lines() {
        // The style has no borders, and leaves their place.
        line(printed.strip_prefix(' ').unwrap_or(&printed).trim_end());
    }
}

/// Whether standard output may be coloured.
pub(crate) fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Asks for a yes on the terminal; without a terminal the flag has to say it.
pub(crate) fn confirm(question: &str, consent: Consent) -> Result<(), CliError> {
    if consent == Consent::Given {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new("nobody is there to say yes").next("add --yes"));
    }
    eprint!("{question} Only 'yes' is taken for a yes: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).doing("cannot read the answer")?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(CliError::new("not done: the answer was not 'yes'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        let hostile = "\u{1b}[2J\u{202e}in sync\u{9b}1m\u{200b}\r\nnext line\u{7f}";
        assert_eq!(plain(hostile), "\u{fffd}[2J\u{fffd}in sync\u{fffd}1m\u{fffd}  next line\u{fffd}");
        assert_eq!(lines("one\ntwo\u{1b}"), "one\ntwo\u{fffd}");
        assert_eq!(plain("Größe 3 → 4, 時刻"), "Größe 3 → 4, 時刻");
    }

    #[test]
    fn long_text_of_others_is_cut_and_says_so() {
        let shown = plain(&"x".repeat(LONGEST * 4));
        assert_eq!(shown.chars().count(), LONGEST);
        assert!(shown.ends_with('…'));
        let whole = "y".repeat(LONGEST);
        assert_eq!(plain(&whole), whole);
    }

    #[test]
    fn json_says_the_same_and_holds_nothing_a_terminal_obeys() {
        let value = serde_json::json!({ "why\u{202e}": "\u{1b}[2J\u{9b}\u{e0041}\n\\u202e é" });
        let printed = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(printed.chars().all(|c| c == '\n' || !render::is_unseen(c)), "{printed:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }
}
