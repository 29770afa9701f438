//! The store that is to be replaced: whether it may be, and what it says.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::archive::{ArchiveError, Owner};
use crate::error::{Failure, StoreError, from_io};
use crate::sqlite::carry::{Carried, Present};
use crate::sqlite::snapshot::{COMPANIONS, companion};
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

/// Without a word of a present store all that was revoked since lives again: somebody must have said that it may.
pub(super) fn refuse_none(store: &Path, present: Option<&Present>) -> Result<(), ArchiveError> {
    if present.is_some() {
        return Ok(());
    }
    Err(nothing_known(store, format!("there is no present store {}", store.display())))
}

/// As little is known from a store that a start has made since.
pub(super) fn refuse_empty(
    store: &Path,
    present: Option<&Present>,
    carried: Option<&Carried>,
) -> Result<(), ArchiveError> {
    let is_lost = carried.is_some_and(|carried| carried.unknown + carried.unknown_admins > 0);
    if !is_lost || !present.is_some_and(Present::is_empty) {
        return Ok(());
    }
    Err(nothing_known(store, format!("the present store {} holds nothing", store.display())))
}

fn nothing_known(store: &Path, why: String) -> ArchiveError {
    // SQLite would apply a log to whatever store is put before it.
    let is_log = |suffix: &&str| fs::metadata(companion(store, suffix)).is_ok_and(|metadata| metadata.len() > 0);
    let has_log = ["-wal", "-journal"].iter().any(is_log);
    let former = if has_log { None } else { youngest_former(store) };
    ArchiveError::NothingKnown { path: store.to_owned(), why, former }
}

/// Their names end with the moment of the restore, in digits that sort by time.
fn youngest_former(store: &Path) -> Option<PathBuf> {
    let begin = set_aside_name(store, "");
    let begin = begin.file_name()?.to_str()?;
    let is_former = |name: &str| name.starts_with(begin) && !COMPANIONS.iter().any(|suffix| name.ends_with(suffix));
    let names = fs::read_dir(store.parent()?).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| is_former(name)).max().map(|name| store.with_file_name(name))
}

/// What the former store is called from a restore on.
pub(super) fn set_aside_name(store: &Path, stamp: &str) -> PathBuf {
    companion(store, &format!(".before-restore-{stamp}"))
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
