//! Dead records forgotten, and what is left of those that were taken away: see [`Tombstone`].

use leastgate_policy::{Accessor, Timestamp, TokenDigest};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::decode::{digest, optional_time, parsed, seconds, time};
use super::pending::{self, PENDING};
use crate::error::Failure;
use crate::tombstone::{Taken, Tombstone};

/// The columns [`tombstone`] reads, in its order.
pub(super) const TOMBSTONES: &str = "SELECT accessor, revoked, at, digest_key, until FROM tombstones";

/// A dead record.
struct Dead {
    row: i64,
    accessor: String,
    digest: TokenDigest,
    /// How it was taken away, if it was; else its life was over as it had been given.
    taken: Option<Taken>,
    /// Until when an import could bring it back; `None`: for ever.
    until: Option<Timestamp>,
}

/// The dead are those revoked, and those past their end, for long enough.
pub(super) fn purge(connection: &Connection, older_than: Timestamp, limit: u32) -> Result<Vec<TokenDigest>, Failure> {
    pending::fold_before(connection, older_than, limit)?;
    let found = find(connection, older_than, limit)?;
    let mut forget = connection.prepare_cached("DELETE FROM tokens WHERE id = ?1")?;
    let mut forget_usage = connection.prepare_cached("DELETE FROM usage WHERE accessor = ?1")?;
    for dead in &found {
        bury(connection, dead, older_than)?;
        pending::forget(connection, dead.row)?;
        forget.execute([dead.row])?;
        forget_usage.execute([&dead.accessor])?;
    }
    connection
        .prepare_cached(
            "DELETE FROM tombstones WHERE accessor IN (SELECT accessor FROM tombstones WHERE until < ?1 LIMIT ?2)",
        )?
        .execute((seconds(older_than), limit))?;
    Ok(found.into_iter().map(|dead| dead.digest).collect())
}

fn find(connection: &Connection, older_than: Timestamp, limit: u32) -> Result<Vec<Dead>, Failure> {
    let mut dead = connection.prepare_cached(&format!(
        "SELECT id, accessor, digest, state = 'revoked' OR pending_revocations.token IS NOT NULL,
             coalesce(bulk_at, change_at, created), expires, shortened, parent IS NOT NULL
         FROM tokens {PENDING}
         WHERE (state = 'revoked' AND coalesce(change_at, created) < ?1)
            OR coalesce(expires, 9223372036854775807) < ?1
         LIMIT ?2"
    ))?;
    let found = dead.query_map((seconds(older_than), limit), |row| {
        let expires = optional_time(row, 5)?;
        let is_shortened: bool = row.get(6)?;
        let taken = match row.get(3)? {
            true => Some(Taken::Revoked(time(row, 4)?)),
            false => expires.filter(|_| is_shortened).map(Taken::Ended),
        };
        let is_child: bool = row.get(7)?;
        let until = expires.filter(|_| is_child);
        Ok(Dead { row: row.get(0)?, accessor: row.get(1)?, digest: digest(row, 2)?, taken, until })
    })?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

fn bury(connection: &Connection, dead: &Dead, older_than: Timestamp) -> rusqlite::Result<()> {
    let Some(taken) = dead.taken.filter(|_| dead.until.is_none_or(|until| until >= older_than)) else { return Ok(()) };
    let (is_revoked, at) = match taken {
        Taken::Revoked(at) => (true, at),
        Taken::Ended(at) => (false, at),
    };
    connection
        .prepare_cached(
            "INSERT INTO tombstones (accessor, digest_key, revoked, at, until) VALUES (?1, substr(?2, 1, 8), ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?
        .execute((&dead.accessor, dead.digest.as_bytes(), is_revoked, seconds(at), dead.until.map(seconds)))?;
    Ok(())
}

/// By accessor, or by what its digest begins with: a file may have been given another accessor.
pub(super) fn tombstone_of(
    connection: &Connection,
    accessor: Accessor,
    digest: &TokenDigest,
) -> Result<Option<Tombstone>, Failure> {
    let found = connection
        .prepare_cached(&format!("{TOMBSTONES} WHERE accessor = ?1 OR digest_key = substr(?2, 1, 8) LIMIT 1"))?
        .query_one((accessor.to_string(), digest.as_bytes()), tombstone)
        .optional()?;
    Ok(found)
}

pub(super) fn tombstone(row: &Row<'_>) -> rusqlite::Result<Tombstone> {
    let at = time(row, 2)?;
    let taken = if row.get(1)? { Taken::Revoked(at) } else { Taken::Ended(at) };
    let _: [u8; 8] = row.get(3)?;
    optional_time(row, 4)?;
    Ok(Tombstone { accessor: parsed(row, 0)?, taken })
}
