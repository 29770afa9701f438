//! Revocations of many: one commit keeps a list of them, and the tokens' rows follow while nothing else is to be written.
//!
//! Each token's row lies on a page of its own, and so does each of its entries in the indexes: the rows of a hundred thousand
//! tokens are hundreds of megabytes, their list is one. What is on the list counts from its commit on. Whoever reads a
//! state, its change, a version or who holds a name reads `tokens` with [`PENDING`]. A change of one token begins with that,
//! and finds it revoked, which is final; one that reaches rows otherwise (by a name, a parent, an age) first brings those up
//! to date, in the same transaction. So who is on the list is not revoked in the row, and the other way round.

use std::time::{Duration, Instant};

use leastgate_policy::{Accessor, Timestamp};
use rusqlite::{Connection, Params};

use super::decode::seconds;
use super::writer::{Idle, Upkeep};
use crate::error::Failure;
use crate::record::{StateChange, TokenName};

/// Stands behind `FROM tokens`: what the list says of the row. `token` is null where it says nothing.
pub(super) const PENDING: &str = "LEFT JOIN pending_revocations ON pending_revocations.token = tokens.id
    LEFT JOIN bulk_revocations ON bulk_revocations.bulk = pending_revocations.bulk";

/// The condition that a row of `tokens` is not on the list, where [`PENDING`] does not stand behind it.
pub(super) const NOT_PENDING: &str = "NOT EXISTS (SELECT 1 FROM pending_revocations WHERE token = tokens.id)";

/// Puts tokens on the list, those apart that are revoked or gone, and says how many it were.
pub(super) fn add(connection: &Connection, accessors: &[Accessor], change: &StateChange) -> Result<usize, Failure> {
    connection
        .prepare_cached("INSERT INTO bulk_revocations (bulk_reason, bulk_by, bulk_at) VALUES (?1, ?2, ?3)")?
        .execute((&change.reason, &change.by, seconds(change.at)))?;
    let bulk = connection.last_insert_rowid();
    let mut add = connection.prepare_cached(
        "INSERT INTO pending_revocations (token, bulk)
         SELECT id, ?2 FROM tokens WHERE id = ?1 AND state <> 'revoked' ON CONFLICT DO NOTHING",
    )?;
    let mut added = 0;
    for token in rows_of(connection, accessors)? {
        added += add.execute((token, bulk))?;
    }
    if added == 0 {
        connection.prepare_cached("DELETE FROM bulk_revocations WHERE bulk = ?1")?.execute([bulk])?;
    }
    Ok(added)
}

/// The rows in their order. Both walks, by accessor and by row, then meet each page once.
fn rows_of(connection: &Connection, accessors: &[Accessor]) -> rusqlite::Result<Vec<i64>> {
    let mut accessors: Vec<String> = accessors.iter().map(ToString::to_string).collect();
    accessors.sort_unstable();
    let mut find = connection.prepare_cached("SELECT id FROM tokens WHERE accessor = ?1")?;
    let mut rows = Vec::with_capacity(accessors.len());
    for accessor in accessors {
        rows.extend(find.query_map([accessor], |row| row.get::<_, i64>(0))?.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    rows.sort_unstable();
    Ok(rows)
}

pub(super) fn is_any(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM pending_revocations)")?.query_one([], |row| row.get(0))
}

pub(super) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let count: i64 = connection.query_one("SELECT count(*) FROM pending_revocations", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Before a name is given away.
pub(super) fn fold_holder(connection: &Connection, name: &TokenName) -> rusqlite::Result<()> {
    let held = "token IN (SELECT id FROM tokens WHERE name = ?1 AND holds_name = 1)";
    fold(connection, held, [name.as_str()]).map(drop)
}

/// Before what stands in for a token is changed.
pub(super) fn fold_children(connection: &Connection, parent: Accessor) -> rusqlite::Result<()> {
    fold(connection, "token IN (SELECT id FROM tokens WHERE parent = ?1)", [parent.to_string()]).map(drop)
}

/// Before what was revoked by then is purged: as many as that will take.
pub(super) fn fold_before(connection: &Connection, at: Timestamp, limit: u32) -> rusqlite::Result<()> {
    fold(connection, "bulk_at < ?1 LIMIT ?2", (seconds(at), limit)).map(drop)
}

/// A token goes, and so does what the list says of it.
pub(super) fn forget(connection: &Connection, token: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM pending_revocations WHERE token = ?1")?.execute([token]).map(drop)
}

/// All that is on the list, where nobody waits.
pub(super) fn fold_all(connection: &Connection) -> rusqlite::Result<()> {
    while fold(connection, "TRUE ORDER BY token LIMIT ?1", [FEW])? > 0 {}
    Ok(())
}

/// As many as are held in memory at a time.
const FEW: u32 = 10_000;

/// Writes into their rows what the list says of the tokens that fit, and takes them off it.
fn fold(connection: &Connection, which: &str, values: impl Params) -> rusqlite::Result<usize> {
    let mut find = connection.prepare_cached(&format!(
        "SELECT token, bulk_reason, bulk_by, bulk_at
         FROM pending_revocations JOIN bulk_revocations ON bulk_revocations.bulk = pending_revocations.bulk
         WHERE {which}"
    ))?;
    let listed = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let found: Vec<(i64, String, String, i64)> = find.query_map(values, listed)?.collect::<rusqlite::Result<_>>()?;
    let mut write = connection.prepare_cached(
        "UPDATE tokens SET state = 'revoked', change = 'revoke', change_reason = ?2, change_by = ?3, change_at = ?4,
             holds_name = 0, version = version + 1
         WHERE id = ?1",
    )?;
    for row in &found {
        write.execute((row.0, &row.1, &row.2, row.3))?;
        forget(connection, row.0)?;
    }
    Ok(found.len())
}

/// Brings rows up to date while no change waits: a few in a commit, so that none waits long behind one.
#[derive(Debug)]
pub(super) struct Folding {
    rows: u32,
}

impl Folding {
    /// So many rows at a time; 0: none.
    pub(super) fn new(rows: u32) -> Self {
        Self { rows }
    }

    fn step(&self, connection: &Connection) -> Result<Idle, Failure> {
        if self.rows == 0 || !is_any(connection)? {
            return Ok(Idle::UntilChanged);
        }
        let begun = Instant::now();
        let transaction = connection.unchecked_transaction()?;
        fold(connection, "TRUE ORDER BY token LIMIT ?1", [self.rows])?;
        if !is_any(connection)? {
            connection.execute("DELETE FROM bulk_revocations", [])?;
        }
        transaction.commit()?;
        // Half of the disk's time is left to the others of this machine.
        Ok(Idle::For(begun.elapsed()))
    }
}

impl Upkeep for Folding {
    fn when_idle(&mut self, connection: &Connection) -> Idle {
        // What fails is tried again: the list is as good as the rows.
        self.step(connection).unwrap_or(Idle::For(RETRY))
    }
}

/// Between two attempts at a disk that is full, or locked by another process.
const RETRY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Change;
    use crate::sqlite::{bulk, schema};

    fn store() -> (Connection, Vec<Accessor>) {
        let connection = Connection::open_in_memory().unwrap();
        schema::migrate(&connection).unwrap();
        let accessors: Vec<_> = (1..=6).map(Accessor::from_random).collect();
        for accessor in &accessors {
            connection
                .execute(
                    "INSERT INTO tokens (accessor, digest, name, holds_name, roles, grants, source_ip, created, created_by,
                         state, pepper_id)
                     VALUES (?1, randomblob(32), ?1, 1, '', '', '', 1, 'x', 'active', 'p')",
                    [accessor.to_string()],
                )
                .unwrap();
        }
        (connection, accessors)
    }

    fn change(reason: &str) -> StateChange {
        StateChange { change: Change::Revoke, reason: reason.into(), by: "ann".into(), at: Timestamp(7) }
    }

    fn rows(connection: &Connection, reason: &str) -> i64 {
        let sql = "SELECT count(*) FROM tokens WHERE state = 'revoked' AND change_reason = ?1 AND version = 2";
        connection.query_one(sql, [reason], |row| row.get(0)).unwrap()
    }

    #[test]
    fn who_is_revoked_either_way_is_not_revoked_the_other_way() {
        let (connection, accessors) = store();
        assert_eq!(add(&connection, &accessors[..3], &change("list")).unwrap(), 3);
        assert_eq!(bulk::revoke(&connection, &accessors[2..4], &change("row")).unwrap(), 1);
        assert_eq!(add(&connection, &accessors[1..4], &change("list again")).unwrap(), 0);
        let bulks: i64 = connection.query_one("SELECT count(*) FROM bulk_revocations", [], |row| row.get(0)).unwrap();
        assert_eq!((rows(&connection, "row"), bulks), (1, 1), "of a list of none nothing is left");
        fold_all(&connection).unwrap();
        assert_eq!((rows(&connection, "list"), rows(&connection, "row")), (3, 1));
    }

    #[test]
    fn idle_time_brings_a_few_rows_up_to_date_until_none_is_left() {
        let (connection, accessors) = store();
        add(&connection, &accessors[..5], &change("list")).unwrap();
        let mut folding = Folding::new(2);
        for left in [3_u64, 1, 0] {
            assert!(matches!(folding.when_idle(&connection), Idle::For(_)));
            assert_eq!((count(&connection).unwrap(), rows(&connection, "list")), (left, 5 - left.cast_signed()));
        }
        assert_eq!(folding.when_idle(&connection), Idle::UntilChanged);
        add(&connection, &accessors[5..], &change("list")).unwrap();
        assert_eq!(Folding::new(0).when_idle(&connection), Idle::UntilChanged);
        assert_eq!(count(&connection).unwrap(), 1);
    }

    /// As where the disk is full: it neither gives up nor tries without a pause.
    #[test]
    fn what_can_not_be_written_is_tried_again_later() {
        let (connection, accessors) = store();
        add(&connection, &accessors, &change("list")).unwrap();
        connection.pragma_update(None, "query_only", true).unwrap();
        assert_eq!(Folding::new(2).when_idle(&connection), Idle::For(RETRY));
        connection.pragma_update(None, "query_only", false).unwrap();
        assert_eq!(count(&connection).unwrap(), 6);
        assert!(matches!(Folding::new(2).when_idle(&connection), Idle::For(pause) if pause < RETRY));
    }
}
