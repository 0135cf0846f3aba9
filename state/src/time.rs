//! Ledger time: whole seconds since the Unix epoch, written as RFC 3339 in UTC. Nothing here reads a clock.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment, in whole seconds since the Unix epoch, between 1970 and the end of 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// The last second that four digits of a year can say, and that `git fsck` accepts.
const LAST: i64 = 253_402_300_799;

impl Timestamp {
    /// Takes seconds since the epoch and clamps them to what git and RFC 3339 can say.
    pub fn clamped(seconds: i64) -> Self {
        Self(seconds.clamp(0, LAST))
    }

    /// Seconds since the Unix epoch.
    pub fn seconds(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp(self.0).map_err(|_| fmt::Error)?;
        f.pad(&moment.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

/// A text is not a moment.
#[derive(Debug, Error)]
#[error("{0:?} is not a moment: write RFC 3339 in UTC between 1970 and 9999, for example 2026-01-31T00:00:00Z")]
pub struct TimestampError(String);

impl FromStr for Timestamp {
    type Err = TimestampError;
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let refused = || TimestampError(text.chars().take(40).collect());
        let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| refused())?;
        let seconds = moment.unix_timestamp();
        if (0..=LAST).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(refused())
        }
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;
    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> String {
        moment.to_string()
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_clamped_and_read_back() {
        assert_eq!(Timestamp::clamped(-5).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::clamped(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!("2026-01-31T00:00:00Z".parse::<Timestamp>().unwrap().seconds(), 1_769_817_600);
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
