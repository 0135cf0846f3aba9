//! Distributions of profit: an amount, and what each party has of it, to the unit, by the shares that all of them signed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ActRefusal, Fault, Source, Taken, life};
use crate::agreement::Role;
use crate::ids::{MemberId, PeriodId};
use crate::records::{self, Books, Submitted};
use crate::rules::CheckError;
use crate::shares;

/// Whole minor units, such as cents; written as digits, so that no reader rounds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Units(pub u128);

/// A text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no amount: write digits only, whole minor units up to {max}, without zeros before them", max = u128::MAX)]
pub struct UnitsError(String);

impl FromStr for Units {
    type Err = UnitsError;
    fn from_str(text: &str) -> Result<Self, UnitsError> {
        let refused = || UnitsError(text.chars().take(60).collect());
        // One amount, one text: a digest covers it.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.len() > 1 && text.starts_with('0') {
            return Err(refused());
        }
        text.parse().map(Units).map_err(|_| refused())
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl TryFrom<String> for Units {
    type Error = UnitsError;
    fn try_from(text: String) -> Result<Self, UnitsError> {
        text.parse()
    }
}

impl From<Units> for String {
    fn from(units: Units) -> String {
        units.to_string()
    }
}

/// A profit that is to be divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// The period in which it was made; each is divided once.
    pub period: PeriodId,
    /// The profit of this version.
    pub amount: Units,
}

/// What a member has of a profit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The member.
    pub member: MemberId,
    /// Its part.
    pub amount: Units,
}

/// A profit that was divided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistributionRecord {
    /// The profit.
    pub distribution: Distribution,
    /// Who has what, in the order of the agreement's parties; the parts sum to the profit.
    pub parts: Vec<Part>,
    /// The transaction.
    pub distributed: Submitted,
}

/// Why a profit is not divided.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DistributionRefusal {
    /// Once is enough.
    #[error("the profit of {period} was divided already, in transaction {tx}")]
    Divided {
        /// The period.
        period: PeriodId,
        /// The transaction.
        tx: String,
    },
    /// Only the data service provider knows what a version earned.
    #[error("a profit is stated by a data service provider, and {0} is none in this agreement")]
    Role(MemberId),
    /// The shares don't say how.
    #[error("the shares of the agreement can't be applied: {0}")]
    Shares(#[from] shares::ShareError),
}

impl DistributionRefusal {
    pub(super) fn fault(&self) -> Fault {
        match self {
            DistributionRefusal::Divided { .. } => Fault::Conflict,
            DistributionRefusal::Role(_) => Fault::Forbidden,
            DistributionRefusal::Shares(_) => Fault::Bad,
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            DistributionRefusal::Divided { .. } => "the period's profit was divided already",
            DistributionRefusal::Role(_) => "only a data service provider states a profit",
            DistributionRefusal::Shares(_) => "the agreement's shares can't be applied",
        }
    }
}

fn refused<E>(refusal: impl Into<DistributionRefusal>) -> CheckError<E> {
    CheckError::Refused(ActRefusal::from(refusal.into()).into())
}

/// Divides a profit among the parties of the agreement.
pub(super) fn distribute<B: Books + ?Sized>(
    books: &mut B,
    source: &Source<'_>,
    distribution: &Distribution,
) -> Result<Taken, CheckError<B::Error>> {
    let by = source.by();
    let agreement = life::acting(books, by)?;
    if agreement.party(by).is_none_or(|party| party.role != Role::DataServiceProvider) {
        return Err(refused(DistributionRefusal::Role(by.clone())));
    }
    let before: Option<DistributionRecord> = records::get(books, distribution.period.as_str()).map_err(CheckError::View)?;
    if let Some(before) = before {
        return Err(refused(DistributionRefusal::Divided {
            period: distribution.period.clone(),
            tx: before.distributed.tx_id.to_string(),
        }));
    }
    let parts = shares::distribute(distribution.amount.0, &agreement).map_err(refused)?;
    Ok(Taken::record(DistributionRecord {
        distribution: distribution.clone(),
        parts: parts
            .into_iter()
            .map(|(member, amount)| Part {
                member,
                amount: Units(amount),
            })
            .collect(),
        distributed: source.submitted.clone(),
    }))
}
