//! What the tasks that measure have in common: the build they measure, what they say it was measured on, and the tables of
//! ARCHITECTURE.md.

use std::env;
use std::fs;
use std::path::{self, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{cargo, output, root, step};

/// What these tasks write themselves: the next of them measures no other revision for it.
const WRITTEN: [&str; 2] = [":(exclude)benches/results", ":(exclude)ARCHITECTURE.md"];

/// Where Cargo puts what it builds.
pub(crate) fn target() -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| Ok(root()?.join("target")), |set| Ok(set.into()));
    target.and_then(|target: PathBuf| path::absolute(target).context("CARGO_TARGET_DIR"))
}

/// Builds the gateway with this profile, and says where it lies.
pub(crate) fn gateway(profile: &str, lock: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--profile", profile, "--package", "leastgate"]).args(lock);
    step("build the gateway", build)?;
    Ok(target()?.join(profile).join("leastgate"))
}

/// The variables by which the suites learn where to write, and which gateway to start.
const RESULTS: &str = "LEASTGATE_RESULTS";
const BINARY: &str = "LEASTGATE_BIN";

/// Runs suites by what their names have in common, one test after the other: what one does would be measured by the next.
/// Gives the lines they have recorded in a table.
pub(crate) fn measure(what: &str, suites: &[&str], gateway: &Path, table: &str, lock: &[&str]) -> Result<String> {
    let fresh = target()?.join("measured").join(table);
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("cannot empty {}", fresh.display()))?;
    }
    let mut run = suite(lock);
    run.arg("--test-threads=1").args(suites).env(RESULTS, &fresh).env(BINARY, gateway);
    step(what, run)?;
    fs::read_to_string(fresh.join(format!("{table}.tsv"))).context("the suites have recorded nothing")
}

/// Keeps a table where the documents find it.
pub(crate) fn keep(table: &str, text: &str) -> Result<()> {
    let folder = root()?.join("benches/results");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{table}.tsv"));
    fs::write(&file, text).with_context(|| format!("{}", file.display()))
}

/// A run of the suites.
pub(crate) fn suite(lock: &[&str]) -> Command {
    let mut command = cargo();
    command.args(["test", "--package", "leastgate-testkit", "--test", "suite"]).args(lock).arg("--");
    command
}

/// Writes every table into ARCHITECTURE.md: the tests that hold them equal do it.
pub(crate) fn print(lock: &[&str]) -> Result<()> {
    let mut documents = suite(lock);
    documents.arg("the_architecture_prints").env("UPDATE_DOCUMENTS", "1");
    step("write the documents", documents)
}

/// What was loaded, and on what: the [`gateway`], by clients that have their part of the machine.
pub(crate) fn conditions_of_load() -> Result<String> {
    Ok(conditions("Release build")? + ", clients and upstreams on the same machine")
}

/// What was measured, and on what, without a word of where that stands.
pub(crate) fn conditions(build: &str) -> Result<String> {
    let revision = output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))?;
    let mut status = Command::new("git");
    status.current_dir(root()?).args(["status", "--porcelain", "--untracked-files=no", "--", "."]);
    let changes = output(status.args(WRITTEN))?;
    let changed = if changes.is_empty() { "" } else { " with changes" };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&processors, "model name").unwrap_or("unknown");
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = field(&memory, "MemTotal").and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
    let gibibytes = kibibytes.unwrap_or(0) >> 20;
    Ok(format!("{build} of revision {}{changed}; {count} processors ({model}), {gibibytes} GiB", revision.trim()))
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_without_its_name() {
        assert_eq!(field("processor\t: 0\nmodel name\t: A B\n", "model name"), Some("A B"));
    }
}
