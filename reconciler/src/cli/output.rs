//! What a command prints: data on standard output, everything else on standard error.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::error::{CliError, Consent, Doing};

/// Prints one line of data. A reader that has gone away (`| head`) is not an error.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints text as it is.
pub(crate) fn text(text: &str) {
    let _ = write!(std::io::stdout().lock(), "{text}");
}

/// Says something to the user that is no data.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a value as JSON, keys sorted.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let value = serde_json::to_value(value).doing("cannot write JSON")?;
    line(&serde_json::to_string_pretty(&value).doing("cannot write JSON")?);
    Ok(())
}

/// Prints rows under headings, as wide as they need to be.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row);
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
