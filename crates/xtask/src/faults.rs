//! `cargo xtask faults`: the suites that measure what faults and load do, in full size and against the release build; and
//! the table of what they measured.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, output, step};

/// What the names of those tests have in common that record what they measure.
const SUITES: &[&str] = &["upstream_faults", "slow_clients", "large_bodies", "_memory", "drain_busy", "idle::"];

/// The variables by which the suites learn where to write, and which gateway to start.
const RESULTS: &str = "LEASTGATE_RESULTS";
const BINARY: &str = "LEASTGATE_BIN";

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
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("crates/xtask lies in the workspace")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let fresh = target.join("faults");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("cannot empty {}", fresh.display()))?;
    }
    let lock: &[&str] = if options.unlocked { &[] } else { &["--locked"] };
    let mut build = cargo();
    build.args(["build", "--release", "--package", "leastgate"]).args(lock);
    step("build the gateway", build)?;
    let mut suites = suite(lock);
    // One after the other: what one does would be measured by the next.
    suites.arg("--test-threads=1").args(SUITES);
    suites.env(RESULTS, &fresh).env(BINARY, target.join("release/leastgate"));
    step("fail upstreams and load the gateway", suites)?;
    let measured = fs::read_to_string(fresh.join("faults.tsv")).context("the suites have recorded nothing")?;
    let table = root.join("benches/results/faults.tsv");
    fs::create_dir_all(root.join("benches/results"))?;
    fs::write(&table, tabulate(&conditions()?, &measured)?).with_context(|| format!("{}", table.display()))?;
    let mut documents = suite(lock);
    documents.arg("documents::the_architecture").env("UPDATE_DOCUMENTS", "1");
    step("write the documents", documents)
}

fn suite(lock: &[&str]) -> Command {
    let mut command = cargo();
    command.args(["test", "--package", "leastgate-testkit", "--test", "suite"]).args(lock).arg("--");
    command
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

/// What was measured, and on what, without a word of where that stands.
pub(crate) fn conditions() -> Result<String> {
    let revision = output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))?;
    let changes = output(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]))?;
    let changed = if changes.is_empty() { "" } else { " with changes" };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&processors, "model name").unwrap_or("unknown");
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = field(&memory, "MemTotal").and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
    let gibibytes = kibibytes.unwrap_or(0) >> 20;
    Ok(format!(
        "Release build of revision {}{changed}; {count} processors ({model}), {gibibytes} GiB, clients and upstreams on the same machine",
        revision.trim()
    ))
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim()))
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

    #[test]
    fn a_field_is_read_without_its_name() {
        assert_eq!(field("processor\t: 0\nmodel name\t: A B\n", "model name"), Some("A B"));
    }
}
