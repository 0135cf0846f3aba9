//! Who owns which part of each version, and the way back from parts to shares.

use std::cmp::Ordering;
use std::fmt;

use crate::agreement::Beta;

use super::exact::{BILLION, Exact};
use super::{ShareError, bounded};

/// A part of the whole, from 0 to 1, exact: its [`Display`](fmt::Display) has all decimals. Rounded parts that have to
/// sum to a whole are [`split`](super::split)'s, of a hundred per cent in whatever unit is shown.
#[derive(Clone, Debug)]
pub struct Share(Exact);

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Share {}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.compare(&other.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.decimal())
    }
}

/// Gives every member's part of every version, as the paper's Fig. 3 has it: element i is version i, from the data alone
/// (i = 0) on, with the data service provider first and then VSP_1 … VSP_i.
pub fn ownership(betas: &[Beta]) -> Result<Vec<Vec<Share>>, ShareError> {
    bounded(betas.len())?;
    let mut versions = vec![vec![Share(Exact::whole(1))]];
    let mut present = versions[0].clone();
    for beta in betas {
        present = present.iter().map(|share| Share(share.0.times(beta.billionths()))).collect();
        present.push(Share(Exact::whole(1).times(BILLION - beta.billionths())));
        versions.push(present.clone());
    }
    Ok(versions)
}

/// Finds the shares β_1 … β_n that give these parts: equation (3) reversed, with the data service provider's part first.
///
/// Each β_i is the greatest one that leaves version i − 1 no more than its parts, taken of what the later ones really leave, so
/// the rounding to billionths doesn't add up. Splitting the sum again gives each part to the unit, or one unit beside it, for
/// sums up to a billion units; beyond, a part may differ by that billionth of the sum which no β can express.
pub fn invert(parts: &[u128]) -> Result<Vec<Beta>, ShareError> {
    bounded(parts.len().saturating_sub(1))?;
    if let Some(nothing) = parts.iter().position(|part| *part == 0) {
        return Err(ShareError::Nothing(nothing));
    }
    let mut versions = Vec::with_capacity(parts.len());
    let mut sum = 0u128;
    for part in parts {
        sum = sum.checked_add(*part).ok_or(ShareError::Sum)?;
        versions.push(sum);
    }
    let mut version = Exact::whole(sum);
    let mut betas = Vec::with_capacity(parts.len().saturating_sub(1));
    for target in versions.iter().rev().skip(1) {
        let target = Exact::whole(*target);
        // Between 1 and 999,999,999: a part that is smaller than any β can say gets the smallest.
        let (mut low, mut high) = (1, BILLION - 1);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if version.times(middle).compare(&target).is_le() {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        version = version.times(low);
        betas.push(Beta::from_billionths(low).expect("the search stays strictly between nothing and one whole"));
    }
    betas.reverse();
    Ok(betas)
}

/// The least profit of the next version at which nobody has less than before, if a newcomer leaves them β of it; none when it is
/// greater than any profit can be.
pub fn break_even(profit: u128, beta: Beta) -> Option<u128> {
    let (whole, beta) = (u128::from(BILLION), u128::from(beta.billionths()));
    let (times, rest) = (profit / beta, profit % beta);
    times.checked_mul(whole)?.checked_add((rest * whole).div_ceil(beta))
}
