//! Whether a store is whole: SQLite's structure, then every record as this code reads it.
//!
//! Everything is read in one transaction, so a gateway that goes on writing is no fault of the file. What SQLite has
//! no checksum for (a letter of a note) only a seal can tell.

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, Row, Statement};

use super::decode::{RECORD_COLUMNS, ROW_ID, record, text};
use super::pending::{self, PENDING};
use super::seal::{Seal, Sealed};
use super::{admins, meta, objects, purge, schema, snapshot, usage};
use crate::archive::{ArchiveError, Owner, Step, Stop, Watch, tell};
use crate::error::{Failure, from_io};

/// Most faults that are told one by one; the rest is counted.
const TOLD: usize = 200;
/// Records between two words about how far it is.
const STRIDE: u64 = 4096;

const LAST_BACKUP: &str = "restore the last backup";
const CHANGED: &str = "find out who changed the file, and restore the last backup";
const REPLACE: &str = "stop leastgate and restore the last backup, or revoke the record and issue another";

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The layout's version.
    pub schema: u32,
    /// Whose records they are, where the file says.
    pub environment: Option<String>,
    /// Whether environment and pepper were compared with the gateway's.
    pub is_compared: bool,
    /// The file's seal.
    pub seal: Seal,
    /// What is in it.
    pub holds: Holdings,
    /// How many faults there are.
    pub faults: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
}

/// How many records of each kind a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Tokens, dead ones included.
    pub tokens: u64,
    /// Those of them that are revoked.
    pub revoked_tokens: u64,
    /// Administrators, revoked ones included.
    pub admins: u64,
    /// Those of them that are revoked.
    pub revoked_admins: u64,
    /// Rules that were ever counted.
    pub rules: u64,
    /// Counters of use.
    pub usage: u64,
    /// Tokens that were taken away and purged, and that no import brings back.
    pub tombstones: u64,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which record it is of.
    pub record: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub fix: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.record, self.what)?;
        if self.fix.is_empty() { Ok(()) } else { write!(f, ": {}", self.fix) }
    }
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.faults == 0
    }

    fn add(&mut self, record: impl Into<String>, what: impl Into<String>, fix: &'static str) {
        self.faults += 1;
        if self.problems.len() < TOLD {
            self.problems.push(Problem { record: record.into(), what: what.into(), fix });
        }
    }
}

/// Reads the store at `path` whole and says what is wrong with it. A gateway may use it meanwhile; nothing of it is
/// changed.
///
/// # Errors
/// It can't be read at all, is no store, or a newer release's.
pub fn check(path: &Path, owner: Option<Owner<'_>>, watch: Watch<'_>) -> Result<Report, ArchiveError> {
    let sealed = Sealed::open(path).map_err(|error| from_io(path, &error))?;
    if sealed.is_some() {
        need_it_alone(path)?;
    }
    let connection = snapshot::open(path)?;
    let mut report = examine(&connection, path, owner, watch).map_err(|stop| stop.at(path))?;
    report.seal = seal(path, sealed, owner, watch)?;
    if report.seal == Seal::Broken {
        let what = "the seal does not fit: the file was changed after it was written, or is damaged";
        report.add("the file", what, "use another backup");
    }
    Ok(report)
}

/// Whose seal says nothing of what SQLite would read with it, and write into it.
fn need_it_alone(path: &Path) -> Result<(), ArchiveError> {
    let companions = ["-wal", "-journal"].map(|suffix| snapshot::companion(path, suffix));
    // A link to nowhere may lead somewhere by the time it is opened.
    match companions.into_iter().find(|companion| std::fs::symlink_metadata(companion).is_ok()) {
        Some(companion) => Err(ArchiveError::NotAlone { path: path.to_owned(), companion }),
        None => Ok(()),
    }
}

fn seal(path: &Path, sealed: Option<Sealed>, owner: Option<Owner<'_>>, watch: Watch<'_>) -> Result<Seal, ArchiveError> {
    match (sealed, owner) {
        (None, _) => Ok(Seal::None),
        (Some(_), None) => Ok(Seal::Unknown),
        (Some(sealed), Some(owner)) => {
            sealed.unpack(owner.key, &mut std::io::sink(), watch).map_err(|fault| fault.at(path, path).at(path))
        }
    }
}

fn examine(connection: &Connection, path: &Path, owner: Option<Owner<'_>>, watch: Watch<'_>) -> Result<Report, Stop> {
    let mut report = Report {
        schema: schema::version(connection)?,
        environment: None,
        is_compared: owner.is_some(),
        seal: Seal::None,
        holds: Holdings::default(),
        faults: 0,
        problems: Vec::new(),
    };
    tell(watch, Step::Structure, 0, 0)?;
    let read = structure(connection, &mut report)
        .map_err(Stop::from)
        .and_then(|()| identity(connection, path, owner, &mut report).map_err(Stop::from))
        .and_then(|()| match snapshot::at_newest(connection, watch)? {
            Some(newest) => records(&newest, &mut report, watch),
            None => records(connection, &mut report, watch),
        });
    match read {
        // The rest can't be reached; what was found so far is more than an error could say.
        Err(Stop::Failed(Failure::Sqlite(error))) if is_damage(&error) => {
            report.add("the file", error.to_string(), LAST_BACKUP);
            Ok(report)
        }
        read => read.map(|()| report),
    }
}

/// Whether an error says that the content is wrong, and not that it can't be reached.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        // A missing table or column is one that a layout of this version has.
        Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown),
        None => true,
    }
}

fn structure(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    for line in integrity(connection, "integrity_check(100)")? {
        report.add("the file", line, LAST_BACKUP);
    }
    for (object, what) in objects::differences(connection, report.schema)? {
        report.add(object, what, CHANGED);
    }
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        report.add(format!("table {table}"), format!("a row refers to nothing in {parent}"), LAST_BACKUP);
    }
    Ok(())
}

/// What SQLite finds wrong, a line each.
pub(super) fn integrity(connection: &Connection, pragma: &str) -> Result<Vec<String>, Failure> {
    let mut statement = connection.prepare(&format!("PRAGMA {pragma}"))?;
    let lines = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

fn identity(
    connection: &Connection,
    path: &Path,
    owner: Option<Owner<'_>>,
    report: &mut Report,
) -> Result<(), Failure> {
    report.environment = meta::environment(connection)?;
    for key in meta::missing(connection)? {
        report.add("the file", format!("it does not say whose its records are: `{key}` is missing"), LAST_BACKUP);
    }
    if let Err(Failure::Sqlite(error)) = meta::use_known_since(connection) {
        report.add("the file", format!("since when uses are known does not decode ({error})"), LAST_BACKUP);
    }
    let Some(owner) = owner else { return Ok(()) };
    let compared = meta::compare_environment(connection, path, owner.environment)
        .and_then(|()| meta::compare_key(connection, path, owner.key));
    match compared {
        Err(Failure::Store(error)) => {
            report.add("the file", error.to_string(), "");
            Ok(())
        }
        compared => compared,
    }
}

fn records(connection: &Connection, report: &mut Report, watch: Watch<'_>) -> Result<(), Stop> {
    let environment = report.environment.clone().unwrap_or_default();
    let tokens = format!("SELECT {RECORD_COLUMNS} FROM tokens NOT INDEXED {PENDING}");
    report.holds.tokens = each(connection, "token", &tokens, report, watch, |row| record(row, &environment).map(drop))?;
    let admins = format!("SELECT {} FROM admins NOT INDEXED", admins::COLUMNS);
    report.holds.admins = each(connection, "admin", &admins, report, watch, |row| admins::record(row).map(drop))?;
    report.holds.rules = each(connection, "rule", "SELECT id, rule FROM rules NOT INDEXED", report, watch, |row| {
        text(row, 1).map(drop)
    })?;
    report.holds.usage =
        each(connection, "usage of", usage::ROWS, report, watch, |row| usage::decode(row, "".into()).map(drop))?;
    let tombstones = format!("{} NOT INDEXED", purge::TOMBSTONES);
    report.holds.tombstones =
        each(connection, "tombstone of", &tombstones, report, watch, |row| purge::tombstone(row).map(drop))?;
    let count = |table: &str, condition: &str| -> Result<u64, Failure> {
        let sql = format!("SELECT count(*) FROM {table} NOT INDEXED WHERE {condition}");
        Ok(connection.query_one(&sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
    };
    report.holds.revoked_tokens = count("tokens", "state = 'revoked'")? + pending::count(connection)?;
    report.holds.revoked_admins = count("admins", "revoked IS NOT NULL")?;
    Ok(unique(connection, report)?)
}

/// Decodes every row of a query, and answers how many there are.
fn each(
    connection: &Connection,
    kind: &str,
    sql: &str,
    report: &mut Report,
    watch: Watch<'_>,
    decode: impl Fn(&Row<'_>) -> rusqlite::Result<()>,
) -> Result<u64, Stop> {
    let mut statement = connection.prepare(sql)?;
    let columns = columns(&statement);
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        if let Err(error) = decode(row) {
            report.add(called(kind, row, ROW_ID), told(&error, &columns), REPLACE);
        }
        count += 1;
        if count % STRIDE == 0 {
            tell(watch, Step::Records, count, 0)?;
        }
    }
    Ok(count)
}

/// What a record is called: by its public id, if it is one; else by where it stands, which the column `at` says.
pub(super) fn called(kind: &str, row: &Row<'_>, at: usize) -> String {
    let name = match text(row, 0) {
        Ok(id) => id.chars().take(20).collect(),
        Err(_) => row.get::<_, i64>(at).or_else(|_| row.get(0)).map_or_else(|_| "?".into(), |id| format!("row {id}")),
    };
    format!("{kind} {name}")
}

/// The names that [`told`] tells.
pub(super) fn columns(statement: &Statement<'_>) -> Vec<String> {
    statement.column_names().map(str::to_owned).collect()
}

/// What does not decode, by its column.
pub(super) fn told(error: &rusqlite::Error, columns: &[String]) -> String {
    use rusqlite::Error;
    let column = |at: &usize| columns.get(*at).map_or("?", String::as_str).to_owned();
    match error {
        Error::FromSqlConversionFailure(at, _, why) => format!("`{}` does not decode ({why})", column(at)),
        Error::InvalidColumnType(at, _, found) => format!("`{}` is of type {found}", column(at)),
        Error::IntegralValueOutOfRange(at, value) => format!("`{}` can't be {value}", column(at)),
        other => other.to_string(),
    }
}

/// What the indexes promise, asked of the rows themselves: an index may be what is damaged.
fn unique(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    const BY_DIGEST: &str = "SELECT min(accessor), max(accessor) FROM tokens NOT INDEXED
        GROUP BY substr(digest, 1, 8) HAVING count(*) > 1";
    const BY_NAME: &str = "SELECT min(accessor), max(accessor) FROM tokens NOT INDEXED
        WHERE holds_name = 1 GROUP BY name HAVING count(*) > 1";
    const BY_ACCESSOR: &str = "SELECT min(accessor), max(accessor) FROM tokens NOT INDEXED
        GROUP BY accessor HAVING count(*) > 1";
    const ADMINS: &str = "SELECT min(id), max(id) FROM admins NOT INDEXED
        WHERE revoked IS NULL GROUP BY name HAVING count(*) > 1";
    let asked = [
        ("token", BY_DIGEST, "the first 64 bits of the digest", "revoke one of them"),
        ("token", BY_NAME, "the name", "revoke one of them"),
        ("token", BY_ACCESSOR, "the accessor", LAST_BACKUP),
        ("admin", ADMINS, "the name", "revoke one of them"),
    ];
    for (kind, sql, shared, fix) in asked {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (one, other): (String, String) = (row.get(0)?, row.get(1)?);
            report.add(format!("{kind} {one}"), format!("it shares {shared} with {other}"), fix);
        }
    }
    Ok(())
}
