//! What was used since a backup: carried over whatever becomes of revocations, for it takes nothing away and gives
//! nothing.
//!
//! Who lies idle is disabled, and for that a use that is not known is a use that never was. So where the present store
//! does not know all of them the copy says since when uses are known: since its restore.

use leastgate_policy::Accessor;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::present::Present;
use crate::error::Failure;
use crate::record::LastUse;
use crate::sqlite::decode::{last_use, number, parsed, seconds, text};
use crate::sqlite::{check, meta, usage};
use crate::usage::{UsageDelta, UsageRow};

/// Handed over at a time.
const BATCH: usize = 1000;

const LAST: &str = "SELECT accessor, last_used, last_source FROM tokens NOT INDEXED WHERE last_used IS NOT NULL";

fn last(row: &Row<'_>) -> rusqlite::Result<Option<(Accessor, LastUse)>> {
    let Some(last) = last_use(row, 1)? else { return Ok(None) };
    Ok(Some((parsed(row, 0)?, last)))
}

fn counter(row: &Row<'_>) -> rusqlite::Result<UsageRow> {
    usage::decode(row, text(row, 1)?.into())
}

impl Present {
    /// Sees whether all of it can be read. Layouts before the second do not say when a token was used last.
    pub(super) fn look_at_uses(&mut self, connection: &Connection) -> Result<(), Failure> {
        self.knows_uses = connection.column_exists(None, "tokens", "last_used")?;
        if !self.knows_uses {
            return Ok(());
        }
        self.use_known_since = meta::use_known_since(connection)?;
        self.look(connection, "token", LAST, |row| last(row).map(drop))?;
        self.look(connection, "usage of", usage::ROWS, |row| counter(row).map(drop))
    }

    fn look(
        &mut self,
        connection: &Connection,
        kind: &str,
        sql: &str,
        decode: impl Fn(&Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), Failure> {
        let mut statement = connection.prepare(sql)?;
        let columns = check::columns(&statement);
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Err(error) = decode(row) {
                self.note(format!("{}: {}", check::called(kind, row, 0), check::told(&error, &columns)));
            }
        }
        Ok(())
    }

    /// Whether it says of each use that there was one.
    pub(in crate::sqlite) fn knows_all_uses(&self) -> bool {
        self.knows_uses && self.fault.is_none()
    }

    /// Brings the later of two uses and the larger of two counts into the copy, in the transaction that the caller
    /// holds.
    pub(in crate::sqlite) fn carry_uses_into(&self, copy: &Connection) -> Result<(), Failure> {
        let Some(connection) = self.connection.as_ref().filter(|_| self.knows_uses) else { return Ok(()) };
        let mut deltas = Vec::new();
        let mut keep = |delta: Option<UsageDelta>, is_end: bool| {
            deltas.extend(delta);
            if is_end || deltas.len() >= BATCH { usage::record(copy, &std::mem::take(&mut deltas)) } else { Ok(()) }
        };
        // What can't be read was told when it was looked at.
        each(connection, LAST, |row| match last(row) {
            Ok(Some((accessor, last))) => keep(later(copy, accessor, last)?, false),
            _ => Ok(()),
        })?;
        each(connection, usage::ROWS, |row| match counter(row) {
            Ok(row) => keep(self.more(copy, row)?, false),
            Err(_) => Ok(()),
        })?;
        keep(None, true)
    }

    /// What a counter has more than the copy's; `None`: nothing, or it is of a token that goes with the restore.
    fn more(&self, copy: &Connection, row: UsageRow) -> Result<Option<UsageDelta>, Failure> {
        let accessor = row.accessor.to_string();
        let is_here = copy.prepare_cached("SELECT 1 FROM tokens WHERE accessor = ?1")?.exists([&accessor])?;
        if !is_here && (self.tokens.contains_key(&row.accessor) || self.damaged.contains_key(&row.accessor)) {
            return Ok(None);
        }
        let held = copy
            .prepare_cached(
                "SELECT count, last_used FROM usage JOIN rules ON rules.id = rule_id WHERE accessor = ?1 AND rule = ?2",
            )?
            .query_one((&accessor, &*row.rule), |row| Ok((number(row, 0)?, number(row, 1)?)))
            .optional()?;
        let (count, at) = held.unwrap_or_default();
        if held.is_some() && row.count <= count && row.last_used.0 <= at {
            return Ok(None);
        }
        let UsageRow { accessor, rule, last_used, last_source, .. } = row;
        let count = row.count.saturating_sub(count);
        Ok(Some(UsageDelta { accessor, rule: Some(rule), count, last_used, last_source }))
    }
}

/// A use that no rule counts; `None`: the copy has one that is as late, or no such token.
fn later(copy: &Connection, accessor: Accessor, last: LastUse) -> Result<Option<UsageDelta>, Failure> {
    let is_later = copy
        .prepare_cached("SELECT 1 FROM tokens WHERE accessor = ?1 AND coalesce(last_used, -1) < ?2")?
        .exists((accessor.to_string(), seconds(last.at)))?;
    let used = UsageDelta { accessor, rule: None, count: 0, last_used: last.at, last_source: last.source };
    Ok(is_later.then_some(used))
}

/// Hands over every row that can be reached.
fn each(
    connection: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Ok(mut statement) = connection.prepare(sql) else { return Ok(()) };
    let Ok(mut rows) = statement.query([]) else { return Ok(()) };
    while let Ok(Some(row)) = rows.next() {
        take(row)?;
    }
    Ok(())
}
