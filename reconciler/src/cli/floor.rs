//! The place from which one member speaks on one channel: connected, heard, and its own store told of what was said.

use std::sync::Arc;

use ledger_sync::Ledger;
use serde::Serialize;
use state::ids::{Channel, TxId};

use super::access::Access;
use super::error::{CliError, Doing};
use super::{Global, output, submit, targets};
use crate::config::Config;
use crate::submission::{Said, SubmissionError, Voice};
use crate::view::ChannelView;

/// One member's place on one channel.
pub(crate) struct Floor {
    /// The member's configuration.
    pub(crate) config: Config,
    /// The channel.
    pub(crate) channel: Channel,
    access: Access,
    ledger: Arc<dyn Ledger>,
}

impl Floor {
    /// Opens the ledger for the one member, on the one channel, that the options name.
    pub(crate) async fn open(global: &Global) -> Result<Self, CliError> {
        let config = targets::one(global)?;
        let channel = targets::one_channel(global, &config)?;
        let access = Access::open(global).await?;
        let ledger = access.connect(&config)?;
        Ok(Self {
            config,
            channel,
            access,
            ledger,
        })
    }

    /// Turns to another channel of the same member, and gives the one before.
    pub(crate) fn turn(&mut self, channel: Channel) -> Result<Channel, CliError> {
        let followed = self.config.channels();
        if !followed.contains(&channel) {
            let all: Vec<&str> = followed.iter().map(AsRef::as_ref).collect();
            return Err(
                CliError::new(format!("{} does not follow {channel}", self.config.member)).next(format!("it follows {}", all.join(", ")))
            );
        }
        Ok(std::mem::replace(&mut self.channel, channel))
    }

    /// The member's voice on the channel.
    pub(crate) fn voice(&self) -> Voice<'_> {
        Voice {
            ledger: self.ledger.as_ref(),
            channel: &self.channel,
            member: &self.config.member,
        }
    }

    /// What the member's own store says of the channel, with everything that is on the ledger by now.
    pub(crate) async fn fresh(&self) -> Result<ChannelView, CliError> {
        self.take_in().await?;
        targets::view(&self.config, &self.channel)
    }

    /// Says an act by one function of the chaincode, prints `what` it did, and lets the member's own store have it.
    pub(crate) async fn act<T: Serialize>(&self, function: &str, argument: &T, what: String) -> Result<(), CliError> {
        self.said(self.voice().act(function, argument, what).await.map(|said| vec![said]))
            .await
    }

    /// Prints what was said, and lets the member's own store have it.
    pub(crate) async fn said(&self, said: Result<Vec<Said>, SubmissionError>) -> Result<(), CliError> {
        let said = said.doing(format!("{} did not take it", self.channel))?;
        for one in &said {
            output::line(&submit::line(one));
        }
        self.take_in().await
    }

    async fn take_in(&self) -> Result<(), CliError> {
        submit::take_in(&self.config, &self.channel, self.ledger.clone()).await
    }

    /// Leaves.
    pub(crate) async fn close(self) -> Result<(), CliError> {
        self.access.close().await
    }
}

/// The digits of a transaction's id that people are shown.
pub(crate) fn short(id: &TxId) -> String {
    id.as_str().chars().take(12).collect()
}
