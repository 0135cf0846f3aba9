//! What members agree on: who takes part, how profit is shared, from when to when, and within which limits.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::canonical::{self, CanonicalError, Digest};
use crate::clauses::{ClauseError, Clauses};
use crate::ids::{DaoId, MemberId, MspId, Version};
use crate::time::Timestamp;

/// The most members of one agreement.
pub const MAX_PARTIES: usize = 64;
/// The shortest heartbeat, in seconds.
pub const MIN_HEARTBEAT: u32 = 60;
/// The longest heartbeat, in seconds: one day.
pub const MAX_HEARTBEAT: u32 = 86_400;
/// The most resources that any agreement can allow.
pub const MAX_RESOURCES: u32 = 100_000;

/// What a member brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Owns the data (the paper's DSP).
    DataServiceProvider,
    /// Adds a service above it (the paper's VSP).
    ValueServiceProvider,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::DataServiceProvider => "data service provider",
            Role::ValueServiceProvider => "value service provider",
        })
    }
}

/// The paper's β_i: the part of version i's profit that stays with version i − 1 when member i joins.
///
/// An exact decimal strictly between 0 and 1, in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Beta(u32);

const BILLION: u32 = 1_000_000_000;

impl Beta {
    /// The share of so many billionths; none outside 1 to 999,999,999.
    pub fn from_billionths(billionths: u32) -> Option<Self> {
        (1..BILLION).contains(&billionths).then_some(Self(billionths))
    }

    /// Billionths of the whole, from 1 to 999,999,999.
    pub fn billionths(self) -> u32 {
        self.0
    }
}

/// A share is not a decimal strictly between 0 and 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the share β {0:?} is not valid: write a decimal strictly between 0 and 1 with at most 9 digits, in quotes, for example \"0.80\"")]
pub struct BetaError(String);

impl FromStr for Beta {
    type Err = BetaError;
    fn from_str(text: &str) -> Result<Self, BetaError> {
        let refused = || BetaError(text.chars().take(40).collect());
        let digits = text.strip_prefix("0.").ok_or_else(refused)?;
        if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        let padded = format!("{digits:0<9}");
        match padded.parse::<u32>() {
            Ok(n) if n > 0 && n < BILLION => Ok(Self(n)),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Beta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:09}", self.0);
        f.pad(&format!("0.{}", digits.trim_end_matches('0')))
    }
}

impl TryFrom<String> for Beta {
    type Error = BetaError;
    fn try_from(text: String) -> Result<Self, BetaError> {
        text.parse()
    }
}

impl From<Beta> for String {
    fn from(beta: Beta) -> String {
        beta.to_string()
    }
}

impl JsonSchema for Beta {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Beta".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^0\\.[0-9]{1,9}$", "description": "A decimal strictly between 0 and 1: the part of this version's profit that stays with the version before." })
    }
}

/// One member of an agreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// The member.
    pub member: MemberId,
    /// The MSP that it is bound to.
    pub msp: MspId,
    /// What it brings.
    pub role: Role,
    /// β of a value service provider; a data service provider has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<Beta>,
}

/// From when to when the agreement holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Effective {
    /// The first moment, in ledger time.
    pub from: Timestamp,
    /// The first moment after it; none: until it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What the agreement allows at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How many resources at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub resources: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { resources: 1_000 }
    }
}

/// One version of a DAO, as its members sign it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// The DAO.
    pub dao: DaoId,
    /// Its version.
    pub version: Version,
    /// The data service providers, then the value service providers in the order in which they joined.
    #[schemars(length(min = 2, max = 64))]
    pub parties: Vec<Party>,
    /// From when to when it holds.
    pub effective: Effective,
    /// Seconds between reports of a member that has nothing to say (default 900).
    #[serde(default = "default_heartbeat")]
    #[schemars(range(min = 60, max = 86_400))]
    pub heartbeat_seconds: u32,
    /// What it allows at most.
    #[serde(default)]
    pub limits: Limits,
    /// The rules of its channel; none: every party orders what it wants, and nobody's silence ends anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clauses: Option<Clauses>,
}

fn default_heartbeat() -> u32 {
    900
}

/// An agreement breaks one of its own rules.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgreementError {
    /// Versions count from 1.
    #[error("version: versions count from 1")]
    Version,
    /// Too few or too many members.
    #[error("parties: an agreement has 2 to {MAX_PARTIES} parties, this one has {0}")]
    Parties(usize),
    /// A member or an MSP stands twice.
    #[error("parties: {0} stands twice")]
    Twice(String),
    /// The first party owns the data.
    #[error(
        "parties: the first has to be a data service provider, and all data service providers stand before the value service providers"
    )]
    Order,
    /// A data service provider with β, or a value service provider without.
    #[error("parties: {0} has to {1}")]
    Beta(MemberId, &'static str),
    /// CH_i has exactly i value service providers.
    #[error("parties: version {version} of a DAO has {version} value service providers, this one has {found}")]
    Members {
        /// The version.
        version: Version,
        /// How many value service providers it lists.
        found: usize,
    },
    /// The end is not after the start.
    #[error("effective: until is not after from")]
    Dates,
    /// Outside [`MIN_HEARTBEAT`]..=[`MAX_HEARTBEAT`].
    #[error("heartbeat_seconds: {0} is outside {MIN_HEARTBEAT} to {MAX_HEARTBEAT}")]
    Heartbeat(u32),
    /// A clause.
    #[error(transparent)]
    Clause(#[from] ClauseError),
    /// Outside 1..=[`MAX_RESOURCES`].
    #[error("limits.resources: {0} is outside 1 to {MAX_RESOURCES}")]
    Resources(u32),
}

impl Agreement {
    /// Checks the agreement's own rules (not who submits it).
    pub fn check(&self) -> Result<(), AgreementError> {
        if self.version.0 == 0 {
            return Err(AgreementError::Version);
        }
        if !(2..=MAX_PARTIES).contains(&self.parties.len()) {
            return Err(AgreementError::Parties(self.parties.len()));
        }
        let mut seen = BTreeSet::new();
        for party in &self.parties {
            for name in [party.member.as_str(), party.msp.as_str()] {
                if !seen.insert(name) {
                    return Err(AgreementError::Twice(name.to_owned()));
                }
            }
        }
        if self.parties[0].role != Role::DataServiceProvider || !self.parties.is_sorted_by_key(|party| party.role) {
            return Err(AgreementError::Order);
        }
        for party in &self.parties {
            match (party.role, party.beta) {
                (Role::DataServiceProvider, Some(_)) => {
                    return Err(AgreementError::Beta(
                        party.member.clone(),
                        "have no beta: a data service provider keeps what is left",
                    ));
                }
                (Role::ValueServiceProvider, None) => {
                    return Err(AgreementError::Beta(
                        party.member.clone(),
                        "have a beta: every value service provider joins at one",
                    ));
                }
                _ => {}
            }
        }
        let services = self.parties.iter().filter(|party| party.role == Role::ValueServiceProvider).count();
        if services != self.version.0 as usize {
            return Err(AgreementError::Members {
                version: self.version,
                found: services,
            });
        }
        if self.effective.until.is_some_and(|until| until <= self.effective.from) {
            return Err(AgreementError::Dates);
        }
        if !(MIN_HEARTBEAT..=MAX_HEARTBEAT).contains(&self.heartbeat_seconds) {
            return Err(AgreementError::Heartbeat(self.heartbeat_seconds));
        }
        if !(1..=MAX_RESOURCES).contains(&self.limits.resources) {
            return Err(AgreementError::Resources(self.limits.resources));
        }
        if let Some(clauses) = &self.clauses {
            let parties = self.parties.iter().map(|party| &party.member).collect();
            clauses.check(&parties, self.heartbeat_seconds)?;
        }
        Ok(())
    }

    /// Whether the ledger keeps the times of reports: where silence or a date can end something.
    pub fn keeps_time(&self) -> bool {
        self.clauses.is_some() || self.effective.until.is_some()
    }

    /// The party that a member is, if it takes part.
    pub fn party(&self, member: &MemberId) -> Option<&Party> {
        self.parties.iter().find(|party| party.member == *member)
    }

    /// The same agreement with a member, of an MSP, in the place of one of its parties.
    pub fn succeeded(&self, from: &MemberId, to: &MemberId, msp: &MspId) -> Self {
        let mut agreement = self.clone();
        for party in agreement.parties.iter_mut().filter(|party| party.member == *from) {
            party.member = to.clone();
            party.msp = msp.clone();
        }
        agreement.clauses = agreement.clauses.map(|clauses| clauses.succeeded(from, to));
        agreement
    }

    /// The digest that every member accepts.
    pub fn digest(&self) -> Result<Digest, CanonicalError> {
        canonical::digest(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_and_strictly_between_0_and_1() {
        assert_eq!("0.8".parse::<Beta>().unwrap().billionths(), 800_000_000);
        assert_eq!("0.80".parse::<Beta>().unwrap().to_string(), "0.8");
        assert_eq!("0.000000001".parse::<Beta>().unwrap().to_string(), "0.000000001");
        for bad in ["0", "1", "0.0", "1.0", "-0.5", "0.", ".5", "0.5x", "0.0000000001", "1e-1", "0,5"] {
            assert!(bad.parse::<Beta>().is_err(), "{bad}");
        }
    }
}
