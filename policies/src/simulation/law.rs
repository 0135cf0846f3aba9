//! The laws that shares are drawn from, and one draw.

use rand_chacha::rand_core::Rng;
use serde::Serialize;

use super::SimulationError;

/// A law of the shares of a DAO.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "law", rename_all = "kebab-case")]
pub enum Law {
    /// Every β uniform between `low` and `high`, then put in an order. Ownership follows.
    Uniform {
        /// The least β.
        low: f64,
        /// The greatest β.
        high: f64,
        /// Who gets which.
        order: Order,
    },
    /// Ownership from a Pareto law, scaled to sum to one, sorted descending from the data service provider on. β follows.
    Pareto {
        /// The law's index α: the smaller, the more uneven.
        index: f64,
    },
}

/// In which order drawn β are given to VSP_1 … VSP_n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The greatest first: each newcomer leaves less to those before.
    Descending,
    /// The smallest first.
    Ascending,
    /// As they were drawn.
    Drawn,
}

impl Law {
    /// Refuses what is no law.
    pub(super) fn check(self) -> Result<(), SimulationError> {
        match self {
            Law::Uniform { low, high, .. } if !(low > 0.0 && low < high && high < 1.0) => Err(SimulationError::Range { low, high }),
            Law::Pareto { index } if !(0.1..=100.0).contains(&index) => Err(SimulationError::Index(index)),
            _ => Ok(()),
        }
    }
}

/// The ownership and the shares of one DAO, over again in the same memory.
pub(super) struct Draw {
    ownership: Vec<f64>,
    betas: Vec<f64>,
}

impl Draw {
    /// Room for so many members, two at least.
    pub(super) fn new(members: usize) -> Self {
        Self {
            ownership: vec![0.0; members],
            betas: vec![0.0; members - 1],
        }
    }

    /// Each member's part of the last version.
    pub(super) fn ownership(&self) -> &[f64] {
        &self.ownership
    }

    /// β_1 … β_n.
    pub(super) fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// Draws another DAO.
    pub(super) fn again(&mut self, law: Law, generator: &mut impl Rng) {
        match law {
            Law::Uniform { low, high, order } => {
                for beta in &mut self.betas {
                    *beta = low + (high - low) * unit(generator);
                }
                match order {
                    Order::Descending => self.betas.sort_unstable_by(|a, b| b.total_cmp(a)),
                    Order::Ascending => self.betas.sort_unstable_by(f64::total_cmp),
                    Order::Drawn => {}
                }
                self.own();
            }
            Law::Pareto { index } => {
                for part in &mut self.ownership {
                    // The inverse of 1 − x^(−α), the law's distribution from 1 on.
                    *part = (1.0 - unit(generator)).powf(-1.0 / index);
                }
                self.ownership.sort_unstable_by(|a, b| b.total_cmp(a));
                let sum: f64 = self.ownership.iter().sum();
                self.ownership.iter_mut().for_each(|part| *part /= sum);
                self.reverse();
            }
        }
    }

    /// Equation (3) with (2): from shares to ownership, from the last version down.
    fn own(&mut self) {
        let mut version = 1.0;
        for (i, beta) in self.betas.iter().enumerate().rev() {
            self.ownership[i + 1] = (1.0 - beta) * version;
            version *= beta;
        }
        self.ownership[0] = version;
    }

    /// Equation (3) reversed: β_i is what version i − 1 has of what version i has.
    fn reverse(&mut self) {
        let mut before = self.ownership[0];
        for (beta, part) in self.betas.iter_mut().zip(&self.ownership[1..]) {
            let version = before + part;
            *beta = before / version;
            before = version;
        }
    }
}

/// A number from 0 to 1, without 1: the 53 bits that a float can hold.
fn unit(generator: &mut impl Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_shares_to_ownership_and_back() {
        let mut draw = Draw::new(3);
        draw.betas.copy_from_slice(&[0.8, 0.75]);
        draw.own();
        for (found, wanted) in draw.ownership.iter().zip([0.6, 0.15, 0.25]) {
            assert!((found - wanted).abs() < 1e-12);
        }
        draw.betas.fill(0.0);
        draw.reverse();
        for (found, wanted) in draw.betas.iter().zip([0.8, 0.75]) {
            assert!((found - wanted).abs() < 1e-12);
        }
    }
}
