//! `cargo xtask conformance`: the gateway that ships among programs that nobody here wrote. What is tried, and by what it
//! is judged, lies in `crates/leastgate-testkit/conformance`; here is what it needs.

use std::process::Command;

use anyhow::Result;

use crate::peers;
use crate::python;
use crate::results::{conditions_of_load, gateway, print};
use crate::run::{cargo, step};

const REQUIREMENTS: &str = "crates/leastgate-testkit/conformance/requirements.txt";

const LOCKED: &[&str] = &["--locked"];

/// Run the gateway between other people's servers, clients and testers; writes benches/results/conformance.tsv
///
/// Takes some three minutes and ends with 1 if any cell fails; if none does, ARCHITECTURE.md prints the table.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this peer: its name, or a word of it; the rows of the others stay
    #[arg(long)]
    only: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    peers::ensure(peers::CONFORMANCE)?;
    let gateway = gateway("release", LOCKED)?;
    let mut conformance = conformance()?;
    conformance.args(["--conditions", &conditions_of_load()?]);
    if let Some(peer) = &options.only {
        conformance.args(["--only", peer]);
    }
    conformance.env("LEASTGATE_BIN", gateway);
    step("run the gateway among its peers", conformance)?;
    print(LOCKED)
}

/// Every server and client with the gateway of the debug build, as `cargo xtask test` runs them; the peers are there.
/// Nothing is written, and the testers, who judge by the clock, are left out.
pub(crate) fn check() -> Result<()> {
    step("run the gateway among its peers", conformance()?)
}

/// The program, with what it needs from PyPI; what follows are its arguments.
fn conformance() -> Result<Command> {
    python::ensure("conformance", REQUIREMENTS)?;
    let mut conformance = cargo();
    conformance.args(["run", "--quiet", "--package", "leastgate-testkit", "--bin", "conformance"]).args(LOCKED);
    conformance.arg("--");
    Ok(conformance)
}
