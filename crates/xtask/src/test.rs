//! `cargo xtask test`: every test of the workspace, and then the gateway among other people's programs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::conformance;
use crate::peers;
use crate::python;
use crate::run::{cargo, step};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this, and no conformance
    filter: Option<String>,
    /// Let Cargo update Cargo.lock
    #[arg(long)]
    unlocked: bool,
}

/// What came of the tests so far.
#[derive(Debug, Default)]
struct Tally {
    binaries: u32,
    passed: u32,
    ignored: u32,
    failed: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let is_whole = options.filter.is_none();
    let peers = if is_whole { [peers::TESTS, peers::CONFORMANCE].concat() } else { peers::TESTS.to_vec() };
    peers::ensure(&peers)?;
    let (name, requirements) = python::API;
    python::ensure(name, requirements)?;
    // The suites drive the real binary, which `cargo test` alone would not build.
    step("build the binaries", build(options))?;
    let tally = tests(options)?;
    let conformance = if is_whole { conformance::check() } else { Ok(()) };
    summarize(&tally, start)?;
    conformance
}

fn build(options: &Options) -> Command {
    let mut command = cargo();
    command.args(["build", "--workspace", "--bins"]);
    lock(&mut command, options);
    command
}

fn lock(command: &mut Command, options: &Options) {
    if !options.unlocked {
        command.arg("--locked");
    }
}

/// Runs `cargo test`, its output passed on line by line and counted on the way.
fn tests(options: &Options) -> Result<(Tally, bool)> {
    eprintln!("── run the tests");
    let mut command = cargo();
    // --no-fail-fast: one run names everything that is broken.
    command.args(["test", "--workspace", "--no-fail-fast"]);
    lock(&mut command, options);
    command.args(options.filter.iter()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("the output of cargo test is piped")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        eprintln!("{line}");
        tally.read(&line);
    }
    Ok((tally, child.wait()?.success()))
}

impl Tally {
    /// Reads a line of the test harness: `test NAME ... ok|FAILED|ignored`, `test result: …`.
    fn read(&mut self, line: &str) {
        if line.starts_with("test result: ") {
            self.binaries += 1;
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            match result {
                "ok" => self.passed += 1,
                "FAILED" => self.failed.push(name.to_owned()),
                result if result.starts_with("ignored") => self.ignored += 1,
                _ => {}
            }
        }
    }
}

fn summarize((tally, succeeded): &(Tally, bool), start: Instant) -> Result<()> {
    let seconds = start.elapsed().as_secs();
    eprintln!(
        "\n{} passed, {} failed, {} ignored in {} test binaries, {}:{:02} min",
        tally.passed,
        tally.failed.len(),
        tally.ignored,
        tally.binaries,
        seconds / 60,
        seconds % 60
    );
    for name in &tally.failed {
        eprintln!("  FAILED  {name}");
    }
    match (succeeded, tally.failed.is_empty()) {
        (true, true) => Ok(()),
        (_, false) => bail!("{} tests failed", tally.failed.len()),
        (false, true) => bail!("cargo test failed before every test could run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harness_is_read() {
        let mut tally = Tally::default();
        for line in
            ["test a::b ... ok", "test c ... FAILED", "test d ... ignored", "test result: FAILED. 1 passed", "testing"]
        {
            tally.read(line);
        }
        assert_eq!((tally.binaries, tally.passed, tally.ignored, tally.failed), (1, 1, 1, vec!["c".to_owned()]));
    }
}
