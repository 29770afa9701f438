//! Which tests hold what the design says: `config/statements.tsv` and `config/advisories.tsv` are whole, name tests that
//! exist, and ARCHITECTURE.md prints them, and what faults and load were measured to do. `UPDATE_DOCUMENTS=1` writes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;

use leastgate_testkit::attacks::{Attack, table};
use leastgate_testkit::paths;

/// How many statements the design has.
const STATEMENTS: usize = 34;

/// How many rows of attacks a cell names before it counts.
const NAMED_ROWS: usize = 4;

/// A line of either file: what must hold, and by what.
struct Line {
    /// A statement, or the ids of advisories.
    of: String,
    says: String,
    tests: Vec<String>,
    /// What no test looks at, or why there is none.
    untested: Option<String>,
}

/// The lines of a file; those that begin with `#` are comments, the first other one names the columns.
fn lines(file: &str, columns: &str) -> Vec<Line> {
    let text = fs::read_to_string(paths::workspace().join("config").join(file)).unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(lines.next(), Some(columns), "{file}");
    lines.map(|line| read(line).unwrap_or_else(|| panic!("{file}: not four columns: {line}"))).collect()
}

fn read(line: &str) -> Option<Line> {
    let [of, says, tests, untested] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
    let given = |cell: &str| Some(cell.to_owned()).filter(|cell| cell != "-");
    let tests = given(tests).map(|tests| tests.split(' ').map(str::to_owned).collect()).unwrap_or_default();
    let is_whole = !of.is_empty() && !says.is_empty() && !untested.is_empty();
    is_whole.then(|| Line { of: of.to_owned(), says: says.to_owned(), tests, untested: given(untested) })
}

fn statements() -> Vec<Line> {
    lines("statements.tsv", "statement\tsays\ttests\topen")
}

fn advisories() -> Vec<Line> {
    lines("advisories.tsv", "advisory\tsays\ttests\tnone")
}

#[test]
fn every_statement_is_held_by_a_row_or_a_test() {
    let (statements, attacks) = (statements(), table());
    let listed: Vec<&str> = statements.iter().map(|line| line.of.as_str()).collect();
    let all: Vec<String> = (1..=STATEMENTS).map(|number| format!("P{number}")).collect();
    assert_eq!(listed, all, "each once, in order");
    for line in &statements {
        let is_held = !line.tests.is_empty() || attacks.iter().any(|attack| attack.statement == line.of);
        assert!(is_held || line.untested.is_some(), "{} is held by nothing, and nothing says why", line.of);
    }
    let unknown: Vec<_> = attacks.iter().filter(|attack| !all.contains(&attack.statement)).collect();
    assert!(unknown.is_empty(), "rows of no statement: {unknown:?}");
}

#[test]
fn every_advisory_has_a_row_or_a_test_and_every_row_its_advisory() {
    let (advisories, attacks) = (advisories(), table());
    let mut listed = BTreeSet::new();
    for line in &advisories {
        for id in line.of.split(", ") {
            assert!(listed.insert(id.to_owned()), "{id} twice");
        }
        let is_held = !line.tests.is_empty() || !rows_of(line, &attacks).is_empty();
        assert!(is_held || line.untested.is_some(), "{}: neither row nor test, and nothing says why", line.of);
    }
    for attack in &attacks {
        for id in words(&attack.note).filter(|word| is_id(word)) {
            assert!(listed.contains(id), "{} names {id}, which advisories.tsv lacks", attack.id);
        }
    }
}

/// The rows whose notes name one of the line's advisories.
fn rows_of<'a>(line: &Line, attacks: &'a [Attack]) -> Vec<&'a str> {
    let names = |note: &str, id: &str| {
        if is_id(id) { words(note).any(|word| word == id) } else { note.contains(id) }
    };
    let named = attacks.iter().filter(|attack| line.of.split(", ").any(|id| names(&attack.note, id)));
    named.map(|attack| attack.id.as_str()).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
}

/// Whether it is the id of a list of advisories, not a name of ours.
fn is_id(word: &str) -> bool {
    ["CVE-", "GHSA-", "RUSTSEC-", "GO-"].iter().any(|list| word.starts_with(list)) && word.chars().any(char::is_numeric)
}

#[test]
fn every_named_test_is_one() {
    let all: Vec<Line> = statements().into_iter().chain(advisories()).collect();
    let faults: Vec<String> = all
        .iter()
        .flat_map(|line| line.tests.iter().filter_map(|test| fault(test).map(|why| format!("{}: {why}", line.of))))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let twice = all.iter().find(|line| line.tests.iter().collect::<BTreeSet<_>>().len() < line.tests.len());
    assert!(twice.is_none(), "{} names a test twice", twice.map_or("", |line| &line.of));
}

/// What is wrong with the name of a test, `<crate>/<file>::<function>`.
fn fault(test: &str) -> Option<String> {
    let Some((file, function)) = test.split_once("::") else {
        return Some(format!("{test}: not <crate>/<file>::<function>"));
    };
    let path = paths::workspace().join(format!("crates/leastgate-{file}.rs"));
    let Ok(text) = fs::read_to_string(&path) else {
        return Some(format!("{test}: there is no {}", path.display()));
    };
    let Some(attributes) = attributes_of(&text, function) else {
        return Some(format!("{test}: the file has no such function"));
    };
    let is_test = attributes.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
    let runs = !attributes.iter().any(|line| line.starts_with("#[ignore"));
    (!is_test || !runs).then(|| format!("{test}: not a test that runs: {attributes:?}"))
}

/// The lines before a function that belong to it; nothing for one that is not there.
fn attributes_of<'a>(text: &'a str, function: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let opens = |line: &str| ["fn ", "async fn "].iter().any(|fun| line.starts_with(&format!("{fun}{function}(")));
    let at = lines.iter().position(|line| opens(line))?;
    let belongs = |line: &&&str| line.starts_with("#[") || line.starts_with("//");
    Some(lines[..at].iter().rev().take_while(belongs).copied().collect())
}

#[test]
fn the_architecture_prints_both_tables() {
    let attacks = table();
    print("statements", &statements_table(&attacks));
    print("advisories", &advisories_table(&attacks));
}

/// `cargo xtask faults`, `soak`, `instructions` and `tokens` write what this prints, as `cargo xtask conformance` does for its own.
#[test]
fn the_architecture_prints_what_was_measured() {
    print("faults", &measured("faults.tsv"));
    print("soak", &measured("soak-summary.tsv"));
    print("instructions", &measured("instructions.tsv"));
    print("tokens", &measured("tokens.tsv"));
}

/// A run that was not good enough is no result.
#[test]
fn the_soak_has_failed_no_judgement() {
    let table = measured("soak-summary.tsv");
    let row = table.lines().find(|line| line.starts_with("| judgements that failed |"));
    assert_eq!(row, Some("| judgements that failed | none | none |"));
}

/// Whoever doubts a figure can measure it again.
#[test]
fn every_table_is_of_a_revision_that_can_be_had() {
    for file in ["conformance.tsv", "faults.tsv", "soak-summary.tsv", "instructions.tsv", "tokens.tsv"] {
        let text = fs::read_to_string(paths::workspace().join("benches/results").join(file)).unwrap();
        let conditions = text.lines().next().unwrap();
        assert!(conditions.contains("of revision") && !conditions.contains("with changes"), "{file}: {conditions}");
    }
}

/// A file of results as a table: its first line says on what it was measured.
fn measured(file: &str) -> String {
    let text = fs::read_to_string(paths::workspace().join("benches/results").join(file)).unwrap();
    let (conditions, rows) = text.split_once('\n').unwrap();
    let mut table = self::conditions(conditions.strip_prefix("# ").expect("the first line says on what"));
    for (number, row) in rows.lines().enumerate() {
        let cells: Vec<&str> = row.split('\t').collect();
        assert_eq!(cells.len(), 3, "a name and two cells: {row}");
        writeln!(table, "| {} |", cells.join(" | ")).unwrap();
        if number == 0 {
            table += "|---|---|---|\n";
        }
    }
    table
}

/// What a table was measured on, before it.
pub(crate) fn conditions(says: &str) -> String {
    format!("{says}.\n\n")
}

/// The tables are written by tests that run side by side, each of them the whole document.
static PRINTING: Mutex<()> = Mutex::new(());

/// Holds what stands between two marks of ARCHITECTURE.md equal to a table, or writes it.
pub(crate) fn print(mark: &str, table: &str) {
    // A table that is not the printed one is no reason to fail for the next.
    let _printing = PRINTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = paths::workspace().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no mark before the table of {mark}"));
    let (printed, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("no mark after the table of {mark}"));
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, format!("{head}{begin}{table}{end}{tail}")).unwrap();
    } else {
        assert_eq!(
            printed, table,
            "run UPDATE_DOCUMENTS=1 cargo test -p leastgate-testkit --test suite the_architecture_prints"
        );
    }
}

fn statements_table(attacks: &[Attack]) -> String {
    let mut text = "| statement | says | rows | tests |\n|---|---|--:|---|\n".to_owned();
    for line in statements() {
        let rows = attacks.iter().filter(|attack| attack.statement == line.of).count();
        let rows = if rows == 0 { String::new() } else { rows.to_string() };
        writeln!(text, "| {} | {} | {rows} | {} |", line.of, line.says, tests(&line, "open")).unwrap();
    }
    text
}

fn advisories_table(attacks: &[Attack]) -> String {
    let mut text = "| advisory | says | rows | tests |\n|---|---|---|---|\n".to_owned();
    for line in advisories() {
        let rows = rows_of(&line, attacks);
        let mut named: Vec<String> = rows.iter().take(NAMED_ROWS).map(|id| format!("`{id}`")).collect();
        if rows.len() > NAMED_ROWS {
            named.push(format!("{} more", rows.len() - NAMED_ROWS));
        }
        writeln!(text, "| {} | {} | {} | {} |", line.of, line.says, named.join(", "), tests(&line, "none")).unwrap();
    }
    text
}

/// The cell of the tests, with what they leave open.
fn tests(line: &Line, label: &str) -> String {
    let named = line.tests.iter().map(|test| format!("`{test}`"));
    let untested = line.untested.iter().map(|why| format!("*{label}: {why}*"));
    named.chain(untested).collect::<Vec<_>>().join("<br>")
}
