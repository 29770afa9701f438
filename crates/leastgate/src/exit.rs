//! How a command ends: exit codes live here and nowhere else.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use leastgate_config::Diagnostics;

use crate::{output, sandbox};

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
    /// `run`: the command is there and can't be executed, as shells say it.
    NotExecutable = 126,
    /// `run`: there is no such command, as shells say it.
    NotFound = 127,
    /// An interrupted client.
    Interrupted = 130,
}

/// Which end it is.
#[derive(Clone, Copy, Debug)]
enum End {
    Own(Exit),
    /// The end of the command that `run` ran.
    Of(ExitStatus),
}

/// Why a command does not end with 0.
#[derive(Debug)]
pub struct Failure {
    end: End,
    /// What the user reads; nothing where the command has said everything on its own.
    message: Option<String>,
}

impl Failure {
    /// An end with a message.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { end: End::Own(exit), message: Some(message.to_string()) }
    }

    /// Adds what to do about it, on a line of its own.
    #[must_use]
    pub fn help(self, help: impl fmt::Display) -> Self {
        Self { message: self.message.map(|message| format!("{message}\n\nhelp: {help}")), ..self }
    }

    /// An end whose reason was printed already.
    #[must_use]
    pub fn silent(exit: Exit) -> Self {
        Self { end: End::Own(exit), message: None }
    }

    /// The end of another command, which said itself what there was to say: 0 is no failure.
    pub(crate) fn of(command: ExitStatus) -> Result<(), Self> {
        if command.success() { Ok(()) } else { Err(Self { end: End::Of(command), message: None }) }
    }

    /// Help or version was printed: nothing is left to do, and nothing failed.
    pub(crate) fn silent_success() -> Self {
        Self::silent(Exit::Ok)
    }

    #[cfg(test)]
    pub(crate) fn exit(&self) -> Exit {
        match self.end {
            End::Own(exit) => exit,
            End::Of(status) => panic!("the end of a command: {status}"),
        }
    }

    /// Prints the message on standard error and gives the code.
    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = &self.message {
            output::error(message);
        }
        match self.end {
            End::Own(exit) => ExitCode::from(exit as u8),
            End::Of(status) => as_it_ended(status),
        }
    }
}

/// The code of a command that ended by itself. Of one that a signal ended, that signal ends this process too: a shell
/// then sees what it would have seen without us, and after Ctrl-C it ends its script or loop, which it does not for the
/// code 130 alone.
fn as_it_ended(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // The first process of a container can't be ended so.
        if !rustix::process::getpid().is_init() {
            // The command's core dump, if there was one, is the one to look at.
            sandbox::forbid_core_dumps();
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, format!("{error:#}"))
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Self { end: End::Own(Exit::Invalid), message: Some(diagnostics.render(output::stderr_has_color())) }
    }
}
