//! What can go wrong between a record and its disk: each message says what, and what to do about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use leastgate_policy::Accessor;

/// Why the store did not do what it was asked to. Cloneable, because one failed commit answers every change
/// that was grouped into it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room for the change; nothing of it was kept.
    #[error("no space left for {}: nothing was changed; free some space on its file system and try again", .path.display())]
    DiskFull {
        /// The store's file.
        path: PathBuf,
    },
    /// The file or its file system can't be written.
    #[error("{} can't be written: its file system is read-only, or the file or its folder belongs to another user; \
             make both writable for the user that runs leastgate", .path.display())]
    ReadOnly {
        /// The store's file.
        path: PathBuf,
    },
    /// Another process holds the file's lock.
    #[error("{} is locked by another process, a backup or a database browser: end it and try again", .path.display())]
    Busy {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is ours and damaged.
    #[error("{} is damaged ({detail}): stop leastgate and put the last backup in its place with `leastgate store restore`",
            .path.display())]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What SQLite or the decoder says.
        detail: String,
    },
    /// The file is something else.
    #[error("{} is not a leastgate store ({detail}): it was left untouched; move it away, or set state_dir to another folder",
            .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How it was recognized.
        detail: String,
    },
    /// A newer release has written the file.
    #[error("{} has schema {found}, this leastgate knows up to {known}: run the newer leastgate that wrote it, or restore \
             the backup made before the upgrade", .path.display())]
    NewerSchema {
        /// The store's file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest one this binary knows.
        known: u32,
    },
    /// Somebody put something into the file that runs or is read in the place of what is ours.
    #[error("{} has the {kind} `{name}`, which leastgate did not make and which could undo what is written, revocations too: \
             find out who put it there and what `leastgate store check` says; then drop it, or put the last backup in the \
             place of the store with `leastgate store restore`", .path.display())]
    UnknownObject {
        /// The store's file.
        path: PathBuf,
        /// `trigger` or `view`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The records were made under another pepper.
    #[error("the configured pepper is not the one {} was made with, so no token of it could be recognized: put the former \
             pepper back, as pepper.current or, where it is being replaced, as pepper.previous; or set state_dir to a new \
             folder and issue new tokens", .path.display())]
    WrongPepper {
        /// The store's file.
        path: PathBuf,
    },
    /// The records belong to another environment.
    #[error("{} belongs to environment `{stored}`, this gateway serves `{configured}`: give each environment a state_dir of \
             its own", .path.display())]
    OtherEnvironment {
        /// The store's file.
        path: PathBuf,
        /// The environment it was made for.
        stored: String,
        /// The environment that was asked for.
        configured: String,
    },
    /// A living record has the name.
    #[error("the name `{name}` is held by {holder}: revoke that one first, or choose another name")]
    NameTaken {
        /// The name.
        name: String,
        /// The living record that holds it.
        holder: String,
    },
    /// The accessor, id or digest is in use: draw again.
    #[error("this accessor or digest is already in the store: draw a new one")]
    AlreadyDrawn,
    /// No such record.
    #[error("there is no {kind} `{wanted}`: list them to see what there is")]
    NotFound {
        /// `token` or `admin`.
        kind: &'static str,
        /// The name or accessor that was asked for.
        wanted: String,
    },
    /// The record changed since it was read.
    #[error("{accessor} was changed meanwhile (version {actual}, not {expected}): read it again and repeat the change")]
    Conflict {
        /// The record.
        accessor: Accessor,
        /// The version the change was made for.
        expected: u64,
        /// The version in the store.
        actual: u64,
    },
    /// A revoked record can only be read.
    #[error("{accessor} is revoked, which is final: create another token")]
    Revoked {
        /// The record.
        accessor: Accessor,
    },
    /// The token can't hand its name over.
    #[error("{accessor} can't be rotated: {why}")]
    NotRotatable {
        /// The record.
        accessor: Accessor,
        /// Why, and what to do.
        why: &'static str,
    },
    /// The cursor is not one this list gave out.
    #[error("this cursor is not of this list: start again without one")]
    BadCursor,
    /// The store did not answer in time. What takes access away, or was to be closed, is done all the same.
    #[error(
        "the store did not answer within {waited:?}: what takes access away may still be made; look before repeating it"
    )]
    Timeout {
        /// How long the caller waited.
        waited: Duration,
    },
    /// What gives access was not made in time, and is not made any more.
    #[error(
        "the store did not get to the change within {waited:?}, and it was withdrawn: nothing was changed; try again"
    )]
    Withdrawn {
        /// How long the caller waited.
        waited: Duration,
    },
    /// What gives access was being written when the caller's time was over, or when the store failed: whether it is kept,
    /// only the store's next change knows. It is to be taken back then ([`crate::Undo`]).
    #[error(
        "{why}: the change is not in force, and is taken back if it was written after all; look at it before repeating it"
    )]
    InDoubt {
        /// What happened.
        why: String,
        /// The new records that it was about.
        made: Vec<Accessor>,
    },
    /// More waits for the store than its bounds allow; this was not taken.
    #[error("too much waits for the store already: nothing was changed; try again")]
    Overloaded,
    /// The store is shut down; the change was not taken.
    #[error("the store is closed")]
    Closed,
    /// The system gave no random bytes.
    #[error("the system's random generator failed ({detail}): no secret was drawn")]
    NoRandomness {
        /// What the system says.
        detail: String,
    },
    /// Anything else the system says about the file.
    #[error("{}: {detail}: check the disk, the folder and its permissions", .path.display())]
    Io {
        /// The store's file.
        path: PathBuf,
        /// What the system or SQLite says.
        detail: String,
    },
}

impl StoreError {
    /// The same, naming the new records it is about where it is not known whether they are kept.
    pub(crate) fn about(self, new: impl FnOnce() -> Vec<Accessor>) -> Self {
        match self {
            Self::InDoubt { why, .. } => Self::InDoubt { why, made: new() },
            other => other,
        }
    }
}

/// A failure inside a job, before the store's path is known: what SQLite says, or what a rule says.
#[derive(Debug)]
pub(crate) enum Failure {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    /// The typed error, told about the file at `path`.
    pub(crate) fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Sqlite(error) => from_sqlite(path.to_owned(), &error),
        }
    }
}

/// What an error of the system about the file at `path` means.
pub(crate) fn from_io(path: &Path, error: &std::io::Error) -> StoreError {
    use std::io::ErrorKind;
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::DiskFull { path },
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => StoreError::ReadOnly { path },
        _ => StoreError::Io { path, detail: error.to_string() },
    }
}

fn from_sqlite(path: PathBuf, error: &rusqlite::Error) -> StoreError {
    use rusqlite::{ErrorCode, ffi};
    let detail = error.to_string();
    let Some(code) = error.sqlite_error_code() else {
        // A value that doesn't decode: only this code writes the file, so its content is damaged.
        return StoreError::Corrupt { path, detail };
    };
    // A log index that can't grow is how a full disk shows at a start, and SQLite calls that an I/O error.
    let cannot_grow = error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_SHMSIZE);
    match code {
        _ if cannot_grow => StoreError::DiskFull { path },
        ErrorCode::DiskFull => StoreError::DiskFull { path },
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StoreError::ReadOnly { path },
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy { path },
        ErrorCode::DatabaseCorrupt => StoreError::Corrupt { path, detail },
        ErrorCode::NotADatabase => StoreError::Foreign { path, detail },
        _ => StoreError::Io { path, detail },
    }
}
