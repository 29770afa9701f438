//! The statements about administrators.

use leastgate_policy::{Accessor, Timestamp, TokenDigest};
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::decode::{broken, digest, name, optional_time, parsed, seconds, text, time};
use super::tokens::is_unique_violation;
use crate::admin::AdminRecord;
use crate::error::{Failure, StoreError};

pub(super) const COLUMNS: &str = "id, digest, name, role, may_grant, created, created_by, revoked, pepper_id";

pub(super) fn create(connection: &Connection, admin: &AdminRecord) -> Result<AdminRecord, Failure> {
    match insert(connection, admin) {
        Ok(()) => Ok(admin.clone()),
        Err(error) if is_unique_violation(&error) => Err(taken(connection, admin)?.into()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn insert(connection: &Connection, admin: &AdminRecord) -> rusqlite::Result<()> {
    let may_grant = serde_json::to_string(&admin.may_grant)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection
        .prepare_cached(&format!("INSERT INTO admins ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"))?
        .execute((
            admin.id.to_string(),
            admin.digest.as_bytes(),
            admin.name.as_str(),
            admin.role.as_str(),
            may_grant,
            seconds(admin.created),
            &admin.created_by,
            admin.revoked.map(seconds),
            &admin.pepper_id,
        ))?;
    Ok(())
}

/// Which of the unique things was not: the name, or what was drawn.
fn taken(connection: &Connection, admin: &AdminRecord) -> rusqlite::Result<StoreError> {
    let holder: Option<String> = connection
        .prepare_cached("SELECT id FROM admins WHERE name = ?1 AND revoked IS NULL")?
        .query_one([admin.name.as_str()], |row| row.get(0))
        .optional()?;
    Ok(match holder {
        Some(holder) => StoreError::NameTaken { name: admin.name.to_string(), holder },
        None => StoreError::AlreadyDrawn,
    })
}

pub(super) fn by_digest(connection: &Connection, digest: &TokenDigest) -> Result<Option<AdminRecord>, Failure> {
    Ok(connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM admins WHERE digest = ?1"))?
        .query_one([digest.as_bytes()], record)
        .optional()?)
}

pub(super) fn all(connection: &Connection) -> Result<Vec<AdminRecord>, Failure> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM admins ORDER BY name, created, id"))?;
    Ok(statement.query_map([], record)?.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn count(connection: &Connection) -> Result<i64, Failure> {
    Ok(connection.query_one("SELECT count(*) FROM admins WHERE revoked IS NULL", [], |row| row.get(0))?)
}

pub(super) fn revoke(connection: &Connection, id: Accessor, at: Timestamp) -> Result<AdminRecord, Failure> {
    connection
        .prepare_cached("UPDATE admins SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL")?
        .execute((id.to_string(), seconds(at)))?;
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM admins WHERE id = ?1"))?
        .query_one([id.to_string()], record)
        .optional()?;
    found.ok_or_else(|| StoreError::NotFound { kind: "admin", wanted: id.to_string() }.into())
}

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<AdminRecord> {
    Ok(AdminRecord {
        id: parsed(row, 0)?,
        digest: digest(row, 1)?,
        name: name(row, 2)?,
        role: parsed(row, 3)?,
        may_grant: serde_json::from_str(text(row, 4)?).map_err(|error| broken(4, error))?,
        created: time(row, 5)?,
        created_by: row.get(6)?,
        revoked: optional_time(row, 7)?,
        pepper_id: row.get(8)?,
    })
}
