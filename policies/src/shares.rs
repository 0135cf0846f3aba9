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

use state::agreement::{Agreement, Beta, MAX_PARTIES, Role};
use state::ids::MemberId;
use thiserror::Error;

/// β is counted in billionths: one whole.
const BILLION: u32 = 1_000_000_000;

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
}

/// Divides a profit by the shares β_1 … β_n.
pub fn split(total: u128, betas: &[Beta]) -> Result<Split, ShareError> {
    if betas.len() >= MAX_PARTIES {
        return Err(ShareError::Shares(betas.len()));
    }
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
    let (owners, services): (Vec<_>, Vec<_>) = agreement.parties.iter().partition(|party| party.role == Role::DataServiceProvider);
    let [owner] = owners.as_slice() else {
        return Err(ShareError::Owners(owners.len()));
    };
    let betas: Vec<Beta> = services
        .iter()
        .map(|party| party.beta.ok_or_else(|| ShareError::Missing(party.member.clone())))
        .collect::<Result<_, _>>()?;
    let parts = split(total, &betas)?;
    let mut out = vec![(owner.member.clone(), parts.data)];
    out.extend(
        services
            .iter()
            .zip(parts.services)
            .map(|(party, part)| (party.member.clone(), part)),
    );
    Ok(out)
}

impl Split {
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

/// An exact decimal in base 10^9: multiplying by billionths moves the point by one digit and never rounds.
#[derive(Clone, Debug)]
struct Exact {
    /// Digits in base 10^9 left of the point, the lowest first. A u128 has at most five.
    whole: Vec<u32>,
    /// Digits right of the point, the highest first.
    fraction: Vec<u32>,
}

impl Exact {
    fn whole(mut value: u128) -> Self {
        let mut whole = Vec::new();
        while value > 0 {
            whole.push((value % u128::from(BILLION)) as u32);
            value /= u128::from(BILLION);
        }
        Self {
            whole,
            fraction: Vec::new(),
        }
    }

    /// Multiplies by `billionths` / 10^9, at most one.
    fn times(&self, billionths: u32) -> Self {
        let mut carry = 0u64;
        let mut digit = |d: &u32| {
            let product = u64::from(*d) * u64::from(billionths) + carry;
            carry = product / u64::from(BILLION);
            (product % u64::from(BILLION)) as u32
        };
        // From the lowest digit up.
        let mut fraction: Vec<u32> = self.fraction.iter().rev().map(&mut digit).collect();
        let mut whole: Vec<u32> = self.whole.iter().map(&mut digit).collect();
        fraction.reverse();
        whole.push(carry as u32);
        // Divide by 10^9: the lowest whole digit becomes the highest of the fraction.
        fraction.insert(0, whole.remove(0));
        Self { whole, fraction }
    }

    fn floor(&self) -> u128 {
        self.whole
            .iter()
            .rev()
            .fold(0, |value, digit| value * u128::from(BILLION) + u128::from(*digit))
    }

    fn compare_fraction(&self, other: &Self) -> std::cmp::Ordering {
        let digits = self.fraction.len().max(other.fraction.len());
        let digit = |exact: &Self, i: usize| exact.fraction.get(i).copied().unwrap_or(0);
        (0..digits)
            .map(|i| digit(self, i).cmp(&digit(other, i)))
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    }
}
