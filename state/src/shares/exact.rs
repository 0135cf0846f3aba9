//! Exact decimals in base 10^9: β is a count of billionths, so a product by β moves the point by one digit and never rounds.

use std::cmp::Ordering;

/// β is counted in billionths: one whole.
pub(super) const BILLION: u32 = 1_000_000_000;

/// An exact decimal that is not negative.
#[derive(Clone, Debug)]
pub(super) struct Exact {
    /// Digits in base 10^9 left of the point, the lowest first. A u128 has at most five.
    whole: Vec<u32>,
    /// Digits right of the point, the highest first.
    fraction: Vec<u32>,
}

impl Exact {
    /// A whole number.
    pub(super) fn whole(mut value: u128) -> Self {
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
    pub(super) fn times(&self, billionths: u32) -> Self {
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

    /// The whole units in it.
    pub(super) fn floor(&self) -> u128 {
        self.whole
            .iter()
            .rev()
            .fold(0, |value, digit| value * u128::from(BILLION) + u128::from(*digit))
    }

    /// Compares what is right of the point.
    pub(super) fn compare_fraction(&self, other: &Self) -> Ordering {
        let digits = self.fraction.len().max(other.fraction.len());
        let digit = |exact: &Self, i: usize| exact.fraction.get(i).copied().unwrap_or(0);
        (0..digits)
            .map(|i| digit(self, i).cmp(&digit(other, i)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Compares the whole.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        self.floor().cmp(&other.floor()).then_with(|| self.compare_fraction(other))
    }

    /// All its decimals, without zeros at the end.
    pub(super) fn decimal(&self) -> String {
        let mut out = self.floor().to_string();
        let digits: String = self.fraction.iter().map(|digit| format!("{digit:09}")).collect();
        let digits = digits.trim_end_matches('0');
        if !digits.is_empty() {
            out.push('.');
            out.push_str(digits);
        }
        out
    }
}
