//! What a person or a script reads: data on standard output, messages on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::exit::{Exit, Failure};

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// Names only, one a line.
    Name,
}

pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const BOLD: Style = Style::new().bold();

static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether notes are left out: `-q`.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether they are.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Colours as the terminal, `NO_COLOR` and `--no-color` want them.
pub(crate) fn set_color(wanted: bool) {
    if !wanted {
        anstream::ColorChoice::Never.write_global();
    }
}

pub(crate) fn stderr_has_color() -> bool {
    AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Data, on standard output.
pub(crate) fn data(text: impl std::fmt::Display) {
    keep(writeln!(anstream::stdout(), "{text}"));
}

/// Why data did not arrive. The command goes on, for what it does may matter more than what it says, and fails in the end.
static LOST: Mutex<Option<String>> = Mutex::new(None);

/// A reader that has gone away (`| head`) wants no more: that is not an error.
fn keep(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        *LOST.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }
}

/// Fails where some data could not be written.
pub(crate) fn arrived() -> Result<(), Failure> {
    match LOST.lock().unwrap_or_else(PoisonError::into_inner).take() {
        None => Ok(()),
        Some(error) => Err(Failure::new(Exit::Failed, format!("standard output can't be written: {error}"))),
    }
}

/// Data that must arrive, on standard output: what is lost here is lost for good.
pub(crate) fn sure(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Data as it is, with no line break added.
pub(crate) fn raw(bytes: &[u8]) {
    keep(io::stdout().write_all(bytes));
}

/// A value as JSON, on standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::Failed, error))?;
    data(text);
    Ok(())
}

/// A message, on standard error; not with `-q`.
pub(crate) fn note(text: impl std::fmt::Display) {
    if !QUIET.load(Ordering::Relaxed) {
        let _ = writeln!(anstream::stderr(), "{text}");
    }
}

/// What somebody may have to act on, on standard error; with `-q` too, for the exit code does not tell.
pub(crate) fn warn(text: impl std::fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{WARN}warning{WARN:#}: {text}");
}

/// An error, on standard error.
pub(crate) fn error(text: &str) {
    if text.starts_with("error") || text.contains("\u{1b}[") {
        let _ = writeln!(anstream::stderr(), "{text}");
    } else {
        let _ = writeln!(anstream::stderr(), "{BAD}error{BAD:#}: {text}");
    }
}

/// A table without frames: columns that align, as `kubectl` prints them.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Standard error, less every token: what libraries log of what they read, none of our types can keep out of it.
struct WithoutTokens;

impl Write for WithoutTokens {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(leastgate_telemetry::redact(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Operational logs: JSON lines on standard error, or lines for people where a person looks. `RUST_LOG` overrides.
pub(crate) fn start_log(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| WithoutTokens);
    // A second start in one process (tests) keeps the first log.
    let _ = if io::stderr().is_terminal() {
        log.with_target(false).with_ansi(stderr_has_color()).try_init()
    } else {
        log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
}
