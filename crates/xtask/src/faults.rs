//! `cargo xtask faults`: the suites that measure what faults and load do, in full size and against the release build; and
//! the table of what they measured.

use anyhow::{Context, Result, bail};

use crate::results::{conditions_of_load, gateway, keep, measure, print};

/// What the names of those tests have in common that record what they measure.
const SUITES: &[&str] = &["upstream_faults", "slow_clients", "large_bodies", "_memory", "drain_busy", "idle::"];

/// Fail upstreams and load the release build in every way the suites know, one after the other
///
/// Needs some 10 minutes, 2 GiB of memory and 12,000 open files. Writes benches/results/faults.tsv, which ARCHITECTURE.md
/// prints.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Let Cargo update Cargo.lock
    #[arg(long)]
    unlocked: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let lock: &[&str] = if options.unlocked { &[] } else { &["--locked"] };
    let gateway = gateway("release", lock)?;
    let measured = measure("fail upstreams and load the gateway", SUITES, &gateway, "faults", lock)?;
    keep("faults", &tabulate(&conditions_of_load()?, &measured)?)?;
    print(lock)
}

/// The lines in order of their names, under what they were measured on.
fn tabulate(conditions: &str, measured: &str) -> Result<String> {
    let mut lines = measured.lines();
    let columns = lines.next().context("the suites have recorded nothing")?;
    let mut lines: Vec<&str> = lines.collect();
    lines.sort_unstable();
    let name = |line: &&str| line.split('\t').next().map(str::to_owned);
    if let Some(twice) = lines.windows(2).find(|two| name(&two[0]) == name(&two[1])) {
        bail!("two results of one name: {twice:?}");
    }
    Ok(format!("# {conditions}\n{columns}\n{}\n", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_says_of_what() {
        let table = tabulate("Release", "name\tmeasured\nb\t1\na\t2\n").unwrap();
        assert_eq!(table, "# Release\nname\tmeasured\na\t2\nb\t1\n");
        tabulate("Release", "name\tmeasured\na\t1\na\t2\n").unwrap_err();
        tabulate("Release", "").unwrap_err();
    }
}
