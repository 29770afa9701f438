//! What must hold of every file we load, whatever it holds: an answer in time, and errors that point into the text and
//! show nothing that a terminal would act on, and no token.

use std::time::{Duration, Instant};

use leastgate_config::{Diagnostic, Diagnostics, Excerpt};

use crate::world::assert_no_secret;

/// For any input of a fuzzer, on a busy machine and in a debug build.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest report of errors; a corpus file is no longer than that itself.
const LONGEST_REPORT: usize = 200_000;

/// Runs `load`, which must come to an end.
pub(crate) fn in_time<T>(load: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let loaded = load();
    assert!(start.elapsed() < PATIENCE, "loading took {:?}", start.elapsed());
    loaded
}

pub(crate) fn check_errors(errors: &Diagnostics, name: &str, text: &str) {
    assert!(!errors.is_empty(), "refused without an error");
    for error in errors.iter() {
        assert_eq!(error.file, name);
        check_place(error, text);
        let related = error.related.as_deref();
        if let Some(related) = related {
            check_excerpt(line(text, related.line), related.column, &related.snippet);
        }
    }
    let line = errors.summary_line();
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let report = errors.render(false);
    assert!(report.len() < LONGEST_REPORT, "a report of {} bytes", report.len());
    assert!(!report.chars().any(|character| character.is_control() && character != '\n'), "{report:?}");
    assert_no_secret(report.as_bytes());
    assert_no_secret(line.as_bytes());
}

fn check_place(error: &Diagnostic, text: &str) {
    if error.line == 0 {
        return assert!(error.column == 0 && error.snippet.is_none(), "{error:?}");
    }
    let line = line(text, error.line);
    assert!((1..=line.chars().count() + 1).contains(&error.column), "{error:?} is not in {line:?}");
    if let Some(excerpt) = &error.snippet {
        check_excerpt(line, error.column, excerpt);
    }
}

fn check_excerpt(line: &str, column: usize, excerpt: &Excerpt) {
    assert!(line.get(excerpt.skipped..).is_some_and(|rest| rest.starts_with(&excerpt.text)), "{excerpt:?} in {line:?}");
    assert!(excerpt.text.get(excerpt.start..excerpt.end).is_some(), "{excerpt:?}");
    let before = line[..excerpt.skipped].chars().count() + excerpt.text[..excerpt.start].chars().count();
    let is_at_end = column == line.chars().count() + 1;
    assert!(before + 1 == column || is_at_end, "{excerpt:?} does not begin at column {column}");
}

/// Line `number` of the text, without its break.
fn line(text: &str, number: usize) -> &str {
    let line = text.split('\n').nth(number - 1);
    line.unwrap_or_else(|| panic!("there is no line {number} in {text:?}"))
}
