//! One commit for a group of changes, and what one that has failed leaves behind.
//!
//! SQLite writes the whole of a commit into its log, the mark that makes it one included, and syncs then. Where that fails it
//! has failed for this process, but whoever opens the file next finds it whole in the log, and makes it count. So one that has
//! failed is not known to be undone before another one has been written over it: that is tried at once, and again with each
//! commit that follows. Until then what gives access is in doubt.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::{Change, Kept};
use crate::error::{Failure, StoreError};
use crate::sqlite::fate::Fate;

/// Makes commits, of the writer's changes only.
pub(super) struct Commits<'a> {
    connection: &'a Connection,
    path: &'a Path,
    /// The log may hold a commit that has failed.
    is_leftover: bool,
}

/// Why no change of a group was made.
#[derive(Debug)]
pub(super) enum Failed {
    /// None of them is there at the next start either.
    Undone(StoreError),
    /// The next start may find all of them.
    InDoubt(StoreError),
}

/// How far a transaction came.
#[derive(Debug)]
enum Outcome {
    Committed,
    /// Somebody has left whose change is in it.
    SomebodyLeft,
    /// It was being committed.
    Failed(Failure),
}

impl<'a> Commits<'a> {
    pub(super) fn new(connection: &'a Connection, path: &'a Path) -> Self {
        Self { connection, path, is_leftover: false }
    }

    /// All changes of the group in one transaction, but for those whose callers have left; on an error none of them is made.
    pub(super) fn make(&mut self, group: &mut Vec<Box<dyn Change>>) -> Result<(), Failed> {
        loop {
            group.retain(|change| !change.fate().is_some_and(Fate::is_left));
            if group.is_empty() {
                return Ok(());
            }
            let outcome = self.attempt(group);
            if !matches!(outcome, Ok(Outcome::Committed)) {
                self.roll_back();
            }
            let failed = match outcome {
                Ok(Outcome::Committed) => {
                    self.is_leftover = false;
                    return Ok(());
                }
                Ok(Outcome::SomebodyLeft) => None,
                Ok(Outcome::Failed(failure)) => {
                    self.is_leftover |= may_be_in_log(&failure);
                    let error = failure.at(self.path);
                    // Who leaves meanwhile is in doubt still.
                    if self.is_leftover && !self.write_over() {
                        return Err(Failed::InDoubt(error));
                    }
                    Some(error)
                }
                Err(failure) => Some(failure.at(self.path)),
            };
            group.retain(|change| change.fate().is_none_or(Fate::end_commit));
            if let Some(error) = failed {
                return Err(Failed::Undone(error));
            }
            // Each time somebody has left there is one less.
        }
    }

    /// To be called when no change follows.
    pub(super) fn close(&mut self) {
        if self.is_leftover {
            self.write_over();
        }
    }

    fn attempt(&self, group: &mut [Box<dyn Change>]) -> Result<Outcome, Failure> {
        self.begin()?;
        for change in &mut *group {
            self.connection.prepare_cached("SAVEPOINT change")?.execute([])?;
            if change.attempt(self.connection, self.path) == Kept::No {
                // Fails when the error has already undone the whole transaction, which then fails as a whole.
                self.connection.prepare_cached("ROLLBACK TO change")?.execute([])?;
            }
            self.connection.prepare_cached("RELEASE change")?.execute([])?;
        }
        if !group.iter().all(|change| change.fate().is_none_or(Fate::begin_commit)) {
            return Ok(Outcome::SomebodyLeft);
        }
        Ok(self.connection.execute_batch("COMMIT").map_or_else(|e| Outcome::Failed(e.into()), |()| Outcome::Committed))
    }

    /// A transaction whose commit writes to the log for certain if it has to.
    fn begin(&self) -> Result<(), Failure> {
        // IMMEDIATE: a transaction that begins as a reader can be refused when it comes to write.
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        if self.is_leftover {
            // Any write would do. This one changes nothing and asks for no table.
            let version: i64 = self.connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            self.connection.pragma_update(None, "user_version", version)?;
        }
        Ok(())
    }

    /// Whether nothing is left over.
    fn write_over(&mut self) -> bool {
        let done = self.begin().and_then(|()| Ok(self.connection.execute_batch("COMMIT")?));
        self.roll_back();
        self.is_leftover = done.is_err();
        !self.is_leftover
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // SQLite has often rolled back by itself; if this fails too, the next BEGIN says so.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// Not where the disk is full, which is found out before the mark is written, nor behind a lock, where nothing is.
fn may_be_in_log(failure: &Failure) -> bool {
    let Failure::Sqlite(error) = failure else { return false };
    !matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy))
}
