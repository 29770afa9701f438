//! A backup: the store as it is at one moment, beside a gateway that goes on writing.
//!
//! SQLite's pages are copied (its backup API) rather than its rows (`VACUUM INTO`): that costs a tenth of the time,
//! counts what is left, and does not mend damage on the way, so the check of the copy is a check of the store.

use std::path::Path;
use std::time::Duration;

use leastgate_policy::Timestamp;

use super::check::{self, Report};
use super::draft::{Draft, refuse_others_folder};
use super::seal::{self, Seal};
use super::snapshot::COMPANIONS;
use super::{meta, snapshot};
use crate::archive::{ArchiveError, Owner, Watch};
use crate::error::{StoreError, from_io};

/// So long no backup is at work without a word to its draft.
const ABANDONED: Duration = Duration::from_secs(86_400);

/// Writes a sealed copy of the store at `store` to the new file `to`, mode 0600. Whatever was acknowledged before the
/// call is in it. The caller needs no lock, and the gateway waits for nothing.
///
/// # Errors
/// Whatever [`ArchiveError`] names; then there is no file `to`.
pub fn backup(
    store: &Path,
    to: &Path,
    owner: Owner<'_>,
    now: Timestamp,
    watch: Watch<'_>,
) -> Result<Report, ArchiveError> {
    refuse_target(store, to)?;
    refuse_others_folder(to)?;
    let source = snapshot::open(store)?;
    let compared = meta::compare_environment(&source, store, owner.environment)
        .and_then(|()| meta::compare_key(&source, store, owner.key));
    compared.map_err(|failure| failure.at(store))?;
    Draft::remove_left(to, ABANDONED);
    let draft = Draft::of(to)?;
    draft.copy(&source, watch).map_err(|stop| whose(stop.at(to), store))?;
    // The gateway's log can begin anew from here on.
    drop(source);
    let report = check::check(draft.path(), Some(owner), watch).map_err(|error| named(error, draft.path(), store))?;
    if !report.is_fine() {
        return Err(ArchiveError::Faulty { path: store.to_owned(), report: Box::new(report) });
    }
    seal::seal(draft.path(), owner.key, now, watch).map_err(|fault| fault.at(to, to).at(to))?;
    draft.place_new().map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => ArchiveError::Exists { path: to.to_owned() },
        _ => from_io(to, &error).into(),
    })?;
    Ok(Report { seal: Seal::Good(now), ..report })
}

fn refuse_target(store: &Path, to: &Path) -> Result<(), ArchiveError> {
    let path = to.to_owned();
    if to.file_name().is_none() {
        return Err(from_io(to, &std::io::ErrorKind::IsADirectory.into()).into());
    }
    // Under such a name SQLite would take the backup for a part of the store.
    let is_companion = COMPANIONS.iter().any(|suffix| is_same_name(to, &snapshot::companion(store, suffix)));
    let is_ours = ["lock", "admin.sock"].iter().any(|name| is_same_name(to, &store.with_file_name(name)));
    if is_companion || is_ours {
        return Err(ArchiveError::Reserved { path });
    }
    match std::fs::symlink_metadata(to) {
        Ok(_) => Err(ArchiveError::Exists { path }),
        Err(_) => Ok(()),
    }
}

/// Whether two paths are one name in one folder, however they are written.
fn is_same_name(one: &Path, other: &Path) -> bool {
    let folder = |path: &Path| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        parent.canonicalize().ok()
    };
    one.file_name() == other.file_name() && folder(one) == folder(other)
}

/// A page that can't be read is a page of the store, whatever was being written at the time.
fn whose(error: ArchiveError, store: &Path) -> ArchiveError {
    match error {
        ArchiveError::Store(StoreError::Corrupt { detail, .. }) => {
            StoreError::Corrupt { path: store.to_owned(), detail }.into()
        }
        ArchiveError::Store(StoreError::Busy { .. }) => StoreError::Busy { path: store.to_owned() }.into(),
        error => error,
    }
}

/// What is said of a draft, said of the file that people know.
pub(super) fn named(error: ArchiveError, draft: &Path, known: &Path) -> ArchiveError {
    let ArchiveError::Store(mut error) = error else { return error };
    match &mut error {
        StoreError::DiskFull { path }
        | StoreError::ReadOnly { path }
        | StoreError::Busy { path }
        | StoreError::Corrupt { path, .. }
        | StoreError::Foreign { path, .. }
        | StoreError::NewerSchema { path, .. }
        | StoreError::UnknownObject { path, .. }
        | StoreError::WrongPepper { path }
        | StoreError::OtherEnvironment { path, .. }
        | StoreError::Io { path, .. }
            if path == draft =>
        {
            known.clone_into(path);
        }
        _ => {}
    }
    error.into()
}
