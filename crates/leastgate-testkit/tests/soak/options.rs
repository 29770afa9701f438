//! The arguments: those of `cargo xtask soak`, and those that `cargo test` gives to every suite.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the run is that is one test among others.
const SHORT: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Wanted {
    Soak(Options),
    /// Only the name of the test.
    List,
    /// Another test.
    Nothing,
}

/// How the run is.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    /// What is measured, and on what, for the head of the results.
    pub(crate) conditions: String,
    /// Where the results are written.
    pub(crate) results: Option<PathBuf>,
    pub(crate) is_short: bool,
}

pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut options =
        Options { length: SHORT, seed: drawn(), conditions: String::new(), results: None, is_short: true };
    let mut filters = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--minutes" => {
                let minutes = value()?.parse::<f64>().map_err(|error| format!("--minutes: {error}"))?;
                options.length = Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| error.to_string())?;
                options.is_short = false;
            }
            "--seed" => options.seed = value()?.parse().map_err(|error| format!("--seed: {error}"))?,
            "--results" => options.results = Some(value()?.into()),
            "--conditions" => options.conditions = value()?,
            "--list" => return Ok(Wanted::List),
            // There are no such tests here.
            "--ignored" => return Ok(Wanted::Nothing),
            "--test-threads" | "--skip" | "--format" | "--color" => drop(value()?),
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    let is_meant = filters.is_empty() || filters.iter().any(|filter| crate::NAME.contains(filter.as_str()));
    Ok(if is_meant { Wanted::Soak(options) } else { Wanted::Nothing })
}

/// Another seed for each run.
fn drawn() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs())
}
