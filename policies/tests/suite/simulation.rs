//! The simulation: the same for a seed on any number of threads, and what the paper says of its two laws.

use std::num::NonZeroUsize;

use policies::simulation::{Experiment, Law, Order, Outcome, SimulationError, simulate};

const RUNS: u64 = 20_000;

fn threads(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn experiment(law: Law) -> Experiment {
    Experiment {
        law,
        members: 8,
        runs: RUNS,
        seed: 7,
    }
}

fn uniform(low: f64, order: Order) -> Outcome {
    simulate(&experiment(Law::Uniform { low, high: 0.99, order }), threads(2)).unwrap()
}

fn pareto() -> Outcome {
    simulate(&experiment(Law::Pareto { index: 1.16 }), threads(2)).unwrap()
}

#[test]
fn a_seed_gives_one_outcome_on_any_number_of_threads() {
    for law in [
        Law::Pareto { index: 1.16 },
        Law::Uniform {
            low: 0.25,
            high: 0.99,
            order: Order::Drawn,
        },
    ] {
        let one = simulate(&experiment(law), threads(1)).unwrap();
        assert_eq!(one, simulate(&experiment(law), threads(2)).unwrap());
        assert_eq!(one, simulate(&experiment(law), threads(64)).unwrap());
        let other = Experiment {
            seed: 8,
            ..experiment(law)
        };
        assert_ne!(one.ownership, simulate(&other, threads(2)).unwrap().ownership);
    }
}

#[test]
fn everything_that_is_owned_sums_to_one() {
    for outcome in [uniform(0.25, Order::Descending), pareto()] {
        let sum: f64 = outcome.ownership.iter().map(|band| band.mean).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(outcome.first.iter().sum::<u64>(), RUNS);
        assert_eq!(outcome.data[7], outcome.ownership[0]);
        for band in outcome.ownership.iter().chain(&outcome.betas) {
            assert!(band.low <= band.median && band.median <= band.high);
        }
    }
}

#[test]
fn uniform_shares_have_the_law_s_mean() {
    let outcome = uniform(0.25, Order::Drawn);
    for beta in &outcome.betas {
        assert!((beta.mean - 0.62).abs() < 0.01, "{beta:?}");
        assert!((beta.low - (0.25 + 0.05 * 0.74)).abs() < 0.01, "{beta:?}");
    }
}

#[test]
fn the_paper_s_claims_for_uniform_shares() {
    // From 25 % on the owner is far below: whoever comes last has most.
    let wide = uniform(0.25, Order::Descending);
    assert!(wide.part(wide.first[0]) < 0.01);
    assert!(wide.part(wide.first[7]) > 0.95);
    assert!(wide.part(wide.last_beats_first) > 0.99);
    // From 70 % on it is usually at the top, from 60 % on usually not.
    let seventy = uniform(0.7, Order::Descending);
    assert!(seventy.part(seventy.first[0]) > 0.5);
    assert!(seventy.ownership[0].median > seventy.ownership[7].median);
    let sixty = uniform(0.6, Order::Descending);
    assert!(sixty.part(sixty.first[0]) < 0.5);
    // From 80 % on always: 0.8^7 > 1 - 0.8.
    let eighty = uniform(0.8, Order::Descending);
    assert_eq!(eighty.first[0], RUNS);
    assert!(eighty.ownership[0].median > 2.0 * eighty.ownership[7].median);
}

#[test]
fn the_paper_s_claims_for_the_pareto_law() {
    let outcome = pareto();
    assert_eq!(outcome.first[0], RUNS);
    assert_eq!(outcome.falling, RUNS);
    assert_eq!(outcome.last_beats_first, 0);
    // The deduced shares grow: each newcomer leaves more to those before.
    assert!(outcome.betas.is_sorted_by(|a, b| a.median < b.median));
}

#[test]
fn what_is_no_experiment_is_refused() {
    let law = Law::Pareto { index: 1.16 };
    let refused = |experiment: Experiment| simulate(&experiment, threads(1)).unwrap_err();
    for members in [0, 1, 65] {
        assert_eq!(
            refused(Experiment {
                members,
                ..experiment(law)
            }),
            SimulationError::Members(members)
        );
    }
    for runs in [0, 100_000_001] {
        assert_eq!(refused(Experiment { runs, ..experiment(law) }), SimulationError::Runs(runs));
    }
    for (low, high) in [
        (0.0, 0.5),
        (0.5, 0.5),
        (0.9, 0.5),
        (0.5, 1.0),
        (f64::NAN, 0.5),
        (0.5, f64::INFINITY),
    ] {
        let law = Law::Uniform {
            low,
            high,
            order: Order::Drawn,
        };
        assert!(matches!(refused(experiment(law)), SimulationError::Range { .. }));
    }
    for index in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(refused(experiment(Law::Pareto { index })), SimulationError::Index(_)));
    }
}
