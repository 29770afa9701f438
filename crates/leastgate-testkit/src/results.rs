//! What the suites measure, for tables that documents print: kept only where somebody asks for it.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Mutex;

/// Names the folder that results are written to.
pub const FOLDER: &str = "LEASTGATE_RESULTS";

/// Whole lines: the tests of one program run side by side.
static WRITING: Mutex<()> = Mutex::new(());

/// Adds a line to a table, `<folder>/<table>.tsv`: the name, then each value; the first line holds the names of the
/// columns. Does nothing unless [`FOLDER`] is set.
pub fn record(table: &str, name: &str, values: &[(&str, String)]) {
    let Some(folder) = folder() else { return };
    let _writing = WRITING.lock().expect("no holder panics");
    add(&folder.join(format!("{table}.tsv")), name, values).expect("the folder of results can be written");
}

/// How much a test does: little in a run of all tests, all of it where the results are kept.
#[must_use]
pub fn sized<T>(quick: T, full: T) -> T {
    if folder().is_some() { full } else { quick }
}

/// As the tables say it: `1.5 MiB`, `96 KiB`, `512 B`.
#[must_use]
pub fn bytes(count: u64) -> String {
    match count {
        0..0x400 => format!("{count} B"),
        0x400..0x10_0000 => format!("{:.1} KiB", tenths(count, 0x400)),
        _ => format!("{:.1} MiB", tenths(count, 0x10_0000)),
    }
}

fn tenths(count: u64, unit: u64) -> f64 {
    let tenths = u32::try_from(count.saturating_mul(10) / unit).unwrap_or(u32::MAX);
    f64::from(tenths) / 10.0
}

fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

fn add(path: &std::path::Path, name: &str, values: &[(&str, String)]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let mut file: File = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() == 0 {
        let columns: Vec<&str> = values.iter().map(|(column, _)| *column).collect();
        writeln!(file, "name\t{}", columns.join("\t"))?;
    }
    let cells: Vec<String> = values.iter().map(|(_, value)| plain(value)).collect();
    writeln!(file, "{}\t{}", plain(name), cells.join("\t"))
}

/// A cell has no tab, no line end and nothing that a table of Markdown reads as the next cell.
fn plain(text: &str) -> String {
    text.replace(['\t', '\n', '\r', '|'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_columns() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("new/faults.tsv");
        for name in ["one", "t\two|"] {
            add(&path, name, &[("promise", "503".to_owned()), ("measured", "1\n2".to_owned())]).unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap(), "name\tpromise\tmeasured\none\t503\t1 2\nt wo \t503\t1 2\n");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([bytes(7), bytes(1536), bytes(16 << 20)], ["7 B", "1.5 KiB", "16.0 MiB"]);
    }
}
