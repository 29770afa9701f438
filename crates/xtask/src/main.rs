//! The project's own tasks: `cargo xtask test`, `conformance`, `fuzz`, `faults`, `soak`,
//! `instructions`, `tokens`. One module a task; `main` is the table of contents.

// This is a program for developers: it prints, and it ends with a code of its own.
#![allow(clippy::print_stderr)]

mod conformance;
mod faults;
mod fuzz;
mod instructions;
mod peers;
mod python;
mod results;
mod run;
mod soak;
mod test;
mod tokens;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the tests need, build the binaries, run every test of the workspace
    Test(test::Options),
    Conformance(conformance::Options),
    Fuzz(fuzz::Options),
    Faults(faults::Options),
    Soak(soak::Options),
    Instructions(instructions::Options),
    Tokens(tokens::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Conformance(options) => conformance::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Faults(options) => faults::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Instructions(options) => instructions::run(&options),
        Task::Tokens(options) => tokens::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
