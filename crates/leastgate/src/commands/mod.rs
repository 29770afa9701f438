//! One module for each command; this table sends each to its own.

mod admin;
mod admin_tls;
mod check;
mod client;
mod config;
mod demo;
mod first_steps;
mod health;
mod init;
mod interrupt;
mod manual;
mod policy;
mod progress;
mod run;
mod serve;
mod socket;
mod store;
mod token;

use crate::cli::{Cli, Command};
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::sandbox;

/// Runs a command.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    // Secrets pass through most of them. What `run` starts may dump its core: it hides its own memory alone.
    if !matches!(command, Command::Run(_)) {
        sandbox::forbid_core_dumps();
    }
    match command {
        Command::Demo(arguments) => demo::run(&global, &arguments),
        Command::Serve(arguments) => serve::run(&global, &arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Health(arguments) => health::run(&global, &arguments),
        Command::Token(command) => token::run(&global, command),
        Command::Admin(command) => admin::run(&global, command),
        Command::Check(arguments) => check::run(&global, &arguments),
        Command::Run(arguments) => run::run(&global, &arguments),
        Command::Policy(command) => policy::run(&global, command),
        Command::Store(command) => store::run(&global, command),
        Command::Config(command) => config::run(&global, &command),
        Command::Completion { shell } => manual::completion(shell),
        Command::Man { dir } => manual::man(dir.as_deref()),
        Command::Version => version(global.output),
    }
}

fn version(format: Format) -> Result<(), Failure> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    match format {
        Format::Json => return output::json(&serde_json::json!({ "name": "leastgate", "version": VERSION })),
        Format::Table | Format::Name => output::data(format_args!("leastgate {VERSION}")),
    }
    Ok(())
}
