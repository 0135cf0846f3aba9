//! Many negotiations at random: what the members of a DAO would own under a law of shares.
//!
//! The paper compares two laws. Under the first the β_i are uniform in a range and sorted, and ownership follows by equation
//! (3). Under the second the ownership follows a Pareto law, scaled to sum to one and sorted descending, the data service
//! provider highest, and the β_i follow by reversing equation (3). One draw shows little, so this makes many and gives bands.
//!
//! This is the one place with floating point: nothing of it reaches an agreement or a division of profit. It draws from a
//! generator that is a function of the seed alone (ChaCha with 8 rounds, one stream for each block of runs), and everything that is counted is
//! counted in whole numbers, so the same experiment gives the same outcome on any number of threads.

mod band;
mod law;

use std::num::NonZeroUsize;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Serialize;
use state::agreement::MAX_PARTIES;
use thiserror::Error;

pub use band::Band;
use band::Tally;
use law::Draw;
pub use law::{Law, Order};

/// The most runs of one experiment.
pub const MAX_RUNS: u64 = 100_000_000;
/// Runs that are drawn from one stream of the generator.
const BLOCK: u64 = 4096;

/// What is drawn, how often, and from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Experiment {
    /// The law of the shares.
    pub law: Law,
    /// How many members: the data service provider and the value service providers.
    pub members: usize,
    /// How many DAOs are drawn.
    pub runs: u64,
    /// What the generator starts from.
    pub seed: u64,
}

/// Why an experiment can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum SimulationError {
    /// Too few or too many members.
    #[error("{0} members: a DAO has 2 to {MAX_PARTIES}, the data service provider among them")]
    Members(usize),
    /// None, or too many runs.
    #[error("{0} runs: draw 1 to {MAX_RUNS}")]
    Runs(u64),
    /// A range of β that is empty or leaves what β can be.
    #[error("the range {low}..{high}: every beta lies strictly between 0 and 1, and the first number is the smaller one")]
    Range {
        /// The least β.
        low: f64,
        /// The greatest β.
        high: f64,
    },
    /// An index that makes no Pareto law.
    #[error("the Pareto index {0}: a number from 0.1 to 100; 1.16 gives the richest fifth four fifths of the whole")]
    Index(f64),
}

/// What was seen in all runs of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// What was drawn.
    pub experiment: Experiment,
    /// Each member's part of the last version, the data service provider's first.
    pub ownership: Vec<Band>,
    /// β_1 … β_n.
    pub betas: Vec<Band>,
    /// The data service provider's part of each version, from the data alone on.
    pub data: Vec<Band>,
    /// For each member, the runs in which nobody has more of the last version (who came first, where parts are equal).
    pub first: Vec<u64>,
    /// The runs in which the data service provider has more than half of the last version.
    pub majority: u64,
    /// The runs in which no member has more than one who was there before.
    pub falling: u64,
    /// The runs in which the last member has more than the first value service provider.
    pub last_beats_first: u64,
}

impl Outcome {
    /// A count of runs as a part of all runs.
    pub fn part(&self, runs: u64) -> f64 {
        runs as f64 / self.experiment.runs as f64
    }
}

/// Makes the experiment on so many threads; their number doesn't change the outcome.
pub fn simulate(experiment: &Experiment, threads: NonZeroUsize) -> Result<Outcome, SimulationError> {
    if !(2..=MAX_PARTIES).contains(&experiment.members) {
        return Err(SimulationError::Members(experiment.members));
    }
    if !(1..=MAX_RUNS).contains(&experiment.runs) {
        return Err(SimulationError::Runs(experiment.runs));
    }
    experiment.law.check()?;
    let blocks = experiment.runs.div_ceil(BLOCK);
    let threads = (threads.get() as u64).min(blocks);
    let mut all = Counts::new(experiment.members);
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        for first in 1..threads {
            others.push(scope.spawn(move || Counts::of(experiment, first, threads)));
        }
        all.add(&Counts::of(experiment, 0, threads));
        for other in others {
            all.add(&other.join().expect("counting doesn't panic"));
        }
    });
    Ok(all.outcome(*experiment))
}

/// What is counted over some runs. All of it is whole numbers, so that adding is in no order.
struct Counts {
    ownership: Vec<Tally>,
    betas: Vec<Tally>,
    data: Vec<Tally>,
    first: Vec<u64>,
    majority: u64,
    falling: u64,
    last_beats_first: u64,
}

impl Counts {
    fn new(members: usize) -> Self {
        Self {
            ownership: vec![Tally::new(); members],
            betas: vec![Tally::new(); members - 1],
            data: vec![Tally::new(); members],
            first: vec![0; members],
            majority: 0,
            falling: 0,
            last_beats_first: 0,
        }
    }

    /// Counts every `step`-th block of an experiment, from `first` on.
    fn of(experiment: &Experiment, first: u64, step: u64) -> Self {
        let mut counts = Self::new(experiment.members);
        let mut draw = Draw::new(experiment.members);
        let mut block = first;
        while block * BLOCK < experiment.runs {
            let mut generator = ChaCha8Rng::seed_from_u64(experiment.seed);
            generator.set_stream(block);
            for _ in 0..BLOCK.min(experiment.runs - block * BLOCK) {
                draw.again(experiment.law, &mut generator);
                counts.take(&draw);
            }
            block += step;
        }
        counts
    }

    fn take(&mut self, draw: &Draw) {
        let (ownership, betas) = (draw.ownership(), draw.betas());
        for (tally, part) in self.ownership.iter_mut().zip(ownership) {
            tally.take(*part);
        }
        let mut data = 1.0;
        self.data[0].take(data);
        for (i, beta) in betas.iter().enumerate() {
            self.betas[i].take(*beta);
            data *= beta;
            self.data[i + 1].take(data);
        }
        let mut first = 0;
        for (member, part) in ownership.iter().enumerate() {
            if *part > ownership[first] {
                first = member;
            }
        }
        self.first[first] += 1;
        self.majority += u64::from(ownership[0] > 0.5);
        self.falling += u64::from(ownership.is_sorted_by(|before, after| before >= after));
        self.last_beats_first += u64::from(ownership[ownership.len() - 1] > ownership[1]);
    }

    fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.ownership, &other.ownership),
            (&mut self.betas, &other.betas),
            (&mut self.data, &other.data),
        ];
        for (ours, theirs) in pairs {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| ours.add(theirs));
        }
        self.first.iter_mut().zip(&other.first).for_each(|(ours, theirs)| *ours += theirs);
        self.majority += other.majority;
        self.falling += other.falling;
        self.last_beats_first += other.last_beats_first;
    }

    fn outcome(self, experiment: Experiment) -> Outcome {
        let bands = |tallies: Vec<Tally>| tallies.iter().map(Tally::band).collect();
        Outcome {
            experiment,
            ownership: bands(self.ownership),
            betas: bands(self.betas),
            data: bands(self.data),
            first: self.first,
            majority: self.majority,
            falling: self.falling,
            last_beats_first: self.last_beats_first,
        }
    }
}
