//! `cargo xtask instructions`: what a decision costs, counted under callgrind; and the table of it.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::peers::{self, ensure_tool};
use crate::results::{conditions, print};
use crate::run::{cargo, output, root};

/// The part of the harness that runs what it measures under callgrind; the other is in Cargo.lock.
const RUNNER: (&str, &str) = ("gungraun-runner", "0.20.0");

/// A denial costs the same whatever the size of the policy (P27). Instructions repeat to within a percent.
const FLAT: (&str, f64) = ("denial", 1.1);

/// Count the instructions of a decision and of its parts
///
/// Takes a minute, and the same numbers come out whatever else runs. Writes benches/results/instructions.tsv, which
/// ARCHITECTURE.md prints.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Let Cargo update Cargo.lock
    #[arg(long)]
    unlocked: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    peers::ensure(peers::INSTRUCTIONS)?;
    let (name, version) = RUNNER;
    let lock: &[&str] = if options.unlocked { &[] } else { &["--locked"] };
    let mut bench = cargo();
    bench.current_dir(root()?).args(["bench", "--quiet", "--package", "leastgate-benches"]).args(lock);
    bench.args(["--profile", "dist", "--bench", "instructions", "--", "--output-format=json"]);
    bench.env("GUNGRAUN_RUNNER", ensure_tool(name, version)?);
    eprintln!("── count instructions");
    let counts = counts(&output(&mut bench)?)?;
    let table = tabulate(&conditions("Build of profile `dist`")?, &counts)?;
    fs::write(root()?.join("benches/results/instructions.tsv"), table).context("benches/results/instructions.tsv")?;
    print(lock)
}

/// What was counted, of what, and in which case.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    of: String,
    case: String,
    instructions: u64,
}

/// From the harness's summaries, one of JSON a line.
fn counts(summaries: &str) -> Result<Vec<Count>> {
    summaries.lines().map(|line| count(line).with_context(|| format!("no summary with instructions: {line}"))).collect()
}

fn count(line: &str) -> Option<Count> {
    let summary: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| summary[key].as_str().map(|text| text.replace('_', " "));
    let metrics = &summary["profiles"][0]["data"]["total"]["metrics"];
    let instructions = metrics["Ir"]["values"]["new"].as_u64()?;
    Some(Count { of: text("function_name")?, case: text("id")?, instructions })
}

/// The counts, each with its ratio to the first of its kind.
fn tabulate(conditions: &str, counts: &[Count]) -> Result<String> {
    let mut table = format!("# {conditions}\nwhat\tinstructions\tto the first of its kind\n");
    for Count { of, case, instructions } in counts {
        let first = counts.iter().find(|count| count.of == *of).map_or(*instructions, |count| count.instructions);
        let ratio = *instructions as f64 / first.max(1) as f64;
        if *of == FLAT.0 && !(1.0 / FLAT.1..=FLAT.1).contains(&ratio) {
            bail!(
                "a {of} costs {instructions} instructions with {case}, {ratio:.2} times those of the first: it must not grow"
            );
        }
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{of}, {case}\t{instructions}\t{ratio:.2}");
    }
    if !counts.iter().any(|count| count.of == FLAT.0) {
        bail!("nothing was counted of a {}", FLAT.0);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(case: &str, instructions: u64) -> Count {
        Count { of: "denial".to_owned(), case: case.to_owned(), instructions }
    }

    #[test]
    fn a_summary_is_read() {
        let line = r#"{"function_name":"denial","id":"rules_10","profiles":[{"data":{"total":{"metrics":{"Ir":{"values":{"new":2181}}}}}}]}"#;
        assert_eq!(counts(line).unwrap(), [denial("rules 10", 2181)]);
        counts("{}").unwrap_err();
    }

    #[test]
    fn what_must_not_grow_makes_no_table_when_it_does() {
        let table = tabulate("Build", &[denial("a", 200), denial("b", 210)]).unwrap();
        let rows = "what\tinstructions\tto the first of its kind\ndenial, a\t200\t1.00\ndenial, b\t210\t1.05\n";
        assert_eq!(table, format!("# Build\n{rows}"));
        tabulate("Build", &[denial("a", 200), denial("b", 300)]).unwrap_err();
        tabulate("Build", &[]).unwrap_err();
    }
}
