//! The statements of a rotation: one token gives its name away, another one takes it, in one transaction.

use leastgate_policy::{Accessor, Timestamp, TokenDigest, TokenState};
use rusqlite::Connection;

use super::decode::{RECORD_COLUMNS, digest, record, seconds};
use super::pending::{self, PENDING};
use super::tokens::{by_accessor, change_state, check_living, check_version, create};
use crate::error::{Failure, StoreError};
use crate::record::TokenRecord;
use crate::rotation::{OldEnd, Rotated, Rotation};

pub(super) fn rotate(connection: &Connection, env: &str, rotation: &Rotation) -> Result<Rotated, Failure> {
    let old = by_accessor(connection, env, rotation.old)?;
    check_version(&old, rotation.expected)?;
    check_rotatable(&old, rotation.successor.created)?;
    connection
        .prepare_cached("UPDATE tokens SET successor = ?2, holds_name = 0, version = version + 1 WHERE accessor = ?1")?
        .execute((old.accessor.to_string(), rotation.successor.accessor.to_string()))?;
    match &rotation.end {
        OldEnd::Grace(end) => grant_grace(connection, &old, *end)?,
        OldEnd::Revoked(change) => drop(change_state(connection, env, old.accessor, change, None)?),
    }
    let successor = create(connection, env, &rotation.successor)?;
    adopt_children(connection, old.accessor, &successor)?;
    Ok(Rotated { old: by_accessor(connection, env, old.accessor)?, successor })
}

fn check_rotatable(old: &TokenRecord, now: Timestamp) -> Result<(), StoreError> {
    check_living(old)?;
    let why = match old.state {
        _ if old.parent.is_some() => "it stands in for another token, which is the one to rotate",
        TokenState::Rotating => "it has a successor already, which is the one to rotate",
        TokenState::Disabled => "it is disabled; enable it first, or revoke it and create another one",
        _ if old.is_expired(now) => "its life is over; create another one",
        TokenState::Active | TokenState::Revoked => return Ok(()),
    };
    Err(StoreError::NotRotatable { accessor: old.accessor, why })
}

/// A grace never outlives the old end.
fn grant_grace(connection: &Connection, old: &TokenRecord, end: Timestamp) -> Result<(), Failure> {
    let end = old.expires.map_or(end, |own| own.min(end));
    connection
        .prepare_cached(
            "UPDATE tokens SET state = 'rotating', expires = ?2,
                 shortened = shortened OR ?2 < coalesce(expires, 9223372036854775807)
             WHERE accessor = ?1",
        )?
        .execute((old.accessor.to_string(), seconds(end)))?;
    Ok(())
}

/// What stands in for the old one stands in for its successor, and ends with it at the latest: it would outlive a grace.
fn adopt_children(connection: &Connection, old: Accessor, successor: &TokenRecord) -> Result<(), Failure> {
    pending::fold_children(connection, old)?;
    connection
        .prepare_cached(
            "UPDATE tokens SET parent = ?2, version = version + 1,
                 expires = CASE WHEN ?3 IS NULL THEN expires ELSE min(coalesce(expires, ?3), ?3) END
             WHERE parent = ?1 AND state <> 'revoked'",
        )?
        .execute((old.to_string(), successor.accessor.to_string(), successor.expires.map(seconds)))?;
    Ok(())
}

pub(super) fn predecessors_of(
    connection: &Connection,
    env: &str,
    successor: Accessor,
) -> Result<Vec<TokenRecord>, Failure> {
    let condition = "successor = ?1 ORDER BY created DESC, id DESC";
    select(connection, env, condition, [successor.to_string()])
}

pub(super) fn namesakes(
    connection: &Connection,
    env: &str,
    name: &str,
    now: Timestamp,
) -> Result<Vec<TokenRecord>, Failure> {
    select(connection, env, NAMESAKES, (name, seconds(now)))
}

const NAMESAKES: &str = "name = ?1 AND state <> 'revoked' AND token IS NULL AND (expires IS NULL OR expires > ?2)
    ORDER BY holds_name DESC, id DESC";

/// A name's tokens in their order, those that may be enabled again among them, then what stands in for one: it may have been
/// there before the token it belongs to now.
/// `CROSS JOIN` keeps to the indexes of the few that have another one.
pub(super) fn sharing_limits(connection: &Connection) -> Result<Vec<(TokenDigest, TokenDigest)>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT old.digest, new.digest, 0 AS part, old.id AS place
         FROM tokens old CROSS JOIN tokens new ON new.accessor = old.successor
         WHERE old.successor IS NOT NULL AND old.state IN ('rotating', 'disabled')
             AND NOT EXISTS (SELECT 1 FROM pending_revocations WHERE token = old.id)
         UNION ALL
         SELECT parent.digest, child.digest, 1, child.id
         FROM tokens child CROSS JOIN tokens parent ON parent.accessor = child.parent
         WHERE child.parent IS NOT NULL AND child.state <> 'revoked'
             AND NOT EXISTS (SELECT 1 FROM pending_revocations WHERE token = child.id)
         ORDER BY part, place",
    )?;
    let pair = |row: &rusqlite::Row<'_>| Ok((digest(row, 0)?, digest(row, 1)?));
    Ok(statement.query_map([], pair)?.collect::<rusqlite::Result<_>>()?)
}

/// The records that a condition of this code fits; `token` is null in it for who is not on the list of the revoked.
pub(super) fn select(
    connection: &Connection,
    env: &str,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<TokenRecord>, Failure> {
    let sql = format!("SELECT {RECORD_COLUMNS} FROM tokens {PENDING} WHERE {condition}");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(values, |row| record(row, env))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn tokens_with_a_name_are_found_by_an_index() {
        let connection = Connection::open_in_memory().unwrap();
        schema::migrate(&connection).unwrap();
        let explain = format!("EXPLAIN QUERY PLAN SELECT {RECORD_COLUMNS} FROM tokens {PENDING} WHERE {NAMESAKES}");
        let mut plan = connection.prepare(&explain).unwrap();
        let steps = plan.query_map(("bot", 1), |row| row.get::<_, String>(3)).unwrap();
        let steps = steps.collect::<rusqlite::Result<Vec<_>>>().unwrap().join("\n");
        assert!(steps.contains("tokens USING INDEX tokens_by_name (name=?)"), "{steps}");
    }
}
