//! The real gateway for minutes on end, under a mixed load that goes on while policies, certificates, tokens and the
//! upstream change under it: `cargo xtask soak`. Run as a test, without `--minutes`, it takes ten seconds and is as strict,
//! but for the growth of what is still warming up.
//!
//! Two gateways are looked at side by side, one in plain and one behind TLS, each with the same load. Every request carries a
//! number; its client, the upstream and the audit stream each say what became of it, and in the end their words must agree.

// This program prints; and as in every suite, a helper that can't go on ends it.
#![allow(clippy::panic, clippy::missing_panics_doc)]

mod certificates;
mod churn;
mod client;
mod disturbing;
mod judging;
mod ledger;
mod load;
mod misbehaving;
mod options;
mod outages;
mod record;
mod report;
mod rng;
mod run;
mod sampling;
mod scene;
mod sockets;
mod upstream;

use std::io::{self, Write as _};
use std::process::ExitCode;

use judging::{Outcome, Verdict};
use options::{Options, Wanted};

/// What the suite calls it.
const NAME: &str = "every_judgement_holds_in_ten_seconds";

fn main() -> ExitCode {
    match options::read(std::env::args().skip(1)) {
        Ok(Wanted::List) => say(&format!("{NAME}: test\n")),
        Ok(Wanted::Nothing) => say("\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed\n"),
        Ok(Wanted::Soak(options)) => return soak(&options),
        Err(error) => {
            say(&format!("error: {error}\n"));
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn soak(options: &Options) -> ExitCode {
    if options.is_short {
        say("\nrunning 1 test\n");
    }
    let (run, outcomes) = run::run(options);
    let verdicts: Vec<Verdict> =
        outcomes.iter().flat_map(|outcome| outcome.judge(options.is_short, options.length)).collect();
    let failed = verdicts.iter().filter(|verdict| !verdict.holds).count();
    if failed > 0 || !options.is_short {
        tell(&outcomes, &verdicts);
    }
    let written =
        options.results.as_ref().map_or(Ok(()), |folder| report::write(options, folder, run, &outcomes, &verdicts));
    if let Err(error) = &written {
        say(&format!("the results can't be written: {error}\n"));
    }
    let holds = failed == 0 && written.is_ok();
    if options.is_short {
        // As the harness of the other suites says it.
        let (one, all) =
            if holds { ("ok", "ok. 1 passed; 0 failed") } else { ("FAILED", "FAILED. 0 passed; 1 failed") };
        say(&format!("test {NAME} ... {one}\n\ntest result: {all}\n"));
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(outcomes: &[Outcome], verdicts: &[Verdict]) {
    for outcome in outcomes {
        for finding in outcome.findings.iter().chain(outcome.unbalanced.iter().take(20)) {
            say(&format!("  {}: {finding}\n", outcome.name));
        }
    }
    for Verdict { gateway, what, holds, says } in verdicts {
        let mark = if *holds { "holds " } else { "FAILS " };
        say(&format!("{mark} {gateway:<5}  {what}: {says}\n"));
    }
}

/// To stdout, where a pipe that was closed is no reason to end.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
