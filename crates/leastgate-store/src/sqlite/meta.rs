//! Whose records these are: the environment, and a check value of the key their digests were made with.

use std::num::ParseIntError;
use std::path::Path;

use leastgate_policy::{EnvironmentKey, Timestamp};
use rusqlite::{Connection, OptionalExtension as _};

use super::decode::broken;
use crate::error::{Failure, StoreError};
use crate::restored::Restored;

const ENVIRONMENT: &str = "environment";
const KEY_CHECK: &str = "key-check";
const RESTORES: &str = "restores";
const USE_KNOWN_SINCE: &str = "use-known-since";

/// Compares the store's owner with the configured one; a new store takes it.
///
/// The environment comes first: another one has another key too, and "wrong pepper" would send people looking
/// in the wrong place. A store of the previous pepper becomes one of the current pepper; each of its records says for
/// itself which of the two it is kept under.
pub(super) fn claim(
    connection: &Connection,
    path: &Path,
    environment: &str,
    key: &EnvironmentKey,
) -> Result<(), Failure> {
    compare_environment(connection, path, environment)?;
    compare_key(connection, path, key)?;
    refuse_ownerless(connection, path)?;
    let check = key.check_value();
    if !missing(connection)?.is_empty() {
        write_once(connection, environment.as_bytes(), &check)?;
    }
    match read(connection, KEY_CHECK)? {
        Some(stored) if stored != check => replace_check(connection, &check),
        _ => Ok(()),
    }
}

/// What should say whose the records are and is missing.
pub(super) fn missing(connection: &Connection) -> Result<Vec<&'static str>, Failure> {
    let mut missing = Vec::new();
    for key in [ENVIRONMENT, KEY_CHECK] {
        if read(connection, key)?.is_none() {
            missing.push(key);
        }
    }
    Ok(missing)
}

/// Records without an owner are nobody's to claim: under another pepper none of them would be known again, and all
/// would seem well.
pub(super) fn refuse_ownerless(connection: &Connection, path: &Path) -> Result<(), Failure> {
    const HAS_RECORDS: &str = "SELECT EXISTS (SELECT 1 FROM tokens) OR EXISTS (SELECT 1 FROM admins)";
    let missing = missing(connection)?;
    if missing.is_empty() || !connection.query_one(HAS_RECORDS, [], |row| row.get::<_, bool>(0))? {
        return Ok(());
    }
    let detail = format!("it holds records, and does not say whose: {} is missing", missing.join(" and "));
    Err(StoreError::Corrupt { path: path.to_owned(), detail }.into())
}

/// Whose environment the records are; `None` where the file does not say.
pub(super) fn environment(connection: &Connection) -> Result<Option<String>, Failure> {
    Ok(read(connection, ENVIRONMENT)?.map(|stored| String::from_utf8_lossy(&stored).into_owned()))
}

/// Only looks, and takes nothing for a match but a match or a file that does not say.
pub(super) fn compare_environment(connection: &Connection, path: &Path, environment: &str) -> Result<(), Failure> {
    let stored = read(connection, ENVIRONMENT)?.unwrap_or_else(|| environment.as_bytes().to_vec());
    if stored == environment.as_bytes() {
        return Ok(());
    }
    let (path, stored) = (path.to_owned(), String::from_utf8_lossy(&stored).into_owned());
    Err(StoreError::OtherEnvironment { path, stored, configured: environment.to_owned() }.into())
}

/// As [`compare_environment`], for the pepper: the current one, or the previous one that it is about to replace.
pub(super) fn compare_key(connection: &Connection, path: &Path, key: &EnvironmentKey) -> Result<(), Failure> {
    let previous = key.previous().map(|previous| previous.check_value());
    let is_ours = |stored: &[u8]| stored == key.check_value() || previous.is_some_and(|previous| stored == previous);
    if read(connection, KEY_CHECK)?.is_some_and(|stored| !is_ours(&stored)) {
        return Err(StoreError::WrongPepper { path: path.to_owned() }.into());
    }
    Ok(())
}

/// The restores that are not on record yet. One that can't be read is one all the same.
pub(super) fn restores(connection: &Connection) -> Result<Vec<Restored>, Failure> {
    let Some(kept) = read(connection, RESTORES)? else { return Ok(Vec::new()) };
    Ok(serde_json::from_slice(&kept).unwrap_or_else(|_| vec![Restored::default()]))
}

pub(super) fn set_restores(connection: &Connection, restores: &[Restored]) -> Result<(), Failure> {
    if restores.is_empty() {
        connection.execute("DELETE FROM meta WHERE key = ?1", [RESTORES])?;
        return Ok(());
    }
    let kept = serde_json::to_vec(restores).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", (RESTORES, kept))?;
    Ok(())
}

/// Since when it is known which tokens are used, after a restore that did not know; `None`: since ever. As decimal
/// digits.
pub(super) fn use_known_since(connection: &Connection) -> Result<Option<Timestamp>, Failure> {
    let Some(kept) = read(connection, USE_KNOWN_SINCE)? else { return Ok(None) };
    let digits = String::from_utf8_lossy(&kept);
    Ok(Some(Timestamp(digits.parse().map_err(|error: ParseIntError| broken(0, error))?)))
}

pub(super) fn set_use_known_since(connection: &Connection, at: Timestamp) -> Result<(), Failure> {
    let kept = at.0.to_string();
    connection
        .execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", (USE_KNOWN_SINCE, kept.as_bytes()))?;
    Ok(())
}

fn replace_check(connection: &Connection, check: &[u8]) -> Result<(), Failure> {
    connection.execute("UPDATE meta SET value = ?2 WHERE key = ?1", (KEY_CHECK, check))?;
    Ok(())
}

fn read(connection: &Connection, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_one("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

fn write_once(connection: &Connection, environment: &[u8], check: &[u8]) -> Result<(), Failure> {
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?1, ?2), (?3, ?4) ON CONFLICT DO NOTHING",
        (ENVIRONMENT, environment, KEY_CHECK, check),
    )?;
    Ok(())
}
