//! The division of profit: exact, and the same for everybody who computes it.

use policies::shares::{ShareError, Split, distribute, split};
use proptest::prelude::*;
use serde_json::json;
use state::agreement::{Agreement, Beta};

fn betas(texts: &[&str]) -> Vec<Beta> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn parts(data: u128, services: &[u128]) -> Split {
    Split {
        data,
        services: services.to_vec(),
    }
}

#[test]
fn the_equations_of_the_paper() {
    // Version 2: VSP_2 has 1 - 0.75 of it; of what is left, VSP_1 has 1 - 0.8.
    assert_eq!(
        split(1_000_000, &betas(&["0.8", "0.75"])).unwrap(),
        parts(600_000, &[150_000, 250_000])
    );
    assert_eq!(
        split(1_000_000, &betas(&["0.8", "0.75"])).unwrap().versions(),
        [600_000, 750_000, 1_000_000]
    );
    assert_eq!(split(5, &[]).unwrap(), parts(5, &[]));
    assert_eq!(split(0, &betas(&["0.5"])).unwrap(), parts(0, &[0]));
}

#[test]
fn units_that_are_left_go_to_the_largest_fractions_and_ties_to_who_came_first() {
    // 0.5 and 0.5 of one unit: the data service provider came first.
    assert_eq!(split(1, &betas(&["0.5"])).unwrap(), parts(1, &[0]));
    // 0.3 and 0.7.
    assert_eq!(split(1, &betas(&["0.3"])).unwrap(), parts(0, &[1]));
    // 0.25, 0.25 and 0.5 of three units: 0.75, 0.75, 1.5; two units are left for the larger fractions.
    assert_eq!(split(3, &betas(&["0.5", "0.5"])).unwrap(), parts(1, &[1, 1]));
    // 0.25, 0.25 and 0.5 of one unit.
    assert_eq!(split(1, &betas(&["0.5", "0.5"])).unwrap(), parts(0, &[0, 1]));
    // A difference in the last of eighteen digits decides.
    assert_eq!(split(1, &betas(&["0.500000001", "0.999999999"])).unwrap(), parts(1, &[0, 0]));
    assert_eq!(split(1, &betas(&["0.499999999", "0.999999999"])).unwrap(), parts(0, &[1, 0]));
}

#[test]
fn the_greatest_sums_and_the_smallest_shares() {
    let all = split(u128::MAX, &vec!["0.999999999".parse().unwrap(); 63]).unwrap();
    assert_eq!(
        all.services.iter().try_fold(all.data, |sum, part| sum.checked_add(*part)),
        Some(u128::MAX)
    );
    let small = split(u128::MAX, &vec!["0.000000001".parse().unwrap(); 63]).unwrap();
    assert_eq!(
        small.services.iter().try_fold(small.data, |sum, part| sum.checked_add(*part)),
        Some(u128::MAX)
    );
    assert_eq!(small.data, 0);
    assert_eq!(split(1, &vec!["0.5".parse().unwrap(); 64]), Err(ShareError::Shares(64)));
}

#[test]
fn an_agreement_divides_by_its_own_shares() {
    let agreement = |owners: usize| -> Agreement {
        let mut parties: Vec<_> = (0..owners)
            .map(|i| json!({ "member": format!("city-{i}"), "msp": format!("City{i}MSP"), "role": "data-service-provider" }))
            .collect();
        parties.push(json!({ "member": "acme", "msp": "AcmeMSP", "role": "value-service-provider", "beta": "0.75" }));
        serde_json::from_value(json!({ "dao": "air", "version": 1, "parties": parties, "effective": { "from": "2026-01-01T00:00:00Z" } }))
            .unwrap()
    };
    let found: Vec<(String, u128)> = distribute(1000, &agreement(1))
        .unwrap()
        .into_iter()
        .map(|(member, part)| (member.to_string(), part))
        .collect();
    assert_eq!(found, [("city-0".to_owned(), 750), ("acme".to_owned(), 250)]);
    assert_eq!(distribute(1000, &agreement(2)), Err(ShareError::Owners(2)));
}

fn a_beta() -> impl Strategy<Value = Beta> {
    prop_oneof![
        4 => 1..1_000_000_000u32,
        1 => prop::sample::select(vec![1, 500_000_000, 999_999_999]),
    ]
    .prop_map(|n| format!("0.{n:09}").parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No unit is lost or made up, for any profit and any number of members.
    #[test]
    fn the_parts_sum_to_the_whole(total in any::<u128>(), betas in prop::collection::vec(a_beta(), 0..64)) {
        let parts = split(total, &betas).unwrap();
        prop_assert_eq!(parts.services.len(), betas.len());
        let sum = parts.services.iter().try_fold(parts.data, |sum, part| sum.checked_add(*part));
        prop_assert_eq!(sum, Some(total));
        prop_assert_eq!(parts.versions().last().copied(), Some(total));
    }

    /// Every part is the equation's value rounded down or up by less than one unit: checked with plain fractions where these fit.
    #[test]
    fn a_part_is_within_a_unit_of_the_equation(total in 0..1_000_000_000u128, b1 in a_beta(), b2 in a_beta(), b3 in a_beta()) {
        const ONE: u128 = 1_000_000_000;
        let parts = split(total, &[b1, b2, b3]).unwrap();
        let (b1, b2, b3) = (u128::from(b1.billionths()), u128::from(b2.billionths()), u128::from(b3.billionths()));
        let whole = ONE * ONE * ONE;
        for (part, exact) in [
            (parts.data, total * b1 * b2 * b3),
            (parts.services[0], total * (ONE - b1) * b2 * b3),
            (parts.services[1], total * (ONE - b2) * b3 * ONE),
            (parts.services[2], total * (ONE - b3) * ONE * ONE),
        ] {
            let floor = exact / whole;
            let ceiling = floor + u128::from(exact % whole != 0);
            prop_assert!((floor..=ceiling).contains(&part), "{} is not {} or {}", part, floor, ceiling);
        }
    }

    /// More profit is never less for anybody but by the one unit of rounding.
    #[test]
    fn nobody_loses_by_a_greater_profit(total in 0..u128::MAX / 2, more in 0..u128::MAX / 2, betas in prop::collection::vec(a_beta(), 0..8)) {
        let (before, after) = (split(total, &betas).unwrap(), split(total + more, &betas).unwrap());
        prop_assert!(after.data.saturating_add(1) >= before.data);
        for (before, after) in before.services.iter().zip(&after.services) {
            prop_assert!(after.saturating_add(1) >= *before);
        }
    }
}
