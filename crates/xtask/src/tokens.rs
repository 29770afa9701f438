//! `cargo xtask tokens`: what a million tokens cost in the build that ships; and the table of it.

use anyhow::Result;

use crate::results::{conditions, gateway, keep, measure, print};

/// Make, load, list, change and revoke a million tokens with the build that ships
///
/// Needs a few minutes, 2 GiB of disk and a quiet machine. Writes benches/results/tokens.tsv, which ARCHITECTURE.md prints.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Let Cargo update Cargo.lock
    #[arg(long)]
    unlocked: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let lock: &[&str] = if options.unlocked { &[] } else { &["--locked"] };
    let gateway = gateway("dist", lock)?;
    let measured = measure("make and use a million tokens", &["many_tokens"], &gateway, "tokens", lock)?;
    let on = conditions("Build of profile `dist`")? + ", clients on the same machine";
    keep("tokens", &format!("# {on}\n{measured}"))?;
    print(lock)
}
