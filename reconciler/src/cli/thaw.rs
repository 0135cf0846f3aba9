//! `thaw`: what a person says who has found out why a channel is frozen.

use ledger_sync::frozen;

use super::error::{CliError, Doing, Exit};
use super::{Global, output, targets};
use crate::control::Control;

/// Ends the freezing of the channel that the options name, for every member that they name.
pub(crate) async fn run(global: &Global) -> Result<Exit, CliError> {
    let Some(channel) = &global.channel else {
        return Err(CliError::new("nothing was thawed: a channel is thawed by its name")
            .next("charter status says which channel is frozen, and why; then charter thaw --channel NAME"));
    };
    let mut thawed = false;
    for config in targets::configs(global)? {
        if !config.store().exists() {
            continue;
        }
        let store = targets::store(&config)?;
        let member = &config.member;
        let found = frozen::thaw(&store, channel).doing(format!("{channel} of {member} can't be thawed"))?;
        let Some(found) = found else { continue };
        thawed = true;
        output::note(&format!("{member} on {channel}: was frozen: {}", output::plain(&found.reason)));
        let control = Control::new(config.folder());
        if control.is_held() {
            control.wake().doing("cannot wake the service")?;
            output::note(&format!(
                "{member} on {channel}: thawed; the running service follows it again, and what is still wrong freezes it again"
            ));
        } else {
            output::note(&format!(
                "{member} on {channel}: thawed; what is still wrong freezes it again when it is followed"
            ));
        }
    }
    if !thawed {
        // A record of a channel that is followed no longer was found above; a name that is nobody's is no success.
        targets::selected(global)?;
        output::note(&format!("{channel} is not frozen"));
    }
    Ok(Exit::Clean)
}
