//! The division of profit among the members of a DAO, exact to the last unit.
//!
//! Version i of a DAO is version i − 1 and the value service provider VSP_i, who joined at the share β_i. Of version i's
//! profit, β_i stays with version i − 1, and VSP_i has the rest. With n value service providers:
//!
//! - equation (2): π[DAO^(i)] = π[DAO^(n)] · β_(i+1) · … · β_n,
//! - equation (3): π[VSP_i] = (1 − β_i) · π[DAO^(i)].
//!
//! π[DAO^(0)] is what the data service provider keeps. Profit is counted in whole minor units (cents), while the equations
//! give fractions, so the parts are rounded down and the units that are left go to the largest fractions, one each. Where
//! fractions are equal, the data service provider comes first, then the value service providers in the order in which they
//! joined. Nothing is lost and nothing is made up: the parts always sum to the whole.

mod exact;
mod ownership;

use crate::agreement::{Agreement, Beta, MAX_PARTIES, Role};
use crate::ids::MemberId;
use thiserror::Error;

use exact::{BILLION, Exact};
pub use ownership::{Share, break_even, invert, ownership};

/// The parts of one profit, in minor units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// What the data service provider keeps: π[DAO^(0)].
    pub data: u128,
    /// What each value service provider has, in the order in which they joined: π[VSP_1], π[VSP_2], …
    pub services: Vec<u128>,
}

/// Why a profit can't be divided.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShareError {
    /// More shares than an agreement can have.
    #[error("{0} shares are more than an agreement has: at most {max}", max = MAX_PARTIES - 1)]
    Shares(usize),
    /// The agreement doesn't say how several data service providers divide what they keep.
    #[error("the agreement has {0} data service providers, and no clause on how these divide their part")]
    Owners(usize),
    /// A value service provider without a share.
    #[error("value service provider {0} has no beta")]
    Missing(MemberId),
    /// A part of nothing, which no β gives: every β lies strictly between 0 and 1.
    #[error("part {0} is nothing, and a beta strictly between 0 and 1 gives everybody a part (0 is the data service provider's)")]
    Nothing(usize),
    /// Parts that sum to more than any profit.
    #[error("the parts sum to more than the greatest profit there can be")]
    Sum,
}

/// The members of an agreement as the equations know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stakes {
    /// The data service provider.
    pub data: MemberId,
    /// The value service providers and what was left to the version before each of them, in the order in which they joined.
    pub services: Vec<(MemberId, Beta)>,
}

impl Stakes {
    /// Reads the stakes of an agreement.
    pub fn of(agreement: &Agreement) -> Result<Self, ShareError> {
        let (owners, services): (Vec<_>, Vec<_>) = agreement.parties.iter().partition(|party| party.role == Role::DataServiceProvider);
        let [owner] = owners.as_slice() else {
            return Err(ShareError::Owners(owners.len()));
        };
        let services = services
            .iter()
            .map(|party| {
                let beta = party.beta.ok_or_else(|| ShareError::Missing(party.member.clone()))?;
                Ok((party.member.clone(), beta))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            data: owner.member.clone(),
            services,
        })
    }

    /// β_1 … β_n.
    pub fn betas(&self) -> Vec<Beta> {
        self.services.iter().map(|(_, beta)| *beta).collect()
    }

    /// The members in the order of their parts: the data service provider, VSP_1, …
    pub fn members(&self) -> impl Iterator<Item = &MemberId> {
        std::iter::once(&self.data).chain(self.services.iter().map(|(member, _)| member))
    }
}

/// Divides a profit by the shares β_1 … β_n.
pub fn split(total: u128, betas: &[Beta]) -> Result<Split, ShareError> {
    bounded(betas.len())?;
    // From the newest version down: π[DAO^(i)] with its fraction, exact, as equation (2) has it.
    let mut version = Exact::whole(total);
    let mut parts = Vec::with_capacity(betas.len() + 1);
    for beta in betas.iter().rev() {
        parts.push(version.times(BILLION - beta.billionths()));
        version = version.times(beta.billionths());
    }
    parts.push(version);
    // In join order: the data service provider, VSP_1, …
    parts.reverse();
    let rounded = round(total, &parts);
    let (data, services) = rounded.split_first().map_or((0, &[][..]), |(data, services)| (*data, services));
    Ok(Split {
        data,
        services: services.to_vec(),
    })
}

/// Divides a profit among the parties of an agreement, in their order.
pub fn distribute(total: u128, agreement: &Agreement) -> Result<Vec<(MemberId, u128)>, ShareError> {
    let stakes = Stakes::of(agreement)?;
    let parts = split(total, &stakes.betas())?;
    Ok(stakes.members().cloned().zip(parts.parts()).collect())
}

/// Refuses more shares than an agreement can have.
fn bounded(shares: usize) -> Result<(), ShareError> {
    if shares >= MAX_PARTIES {
        return Err(ShareError::Shares(shares));
    }
    Ok(())
}

impl Split {
    /// The parts in join order: the data service provider's first.
    pub fn parts(&self) -> Vec<u128> {
        std::iter::once(self.data).chain(self.services.iter().copied()).collect()
    }

    /// π[DAO^(i)] for i = 0 … n: what version i's members have together, so that it fits the parts to the unit.
    pub fn versions(&self) -> Vec<u128> {
        let mut sum = self.data;
        let mut out = vec![sum];
        for part in &self.services {
            // The parts sum to the profit that was divided, which is a u128.
            sum = sum.saturating_add(*part);
            out.push(sum);
        }
        out
    }
}

/// Rounds parts that sum to `total` down to whole units, and gives the units that are left to the largest fractions.
fn round(total: u128, parts: &[Exact]) -> Vec<u128> {
    let mut whole: Vec<u128> = parts.iter().map(Exact::floor).collect();
    let mut left = total - whole.iter().sum::<u128>();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    // A stable sort: equal fractions stay in join order.
    order.sort_by(|a, b| parts[*b].compare_fraction(&parts[*a]));
    for index in order {
        if left == 0 {
            break;
        }
        whole[index] += 1;
        left -= 1;
    }
    whole
}
