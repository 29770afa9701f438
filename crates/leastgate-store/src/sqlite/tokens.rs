//! The statements about tokens that change something, or find one.

use leastgate_policy::{Accessor, Timestamp, TokenState};
use rusqlite::{Connection, OptionalExtension as _, named_params};

use super::decode::{RECORD_COLUMNS, change_name, grants_text, list_text, networks_text, record, seconds};
use super::pending::{self, PENDING};
use crate::error::{Failure, StoreError};
use crate::record::{Change, StateChange, TokenName, TokenRecord};

pub(super) fn create(connection: &Connection, env: &str, token: &TokenRecord) -> Result<TokenRecord, Failure> {
    debug_assert_eq!(token.env, env, "the handle has compared them");
    pending::fold_holder(connection, &token.name)?;
    free_name_of_expired(connection, &token.name, token.arrived())?;
    match insert(connection, token) {
        Ok(()) => Ok(TokenRecord { version: 1, ..token.clone() }),
        Err(error) if is_unique_violation(&error) => Err(taken(connection, &token.name)?.into()),
        Err(error) => Err(error.into()),
    }
}

fn insert(connection: &Connection, token: &TokenRecord) -> rusqlite::Result<()> {
    let changed = token.state_changed.as_ref();
    let mut statement = connection.prepare_cached(
        "INSERT INTO tokens (accessor, digest, name, holds_name, owner, roles, grants, source_ip, not_before, rate, burst,
             concurrent, created, created_by, expires, state, change, change_reason, change_by, change_at, pepper_id,
             successor, note, parent, canary, last_used, last_source)
         VALUES (:accessor, :digest, :name, :holds_name, :owner, :roles, :grants, :source_ip, :not_before, :rate, :burst,
             :concurrent, :created, :created_by, :expires, :state, :change, :change_reason, :change_by, :change_at,
             :pepper_id, :successor, :note, :parent, :canary, :last_used, :last_source)",
    )?;
    statement.execute(named_params! {
        ":accessor": token.accessor.to_string(),
        ":digest": token.digest.as_bytes(),
        ":name": token.name.as_str(),
        ":holds_name": matches!(token.state, TokenState::Active | TokenState::Disabled),
        ":owner": token.owner,
        ":roles": list_text(&token.roles)?,
        ":grants": grants_text(&token.grants)?,
        ":source_ip": networks_text(&token.restrictions)?,
        ":not_before": token.restrictions.not_before.map(seconds),
        ":rate": token.limits.rate,
        ":burst": token.limits.burst,
        ":concurrent": token.limits.concurrent,
        ":created": seconds(token.created),
        ":created_by": token.created_by,
        ":expires": token.expires.map(seconds),
        ":state": token.state.as_str(),
        ":change": changed.map(|changed| change_name(changed.change)),
        ":change_reason": changed.map(|changed| &changed.reason),
        ":change_by": changed.map(|changed| &changed.by),
        ":change_at": changed.map(|changed| seconds(changed.at)),
        ":pepper_id": token.pepper_id,
        ":successor": token.successor.map(|successor| successor.to_string()),
        ":note": token.note,
        ":parent": token.parent.map(|parent| parent.to_string()),
        ":canary": token.is_canary,
        ":last_used": token.last_use.map(|last| seconds(last.at)),
        ":last_source": token.last_use.and_then(|last| last.source).map(|source| source.to_string()),
    })?;
    Ok(())
}

/// An expired token keeps its name only until someone asks for it.
fn free_name_of_expired(connection: &Connection, name: &TokenName, now: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE tokens SET holds_name = 0 WHERE name = ?1 AND holds_name = 1 AND expires IS NOT NULL AND expires <= ?2",
        )?
        .execute((name.as_str(), seconds(now)))?;
    Ok(())
}

pub(super) fn is_unique_violation(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    error
        .sqlite_error()
        .is_some_and(|error| matches!(error.extended_code, SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY))
}

/// Which of the unique things was not: the name, or what was drawn.
fn taken(connection: &Connection, name: &TokenName) -> rusqlite::Result<StoreError> {
    let holder: Option<String> = connection
        .prepare_cached("SELECT accessor FROM tokens WHERE name = ?1 AND holds_name = 1")?
        .query_one([name.as_str()], |row| row.get(0))
        .optional()?;
    Ok(match holder {
        Some(holder) => StoreError::NameTaken { name: name.to_string(), holder },
        None => StoreError::AlreadyDrawn,
    })
}

pub(super) fn by_accessor(connection: &Connection, env: &str, accessor: Accessor) -> Result<TokenRecord, Failure> {
    let found = connection
        .prepare_cached(&format!("SELECT {RECORD_COLUMNS} FROM tokens {PENDING} WHERE accessor = ?1"))?
        .query_one([accessor.to_string()], |row| record(row, env))
        .optional()?;
    found.ok_or_else(|| not_found(&accessor.to_string()))
}

/// An accessor comes first. The ones drawn here always hold an upper-case letter and a name never does, so
/// nobody can give a token a name that is another's accessor.
pub(super) fn find(connection: &Connection, env: &str, wanted: &str) -> Result<TokenRecord, Failure> {
    if let Ok(accessor) = wanted.parse() {
        match by_accessor(connection, env, accessor) {
            Err(Failure::Store(StoreError::NotFound { .. })) => {}
            found_or_failed => return found_or_failed,
        }
    }
    let found = connection
        .prepare_cached(&format!(
            "SELECT {RECORD_COLUMNS} FROM tokens {PENDING} WHERE name = ?1
             ORDER BY (holds_name AND token IS NULL) DESC, id DESC LIMIT 1"
        ))?
        .query_one([wanted], |row| record(row, env))
        .optional()?;
    found.ok_or_else(|| not_found(wanted))
}

fn not_found(wanted: &str) -> Failure {
    StoreError::NotFound { kind: "token", wanted: wanted.chars().take(80).collect() }.into()
}

pub(super) fn count(connection: &Connection) -> Result<i64, Failure> {
    Ok(connection.query_one("SELECT count(*) FROM tokens", [], |row| row.get(0))?)
}

pub(super) fn change_state(
    connection: &Connection,
    env: &str,
    accessor: Accessor,
    asked: &StateChange,
    expected: Option<u64>,
) -> Result<TokenRecord, Failure> {
    let mut token = by_accessor(connection, env, accessor)?;
    let next = next_state(&token, asked.change)?;
    if asked.change != Change::Enable {
        end_children(connection, accessor, &StateChange { reason: OUT_OF_USE.to_owned(), ..asked.clone() })?;
    }
    let Some(state) = next else { return Ok(token) };
    check_version(&token, expected)?;
    connection
        .prepare_cached(
            "UPDATE tokens SET state = ?2, change = ?3, change_reason = ?4, change_by = ?5, change_at = ?6,
                 holds_name = holds_name AND ?2 <> 'revoked', version = version + 1
             WHERE accessor = ?1",
        )?
        .execute((
            accessor.to_string(),
            state.as_str(),
            change_name(asked.change),
            &asked.reason,
            &asked.by,
            seconds(asked.at),
        ))?;
    token.state = state;
    token.state_changed = Some(asked.clone());
    token.version += 1;
    Ok(token)
}

/// What stands in for a token that is taken out of use ends with it, in the same commit: no crash can leave it behind.
pub(super) fn end_children(connection: &Connection, parent: Accessor, asked: &StateChange) -> rusqlite::Result<()> {
    pending::fold_children(connection, parent)?;
    connection
        .prepare_cached(
            "UPDATE tokens SET state = 'revoked', change = 'revoke', change_reason = ?2, change_by = ?3, change_at = ?4,
                 holds_name = 0, version = version + 1
             WHERE parent = ?1 AND state <> 'revoked'",
        )?
        .execute((parent.to_string(), &asked.reason, &asked.by, seconds(asked.at)))?;
    Ok(())
}

pub(super) const OUT_OF_USE: &str = "the token it stands in for was taken out of use";

/// The state a change leads to; `None` where the token is there already.
fn next_state(token: &TokenRecord, change: Change) -> Result<Option<TokenState>, StoreError> {
    let target = match change {
        Change::Revoke => TokenState::Revoked,
        Change::Disable => TokenState::Disabled,
        // A token that was handing over when it was disabled goes on handing over.
        Change::Enable if token.successor.is_some() => TokenState::Rotating,
        Change::Enable => TokenState::Active,
    };
    if token.state == target {
        return Ok(None);
    }
    check_living(token)?;
    Ok(Some(target))
}

pub(super) fn update(connection: &Connection, env: &str, new: &TokenRecord) -> Result<TokenRecord, Failure> {
    let kept = by_accessor(connection, env, new.accessor)?;
    check_version(&kept, Some(new.version))?;
    check_living(&kept)?;
    connection
        .prepare_cached(
            "UPDATE tokens SET owner = :owner, roles = :roles, grants = :grants, source_ip = :source_ip,
                 not_before = :not_before, rate = :rate, burst = :burst, concurrent = :concurrent,
                 shortened = shortened OR coalesce(:expires, 9223372036854775807) < coalesce(expires, 9223372036854775807),
                 expires = :expires, note = :note, version = version + 1
             WHERE accessor = :accessor",
        )?
        .execute(named_params! {
            ":accessor": new.accessor.to_string(),
            ":owner": new.owner,
            ":roles": list_text(&new.roles)?,
            ":grants": grants_text(&new.grants)?,
            ":source_ip": networks_text(&new.restrictions)?,
            ":not_before": new.restrictions.not_before.map(seconds),
            ":rate": new.limits.rate,
            ":burst": new.limits.burst,
            ":concurrent": new.limits.concurrent,
            ":expires": new.expires.map(seconds),
            ":note": new.note,
        })?;
    by_accessor(connection, env, new.accessor)
}

/// What stands in for the token holds what it held before, and ends in the same commit.
pub(super) fn narrow(
    connection: &Connection,
    env: &str,
    new: &TokenRecord,
    end: &StateChange,
) -> Result<TokenRecord, Failure> {
    let narrowed = update(connection, env, new)?;
    end_children(connection, new.accessor, end)?;
    Ok(narrowed)
}

pub(super) fn check_living(token: &TokenRecord) -> Result<(), StoreError> {
    match token.state {
        TokenState::Revoked => Err(StoreError::Revoked { accessor: token.accessor }),
        TokenState::Active | TokenState::Rotating | TokenState::Disabled => Ok(()),
    }
}

pub(super) fn check_version(token: &TokenRecord, expected: Option<u64>) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != token.version => {
            Err(StoreError::Conflict { accessor: token.accessor, expected, actual: token.version })
        }
        _ => Ok(()),
    }
}
