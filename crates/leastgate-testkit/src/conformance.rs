//! `benches/results/conformance.tsv`: what came of running the gateway among programs that nobody here wrote. A line
//! on what it was run with, then one row a cell. The program `conformance` writes it, and the suite `documents` prints it.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::paths;

const COLUMNS: &str = "kind\tpeer\tversion\tscenario\tresult\tnote";

/// What a run has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What was run, and on what.
    pub conditions: String,
    /// Its cells, in order.
    pub rows: Vec<Row>,
}

/// One cell of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `upstream`, `client` or `listener`.
    pub kind: String,
    /// The program, and over what it was spoken to.
    pub peer: String,
    /// What the program calls itself.
    pub version: String,
    /// What was tried.
    pub scenario: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Why not, or what was found; `-` for nothing.
    pub note: String,
}

/// What came of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides got what they should.
    Pass,
    /// Somebody got something else.
    Fail,
    /// The peer can't do it.
    NotApplicable,
}

impl Verdict {
    /// As the file writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::NotApplicable => "n/a",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Pass, Self::Fail, Self::NotApplicable].into_iter().find(|verdict| verdict.name() == name)
    }
}

/// Where the table lies.
#[must_use]
pub fn path() -> PathBuf {
    paths::workspace().join("benches/results/conformance.tsv")
}

/// The table of the repository.
pub fn read() -> Result<Table, String> {
    let text = fs::read_to_string(path()).map_err(|error| format!("{}: {error}", path().display()))?;
    parse(&text)
}

/// Replaces the table.
pub fn write(table: &Table) -> io::Result<()> {
    fs::create_dir_all(path().parent().expect("a file lies in a folder"))?;
    fs::write(path(), text(table))
}

fn text(table: &Table) -> String {
    let lines: String = table.rows.iter().map(line).collect();
    format!("# {}\n{COLUMNS}\n{lines}", table.conditions)
}

fn line(row: &Row) -> String {
    let cells = [&row.kind, &row.peer, &row.version, &row.scenario, row.verdict.name(), &row.note];
    // A cell has no tab, no line end and nothing that a table of Markdown reads as the next cell.
    cells.map(|cell| cell.replace(['\t', '\n', '\r', '|'], " ")).join("\t") + "\n"
}

fn parse(text: &str) -> Result<Table, String> {
    let mut lines = text.lines();
    let conditions = lines.next().and_then(|line| line.strip_prefix("# ")).ok_or("no word of what was run")?.to_owned();
    if lines.next() != Some(COLUMNS) {
        return Err("unexpected columns".to_owned());
    }
    let rows =
        lines.map(|line| parse_row(line).ok_or_else(|| format!("not a row: {line}"))).collect::<Result<_, _>>()?;
    Ok(Table { conditions, rows })
}

fn parse_row(line: &str) -> Option<Row> {
    let [kind, peer, version, scenario, verdict, note] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
    let verdict = Verdict::parse(verdict)?;
    let [kind, peer, version, scenario, note] = [kind, peer, version, scenario, note].map(str::to_owned);
    Some(Row { kind, peer, version, scenario, verdict, note })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let [kind, peer, version, scenario] = ["client", "curl", "8.1", "GET"].map(str::to_owned);
        let row = Row { kind, peer, version, scenario, verdict: Verdict::NotApplicable, note: "a\tb|c".to_owned() };
        let table = |row: &Row| Table { conditions: "Release build".to_owned(), rows: vec![row.clone()] };
        let read = parse(&text(&table(&row))).unwrap();
        assert_eq!(read, table(&Row { note: "a b c".to_owned(), ..row }));
        let [bare, uncertain] = [format!("{COLUMNS}\n"), format!("# x\n{COLUMNS}\na\tb\tc\td\tmaybe\tf\n")];
        for wrong in ["", "kind\n", "# x\nkind\n", &bare, &uncertain] {
            parse(wrong).unwrap_err();
        }
    }
}
