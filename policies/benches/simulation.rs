//! A million DAOs of eight members, under each law, on two threads.
#![allow(clippy::unwrap_used, missing_docs)]

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use policies::simulation::{Experiment, Law, Order, simulate};

const BOUND: Duration = Duration::from_secs(5);

fn main() {
    let uniform = Law::Uniform {
        low: 0.25,
        high: 0.99,
        order: Order::Descending,
    };
    for law in [uniform, Law::Pareto { index: 1.16 }] {
        let experiment = Experiment {
            law,
            members: 8,
            runs: 1_000_000,
            seed: 1,
        };
        let start = Instant::now();
        let outcome = simulate(&experiment, NonZeroUsize::new(2).unwrap()).unwrap();
        let took = start.elapsed();
        println!(
            "{law:?}: {took:?}, the data owner first in {:.1} %",
            100.0 * outcome.part(outcome.first[0])
        );
        assert!(took < BOUND, "more than {BOUND:?}");
    }
}
