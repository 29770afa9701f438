//! What `cargo xtask conformance` runs: the real gateway among programs that nobody here wrote. Upstreams with other
//! parsers stand behind it, other people's clients and testers before it; each cell of the table is judged by what both
//! sides got. It lives in the test kit for its fixtures, and is no suite because it needs a dozen programs installed, of
//! which `cargo test` alone knows nothing; `cargo xtask test` runs it after the suites.

// A helper of a test may be as blunt as the test, and this program talks to developers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value, clippy::print_stderr)]

mod bed;
mod clients;
mod grpc;
mod hostile;
mod listener;
mod peer;
mod report;
mod scenarios;
mod scripts;
mod seen;
mod slow;
mod upstreams;

use std::env;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use leastgate_testkit::paths;

use crate::report::Report;

fn main() -> ExitCode {
    let Some((conditions, only)) = arguments(env::args().skip(1)) else {
        eprintln!("conformance [--conditions TEXT] [--only PEER]; `cargo xtask conformance` gives them");
        return ExitCode::FAILURE;
    };
    // Without the gateway there is nothing to try.
    let _ = paths::leastgate();
    // A cell that fails unwinds; what it says belongs in the table.
    panic::set_hook(Box::new(|_| {}));
    let mut report = Report::new(conditions, only);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&mut report))) {
        eprintln!("{}", report::message(&*panic));
        return ExitCode::FAILURE;
    }
    report.finish()
}

/// What is run, and on what, if the table is to be written; and the only peer that is asked for.
fn arguments(mut arguments: impl Iterator<Item = String>) -> Option<(Option<String>, Option<String>)> {
    let (mut conditions, mut only) = (None, None);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        match name.as_str() {
            "--conditions" => conditions = Some(value),
            "--only" => only = Some(value),
            _ => return None,
        }
    }
    Some((conditions, only))
}

fn run(report: &mut Report) {
    upstreams::run(report);
    clients::run(report);
    scripts::run(report);
    grpc::run(report);
    // Testers judge by the clock, and a machine that runs tests may be busy with others.
    if report.is_kept() {
        listener::run(report);
        slow::run(report);
    }
}
