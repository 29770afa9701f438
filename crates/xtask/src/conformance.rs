//! `cargo xtask conformance`: the gateway that ships among programs that nobody here wrote. What is tried, and by what it
//! is judged, lies in `crates/leastgate-testkit/conformance`; here is what it needs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::peers;
use crate::results::{conditions_of_load, gateway, print};
use crate::run::{cargo, root, step};

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
    let gateway = gateway(LOCKED)?;
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
    ensure_python_packages(root()?)?;
    let mut conformance = cargo();
    conformance.args(["run", "--quiet", "--package", "leastgate-testkit", "--bin", "conformance"]).args(LOCKED);
    conformance.arg("--");
    Ok(conformance)
}

/// The packages of PyPI, in an environment of their own that is made anew when the list changes.
fn ensure_python_packages(root: &Path) -> Result<()> {
    let environment = root.join("target/tools/conformance");
    let (stamp, wanted) = (environment.join("requirements.txt"), fs::read_to_string(root.join(REQUIREMENTS))?);
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let mut make = Command::new(peers::PYTHON);
    make.args(["-m", "venv", "--clear"]).arg(&environment);
    step("make an environment for Python", make)?;
    let mut install = Command::new(environment.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    install.arg(root.join(REQUIREMENTS));
    step("install what is from PyPI", install)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
