//! The statements about usage counters.

use std::collections::HashMap;
use std::sync::Arc;

use leastgate_policy::{Accessor, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::decode::{integer, number, optional, parsed, seconds, text, time};
use super::meta;
use crate::error::Failure;
use crate::usage::{UsageBatch, UsageDelta, UsageRow};

pub(super) const ROWS: &str =
    "SELECT accessor, rule, count, last_used, last_source FROM usage JOIN rules ON rules.id = rule_id";

/// The key in `meta` of the batch that was added last.
const LAST: &str = "usage-batch";

/// Unless it is the batch that was added last: whoever handed it over may not know that it was.
pub(super) fn record_once(connection: &Connection, batch: &UsageBatch) -> Result<(), Failure> {
    let number = batch.number.to_le_bytes();
    let last: Option<Vec<u8>> = connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_one([LAST], |row| row.get(0))
        .optional()?;
    if last.is_some_and(|last| last == number) {
        return Ok(());
    }
    connection.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?.execute((LAST, number))?;
    record(connection, &batch.deltas)
}

pub(super) fn record(connection: &Connection, deltas: &[UsageDelta]) -> Result<(), Failure> {
    let mut rules: HashMap<&str, i64> = HashMap::new();
    let mut add = connection.prepare_cached(
        "INSERT INTO usage (accessor, rule_id, count, last_used, last_source) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET count = count + excluded.count, last_used = max(last_used, excluded.last_used),
             last_source = iif(excluded.last_used >= last_used, coalesce(excluded.last_source, last_source), last_source)",
    )?;
    let mut note = connection.prepare_cached(
        "UPDATE tokens SET last_used = ?2, last_source = coalesce(?3, last_source)
         WHERE accessor = ?1 AND coalesce(last_used, 0) <= ?2",
    )?;
    for delta in deltas {
        let (accessor, at) = (delta.accessor.to_string(), seconds(delta.last_used));
        let source = delta.last_source.map(|source| source.to_string());
        if let Some(name) = &delta.rule {
            let rule = match rules.get(&**name) {
                Some(id) => *id,
                None => rule_id(connection, name)?,
            };
            rules.insert(&**name, rule);
            add.execute((&accessor, rule, integer(delta.count), at, &source))?;
        }
        note.execute((accessor, at, source))?;
    }
    Ok(())
}

fn rule_id(connection: &Connection, rule: &str) -> rusqlite::Result<i64> {
    connection.prepare_cached("INSERT INTO rules (rule) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([rule])?;
    connection.prepare_cached("SELECT id FROM rules WHERE rule = ?1")?.query_one([rule], |row| row.get(0))
}

/// Whether it is known what was used since then: after some restores only later uses are.
pub(super) fn is_known_since(connection: &Connection, since: Timestamp) -> Result<bool, Failure> {
    Ok(meta::use_known_since(connection)?.is_none_or(|known| known < since))
}

pub(super) fn of(connection: &Connection, accessor: Accessor) -> Result<Vec<UsageRow>, Failure> {
    let mut statement = connection.prepare_cached(&format!("{ROWS} WHERE accessor = ?1 ORDER BY rule"))?;
    let rows = statement.query_map([accessor.to_string()], |row| decode(row, text(row, 1)?.into()))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn for_each(connection: &Connection, take: &mut dyn FnMut(UsageRow)) -> Result<u64, Failure> {
    // There are as many rules as the policies ever had; the rows of all tokens share their names.
    let mut rules: HashMap<Box<str>, Arc<str>> = HashMap::new();
    let mut statement = connection.prepare(ROWS)?;
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let name = text(row, 1)?;
        let rule = match rules.get(name) {
            Some(rule) => Arc::clone(rule),
            None => Arc::clone(rules.entry(name.into()).or_insert_with(|| name.into())),
        };
        take(decode(row, rule)?);
        count += 1;
    }
    Ok(count)
}

pub(super) fn decode(row: &Row<'_>, rule: Arc<str>) -> rusqlite::Result<UsageRow> {
    let (count, last_used, last_source) = (number(row, 2)?, time(row, 3)?, optional(row, 4)?);
    Ok(UsageRow { accessor: parsed(row, 0)?, rule, count, last_used, last_source })
}
