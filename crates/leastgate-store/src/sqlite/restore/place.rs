//! The step in which the copy takes the store's place.
//!
//! SQLite applies a log to whatever file has the log's name. So the present store is folded into one file before the
//! copy gets its name, or, where damage forbids that, there is no store at all until its log has gone: whenever this
//! process is killed, a start finds the old store, the new one, or none, and never one under the other's log.

use std::fs;
use std::io;
use std::path::Path;

use crate::archive::ArchiveError;
use crate::error::{Failure, StoreError};
use crate::sqlite::connect::{self, Place, sync_folder};
use crate::sqlite::snapshot::{COMPANIONS, companion};

/// Makes the present store one file, where it can be. Nobody else may have it open: their log would be left behind.
pub(super) fn fold(store: &Path) -> Result<(), ArchiveError> {
    if fs::metadata(store).map_or(0, |metadata| metadata.len()) == 0 {
        return Ok(());
    }
    let folded = (|| -> Result<(), Failure> {
        let connection = Place::File(store.to_owned()).connect()?;
        connect::keep_log_on_close(&connection, true)?;
        connection.query_one("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        let mode: String = connection.query_one("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
        if mode == "delete" { Ok(()) } else { Err(StoreError::Busy { path: store.to_owned() }.into()) }
    })();
    match folded.map_err(|failure| failure.at(store)) {
        // It is set aside with its log as they are.
        Ok(()) | Err(StoreError::Corrupt { .. } | StoreError::Foreign { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives the present store the name `kept`, with what is left of its companions; says whether there was anything.
///
/// A folded store keeps its own name too, until the copy takes it over: there is no moment without a store.
pub(super) fn set_aside(store: &Path, kept: &Path) -> io::Result<bool> {
    let companions: Vec<_> = COMPANIONS.into_iter().filter(|suffix| companion(store, suffix).exists()).collect();
    let is_store = store.exists();
    if is_store {
        fs::hard_link(store, kept)?;
    }
    for suffix in &companions {
        fs::hard_link(companion(store, suffix), companion(kept, suffix))?;
    }
    sync_folder(store)?;
    if companions.is_empty() {
        return Ok(is_store);
    }
    // Without a store a start makes an empty one, which lets nobody in; under another's log it would let anybody.
    if is_store {
        fs::remove_file(store)?;
        sync_folder(store)?;
    }
    for suffix in &companions {
        fs::remove_file(companion(store, suffix))?;
    }
    sync_folder(store)?;
    Ok(true)
}
