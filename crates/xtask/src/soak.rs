//! `cargo xtask soak`: the release build under load and disturbances for so many minutes, judged at the end.

use anyhow::Result;

use crate::results::{conditions_of_load, gateway, print};
use crate::run::{cargo, root, step};

const LOCKED: &[&str] = &["--locked"];

/// Load the release build for so long, while policies, certificates, tokens and the upstream change under it
///
/// Fails unless memory and descriptors stay flat, each request has its one answer and its one audit event, and nothing is
/// left over in the end. Writes benches/results/soak.tsv, soak.svg and soak-summary.tsv, which ARCHITECTURE.md prints.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long; parts of a minute too. In less than half an hour a slow climb of memory is told, not judged
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// What sizes, pauses and disturbances are drawn from; another one for each run unless it is given
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let root = root()?;
    let gateway = gateway("release", LOCKED)?;
    let mut soak = cargo();
    soak.args(["test", "--release", "--package", "leastgate-testkit", "--test", "soak"]).args(LOCKED);
    soak.env("LEASTGATE_BIN", gateway).arg("--");
    soak.args(["--minutes", &options.minutes.to_string(), "--results"]).arg(root.join("benches/results"));
    soak.args(["--conditions", &conditions_of_load()?]);
    if let Some(seed) = options.seed {
        soak.args(["--seed", &seed.to_string()]);
    }
    step(&format!("soak for {} minutes", options.minutes), soak)?;
    print(LOCKED)
}
