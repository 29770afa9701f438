//! `leastgate run`: a command with a token of its own, which lives as long as the command.
//!
//! 1. The token stands in for another one and holds no more than that. It goes into the command's environment, and nowhere
//!    else: to no file, no argument, no output. The administrator's own variables stay out of there.
//! 2. While the command runs, the token is renewed; nobody else does so. Killed (SIGKILL), this process leaves a token that
//!    ends by itself within `--ttl`, and a command that goes on: it is not killed in turn (`PR_SET_PDEATHSIG`), for what it
//!    does may be worth more than our part in it, and it would need code between fork and exec that can't be checked.
//! 3. A refused renewal does not end the command either. Its requests are refused from the token's end on, and what to do
//!    then is its own affair.
//! 4. However the command ends, and whatever signals come, the token is revoked before this process ends.

mod relay;
mod renewal;
mod token;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::Command;
use std::sync::Arc;

use leastgate_admin::api::{CreateChild, SecretText, Ttl};

use self::relay::{NotStarted, Relay};
use self::renewal::Renewal;
use self::token::ChildToken;
use super::client;
use crate::cli::{Global, Run, is_administrators};
use crate::exit::{Exit, Failure};
use crate::sandbox;

/// Shorter, and it could not be renewed in time.
const SHORTEST: u64 = 3;
/// What is renewed need not live long, and what is left behind should not.
const LONGEST: Ttl = Ttl::DAY;

pub(super) fn run(global: &Global, arguments: &Run) -> Result<(), Failure> {
    let [program, words @ ..] = arguments.command.as_slice() else {
        return Err(Failure::new(Exit::Usage, "say behind -- which command to run"));
    };
    let asked = asked(arguments, program)?;
    let client = client::connect(global)?;
    sandbox::hide_memory();
    // Before there is a token: from here on no signal ends this process before the token has ended.
    let relay = Relay::take()?;
    let (token, secret) = ChildToken::create(client, &arguments.token, asked)?;
    let token = Arc::new(token);
    let command = command(program, words, &arguments.env, &secret);
    drop(secret);
    let ended = attend(&relay, &token, command);
    token.revoke(if ended.is_ok() { "the command has ended" } else { "the command was not started" });
    ended?
}

/// What the admin API is asked for.
fn asked(arguments: &Run, program: &OsString) -> Result<CreateChild, Failure> {
    if arguments.token == "-" {
        return Err(Failure::new(Exit::Usage, "--token takes a name or an accessor: standard input is the command's"));
    }
    client::refuse_secret(&arguments.token)?;
    let ttl = client::ttl("--ttl", &arguments.ttl)?;
    if ttl.seconds() < SHORTEST || ttl > LONGEST {
        let message = format!("--ttl {ttl}: {SHORTEST}s to {LONGEST}; it is renewed for as long as the command runs");
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(CreateChild { ttl, reason: arguments.reason.clone().unwrap_or_else(|| reason(program)) })
}

/// Of the command the first word alone: the others may hold secrets.
fn reason(program: &OsString) -> String {
    let shown = |letter: char| if letter.is_control() { '?' } else { letter };
    format!("leastgate run {}", program.to_string_lossy().chars().take(200).map(shown).collect::<String>())
}

/// The command with its token and without what is its starter's. Dropped once it is started: its copy of the secret is
/// the standard library's and can't be overwritten, but nobody else's process can look at it.
fn command(program: &OsString, words: &[OsString], variable: &str, secret: &SecretText) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if is_administrators(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command.env(variable, secret.expose());
    command
}

/// Starts the command and waits for its end; `Err` where it was not started.
fn attend(relay: &Relay, token: &Arc<ChildToken>, mut command: Command) -> Result<Result<(), Failure>, Failure> {
    let renewal = Renewal::start(token)?;
    let program = command.get_program().to_owned();
    let process = relay.spawn(&mut command).map_err(|error| not_started(&program, error))?;
    drop(command);
    let ended = relay.wait(process);
    drop(renewal);
    Ok(ended
        .map_err(|error| Failure::new(Exit::Failed, format!("how the command ended is not known: {error}")))
        .and_then(Failure::of))
}

/// As shells tell it: 127 and 126.
fn not_started(program: &OsString, error: NotStarted) -> Failure {
    let program = program.to_string_lossy();
    match error {
        NotStarted::Ended(status) => Failure::of(status).err().unwrap_or_else(|| Failure::silent(Exit::Interrupted)),
        NotStarted::Refused(error) if error.kind() == ErrorKind::NotFound => {
            Failure::new(Exit::NotFound, format!("{program}: command not found"))
        }
        // No memory and no room for a process say nothing of the command.
        NotStarted::Refused(error) if matches!(error.kind(), ErrorKind::OutOfMemory | ErrorKind::WouldBlock) => {
            Failure::new(Exit::Failed, format!("{program} can't be started: {error}"))
        }
        NotStarted::Refused(error) => {
            Failure::new(Exit::NotExecutable, format!("{program} can't be executed: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_record_says_which_command_and_not_with_what() {
        assert_eq!(reason(&OsString::from("./deploy")), "leastgate run ./deploy");
        assert_eq!(reason(&OsString::from("a\nb\u{1b}[0m")), "leastgate run a?b?[0m");
        assert!(reason(&OsString::from("x".repeat(5_000))).len() < 250);
    }

    #[test]
    fn a_command_that_is_not_started_ends_as_in_a_shell() {
        let end = |kind| not_started(&OsString::from("x"), NotStarted::Refused(io::Error::from(kind))).exit();
        assert_eq!(end(ErrorKind::NotFound), Exit::NotFound);
        assert_eq!(end(ErrorKind::PermissionDenied), Exit::NotExecutable);
        assert_eq!(end(ErrorKind::ArgumentListTooLong), Exit::NotExecutable);
        assert_eq!(end(ErrorKind::WouldBlock), Exit::Failed);
    }
}
