//! `shares simulate`: many DAOs under a law of shares, as a table, CSV, and figures.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use policies::simulation::{Band, Experiment, Law, Order, Outcome, simulate};

use crate::cli::error::{CliError, Doing, Exit};
use crate::cli::{Format, Global, output};

/// The law that shares are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Every beta uniform in a range, and sorted.
    Uniform,
    /// Ownership from a Pareto law, the data service provider highest; the betas follow.
    Pareto,
}

/// In which order drawn betas are given to VSP 1, VSP 2, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sorted {
    /// The greatest first.
    Descending,
    /// The smallest first.
    Ascending,
    /// As they were drawn.
    Drawn,
}

/// What to draw.
#[derive(Clone, Debug, Args)]
pub(crate) struct Simulate {
    /// The law that shares are drawn from.
    #[arg(long, value_enum)]
    law: Kind,
    /// How many members, the data service provider among them.
    #[arg(long, default_value_t = 8, value_name = "N")]
    members: usize,
    /// The range of beta, of the uniform law [default: 0.25..0.99].
    #[arg(long, value_name = "LOW..HIGH", value_parser = range)]
    range: Option<(f64, f64)>,
    /// In which order betas are given to those who join, of the uniform law [default: descending].
    #[arg(long, value_enum)]
    order: Option<Sorted>,
    /// The index alpha of the Pareto law: the smaller, the more uneven [default: 1.16].
    #[arg(long, value_name = "ALPHA")]
    index: Option<f64>,
    /// What the generator starts from: the same seed gives the same outcome.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many DAOs are drawn.
    #[arg(long, default_value_t = 100_000)]
    runs: u64,
    /// Writes LAW.csv, LAW.svg and LAW.png into this folder.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

fn range(text: &str) -> Result<(f64, f64), String> {
    let refused = || "write LOW..HIGH, for example 0.25..0.99".to_owned();
    let (low, high) = text.split_once("..").ok_or_else(refused)?;
    Ok((low.parse().map_err(|_| refused())?, high.parse().map_err(|_| refused())?))
}

impl Simulate {
    /// The law, with what was not said as the paper has it.
    fn law(&self) -> Result<Law, CliError> {
        match self.law {
            Kind::Uniform if self.index.is_some() => {
                Err(CliError::new("--index belongs to the Pareto law").next("leave it out, or say --law pareto"))
            }
            Kind::Pareto if self.range.is_some() || self.order.is_some() => {
                Err(CliError::new("--range and --order belong to the uniform law").next("leave them out, or say --law uniform"))
            }
            Kind::Uniform => {
                let (low, high) = self.range.unwrap_or((0.25, 0.99));
                let order = match self.order.unwrap_or(Sorted::Descending) {
                    Sorted::Descending => Order::Descending,
                    Sorted::Ascending => Order::Ascending,
                    Sorted::Drawn => Order::Drawn,
                };
                Ok(Law::Uniform { low, high, order })
            }
            Kind::Pareto => Ok(Law::Pareto {
                index: self.index.unwrap_or(1.16),
            }),
        }
    }
}

/// Draws, writes the files that were asked for, and shows.
pub(super) fn run(global: &Global, asked: &Simulate) -> Result<Exit, CliError> {
    let experiment = Experiment {
        law: asked.law()?,
        members: asked.members,
        runs: asked.runs,
        seed: asked.seed,
    };
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let outcome = simulate(&experiment, threads).doing("nothing can be drawn")?;
    if let Some(folder) = &asked.out {
        let name = match asked.law {
            Kind::Uniform => "uniform",
            Kind::Pareto => "pareto",
        };
        write(folder, name, &outcome)?;
    }
    if global.output == Format::Json {
        output::json(&outcome)?;
    } else {
        table(&outcome);
    }
    Ok(Exit::Clean)
}

fn name(member: usize) -> String {
    match member {
        0 => "dsp".into(),
        member => format!("vsp-{member}"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

fn table(outcome: &Outcome) {
    let rows = outcome
        .ownership
        .iter()
        .zip(&outcome.first)
        .enumerate()
        .map(|(member, (band, first))| {
            let beta = member
                .checked_sub(1)
                .map_or_else(|| "-".into(), |i| format!("{:.4}", outcome.betas[i].median));
            let Band { low, median, high, mean } = *band;
            let most = outcome.part(*first);
            [name(member), beta]
                .into_iter()
                .chain([low, median, high, mean, most].map(percent))
                .collect()
        });
    output::table(
        &["member", "median beta", "5 %", "median", "95 %", "mean", "has most in"],
        rows.collect(),
    );
    output::line("");
    for (what, runs) in [
        ("the data service provider has more than half in", outcome.majority),
        ("nobody has more than one who was there before in", outcome.falling),
        ("the last member has more than vsp-1 in", outcome.last_beats_first),
    ] {
        output::line(&format!("{what} {} of the runs", percent(outcome.part(runs))));
    }
}

/// One row for each band: of what, of whom, the quantiles and the mean.
fn csv(outcome: &Outcome) -> String {
    let mut out = String::from("series,index,low_5,median,high_95,mean\n");
    let mut rows = |series: &str, first: usize, bands: &[Band]| {
        for (i, band) in bands.iter().enumerate() {
            let Band { low, median, high, mean } = band;
            let _ = writeln!(out, "{series},{},{low:.6},{median:.6},{high:.6},{mean:.6}", i + first);
        }
    };
    rows("ownership", 0, &outcome.ownership);
    rows("beta", 1, &outcome.betas);
    rows("data", 0, &outcome.data);
    out
}

fn write(folder: &Path, name: &str, outcome: &Outcome) -> Result<(), CliError> {
    let figure = policies::plots::figure(outcome).doing("the figure can't be made")?;
    std::fs::create_dir_all(folder).doing(format!("cannot make the folder {}", folder.display()))?;
    let files = [
        ("csv", csv(outcome).into_bytes()),
        ("svg", figure.svg.into_bytes()),
        ("png", figure.png),
    ];
    for (ending, bytes) in files {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::write(&path, bytes).doing(format!("cannot write {}", path.display()))?;
        output::note(&format!("wrote {}", path.display()));
    }
    Ok(())
}
