//! `schema`: the published JSON schemas.

use super::error::{CliError, Exit};
use super::output;
use crate::schemas;

/// Prints one, or the names of all.
pub(crate) fn run(name: Option<&str>) -> Result<Exit, CliError> {
    let all = schemas::all();
    match name {
        Some(name) => {
            let unknown = || CliError::new(format!("there is no schema {name:?}")).next("charter schema names them");
            output::json(all.get(name).ok_or_else(unknown)?)?;
        }
        None => all.keys().for_each(|name| output::line(name)),
    }
    Ok(Exit::Clean)
}
