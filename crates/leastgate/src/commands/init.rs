//! `leastgate init`: a first leastgate.yaml and policy.yaml that work, in shadow mode.

use std::path::Path;

use jiff::Zoned;
use leastgate_policy::token::is_environment_name;

use crate::cli::Init;
use crate::exit::{Exit, Failure};
use crate::files::write_new;
use crate::output::{self, BOLD};

const GATEWAY: &str = include_str!("../../templates/leastgate.yaml");
const POLICY: &str = include_str!("../../templates/policy.yaml");
/// What must not get into a repository.
const IGNORED: &str = "pepper\nstate/\n*.token\n";
/// How long the api only records what it would refuse.
const SHADOW_DAYS: i64 = 14;

pub(super) fn run(arguments: &Init) -> Result<(), Failure> {
    check(arguments)?;
    let until = Zoned::now().date().saturating_add(jiff::Span::new().days(SHADOW_DAYS));
    let fill = |template: &str| {
        template
            .replace("@UPSTREAM@", &arguments.upstream)
            .replace("@ENVIRONMENT@", &arguments.environment)
            .replace("@UNTIL@", &until.to_string())
    };
    let files =
        [("leastgate.yaml", fill(GATEWAY), 0o644), ("policy.yaml", fill(POLICY), 0o644), ("pepper", pepper()?, 0o600)];
    std::fs::create_dir_all(&arguments.dir).map_err(|error| cannot_write(&arguments.dir, &error))?;
    if let Some((name, ..)) = files.iter().find(|(name, ..)| arguments.dir.join(name).exists()) {
        let path = arguments.dir.join(name);
        return Err(Failure::new(
            Exit::Failed,
            format!("{} is there already; init overwrites nothing", path.display()),
        ));
    }
    for (name, text, mode) in &files {
        let path = arguments.dir.join(name);
        write_new(&path, text.as_bytes(), *mode).map_err(|error| cannot_write(&path, &error))?;
        output::note(format_args!("wrote {}", path.display()));
    }
    keep_out_of_git(&arguments.dir)?;
    say_what_next(arguments, &until.to_string());
    Ok(())
}

fn check(arguments: &Init) -> Result<(), Failure> {
    if !is_environment_name(&arguments.environment) {
        let message = format!(
            "`{}` is not an environment name: a lower-case letter, then at most 15 letters and digits",
            arguments.environment
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let url = &arguments.upstream;
    let authority = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let is_plain = authority.is_some_and(|text| !text.contains('@') && text.parse::<http::uri::Authority>().is_ok());
    if is_plain {
        return Ok(());
    }
    let message = "--upstream is http:// or https://, a host and a port, such as http://127.0.0.1:8081";
    Err(Failure::new(Exit::Usage, message))
}

fn pepper() -> Result<String, Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(Exit::Failed, format!("the system gives no random numbers: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A pepper in a repository is a pepper that everybody has.
fn keep_out_of_git(dir: &Path) -> Result<(), Failure> {
    let path = dir.join(".gitignore");
    match write_new(&path, IGNORED.as_bytes(), 0o644) {
        Ok(()) => output::note(format_args!("wrote {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let names = IGNORED.trim_end().replace('\n', ", ");
            output::note(format_args!("{} is there already: add {names} to it", path.display()));
        }
        Err(error) => return Err(cannot_write(&path, &error)),
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{} can't be written: {error}", path.display()))
}

fn say_what_next(arguments: &Init, until: &str) {
    let cd =
        if arguments.dir == Path::new(".") { String::new() } else { format!("cd {} && ", arguments.dir.display()) };
    output::note(format_args!(
        "\nUntil {until}, 00:00 UTC, the api is in shadow mode: what no scope allows is forwarded and recorded. Next:\n\n  \
         {BOLD}{cd}leastgate serve{BOLD:#}\n\n\
         It says, for another terminal in the same folder, how to make the first token and try it.\n"
    ));
}
