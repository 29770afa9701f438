//! The statements that take gifts back which may have been kept although their callers were told that they are not.

use leastgate_policy::{Accessor, TokenState};
use rusqlite::{Connection, OptionalExtension as _};

use super::decode::seconds;
use super::pending;
use super::tokens::{OUT_OF_USE, by_accessor, end_children, update};
use crate::error::{Failure, StoreError};
use crate::record::{Change, StateChange, TokenRecord};
use crate::undo::Undo;

/// How many had been kept.
pub(super) fn undo(connection: &Connection, env: &str, gifts: &[Undo]) -> Result<usize, Failure> {
    let mut undone = 0;
    for gift in gifts {
        let was_kept = match gift {
            Undo::Made(accessor) => forget(connection, *accessor)?,
            Undo::Changed(old) => change_back(connection, env, gift, old)?,
            Undo::Rotated { old, successor } => hand_back(connection, env, old, *successor)?,
        };
        undone += usize::from(was_kept);
    }
    Ok(undone)
}

/// Nobody has seen it: nothing is left of it.
fn forget(connection: &Connection, accessor: Accessor) -> Result<bool, Failure> {
    let accessor = accessor.to_string();
    let row: Option<i64> = connection
        .prepare_cached("SELECT id FROM tokens WHERE accessor = ?1")?
        .query_one([&accessor], |row| row.get(0))
        .optional()?;
    row.map_or(Ok(()), |row| pending::forget(connection, row))?;
    let gone = connection.prepare_cached("DELETE FROM tokens WHERE accessor = ?1")?.execute([&accessor])?;
    connection.prepare_cached("DELETE FROM usage WHERE accessor = ?1")?.execute([&accessor])?;
    Ok(gone > 0)
}

fn change_back(connection: &Connection, env: &str, gift: &Undo, old: &TokenRecord) -> Result<bool, Failure> {
    let Some(kept) = living(connection, env, old.accessor)? else { return Ok(false) };
    match gift.apply(&kept).filter(|back| *back != kept) {
        Some(back) => update(connection, env, &back).map(|_| true),
        None => Ok(false),
    }
}

/// `None`: nothing can be done with it any more.
fn living(connection: &Connection, env: &str, accessor: Accessor) -> Result<Option<TokenRecord>, Failure> {
    match by_accessor(connection, env, accessor) {
        Ok(kept) => Ok(Some(kept).filter(|kept| kept.state != TokenState::Revoked)),
        Err(Failure::Store(StoreError::NotFound { .. })) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn hand_back(connection: &Connection, env: &str, old: &TokenRecord, successor: Accessor) -> Result<bool, Failure> {
    let (accessor, gone) = (old.accessor.to_string(), successor.to_string());
    if !forget(connection, successor)? {
        return Ok(false);
    }
    // What stood in for the old one went over with the name.
    connection.prepare_cached("UPDATE tokens SET parent = ?2 WHERE parent = ?1")?.execute((&gone, &accessor))?;
    let is_living = living(connection, env, old.accessor)?.is_some();
    connection
        .prepare_cached(
            "UPDATE tokens SET successor = NULL, version = version + 1,
                 holds_name = CASE WHEN ?3 THEN 1 ELSE holds_name END,
                 expires = CASE WHEN ?3 THEN ?4 ELSE expires END,
                 state = CASE WHEN state = 'rotating' THEN ?5 ELSE state END
             WHERE accessor = ?1 AND successor = ?2",
        )?
        .execute((&accessor, &gone, is_living, old.expires.map(seconds), old.state.as_str()))?;
    end_with(connection, env, old.accessor)?;
    Ok(true)
}

/// Who took the token out of use meanwhile found nothing that stood in for it.
fn end_with(connection: &Connection, env: &str, accessor: Accessor) -> Result<(), Failure> {
    let now = match by_accessor(connection, env, accessor) {
        Ok(now) => now,
        Err(Failure::Store(StoreError::NotFound { .. })) => return Ok(()),
        Err(failure) => return Err(failure),
    };
    match now.state_changed.filter(|_| matches!(now.state, TokenState::Revoked | TokenState::Disabled)) {
        Some(change) => {
            let end = StateChange { change: Change::Revoke, reason: OUT_OF_USE.to_owned(), ..change };
            Ok(end_children(connection, accessor, &end)?)
        }
        None => Ok(()),
    }
}
