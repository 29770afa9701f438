//! The copy that is to take the store's place: filled from the backup, judged, and narrowed by what the present store
//! says.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use leastgate_policy::Timestamp;
use rusqlite::{Connection, ErrorCode};

use super::RestoreOptions;
use crate::archive::{ArchiveError, Owner, Watch};
use crate::error::{Failure, from_io};
use crate::sqlite::backup::named;
use crate::sqlite::carry::{Carried, Present};
use crate::sqlite::check::{self, Report};
use crate::sqlite::connect::Place;
use crate::sqlite::draft::Draft;
use crate::sqlite::seal::{Seal, Sealed, Unpack};
use crate::sqlite::{meta, schema, snapshot};

/// The backup's bytes as they are judged, or, of a file without a seal, its pages as they are at one moment.
pub(super) fn fill(
    draft: &Draft,
    backup: &Path,
    owner: Owner<'_>,
    options: RestoreOptions,
    watch: Watch<'_>,
) -> Result<Seal, ArchiveError> {
    let source = snapshot::open(backup)?;
    // Of another environment or pepper the seal can't be good, and that is the lesser part of what is wrong.
    meta::compare_environment(&source, backup, owner.environment)
        .and_then(|()| meta::compare_key(&source, backup, owner.key))
        .map_err(|failure| failure.at(backup))?;
    let Some(sealed) = Sealed::open(backup).map_err(|error| from_io(backup, &error))? else {
        if !options.unsealed {
            return Err(ArchiveError::Unsealed { path: backup.to_owned() });
        }
        draft.copy(&source, watch).map_err(|stop| stop.at(backup))?;
        return Ok(Seal::None);
    };
    drop(source);
    let stopped = |fault: Unpack| fault.at(backup, draft.path()).at(backup);
    let file = OpenOptions::new().write(true).open(draft.path()).map_err(|error| from_io(draft.path(), &error))?;
    let mut out = BufWriter::new(file);
    let seal = sealed.unpack(owner.key, &mut out, watch).map_err(stopped)?;
    out.flush().map_err(|error| from_io(draft.path(), &error))?;
    match seal {
        Seal::Good(_) => Ok(seal),
        _ => Err(ArchiveError::BrokenSeal { path: backup.to_owned() }),
    }
}

/// Brings the copy to the newest layout and checks it.
pub(super) fn verified(
    draft: &Draft,
    backup: &Path,
    owner: Owner<'_>,
    watch: Watch<'_>,
) -> Result<Report, ArchiveError> {
    let named = |error: ArchiveError| named(error, draft.path(), backup);
    let found = snapshot::open(draft.path()).and_then(|at| schema::version(&at).map_err(|f| f.at(draft.path())));
    let found = found.map_err(|error| named(error.into()))?;
    let migrated = writer(draft).and_then(|connection| schema::migrate(&connection));
    migrated.map_err(|failure| named(failure.at(draft.path()).into()))?;
    let report = check::check(draft.path(), Some(owner), watch).map_err(named)?;
    if !report.is_fine() {
        return Err(ArchiveError::Faulty { path: backup.to_owned(), report: Box::new(report) });
    }
    Ok(Report { schema: found, ..report })
}

/// The backup was whole before: what is not now came from the present store.
pub(super) fn verified_again(
    draft: &Draft,
    store: &Path,
    owner: Owner<'_>,
    watch: Watch<'_>,
) -> Result<(), ArchiveError> {
    match verified(draft, store, owner, watch) {
        Err(ArchiveError::Faulty { path, report }) => {
            let detail = report
                .problems
                .first()
                .map_or_else(String::new, |problem| format!("{}: {}", problem.record, problem.what));
            Err(ArchiveError::Unfit { path, detail })
        }
        verified => verified.map(drop),
    }
}

/// What the copy's own rules do not admit.
pub(super) fn unfit(failure: Failure, store: &Path) -> ArchiveError {
    match failure {
        Failure::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            ArchiveError::Unfit { path: store.to_owned(), detail: error.to_string() }
        }
        failure => failure.at(store).into(),
    }
}

pub(super) fn writer(draft: &Draft) -> Result<Connection, Failure> {
    let connection = Place::File(draft.path().to_owned()).connect()?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// What it finds is the same whether the end is to keep it or not.
pub(super) fn carry(draft: &Draft, present: &Present, at: Timestamp, end: &str) -> Result<Carried, Failure> {
    let connection = writer(draft)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let carried = present.carry_into(&connection, at)?;
    connection.execute_batch(end)?;
    Ok(carried)
}

/// Brings what was used since into the copy, and says there since when that is known. Answers whether it is since now:
/// the present store does not know all of it, or not all tokens.
pub(super) fn carry_uses(
    draft: &Draft,
    present: Option<&Present>,
    knows_tokens: bool,
    at: Timestamp,
) -> Result<bool, Failure> {
    let copy = writer(draft)?;
    copy.execute_batch("BEGIN IMMEDIATE")?;
    let mut known = meta::use_known_since(&copy)?;
    if let Some(present) = present {
        present.carry_uses_into(&copy)?;
        known = known.max(present.use_known_since);
    }
    let is_anew = !knows_tokens || !present.is_some_and(Present::knows_all_uses);
    if let Some(since) = if is_anew { Some(at) } else { known } {
        meta::set_use_known_since(&copy, since)?;
    }
    copy.execute_batch("COMMIT")?;
    Ok(is_anew)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use leastgate_policy::{EnvironmentKey, Pepper};

    use super::*;
    use crate::sqlite::{SqliteOptions, SqliteStore};

    /// What a look at the present store did not find: the backup was whole, and whoever tries another one gains
    /// nothing.
    #[test]
    fn what_is_not_whole_after_carrying_is_the_present_stores_fault() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.db");
        let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "prod");
        let owner = Owner { environment: "prod", key: &key };
        let draft = Draft::of(&store).unwrap();
        drop(SqliteStore::open(draft.path(), "prod", &key, SqliteOptions::default()).unwrap());
        let again = |draft: &Draft| verified_again(draft, &store, owner, &mut |_| ControlFlow::Continue(()));
        again(&draft).unwrap();
        let copy = writer(&draft).unwrap();
        copy.execute_batch("INSERT INTO tombstones VALUES ('no accessor', zeroblob(8), 1, 1, NULL)").unwrap();
        let refused = copy.execute_batch("INSERT INTO tombstones VALUES ('A', zeroblob(7), 1, 1, NULL)").unwrap_err();
        for error in [again(&draft).unwrap_err(), unfit(refused.into(), &store)] {
            let said = error.to_string();
            assert!(matches!(&error, ArchiveError::Unfit { path, .. } if *path == store), "{said}");
            let words = ["present store", "the backup is whole", "--forget-revocations"];
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    }
}
