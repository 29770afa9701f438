//! How commands reach a gateway's admin API, and what they share around it: finding it, confirming, handing secrets over.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use leastgate_admin::api::{Moment, ProblemView, Ttl};
use leastgate_admin::client::{Client, ClientError, Endpoint};
use leastgate_policy::Timestamp;
use leastgate_policy::TokenKind;
use leastgate_policy::token::inspect;
use serde::Serialize;
use zeroize::Zeroizing;

use super::interrupt::Interrupt;
use super::{admin_tls, socket};
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::files::NewFile;
use crate::gateway::{exposure, loading};
use crate::output::{self, BOLD, Format};

/// Finds the gateway: `--admin-url`, else the local one's socket. A credential goes only where it was told to go: whoever
/// listens on a socket that was found in the gateway's place must not get one.
pub(super) fn connect(global: &Global) -> Result<Client, Failure> {
    let timeout = Duration::from_secs(global.timeout);
    let Some(url) = &global.admin_url else {
        refuse_unaddressed(global)?;
        admin_tls::refuse_unused(global, "the local gateway's socket")?;
        return Ok(Client::new(Endpoint::Unix(socket::find(global)?), timeout));
    };
    let endpoint = url.parse().map_err(|error| Failure::new(Exit::Usage, format!("--admin-url: {error}")))?;
    let client = admin_tls::secured(Client::new(endpoint, timeout), global)?;
    Ok(match credential(global)? {
        Some(credential) => {
            refuse_in_the_open(client.endpoint())?;
            client.with_credential(&credential)
        }
        None => client,
    })
}

/// A gateway answers on plain HTTP on its own machine alone: `http://` to another is a slip, and whoever sits in between
/// would have the credential.
fn refuse_in_the_open(endpoint: &Endpoint) -> Result<(), Failure> {
    if !endpoint.is_open() {
        return Ok(());
    }
    let message = format!(
        "the admin credential would cross the network in plain text to {endpoint}: say https://, or reach 127.0.0.1 through \
         ssh"
    );
    Err(Failure::new(Exit::Usage, message))
}

/// A credential that nobody is to be shown. Without it the command would act with the rights of the local user, which
/// are all rights: whoever gave one meant to have less.
fn refuse_unaddressed(global: &Global) -> Result<(), Failure> {
    let Some(given) = credential_given(global) else { return Ok(()) };
    let url = socket::find(global).map_or_else(|_| "URL".to_owned(), |path| Endpoint::Unix(path).to_string());
    let message = format!(
        "{given} gives an admin credential, and no --admin-url says to whom: add --admin-url {url} to act as that \
         administrator, or leave the credential out to act as the local user, who may do everything"
    );
    Err(Failure::new(Exit::Usage, message))
}

/// What gives a credential, as its user knows it.
fn credential_given(global: &Global) -> Option<&'static str> {
    const FILE: &str = "LEASTGATE_ADMIN_TOKEN_FILE";
    match &global.admin_token_file {
        Some(path) if loading::variable(FILE).is_some_and(|value| value == path.as_os_str()) => Some(FILE),
        Some(_) => Some("--admin-token-file"),
        None => loading::variable("LEASTGATE_ADMIN_TOKEN").map(|_| "LEASTGATE_ADMIN_TOKEN"),
    }
}

fn credential(global: &Global) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(path) = &global.admin_token_file {
        let given = credential_given(global).unwrap_or("--admin-token-file");
        exposure::of_secret(given, path, path.display()).into_iter().for_each(output::warn);
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(Exit::Failed, format!("the admin credential in {} can't be read: {error}", path.display()))
        })?;
        let text = Zeroizing::new(text);
        return Ok(Some(Zeroizing::new(text.trim().to_owned())));
    }
    let variable = loading::variable("LEASTGATE_ADMIN_TOKEN").and_then(|text| text.into_string().ok());
    Ok(variable.map(Zeroizing::new))
}

/// A secret on the command line stands in the process list and the shell's history: it is not taken.
pub(super) fn refuse_secret(name: &str) -> Result<(), Failure> {
    let looks_secret = inspect(name.as_bytes()).is_ok() || name.starts_with("lgt_") || name.starts_with("lga_");
    if !looks_secret {
        return Ok(());
    }
    let message = "that is a token's secret: name the token, or give `-` and the secret on standard input; \
                   a command line is seen by everybody on the machine";
    Err(Failure::new(Exit::Usage, message))
}

/// The token that a command is about: a name or an accessor, or `-` for the one on standard input.
pub(super) fn subject(token: &str) -> Result<String, Failure> {
    if token == "-" {
        return accessor(&token_from_stdin()?);
    }
    refuse_secret(token).map(|()| token.to_owned())
}

/// The token on standard input, whole; for the one call that asks about the text itself.
pub(super) fn token_from_stdin() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::new(Exit::Failed, format!("standard input: {error}")))?;
    accessor(line.trim())?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}

fn accessor(text: &str) -> Result<String, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("standard input: {error}"));
    match inspect(text.as_bytes()) {
        Ok(parsed) if parsed.kind == TokenKind::Token => Ok(parsed.accessor.to_string()),
        Ok(_) => Err(usage(&"that is a credential of the admin API, not a token")),
        Err(error) => Err(usage(&error)),
    }
}

/// Asks before what can't be undone. Without a terminal there is nobody to ask.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    ask(question, yes, || {
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).ok().map(|_| answer)
    })
}

/// The same where something has to be tidied up after a no: whoever interrupts the question has said one.
pub(super) fn confirm_or(interrupt: &Interrupt, question: &str, yes: bool) -> Result<(), Failure> {
    ask(question, yes, || interrupt.line())
}

fn ask(question: &str, yes: bool, answer: impl FnOnce() -> Option<String>) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, format!("{question} Say so with --yes: there is no terminal to ask on")));
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    if answer().is_some_and(|answer| matches!(answer.trim(), "y" | "Y" | "yes")) {
        return Ok(());
    }
    output::note("nothing was changed");
    Err(Failure::silent(Exit::Interrupted))
}

/// Where a new secret will go. It is made before the secret is: one that nobody can keep must not begin to live.
#[derive(Debug)]
pub(super) struct Handover {
    file: Option<NewFile>,
    /// What to do about a secret that is lost all the same.
    if_lost: String,
}

impl Handover {
    /// Into a new file that only its owner can read, or on standard output.
    pub(super) fn prepare(global: &Global, file: Option<&Path>, if_lost: String) -> Result<Self, Failure> {
        if global.output == Format::Name && file.is_none() {
            let message = "-o name prints names alone: say with --secret-file FILE where the secret goes";
            return Err(Failure::new(Exit::Usage, message));
        }
        let create = |path: &Path| {
            NewFile::create(path, 0o600).map_err(|error| {
                let message = format!("the secret file {} can't be made: {error}; nothing was issued", path.display());
                Failure::new(Exit::Failed, message)
            })
        };
        Ok(Self { file: file.map(create).transpose()?, if_lost })
    }

    /// Gives the secret to its owner, with what else is to be said of it.
    pub(super) fn give(self, global: &Global, about: &impl Serialize, secret: &str) -> Result<(), Failure> {
        let if_lost = self.if_lost.clone();
        let lost = |error: std::io::Error| lost(&error, &if_lost);
        let in_file = self.file.is_some();
        self.give_file(secret)?;
        let mut about = serde_json::to_value(about).map_err(|error| Failure::new(Exit::Failed, error))?;
        match global.output {
            Format::Json if in_file => output::json(&about),
            Format::Json => {
                about["secret"] = secret.into();
                output::sure(Zeroizing::new(format!("{about:#}")).as_str()).map_err(lost)
            }
            Format::Name => {
                output::data(about["name"].as_str().unwrap_or_default());
                Ok(())
            }
            Format::Table if in_file => Ok(()),
            Format::Table => {
                output::note(format_args!("{BOLD}The secret, shown this once:{BOLD:#}"));
                output::sure(secret).map_err(lost)
            }
        }
    }

    /// Gives secrets of which more may follow, a line for each. From the first on the file stays.
    ///
    /// # Errors
    /// They could not be written: those before are with their owner.
    pub(super) fn add(&mut self, lines: &str) -> std::io::Result<()> {
        match &mut self.file {
            Some(file) => file.add(lines.as_bytes()),
            None => output::sure(lines.trim_end_matches('\n')),
        }
    }

    /// The file that they go into.
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(NewFile::path)
    }

    fn give_file(self, secret: &str) -> Result<(), Failure> {
        let Some(file) = self.file else { return Ok(()) };
        let path = file.path().to_owned();
        let text = Zeroizing::new(format!("{secret}\n"));
        file.fill(text.as_bytes()).map_err(|error| lost(&error, &self.if_lost))?;
        output::note(format_args!("the secret is in {}", path.display()));
        Ok(())
    }
}

fn lost(error: &std::io::Error, if_lost: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the secret could not be written ({error}) and is lost: {if_lost}"))
}

/// Says that a change is in force, and not on disk yet.
pub(super) fn warn_unless(durable: bool) {
    if !durable {
        output::warn("in force, but not on disk yet; the gateway tries again until it is");
    }
}

/// A duration that `flag` gives.
pub(super) fn ttl(flag: &str, text: &str) -> Result<Ttl, Failure> {
    text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{flag} {text}: {error}")))
}

/// A date means the beginning of its day, UTC.
pub(super) fn moment(text: &str) -> Result<Moment, Failure> {
    let day = text.parse::<jiff::civil::Date>().ok().and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok());
    if let Some(start) = day {
        return Ok(Moment(Timestamp(u64::try_from(start.timestamp().as_second()).unwrap_or(0))));
    }
    text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{text}: {error}")))
}

/// A moment in the past: so long ago, or a date or time.
pub(super) fn past(flag: &str, text: &str) -> Result<Moment, Failure> {
    if let Ok(ago) = text.parse::<Ttl>() {
        return Ok(Moment(Timestamp(loading::now().0.saturating_sub(ago.seconds()))));
    }
    moment(text).map_err(|_| {
        Failure::new(
            Exit::Usage,
            format!("{flag} {text}: write how long ago, such as 90d, or a date, such as 2026-01-31"),
        )
    })
}

/// The admin API speaks of its fields; who typed a command reads of its flags.
pub(super) fn in_flags(text: &str) -> String {
    const FLAGS: [(&str, &str); 8] = [
        ("an `owner`", "--owner OWNER"),
        ("a `ttl`", "a --ttl"),
        ("an `expires`", "a --ttl"),
        ("`allow_cidr`", "--allow-cidr"),
        ("`not_before`", "--not-before"),
        ("`note`", "--note"),
        ("`reason`", "--reason"),
        ("`source_ip`", "--source-ip"),
    ];
    FLAGS.iter().fold(text.to_owned(), |text, (field, flag)| text.replace(field, flag))
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match (&error, error.problem().map(ProblemView::name)) {
            (error, _) if error.is_authentication() => Exit::AdminAuth,
            // What was asked for can't be meant, and what the policy does not permit is its answer.
            (ClientError::InvalidId, _) | (_, Some("invalid-value")) => Exit::Usage,
            (_, Some("token-rules")) => Exit::No,
            _ => Exit::Failed,
        };
        Self::new(exit, in_flags(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_api_are_told_as_flags() {
        let told =
            "token_rules require an owner; give an `owner`; give a `ttl` of at most 30d, which `token_rules` sets";
        let said =
            "token_rules require an owner; give --owner OWNER; give a --ttl of at most 30d, which `token_rules` sets";
        assert_eq!(in_flags(told), said);
    }
}
