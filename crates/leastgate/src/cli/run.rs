//! `leastgate run` on the command line.

use std::ffi::OsString;

use clap::Args;

/// `leastgate run`
#[derive(Debug, Args)]
#[command(
    after_help = "The command finds the token in its environment, and nowhere else. Signals are passed on to it, and its \
                  exit code is this command's. As root or as the gateway's own user it could do everything over \
                  admin.sock: start it as another user, with an admin credential and --admin-url."
)]
pub struct Run {
    /// The token that the command's own stands in for: its name or accessor
    #[arg(long, value_name = "TOKEN")]
    pub token: String,
    /// How long the command's token lives unless it is renewed, as it is while the command runs: 3s to 1d
    #[arg(long, value_name = "TIME", default_value = "15m")]
    pub ttl: String,
    /// The variable that holds the command's token
    #[arg(long, value_name = "NAME", default_value = "LEASTGATE_TOKEN", value_parser = variable)]
    pub env: String,
    /// Why; it is recorded [default: leastgate run CMD, without its arguments]
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Variables that hold administrators' credentials and keys, or say where they are, begin so; a command gets none of them.
const ADMINISTRATORS: &str = "LEASTGATE_ADMIN_";
/// The one that begins otherwise: a gateway's first administrator.
const FIRST: &str = "LEASTGATE_BOOTSTRAP_ADMIN";
/// Those that anybody may know.
const PUBLIC: [&str; 2] = ["LEASTGATE_ADMIN_URL", "LEASTGATE_ADMIN_CA"];

/// Whether a variable is the administrator's, who starts the command, and not the command's.
pub(crate) fn is_administrators(variable: &str) -> bool {
    variable == FIRST || variable.starts_with(ADMINISTRATORS) && !PUBLIC.contains(&variable)
}

/// A variable's name as every shell reads it, and one that means nothing else to this program.
fn variable(text: &str) -> Result<String, String> {
    let is_name = !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err("a variable's name is letters, digits and _, and begins with no digit".to_owned());
    }
    if text == FIRST || text.starts_with(ADMINISTRATORS) || text.starts_with("LEASTGATE__") {
        return Err("this variable is for leastgate itself".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(arguments: &[&str]) -> Option<Run> {
        match Cli::try_parse_from([&["leastgate", "run"], arguments].concat()).ok()?.command {
            Command::Run(run) => Some(run),
            _ => None,
        }
    }

    #[test]
    fn what_follows_the_dashes_is_the_commands() {
        let run = parsed(&["--token", "ci-bot", "-q", "--", "curl", "--token", "x", "-q", "--", "y"]).unwrap();
        assert_eq!((run.token.as_str(), run.ttl.as_str(), run.env.as_str()), ("ci-bot", "15m", "LEASTGATE_TOKEN"));
        assert_eq!(run.command, ["curl", "--token", "x", "-q", "--", "y"]);
        for wrong in [&["--token", "x"][..], &["--token", "x", "--"], &["--token", "x", "curl"], &["--", "curl"]] {
            assert!(parsed(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_variable_is_one_for_shells_and_not_one_of_ours() {
        for name in ["TOKEN", "_t", "a1", "LEASTGATE_TOKEN"] {
            assert_eq!(variable(name).as_deref(), Ok(name));
        }
        for name in [
            "",
            "1A",
            "A-B",
            "A=B",
            "A B",
            "\u{e4}",
            "LEASTGATE_ADMIN_TOKEN",
            "LEASTGATE_BOOTSTRAP_ADMIN",
            "LEASTGATE__STATE_DIR",
        ] {
            assert!(variable(name).is_err(), "{name}");
        }
    }

    #[test]
    fn of_what_is_administrators_only_where_to_find_the_gateway_is_for_everybody() {
        for name in ["TOKEN", "TOKEN_FILE", "KEY", "CERT", "NEW"] {
            assert!(is_administrators(&format!("LEASTGATE_ADMIN_{name}")), "{name}");
        }
        assert!(is_administrators("LEASTGATE_BOOTSTRAP_ADMIN"));
        for name in ["LEASTGATE_ADMIN_URL", "LEASTGATE_ADMIN_CA", "LEASTGATE_TOKEN", "PATH"] {
            assert!(!is_administrators(name), "{name}");
        }
    }
}
