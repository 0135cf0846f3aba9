//! Fig. 3's tree, the way back from parts to shares, and what a newcomer changes: held against plain big-integer arithmetic.

use num_bigint::BigUint;
use policies::shares::{ShareError, break_even, invert, ownership, split};
use proptest::prelude::*;
use state::agreement::Beta;

fn betas(texts: &[&str]) -> Vec<Beta> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn shown(texts: &[&str]) -> Vec<Vec<String>> {
    let tree = ownership(&betas(texts)).unwrap();
    tree.iter()
        .map(|version| version.iter().map(ToString::to_string).collect())
        .collect()
}

/// A decimal as a count of 10^-digits.
fn scaled(text: &str, digits: usize) -> BigUint {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<digits$}").parse().unwrap()
}

#[test]
fn every_version_has_its_members_and_their_parts() {
    assert_eq!(
        shown(&["0.8", "0.75"]),
        [vec!["1"], vec!["0.8", "0.2"], vec!["0.6", "0.15", "0.25"]]
    );
    assert_eq!(shown(&[]), [["1"]]);
    assert_eq!(
        shown(&["0.000000001", "0.999999999"])[2],
        ["0.000000000999999999", "0.999999998000000001", "0.000000001"]
    );
    assert_eq!(ownership(&vec!["0.5".parse().unwrap(); 64]), Err(ShareError::Shares(64)));
}

#[test]
fn shares_are_compared_by_value() {
    let tree = ownership(&betas(&["0.5", "0.5"])).unwrap();
    assert_eq!(tree[2][0], tree[2][1]);
    assert!(tree[2][2] > tree[2][0]);
    assert_eq!(tree[1][0], tree[2][2]);
}

#[test]
fn from_parts_to_shares() {
    assert_eq!(invert(&[600_000, 150_000, 250_000]).unwrap(), betas(&["0.8", "0.75"]));
    assert_eq!(invert(&[1, 1, 1]).unwrap(), betas(&["0.5", "0.666666666"]));
    assert_eq!(invert(&[]).unwrap(), []);
    assert_eq!(invert(&[7]).unwrap(), []);
    assert_eq!(invert(&[1, 0, 1]), Err(ShareError::Nothing(1)));
    assert_eq!(invert(&[0, 1]), Err(ShareError::Nothing(0)));
    assert_eq!(invert(&[u128::MAX, 1]), Err(ShareError::Sum));
    assert_eq!(invert(&[1; 65]), Err(ShareError::Shares(64)));
    // What no β can say comes as near as one can.
    assert_eq!(invert(&[1, u128::MAX - 1]).unwrap(), betas(&["0.000000001"]));
    assert_eq!(invert(&[u128::MAX - 1, 1]).unwrap(), betas(&["0.999999999"]));
}

#[test]
fn a_newcomer_has_to_bring_as_much_as_it_takes() {
    let beta = |text: &str| text.parse::<Beta>().unwrap();
    assert_eq!(break_even(750, beta("0.75")), Some(1000));
    assert_eq!(break_even(1, beta("0.3")), Some(4));
    assert_eq!(break_even(0, beta("0.3")), Some(0));
    assert_eq!(break_even(u128::MAX, beta("0.999999999")), None);
}

fn a_beta() -> impl Strategy<Value = Beta> {
    prop_oneof![
        4 => 1..1_000_000_000u32,
        1 => prop::sample::select(vec![1, 500_000_000, 999_999_999]),
    ]
    .prop_map(|n| Beta::from_billionths(n).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Each part is the product that the equations name, with every decimal, and each version's parts sum to exactly one.
    #[test]
    fn the_tree_is_the_equations(betas in prop::collection::vec(a_beta(), 0..64)) {
        let tree = ownership(&betas).unwrap();
        prop_assert_eq!(tree.len(), betas.len() + 1);
        for (i, version) in tree.iter().enumerate() {
            prop_assert_eq!(version.len(), i + 1);
            let mut sum = BigUint::ZERO;
            for (j, share) in version.iter().enumerate() {
                let own = if j == 0 { 1_000_000_000 } else { 1_000_000_000 - betas[j - 1].billionths() };
                // Nine decimals for the member's own factor, and nine for each β after it.
                let exact = betas[j..i].iter().fold(BigUint::from(own), |product, beta| product * beta.billionths());
                let exact = exact * BigUint::from(1_000_000_000u32).pow(j as u32);
                let found = scaled(&share.to_string(), 9 * (i + 1));
                prop_assert_eq!(&found, &exact);
                sum += found;
            }
            prop_assert_eq!(sum, BigUint::from(1_000_000_000u32).pow(i as u32 + 1));
        }
    }

    /// Parts of a profit follow from the tree: each within a unit of it.
    #[test]
    fn a_split_is_the_last_version_of_the_tree(total in any::<u128>(), betas in prop::collection::vec(a_beta(), 0..64)) {
        let digits = 9 * (betas.len() + 1);
        let one = BigUint::from(10u32).pow(digits as u32);
        let tree = ownership(&betas).unwrap();
        for (share, part) in tree[betas.len()].iter().zip(split(total, &betas).unwrap().parts()) {
            let exact = scaled(&share.to_string(), digits) * total;
            let floor = &exact / &one;
            prop_assert!(floor <= BigUint::from(part) && BigUint::from(part) * &one < exact + &one);
        }
    }

    /// Splitting by the shares that were found gives the parts that were asked for, or one unit beside them.
    #[test]
    fn the_inverse_is_exact_to_one_unit(parts in prop::collection::vec(1..15_000_000u128, 1..=64)) {
        let betas = invert(&parts).unwrap();
        let again = split(parts.iter().sum(), &betas).unwrap().parts();
        for (wanted, found) in parts.iter().zip(&again) {
            prop_assert!(wanted.abs_diff(*found) <= 1, "{} became {}", wanted, found);
        }
    }

    /// Beyond a billion units nothing is off by more than a billionth of the sum.
    #[test]
    fn the_inverse_of_great_sums(parts in prop::collection::vec(1..u128::MAX / 64, 1..=64)) {
        let sum: u128 = parts.iter().sum();
        let again = split(sum, &invert(&parts).unwrap()).unwrap().parts();
        for (wanted, found) in parts.iter().zip(&again) {
            prop_assert!(wanted.abs_diff(*found) <= 1 + sum / 1_000_000_000);
        }
    }

    /// At the break-even profit nobody who was there has less, and with one unit less of profit somebody may.
    #[test]
    fn at_break_even_nobody_loses(profit in 0..u64::MAX, newcomer in a_beta()) {
        let profit = u128::from(profit);
        let needed = break_even(profit, newcomer).unwrap();
        let beta = u128::from(newcomer.billionths());
        prop_assert!(needed * beta >= profit * 1_000_000_000);
        prop_assert!(needed == 0 || (needed - 1) * beta < profit * 1_000_000_000);
    }
}
