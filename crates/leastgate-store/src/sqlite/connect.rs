//! Opening connections: the file's mode, and what SQLite is told about durability.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Failure, StoreError, from_io};

/// How long SQLite itself waits for a lock: a backup holds one for moments.
const BUSY: Duration = Duration::from_secs(2);

/// Where the records live.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In a file.
    File(PathBuf),
    /// In this process: SQLite's own in-memory file system, which several connections can share.
    Memory { uri: String },
}

impl Place {
    /// A place in memory that no other store shares.
    pub(super) fn memory() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::Memory { uri: format!("file:/leastgate-{number}?vfs=memdb") }
    }

    /// The path errors name.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Memory { .. } => Path::new("the store in memory"),
        }
    }

    pub(super) fn connect(&self) -> Result<Connection, StoreError> {
        self.open().map_err(|failure| failure.at(self.path()))
    }

    pub(super) fn connect_reader(&self) -> Result<Connection, StoreError> {
        // Read-write for SQLite, which must write its shared-memory index; `query_only` is what binds us.
        let connection = self.connect()?;
        let set = connection.pragma_update(None, "query_only", true);
        set.map_err(|error| Failure::from(error).at(self.path()))?;
        Ok(connection)
    }

    fn open(&self) -> Result<Connection, Failure> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let connection = match self {
            Self::File(path) => Connection::open_with_flags(path, flags)?,
            Self::Memory { uri } => {
                let flags = flags | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_CREATE;
                Connection::open_with_flags(uri, flags)?
            }
        };
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(64);
        // What a tampered file could make SQL run, it may not.
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    }
}

/// Makes the file, empty and for its owner only, where there is none. SQLite gives its companions (`-wal`,
/// `-shm`) the same mode.
pub(super) fn create_file(path: &Path) -> Result<(), StoreError> {
    let io = |error: std::io::Error| from_io(path, &error);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file.sync_all().and_then(|()| sync_folder(path)).map_err(io),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io(error)),
    }
}

/// A file's name is as durable as its folder.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Takes from a file that is ours what others may do with it: a restored copy often comes with more.
pub(super) fn restrict_file(path: &Path) -> Result<(), StoreError> {
    let io = |error: std::io::Error| from_io(path, &error);
    let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o7777;
    if mode == 0o600 {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io)
}

/// Whether closing leaves the write-ahead log as it is. So it must be until the file is known to be ours: the
/// last connection to close otherwise folds the log into the file, another program's too.
pub(super) fn keep_log_on_close(connection: &Connection, keep: bool) -> Result<(), Failure> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)?;
    Ok(())
}

/// Every commit is synced before it is acknowledged (`FULL`), and readers never wait for the writer (`WAL`).
pub(super) fn make_durable(connection: &Connection) -> Result<(), Failure> {
    // Memory keeps its own journal mode and says so: nothing there outlives the process anyway.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    Ok(())
}
