//! Channels that a member's peers have joined and its configuration doesn't name: which of them are followed, and since when.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ledger_sync::{EvaluateError, Ledger};
use serde::{Deserialize, Serialize};
use state::git::{GitError, Store};
use state::ids::Channel;
use thiserror::Error;

/// The references of what was ordered, one for each channel.
const DESIRED: &str = "refs/heads/desired/";
/// The function that every channel with our chaincode answers, if only with a refusal.
const PROBE: &str = "agreement";

/// The names of channels: one name, or those with one beginning and a `*` at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Text is no pattern for the names of channels.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the pattern {0:?} is not valid: write a channel's name, or its beginning and a '*', for example smart-city-*")]
pub struct PatternError(String);

impl Pattern {
    /// The pattern that every channel fits.
    pub fn every() -> Self {
        Self("*".into())
    }

    /// Tells whether a channel's name fits.
    pub fn fits(&self, channel: &Channel) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => channel.as_str().starts_with(beginning),
            None => channel.as_str() == self.0,
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let beginning = text.strip_suffix('*').unwrap_or(text);
        // A beginning that is the beginning of a name becomes a name with one letter more.
        if (text != beginning && beginning.is_empty())
            || Channel::new(beginning).is_ok()
            || Channel::new(format!("{beginning}x")).is_ok() && text != beginning
        {
            return Ok(Self(text.to_owned()));
        }
        Err(PatternError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The channels that a store has taken something in from, and that fit one of the patterns: they are followed also when no peer
/// can be asked.
pub fn kept(store: &Store, patterns: &[Pattern]) -> Result<BTreeSet<Channel>, GitError> {
    let references = store.references(DESIRED)?;
    let names = references.iter().filter_map(|(name, _)| name.strip_prefix(DESIRED));
    let channels = names.filter_map(|name| Channel::new(name).ok());
    Ok(channels
        .filter(|channel| patterns.iter().any(|pattern| pattern.fits(channel)))
        .collect())
}

/// The channels that this member's peers have joined, that fit one of the patterns, on which our chaincode answers, and that are not
/// known yet.
pub(crate) async fn new(ledger: &dyn Ledger, patterns: &[Pattern], known: &BTreeSet<Channel>) -> Result<BTreeSet<Channel>, EvaluateError> {
    let mut new = BTreeSet::new();
    for channel in ledger.joined().await? {
        let fits = patterns.iter().any(|pattern| pattern.fits(&channel));
        if fits && !known.contains(&channel) && has_agreements(ledger, &channel).await {
            new.insert(channel);
        }
    }
    Ok(new)
}

/// Looks for channels, and gives each that is new to `found`, for ever. `missed` is told after each look why it failed, if it did.
pub(crate) async fn look(
    ledger: Arc<dyn Ledger>,
    patterns: Vec<Pattern>,
    mut known: BTreeSet<Channel>,
    every: Duration,
    mut found: impl FnMut(&Channel),
    mut missed: impl FnMut(Option<String>),
) {
    let mut silent = false;
    loop {
        match new(ledger.as_ref(), &patterns, &known).await {
            Ok(channels) => {
                silent = false;
                missed(None);
                channels.iter().for_each(&mut found);
                known.extend(channels);
            }
            Err(error) => {
                let why = state::errors::chain(&error);
                if !silent {
                    tracing::warn!(error = why, "the peers don't say which channels they have joined");
                }
                silent = true;
                missed(Some(why));
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Tells whether our chaincode answers on a channel: a peer may have joined other applications' channels, or one whose chaincode
/// isn't committed yet.
async fn has_agreements(ledger: &dyn Ledger, channel: &Channel) -> bool {
    match ledger.evaluate(channel, PROBE, Vec::new()).await {
        Ok(_) | Err(EvaluateError::Refused { .. }) => true,
        Err(error) => {
            tracing::debug!(%channel, error = state::errors::chain(&error), "the chaincode doesn't answer on this channel");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use ledger_sync::ledger::Stage;
    use ledger_sync::{BlockStream, Committed, Fault, StreamError, SubmitError};
    use std::sync::Mutex;

    #[test]
    fn a_pattern_is_a_name_or_its_beginning() {
        let channel: Channel = "smart-city-2".parse().unwrap();
        for (pattern, fits) in [
            ("*", true),
            ("smart-city-*", true),
            ("smart-city-2", true),
            ("smart-city", false),
            ("s*", true),
            ("t*", false),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().fits(&channel), fits, "{pattern}");
        }
        for bad in ["", "**", "a*b", "A*", "-*", "../*", "a_*", "smart-city-"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    /// A peer that joins one more channel each time that it is asked, and whose chaincode answers on some of them.
    #[derive(Default)]
    struct Joining {
        asked: Mutex<usize>,
    }

    const JOINED: [&str; 4] = ["smart-city-1", "other-app", "smart-city-2", "farm-1"];

    #[async_trait]
    impl Ledger for Joining {
        async fn submit(&self, _: &Channel, _: &str, _: Vec<Vec<u8>>) -> Result<Committed, SubmitError> {
            panic!("nothing is submitted to find channels")
        }

        async fn evaluate(&self, channel: &Channel, function: &str, _: Vec<Vec<u8>>) -> Result<Vec<u8>, EvaluateError> {
            if channel.as_str() == "other-app" {
                return Err(EvaluateError::Call(Fault::deadline(
                    Stage::Evaluate,
                    "https://peer",
                    Duration::from_secs(1),
                )));
            }
            Err(EvaluateError::Refused {
                function: function.into(),
                status: 404,
                message: "there is no agreement yet".into(),
            })
        }

        async fn blocks(&self, _: &Channel, _: u64) -> Result<BlockStream, StreamError> {
            panic!("nothing is followed to find channels")
        }

        async fn height(&self, _: &Channel) -> Result<u64, StreamError> {
            panic!("nothing is followed to find channels")
        }

        async fn joined(&self) -> Result<BTreeSet<Channel>, EvaluateError> {
            let mut asked = self.asked.lock().unwrap();
            *asked += 1;
            if *asked == 2 {
                return Err(EvaluateError::Call(Fault::deadline(
                    Stage::Evaluate,
                    "https://peer",
                    Duration::from_secs(1),
                )));
            }
            Ok(JOINED.iter().take(*asked).map(|name| name.parse().unwrap()).collect())
        }
    }

    #[tokio::test]
    async fn each_channel_that_fits_and_answers_is_found_once() {
        let ledger = Arc::new(Joining::default());
        let patterns = vec!["smart-city-*".parse().unwrap(), "other-app".parse().unwrap()];
        let mut found = Vec::new();
        let remember = |channel: &Channel| {
            found.push(channel.to_string());
        };
        let mut told = Vec::new();
        let missed = |why: Option<String>| told.push(why.is_some());
        let looking = look(
            ledger.clone(),
            patterns,
            BTreeSet::new(),
            Duration::from_millis(1),
            remember,
            missed,
        );
        let enough = async {
            while *ledger.asked.lock().unwrap() < 9 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = looking => panic!("it looks for ever"),
            () = enough => {}
        }
        assert_eq!(found, ["smart-city-1", "smart-city-2"]);
        assert!(
            told.contains(&true) && told.contains(&false),
            "a look that failed is told, and one that didn't"
        );
    }
}
