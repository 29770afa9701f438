//! Leastgate as a program: the command line, the wiring of the planes, reload, signals, and the demo.
//!
//! This is the only crate that reads files on its own account, prints, and ends the process. Start at [`run`] for a
//! command's way from arguments to exit code, and at [`gateway::Gateway::start`] for how the planes come together.

pub mod cli;
mod commands;
mod demo;
mod exit;
mod files;
pub mod gateway;
mod output;
mod sandbox;

use std::process::ExitCode;

pub use exit::{Exit, Failure};

/// Runs the program on its arguments, to its exit code.
#[must_use]
pub fn run() -> ExitCode {
    match cli::parse().and_then(commands::run).and_then(|()| output::arrived()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
