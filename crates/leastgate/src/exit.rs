//! How a command ends: exit codes live here and nowhere else.

use std::fmt;
use std::process::ExitCode;

use leastgate_config::Diagnostics;

use crate::output;

/// The exit codes, as scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Help or version was asked for and printed.
    Ok = 0,
    /// A start or a call failed: port, store, disk, an unhealthy gateway. Or a part of a gateway ended by itself.
    Failed = 1,
    /// The answer is no: denied, different, a finding.
    No = 2,
    /// Invalid files, a wrong pepper, a failed test.
    Invalid = 3,
    /// The admin API refused the credential.
    AdminAuth = 4,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// An interrupted client.
    Interrupted = 130,
}

/// Why a command does not end with 0.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    /// What the user reads; nothing where the command has said everything on its own.
    message: Option<String>,
}

impl Failure {
    /// An end with a message.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: Some(message.to_string()) }
    }

    /// Adds what to do about it, on a line of its own.
    #[must_use]
    pub fn help(self, help: impl fmt::Display) -> Self {
        Self { message: self.message.map(|message| format!("{message}\n\nhelp: {help}")), ..self }
    }

    /// An end whose reason was printed already.
    #[must_use]
    pub fn silent(exit: Exit) -> Self {
        Self { exit, message: None }
    }

    /// Help or version was printed: nothing is left to do, and nothing failed.
    pub(crate) fn silent_success() -> Self {
        Self::silent(Exit::Ok)
    }

    #[cfg(test)]
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints the message on standard error and gives the code.
    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = &self.message {
            output::error(message);
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self { exit: Exit::Invalid, message: Some(diagnostics.render(output::stderr_has_color())) }
    }
}
