//! The file's layout, its versions, and how a file that isn't ours is told from one that is.
//!
//! `application_id` says whose file it is, `user_version` which layout it has; both live in the file's header
//! and change with the tables in one transaction. Migrations are appended, never edited.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use crate::error::{Failure, StoreError};

/// `lgst` in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x6C67_7374;

/// Each takes the layout one version up; the first makes version 1.
const MIGRATIONS: &[&str] = &[V1, V2, V3, V4, V5];

const V1: &str = "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Lists are JSON where they hold something and empty text where they don't: most rows hold one role.
CREATE TABLE tokens (
    id            INTEGER PRIMARY KEY,
    accessor      TEXT NOT NULL UNIQUE,
    digest        BLOB NOT NULL CHECK (length(digest) = 32),
    name          TEXT NOT NULL,
    holds_name    INTEGER NOT NULL CHECK (holds_name IN (0, 1)),
    owner         TEXT,
    roles         TEXT NOT NULL,
    grants        TEXT NOT NULL,
    source_ip     TEXT NOT NULL,
    not_before    INTEGER,
    rate          INTEGER,
    burst         INTEGER,
    concurrent    INTEGER,
    created       INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    expires       INTEGER,
    state         TEXT NOT NULL CHECK (state IN ('active', 'rotating', 'disabled', 'revoked')),
    change        TEXT CHECK (change IN ('revoke', 'disable', 'enable')),
    change_reason TEXT,
    change_by     TEXT,
    change_at     INTEGER,
    pepper_id     TEXT NOT NULL,
    successor     TEXT,
    note          TEXT,
    version       INTEGER NOT NULL DEFAULT 1
) STRICT;
-- The token table in memory finds a digest by its first 64 bits: no two tokens may share them.
CREATE UNIQUE INDEX tokens_by_digest ON tokens (substr(digest, 1, 8));
CREATE UNIQUE INDEX tokens_held_name ON tokens (name) WHERE holds_name = 1;
CREATE INDEX tokens_by_name ON tokens (name);
CREATE INDEX tokens_by_created ON tokens (created);
CREATE INDEX tokens_by_expires ON tokens (coalesce(expires, 9223372036854775807));
CREATE INDEX tokens_by_owner ON tokens (owner) WHERE owner IS NOT NULL;
CREATE INDEX tokens_by_revocation ON tokens (coalesce(change_at, created)) WHERE state = 'revoked';

CREATE TABLE rules (
    id   INTEGER PRIMARY KEY,
    rule TEXT NOT NULL UNIQUE
) STRICT;

-- By accessor, not by row: declared tokens are counted too, and have no row.
CREATE TABLE usage (
    accessor  TEXT NOT NULL,
    rule_id   INTEGER NOT NULL REFERENCES rules (id),
    count     INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    PRIMARY KEY (accessor, rule_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE admins (
    id         TEXT PRIMARY KEY,
    digest     BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    name       TEXT NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    may_grant  TEXT NOT NULL,
    created    INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    revoked    INTEGER
) STRICT;
CREATE UNIQUE INDEX admins_held_name ON admins (name) WHERE revoked IS NULL;
";

/// What a token stands in for, whether it is a bait, and its last use; and what the questions of a review are asked by.
const V2: &str = "
ALTER TABLE tokens ADD COLUMN parent TEXT;
ALTER TABLE tokens ADD COLUMN canary INTEGER NOT NULL DEFAULT 0 CHECK (canary IN (0, 1));
ALTER TABLE tokens ADD COLUMN last_used INTEGER;
ALTER TABLE tokens ADD COLUMN last_source TEXT;
ALTER TABLE usage ADD COLUMN last_source TEXT;
CREATE INDEX tokens_by_parent ON tokens (parent) WHERE parent IS NOT NULL;
CREATE INDEX tokens_by_successor ON tokens (successor) WHERE successor IS NOT NULL;
CREATE INDEX tokens_by_activity ON tokens (coalesce(last_used, created));
CREATE INDEX tokens_by_state ON tokens (state, name) WHERE state <> 'active';
DROP INDEX tokens_by_owner;
CREATE INDEX tokens_by_owner ON tokens (owner, name) WHERE owner IS NOT NULL;
";

/// Which pepper each digest was made with: until now all of them with the one the store was claimed with. The index
/// finds stragglers; its entries are appended, for new tokens have the newest pepper.
const V3: &str = "
ALTER TABLE admins ADD COLUMN pepper_id TEXT NOT NULL DEFAULT '';
UPDATE admins SET pepper_id = coalesce((SELECT lower(substr(hex(value), 1, 8)) FROM meta WHERE key = 'key-check'), '');
CREATE INDEX tokens_by_pepper ON tokens (pepper_id);
";

/// What is left of a token that was taken away and then purged, and which tokens had their end moved nearer: of those it is
/// not known which they were before, but for the rotated ones.
const V4: &str = "
CREATE TABLE tombstones (
    accessor   TEXT PRIMARY KEY,
    digest_key BLOB NOT NULL CHECK (length(digest_key) = 8),
    revoked    INTEGER NOT NULL CHECK (revoked IN (0, 1)),
    at         INTEGER NOT NULL,
    until      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_digest ON tombstones (digest_key);
CREATE INDEX tombstones_by_until ON tombstones (until) WHERE until IS NOT NULL;
ALTER TABLE tokens ADD COLUMN shortened INTEGER NOT NULL DEFAULT 0 CHECK (shortened IN (0, 1));
UPDATE tokens SET shortened = 1 WHERE successor IS NOT NULL;
";

/// Revocations of many that are not in the tokens' rows yet. A binary that did not know them would let those tokens in.
const V5: &str = "
CREATE TABLE bulk_revocations (
    bulk        INTEGER PRIMARY KEY,
    bulk_reason TEXT NOT NULL,
    bulk_by     TEXT NOT NULL,
    bulk_at     INTEGER NOT NULL
) STRICT;
CREATE TABLE pending_revocations (
    token INTEGER PRIMARY KEY REFERENCES tokens (id),
    bulk  INTEGER NOT NULL REFERENCES bulk_revocations (bulk)
) STRICT;
";

/// Whether the file is ours and of a layout this binary knows. Only reads: a file that isn't stays untouched.
pub(super) fn recognize(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let at = |error: rusqlite::Error| match error.sqlite_error_code() {
        // Our own code has not run yet, so a file that can't even be parsed was never ours.
        Some(ErrorCode::NotADatabase) => foreign(path, "it is not an SQLite file"),
        _ => Failure::from(error).at(path),
    };
    let application: i32 = pragma(connection, "application_id").map_err(at)?;
    let version: u32 = pragma(connection, "user_version").map_err(at)?;
    let objects: u32 = connection.query_one("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(at)?;
    // An empty file is one we are about to fill, or did not live to fill.
    let empty = application == 0 && version == 0 && objects == 0;
    if application != APPLICATION_ID && !empty {
        return Err(foreign(path, "it is another program's SQLite file"));
    }
    if version > newest() {
        return Err(StoreError::NewerSchema { path: path.to_owned(), found: version, known: newest() });
    }
    Ok(())
}

/// Brings the layout up to the newest one, each step in one transaction with its version.
pub(super) fn migrate(connection: &Connection) -> Result<(), Failure> {
    migrate_to(connection, newest())
}

/// The same, up to this version.
pub(super) fn migrate_to(connection: &Connection, last: u32) -> Result<(), Failure> {
    let version: u32 = pragma(connection, "user_version")?;
    let pending = (1..=last).zip(MIGRATIONS).skip_while(|(target, _)| *target <= version);
    for (target, migration) in pending {
        connection.execute_batch(&format!(
            "BEGIN EXCLUSIVE; {migration}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {target}; COMMIT;"
        ))?;
    }
    Ok(())
}

/// The layout's version; 0 is a file that holds nothing yet.
pub(super) fn version(connection: &Connection) -> Result<u32, Failure> {
    Ok(pragma(connection, "user_version")?)
}

pub(super) fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

fn foreign(path: &Path, detail: &str) -> StoreError {
    StoreError::Foreign { path: path.to_owned(), detail: detail.to_owned() }
}
