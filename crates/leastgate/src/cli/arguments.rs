//! From the process's arguments to a command: what clap can't know is judged before and after it.

use std::ffi::OsString;
use std::net::IpAddr;

use clap::Parser as _;
use leastgate_policy::source::parse_network;

use super::Cli;
use crate::exit::{Exit, Failure};
use crate::output;

/// Reads the process's arguments.
///
/// # Errors
/// A usage error (64); help and version are printed and end with 0.
pub fn parse() -> Result<Cli, Failure> {
    refuse_secrets(std::env::args_os().skip(1))?;
    // Help and usage errors are printed before anything is parsed, and have colours too.
    output::set_color(!std::env::args_os().any(|argument| argument == "--no-color"));
    match Cli::try_parse() {
        Ok(cli) => {
            output::set_quiet(cli.global.quiet);
            Ok(cli)
        }
        Err(error) if error.use_stderr() => {
            Err(Failure::new(Exit::Usage, error.render().ansi().to_string().trim_end()))
        }
        Err(help) => {
            output::data(help.render().ansi().to_string().trim_end());
            Err(Failure::silent_success())
        }
    }
}

/// A network as policies write it; one address may stand without its prefix.
pub(super) fn network(text: &str) -> Result<String, String> {
    let one = text.parse::<IpAddr>().is_ok();
    if !one {
        parse_network(text).map_err(|error| error.to_string())?;
    }
    Ok(text.to_owned())
}

/// Whole requests a second, as files write a rate or as a number alone.
pub(super) fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let rate = number.parse().ok().filter(|rate| is_number && *rate > 0);
    rate.ok_or_else(|| "expected whole requests a second, such as 50 or 50/s".to_owned())
}

/// Refuses a command line with a token anywhere in it, before anything could repeat, send or record it: the process
/// list and the shell's history have it already.
fn refuse_secrets(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    for (position, argument) in arguments.enumerate() {
        if holds_token(&argument.to_string_lossy()) {
            let message = format!(
                "argument {} has a token's secret in it: name the token, or give `-` where a command reads it from \
                 standard input; a command line is seen by everybody on the machine, so revoke this one",
                position + 1
            );
            return Err(Failure::new(Exit::Usage, message));
        }
    }
    Ok(())
}

/// Whether a token or an admin credential stands anywhere in `text`, or what is as long as one: a typo in a secret does
/// not make it public.
fn holds_token(text: &str) -> bool {
    // An environment of one letter, accessor, secret, checksum, and the three `_` between them.
    const SHORTEST: usize = 1 + 10 + 43 + 6 + 3;
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.split(|character| !is_part(character)).any(|run| {
        ["lgt_", "lga_"].iter().any(|prefix| run.find(prefix).is_some_and(|at| run.len() - at >= 4 + SHORTEST))
    })
}

#[cfg(test)]
mod tests {
    use leastgate_policy::TokenKind;
    use leastgate_policy::token::mint;

    use super::*;
    use crate::cli::description;

    #[test]
    fn the_description_is_sound() {
        description().debug_assert();
    }

    #[test]
    fn what_is_no_argument_is_a_usage_error_and_asks_nobody() {
        let check = ["check", "me", "GET", "/"];
        for wrong in [
            &["serve", "--workers", "0"][..],
            &["token", "list", "--state", "foo"],
            &["token", "create", "--name", "x", "--allow-cidr", "10.0.0.1/8"],
            &["token", "create", "--name", "x", "--rate", "0"],
            &["token", "create", "--name", "x", "--rate", "60/m"],
            &["token", "create", "--name", "x", "--rate", "+5"],
            &["token", "create", "--name", "x", "--burst", "5"],
            &["token", "create", "--name", "x", "--concurrent", "0"],
            &["check", "me", "GET", ""],
            &["check", "me", "", "/"],
            &[&check[..], &["--source-ip", "nope"]].concat(),
        ] {
            let parsed = Cli::try_parse_from([&["leastgate"], wrong].concat());
            assert!(parsed.is_err_and(|error| error.use_stderr()), "{wrong:?}");
        }
        let limits = ["--rate", "50/s", "--burst", "100", "--concurrent", "10"];
        for right in [
            &check[..],
            &["token", "create", "--name", "x", "--allow-cidr", "10.0.0.1"],
            &[&["token", "create", "--name", "x"], &limits[..]].concat(),
            &["token", "create", "--name", "x", "--rate", "50"],
        ] {
            assert!(Cli::try_parse_from([&["leastgate"], right].concat()).is_ok(), "{right:?}");
        }
    }

    #[test]
    fn a_token_is_found_anywhere_in_an_argument() {
        for kind in [TokenKind::Token, TokenKind::Admin] {
            let token = mint(kind, "a", "0aZ9000001".parse().unwrap(), &[7; 32]);
            let token = token.expose();
            let (broken, glued) = (format!("{}x", &token[..token.len() - 1]), format!("lgt_lgt_{token}"));
            for argument in [token, &format!("--note=for {token}."), &format!("/x?a={token}&b"), &broken, &glued] {
                let failure = refuse_secrets([OsString::from("x"), OsString::from(argument)].into_iter()).unwrap_err();
                assert!(format!("{failure:?}").contains("argument 2"), "{failure:?}");
                assert!(!format!("{failure:?}").contains(&token[16..40]), "{failure:?}");
            }
        }
        for argument in ["", "reader", "lgt_", "lgt_prod_0aZ9000001", "for lgt_prod_0aZ9000001_REDACTED tokens", "é"] {
            assert!(!holds_token(argument), "{argument}");
        }
    }
}
