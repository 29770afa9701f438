//! The table as it grows: a line on the terminal for each cell, and at the end the file, if one is wanted.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use leastgate_testkit::conformance::{self, Row, Table, Verdict};

/// Longest note that is kept: a table has to stay readable.
const NOTE: usize = 300;

/// Who is spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) kind: &'static str,
    pub(crate) peer: String,
    pub(crate) version: String,
}

pub(crate) struct Report {
    /// What is run, and on what; without it no file is written.
    conditions: Option<String>,
    only: Option<String>,
    rows: Vec<Row>,
    start: Instant,
}

impl Report {
    pub(crate) fn new(conditions: Option<String>, only: Option<String>) -> Self {
        Self { conditions, only, rows: Vec::new(), start: Instant::now() }
    }

    /// Whether the table is to be written.
    pub(crate) fn is_kept(&self) -> bool {
        self.conditions.is_some()
    }

    /// Whether this peer is asked for: by its whole name, or by a word of it.
    pub(crate) fn wants(&self, peer: &str) -> bool {
        let name = peer.split(',').next().unwrap_or(peer);
        let is_called =
            |only: &str| [peer, name].into_iter().chain(name.split(' ')).any(|word| word.eq_ignore_ascii_case(only));
        self.only.as_deref().is_none_or(is_called)
    }

    /// Runs a cell: it passes unless it panics, and may say something.
    pub(crate) fn cell(&mut self, subject: &Subject, scenario: &str, run: impl FnOnce() -> String) {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(note) => self.note(subject, scenario, Verdict::Pass, &note),
            Err(panic) => self.note(subject, scenario, Verdict::Fail, &message(&*panic)),
        }
    }

    /// Runs what several cells need; if it panics, `scenario` has failed.
    pub(crate) fn prepare<T>(&mut self, subject: &Subject, scenario: &str, run: impl FnOnce() -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(run));
        done.map_err(|panic| self.note(subject, scenario, Verdict::Fail, &message(&*panic))).ok()
    }

    /// Adds a cell.
    pub(crate) fn note(&mut self, subject: &Subject, scenario: &str, verdict: Verdict, note: &str) {
        let mut note: String = note.split_whitespace().collect::<Vec<_>>().join(" ");
        if note.is_empty() {
            note.push('-');
        } else if let Some((end, _)) = note.char_indices().nth(NOTE) {
            note.truncate(end);
            note.push('…');
        }
        let seconds = self.start.elapsed().as_secs();
        eprintln!(
            "{:>2}:{:02}  {:<4}  {} · {scenario}{}",
            seconds / 60,
            seconds % 60,
            verdict.name(),
            subject.peer,
            if note == "-" { String::new() } else { format!(": {note}") }
        );
        self.rows.push(Row {
            kind: subject.kind.to_owned(),
            peer: subject.peer.clone(),
            version: subject.version.clone(),
            scenario: scenario.to_owned(),
            verdict,
            note,
        });
    }

    /// Counts the cells, and writes the table. Of a run for one peer only its own rows change.
    pub(crate) fn finish(self) -> ExitCode {
        if self.rows.is_empty() {
            eprintln!("no peer is called {}", self.only.unwrap_or_default());
            return ExitCode::FAILURE;
        }
        let count = |verdict| self.rows.iter().filter(|row| row.verdict == verdict).count();
        let failed = count(Verdict::Fail);
        eprintln!(
            "\n{} passed, {failed} failed, {} not applicable",
            count(Verdict::Pass),
            count(Verdict::NotApplicable)
        );
        if let Some(conditions) = self.conditions {
            write(Table { conditions, rows: self.rows }, self.only.as_deref());
        }
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn write(fresh: Table, only: Option<&str>) {
    let table = match (only, conformance::read()) {
        (Some(only), Ok(former)) => merged(former, fresh, only),
        _ => fresh,
    };
    conformance::write(&table).expect("the folder of the results can be written");
    eprintln!("{}", conformance::path().display());
}

/// The former table with the fresh rows of one peer, which may be of another revision: the table says so.
fn merged(former: Table, fresh: Table, only: &str) -> Table {
    let conditions = if former.conditions == fresh.conditions {
        former.conditions
    } else {
        format!("{}; later, {only} alone: {}", former.conditions, fresh.conditions)
    };
    Table { conditions, rows: merged_rows(former.rows, fresh.rows) }
}

/// The former rows with those of each fresh peer in the place of its old ones.
fn merged_rows(former: Vec<Row>, fresh: Vec<Row>) -> Vec<Row> {
    let same = |a: &Row, b: &Row| a.kind == b.kind && a.peer == b.peer;
    let mut rows: Vec<Row> = Vec::new();
    for row in former {
        if !fresh.iter().any(|new| same(new, &row)) {
            rows.push(row);
        } else if !rows.iter().any(|placed| same(placed, &row)) {
            rows.extend(fresh.iter().filter(|new| same(new, &row)).cloned());
        }
    }
    let added: Vec<Row> = fresh.into_iter().filter(|new| !rows.iter().any(|row| same(row, new))).collect();
    rows.extend(added);
    rows
}

/// What a panic says.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".to_owned())
}
