//! What comes before a store is used: its bounds, whose it is, and its newest layout.

use std::path::Path;
use std::time::Duration;

use leastgate_policy::EnvironmentKey;
use rusqlite::Connection;

use super::{connect, meta, schema};
use crate::error::Failure;

/// The bounds of a store.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// How many changes may wait for the writer.
    pub queue: usize,
    /// How many reads may run at once, those apart that find a record by what it is called.
    pub readers: usize,
    /// How long a call waits for its turn and its commit.
    pub patience: Duration,
    /// Largest size of the file, in pages of 4 KiB; `None`: as much as the disk has.
    pub max_pages: Option<u32>,
    /// How many rows a revocation of many writes in one commit. Of more tokens than that a list is kept, which counts
    /// at once, and the rows follow, as many at a time, while no change waits. 0: they wait for an opening that writes
    /// some.
    pub rows_at_once: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { queue: 4096, readers: 4, patience: Duration::from_secs(10), max_pages: None, rows_at_once: 256 }
    }
}

/// Before anything is changed: a release that is older than this one may be the one that goes on with it.
pub(super) fn refuse_others(
    connection: &Connection,
    path: &Path,
    environment: &str,
    key: &EnvironmentKey,
) -> Result<(), Failure> {
    if schema::version(connection)? == 0 {
        return Ok(());
    }
    meta::compare_environment(connection, path, environment)?;
    meta::compare_key(connection, path, key)?;
    meta::refuse_ownerless(connection, path)
}

pub(super) fn prepare(
    connection: &Connection,
    path: &Path,
    environment: &str,
    key: &EnvironmentKey,
    options: SqliteOptions,
) -> Result<(), Failure> {
    connect::make_durable(connection)?;
    if let Some(pages) = options.max_pages {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    schema::migrate(connection)?;
    meta::claim(connection, path, environment, key)
}
