//! What a store's file holds beside its records: tables and indexes as their layout makes them, and nothing else.
//!
//! A trigger runs with every change of whoever opens the file: it could undo a revocation in the commit that keeps it.
//! Nothing of ours is one, or a view, so a store with either is not opened. What else differs, a check tells.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::schema;
use crate::error::{Failure, StoreError};

/// By kind and name: the table it belongs to, and its definition, which what SQLite makes itself has none of.
type Objects = BTreeMap<(String, String), (String, Option<String>)>;

/// What is neither a table nor an index: its kind and its name.
pub(super) fn unknown(connection: &Connection) -> Result<Option<(String, String)>, Failure> {
    let mut statement = connection
        .prepare("SELECT type, name FROM sqlite_schema WHERE coalesce(type, '') NOT IN ('table', 'index') LIMIT 1")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.next().transpose()?;
    Ok(found.map(|(kind, name): (String, String)| (shown(&kind), shown(&name))))
}

pub(super) fn refuse_unknown(connection: &Connection, path: &Path) -> Result<(), Failure> {
    match unknown(connection)? {
        Some((kind, name)) => Err(StoreError::UnknownObject { path: path.to_owned(), kind, name }.into()),
        None => Ok(()),
    }
}

/// What is not as the layout of this version makes it: each object, and what is wrong with it.
pub(super) fn differences(connection: &Connection, version: u32) -> Result<Vec<(String, &'static str)>, Failure> {
    let fresh = Connection::open_in_memory()?;
    schema::migrate_to(&fresh, version)?;
    let (made, found) = (objects(&fresh)?, objects(connection)?);
    let called = |(kind, name): &(String, String)| format!("{} {}", shown(kind), shown(name));
    let missing = made.keys().filter(|key| !found.contains_key(*key)).map(|key| (called(key), "it is missing"));
    let others = found.iter().filter_map(|(key, object)| match made.get(key) {
        Some(made) if made == object => None,
        Some(_) => Some((called(key), "it is not as leastgate makes it")),
        None => Some((called(key), "leastgate did not make it")),
    });
    Ok(missing.chain(others).collect())
}

fn objects(connection: &Connection) -> Result<Objects, Failure> {
    // What `ANALYZE` keeps steers how rows are found, and not which.
    let mut statement = connection.prepare(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema
         WHERE NOT (type = 'table' AND name IN ('sqlite_stat1', 'sqlite_stat4'))",
    )?;
    let object = |row: &rusqlite::Row<'_>| {
        let sql: Option<String> = row.get(3)?;
        Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, sql.as_deref().map(normalized))))
    };
    Ok(statement.query_map([], object)?.collect::<rusqlite::Result<_>>()?)
}

/// The same definition in the same letters: what white space outside of quotes says nothing about is left out.
fn normalized(sql: &str) -> String {
    const JOINTS: [char; 3] = ['(', ')', ','];
    let mut text = String::with_capacity(sql.len());
    let (mut quote, mut has_gap) = (None, false);
    for letter in sql.chars() {
        if quote.is_none() && letter.is_ascii_whitespace() {
            has_gap = true;
            continue;
        }
        if has_gap && !text.ends_with(JOINTS) && !JOINTS.contains(&letter) {
            text.push(' ');
        }
        has_gap = false;
        text.push(letter);
        quote = match quote {
            Some(end) => Some(end).filter(|end| *end != letter),
            None if letter == '[' => Some(']'),
            None => Some(letter).filter(|letter| ['\'', '"', '`'].contains(letter)),
        };
    }
    text
}

/// A name that somebody else chose, fit for a terminal.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_that_was_brought_up_is_as_one_that_was_made() {
        for first in 1..=schema::newest() {
            let connection = Connection::open_in_memory().unwrap();
            for version in first..=schema::newest() {
                schema::migrate_to(&connection, version).unwrap();
                assert_eq!(differences(&connection, version).unwrap(), []);
            }
            assert_eq!(first == schema::newest(), differences(&connection, first).unwrap().is_empty());
        }
    }

    #[test]
    fn only_white_space_outside_of_quotes_is_left_out() {
        for (one, other) in [
            ("CREATE TABLE a (b, c)", "CREATE  TABLE\na(b ,\tc )"),
            ("CREATE INDEX i ON a (b) WHERE c = 'x y'", "CREATE INDEX i ON a(b)WHERE c = 'x y'"),
        ] {
            assert_eq!(normalized(one), normalized(other));
        }
        for (one, other) in [("a 'x y'", "a 'x  y'"), ("a \"(x\"", "a \"( x\""), ("a [b c]", "a [b  c]"), ("a b", "ab")]
        {
            assert_ne!(normalized(one), normalized(other));
        }
    }
}
