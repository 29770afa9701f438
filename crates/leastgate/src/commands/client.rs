//! How commands reach a gateway's admin API, and what they share around it: finding it, confirming, handing secrets over.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use leastgate_admin::api::{Moment, Ttl};
use leastgate_admin::client::{Client, ClientError, Endpoint};
use leastgate_policy::Timestamp;
use leastgate_policy::token::inspect;
use serde::Serialize;
use zeroize::Zeroizing;

use super::init::write_new;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::gateway::{loading, runtime_dir};
use crate::output::{self, BOLD, Format};

/// The socket's name in a state_dir or in the user's runtime folder.
pub(super) const SOCKET: &str = "admin.sock";

/// Finds the gateway: `--admin-url`, else the local one's socket.
pub(super) fn connect(global: &Global) -> Result<Client, Failure> {
    let endpoint = match &global.admin_url {
        Some(url) => url.parse().map_err(|error| Failure::new(Exit::Usage, format!("--admin-url: {error}")))?,
        None => Endpoint::Unix(local_socket(global)?),
    };
    let client = Client::new(endpoint, Duration::from_secs(global.timeout));
    Ok(match credential(global)? {
        Some(credential) => client.with_credential(&credential),
        None => client,
    })
}

fn local_socket(global: &Global) -> Result<PathBuf, Failure> {
    let config = loading::gateway_file(global, Vec::new()).ok().and_then(|loaded| loaded.config.state_dir);
    let candidates = config.into_iter().chain([runtime_dir()]).map(|dir| dir.join(SOCKET));
    candidates.into_iter().find(|path| path.exists()).ok_or_else(|| {
        let message = "no local gateway found: start one (`leastgate serve`, `leastgate demo`), name its file with --config, \
                       or its admin API with --admin-url";
        Failure::new(Exit::Failed, message)
    })
}

fn credential(global: &Global) -> Result<Option<Zeroizing<String>>, Failure> {
    if let Some(path) = &global.admin_token_file {
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

/// The accessor of the token on standard input; the rest of it is forgotten here.
pub(super) fn accessor_from_stdin() -> Result<String, Failure> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::new(Exit::Failed, format!("standard input: {error}")))?;
    let parsed = inspect(line.trim().as_bytes())
        .map_err(|error| Failure::new(Exit::Usage, format!("standard input: {error}")))?;
    Ok(parsed.accessor.to_string())
}

/// Asks before what can't be undone. Without a terminal there is nobody to ask.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, format!("{question} Say so with --yes: there is no terminal to ask on")));
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::Interrupted, "nothing was changed")),
    }
}

/// Gives a new secret to its owner: into a file of their own, or on standard output.
pub(super) fn hand_over(
    global: &Global,
    about: &impl Serialize,
    secret: &str,
    file: Option<&Path>,
) -> Result<(), Failure> {
    if let Some(path) = file {
        write_secret(path, secret)?;
        return if global.output == Format::Json { output::json(about) } else { Ok(()) };
    }
    match global.output {
        Format::Json => {
            let mut about = serde_json::to_value(about).map_err(|error| Failure::new(Exit::Failed, error))?;
            about["secret"] = secret.into();
            output::json(&about)
        }
        Format::Table | Format::Name => {
            output::note(format_args!("{BOLD}The secret, shown this once:{BOLD:#}"));
            output::data(secret);
            Ok(())
        }
    }
}

/// Writes a secret into a new file that only its owner can read.
pub(super) fn write_secret(path: &Path, secret: &str) -> Result<(), Failure> {
    let text = Zeroizing::new(format!("{secret}\n"));
    write_new(path, &text, 0o600).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("the secret could not be written to {} ({error}) and is lost: revoke the token", path.display()),
        )
    })?;
    output::note(format_args!("the secret is in {}", path.display()));
    Ok(())
}

pub(super) fn ttl(text: &str) -> Result<Ttl, Failure> {
    text.parse().map_err(|error| Failure::new(Exit::Usage, format!("--ttl {text}: {error}")))
}

/// A date means the beginning of its day, UTC.
pub(super) fn moment(text: &str) -> Result<Moment, Failure> {
    let day = text.parse::<jiff::civil::Date>().ok().and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok());
    if let Some(start) = day {
        return Ok(Moment(Timestamp(u64::try_from(start.timestamp().as_second()).unwrap_or(0))));
    }
    text.parse().map_err(|error| Failure::new(Exit::Usage, format!("{text}: {error}")))
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            error if error.is_authentication() => Exit::AdminAuth,
            ClientError::InvalidId => Exit::Usage,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}
