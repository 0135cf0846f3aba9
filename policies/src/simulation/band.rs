//! The middle and the spread of a number between 0 and 1 over many runs, in bounded memory.

use serde::Serialize;

/// So many equal steps from 0 to 1: a quantile is exact to 0.005 %, and 64 members need some megabytes.
const STEPS: usize = 20_000;
/// What a value is rounded to before it is summed.
const FINEST: f64 = 1e9;

/// A number over all runs: 90 % of them lie between `low` and `high`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Band {
    /// 5 % of the runs are below.
    pub low: f64,
    /// Half of the runs are below.
    pub median: f64,
    /// 95 % of the runs are below.
    pub high: f64,
    /// The mean of all runs.
    pub mean: f64,
}

/// Counts how often a number fell into each step.
#[derive(Clone)]
pub(super) struct Tally {
    steps: Vec<u32>,
    runs: u64,
    sum: u64,
}

impl Tally {
    /// Nothing counted yet.
    pub(super) fn new() -> Self {
        Self {
            steps: vec![0; STEPS],
            runs: 0,
            sum: 0,
        }
    }

    /// Counts one value from 0 to 1.
    pub(super) fn take(&mut self, value: f64) {
        // `MAX_RUNS` fits a step's counter, and a billion times it fits the sum.
        self.steps[((value * STEPS as f64) as usize).min(STEPS - 1)] += 1;
        self.runs += 1;
        self.sum += (value * FINEST).round() as u64;
    }

    /// Adds what was counted elsewhere.
    pub(super) fn add(&mut self, other: &Self) {
        self.steps.iter_mut().zip(&other.steps).for_each(|(ours, theirs)| *ours += theirs);
        self.runs += other.runs;
        self.sum += other.sum;
    }

    /// The band of what was counted; at least one value was.
    pub(super) fn band(&self) -> Band {
        Band {
            low: self.quantile(0.05),
            median: self.quantile(0.5),
            high: self.quantile(0.95),
            mean: self.sum as f64 / FINEST / self.runs as f64,
        }
    }

    /// Where this part of the runs is below, evenly spread within a step.
    fn quantile(&self, part: f64) -> f64 {
        let wanted = part * self.runs as f64;
        let mut below = 0.0;
        for (step, count) in self.steps.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= wanted {
                return (step as f64 + (wanted - below) / count) / STEPS as f64;
            }
            below += count;
        }
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_mean_of_a_known_set() {
        let mut tally = Tally::new();
        let mut other = Tally::new();
        for i in 0..1000 {
            // 0.0005, 0.0015, … 0.9995, half of them counted elsewhere.
            if i % 2 == 0 { &mut tally } else { &mut other }.take((f64::from(i) + 0.5) / 1000.0);
        }
        tally.add(&other);
        let band = tally.band();
        for (found, wanted) in [(band.low, 0.05), (band.median, 0.5), (band.high, 0.95), (band.mean, 0.5)] {
            assert!((found - wanted).abs() < 0.001, "{found} is not {wanted}");
        }
    }

    #[test]
    fn the_ends_are_counted() {
        let mut tally = Tally::new();
        tally.take(1.0);
        assert!(tally.band().median > 0.9999);
        let mut tally = Tally::new();
        tally.take(0.0);
        assert!(tally.band().median < 0.0001);
    }
}
