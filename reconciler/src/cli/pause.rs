//! `pause`, `resume` and `reconcile`: words to a member's service.

use super::error::{CliError, Doing, Exit};
use super::{Global, output, targets};
use crate::control::Control;

/// What to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Stop applying.
    Pause,
    /// Go on applying.
    Resume,
    /// Do a pass now.
    Reconcile,
}

/// Says it to every member that the options name, on every channel that they name.
pub(crate) async fn run(global: &Global, word: Word) -> Result<Exit, CliError> {
    let mut exit = Exit::Clean;
    for (config, channels) in targets::following(global)? {
        let control = Control::new(config.folder());
        for channel in &channels {
            match word {
                Word::Pause => control.pause(channel).doing(format!("cannot pause {channel}"))?,
                Word::Resume => control.resume(channel).doing(format!("cannot resume {channel}"))?,
                Word::Reconcile => {}
            }
            let said = match word {
                Word::Pause => "paused: nothing is applied; observing and reporting go on",
                Word::Resume => "resumed",
                Word::Reconcile if control.paused(channel) => "paused: a pass only observes and reports; charter resume ends that",
                Word::Reconcile if control.is_held() => "asked the running service for a pass",
                Word::Reconcile => "passing now",
            };
            output::note(&format!("{} on {channel}: {said}", config.member));
        }
        if control.is_held() {
            control.wake().doing("cannot wake the service")?;
        } else if word == Word::Reconcile {
            exit = exit.worse(super::plan::pass(global, &config, &channels).await?);
        }
    }
    Ok(exit)
}
