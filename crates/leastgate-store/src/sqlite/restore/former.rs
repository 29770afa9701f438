//! The store that is to be replaced: whether it may be, and what it says.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::Connection;

use crate::archive::{ArchiveError, Owner};
use crate::error::{Failure, StoreError, from_io};
use crate::sqlite::carry::Present;
use crate::sqlite::{check, meta, snapshot};

pub(super) fn refuse_same(backup: &Path, store: &Path) -> Result<(), ArchiveError> {
    let of = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    match (of(backup), of(store)) {
        (Ok(one), Ok(other)) if one == other => Err(ArchiveError::Same { path: backup.to_owned() }),
        (Err(error), _) => Err(from_io(backup, &error).into()),
        _ => Ok(()),
    }
}

/// What the present store says, where there is one. A file that is not ours, or another environment's, is not replaced;
/// the pepper does not matter, for accessors stay what they are.
pub(super) fn present(store: &Path, owner: Owner<'_>) -> Result<Option<Present>, ArchiveError> {
    if !is_there(store)? {
        return Ok(None);
    }
    match snapshot::open(store) {
        Ok(connection) => {
            is_ours(&connection, store, owner)?;
            Ok(Some(Present::read(connection, store)))
        }
        Err(error @ (StoreError::Corrupt { .. } | StoreError::NewerSchema { .. })) => {
            Ok(Some(Present::unreadable(error.to_string())))
        }
        // A start that was killed before it filled its file.
        Err(StoreError::Foreign { .. }) if fs::metadata(store).is_ok_and(|metadata| metadata.len() == 0) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_ours(connection: &Connection, store: &Path, owner: Owner<'_>) -> Result<(), ArchiveError> {
    match meta::compare_environment(connection, store, owner.environment) {
        Err(Failure::Sqlite(error)) if check::is_damage(&error) => Ok(()),
        compared => compared.map_err(|failure| failure.at(store).into()),
    }
}

fn is_there(path: &Path) -> Result<bool, ArchiveError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(from_io(path, &error).into()),
    }
}
