//! Looking at a store that may be in use, and copying it as it is at one moment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::connect::{self, Place};
use super::schema;
use crate::archive::{Step, Stop, Watch, tell};
use crate::error::{Failure, StoreError, from_io};

/// What SQLite keeps beside a file, and applies to whatever has the file's name when it is opened.
pub(super) const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Copied at a time: some milliseconds of work between two looks at whether to go on.
const PAGES: i32 = 256;

/// The name of a file's companion.
pub(super) fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Opens a file that must be a store, to read it as it is at this moment: what is committed later is not seen, and
/// nobody has to wait. Neither the file nor its log is changed.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let metadata = std::fs::metadata(path).map_err(|error| from_io(path, &error))?;
    if !metadata.is_file() {
        // Opening a pipe would wait for whoever writes to it.
        return Err(StoreError::Foreign { path: path.to_owned(), detail: "it is not a file".to_owned() });
    }
    let log = std::fs::metadata(companion(path, "-wal"));
    let connection = Place::File(path.to_owned()).connect_reader()?;
    let at = |failure: Failure| failure.at(path);
    // A log that is there is the owner's to fold in; without one there is nothing to fold, and closing tidies up.
    connect::keep_log_on_close(&connection, log.is_ok_and(|log| log.len() > 0)).map_err(at)?;
    connection.execute_batch("BEGIN").map_err(|error| at(error.into()))?;
    schema::recognize(&connection, path)?;
    if schema::version(&connection).map_err(at)? == 0 {
        return Err(StoreError::Foreign { path: path.to_owned(), detail: "it is empty".to_owned() });
    }
    Ok(connection)
}

/// Copies all pages. The reading transaction of `from` is what keeps them of one moment: without it, each commit of
/// another process would have SQLite begin again, and beside a busy gateway it would never end.
pub(super) fn copy(from: &Connection, to: &mut Connection, watch: Watch<'_>) -> Result<(), Stop> {
    let pages = |count: i32| u64::try_from(count).unwrap_or(0);
    let backup = Backup::new(from, to)?;
    loop {
        let result = backup.step(PAGES)?;
        let now = backup.progress();
        tell(watch, Step::Copy, pages(now.pagecount - now.remaining), pages(now.pagecount))?;
        match result {
            StepResult::Done => return Ok(()),
            StepResult::Busy | StepResult::Locked => return Err(busy().into()),
            _ => {}
        }
    }
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)
}

/// A copy of an older layout brought up to this one's, in a file of SQLite's own that ends with the connection;
/// `None` where it is of this layout already.
pub(super) fn at_newest(connection: &Connection, watch: Watch<'_>) -> Result<Option<Connection>, Stop> {
    if schema::version(connection)? == schema::newest() {
        return Ok(None);
    }
    let mut fresh = Connection::open("")?;
    // The copy has the triggers and views of whoever made the file.
    fresh.pragma_update(None, "trusted_schema", false)?;
    copy(connection, &mut fresh, watch)?;
    schema::migrate(&fresh)?;
    Ok(Some(fresh))
}
