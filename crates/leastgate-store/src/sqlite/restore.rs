//! A restore: the copy is made ready beside the store, then takes its place in one step.
//!
//! SQLite applies a log to whatever file has the log's name. So the present store is folded into one file before the
//! copy gets its name, or, where damage forbids that, there is no store at all until its log has gone: whenever this
//! process is killed, a start finds the old store, the new one, or none, and never one under the other's log.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leastgate_policy::Timestamp;
use rusqlite::{Connection, ErrorCode};

use super::backup::named;
use super::carry::{Carried, Present};
use super::check::{self, Report};
use super::connect::{self, Place, sync_folder};
use super::draft::{Draft, refuse_others_folder};
use super::seal::{Seal, Sealed};
use super::snapshot::{self, COMPANIONS, companion};
use super::{meta, schema};
use crate::archive::{ArchiveError, Owner, Watch};
use crate::error::{Failure, StoreError, from_io};
use crate::restored::{Hand, Restored, Revocations};
use crate::state_dir::StateDir;

/// What a restore may do without.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// The backup's seal.
    pub unsealed: bool,
    /// What was taken away since the backup: it comes back.
    pub forget_revocations: bool,
    /// A present store that can be read whole: what can be read is carried over.
    pub salvage: bool,
}

/// A restore that is ready. Nothing has been changed yet; dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Restore {
    draft: Draft,
    store: PathBuf,
    backup: PathBuf,
    report: Report,
    carried: Option<Carried>,
    counts_uses_anew: bool,
    hand: Hand,
    forgets: bool,
    /// Restores before this one that are not on record yet.
    untold: Vec<Restored>,
}

impl Restore {
    /// Copies the backup into the state directory, checks every record of the copy, and takes from it what was taken away
    /// since.
    ///
    /// # Errors
    /// Whatever [`ArchiveError`] names.
    pub fn prepare(
        dir: &StateDir,
        backup: &Path,
        owner: Owner<'_>,
        options: RestoreOptions,
        hand: Hand,
        watch: Watch<'_>,
    ) -> Result<Self, ArchiveError> {
        let store = dir.store_path();
        refuse_others_folder(&store)?;
        refuse_same(backup, &store)?;
        let present = present(&store, owner)?;
        let may_miss_some = options.salvage || options.forget_revocations;
        if let Some(fault) = present.as_ref().and_then(|present| present.fault.clone()).filter(|_| !may_miss_some) {
            return Err(ArchiveError::Unreadable { path: store, detail: fault });
        }
        Draft::remove_left(&store, Duration::ZERO);
        let draft = Draft::of(&store)?;
        let seal = fill(&draft, backup, owner, options, watch)?;
        let report = verified(&draft, backup, owner, watch)?;
        let report = Report { seal, ..report };
        let end = if options.forget_revocations { "ROLLBACK" } else { "COMMIT" };
        let carried = present.as_ref().map(|present| carry(&draft, present, hand.at, end)).transpose();
        let carried = carried.map_err(|failure| unfit(failure, &store))?;
        let forgets = options.forget_revocations;
        let knows_tokens = !forgets && carried.as_ref().is_some_and(|carried| carried.unknown == 0);
        let anew = carry_uses(&draft, present.as_ref(), knows_tokens, hand.at);
        let counts_uses_anew = anew.map_err(|failure| unfit(failure, &store))?;
        // Without a former store the backup's own mark is all there is: told twice is better than never.
        let untold = match present {
            Some(present) => present.restores,
            None => writer(&draft).and_then(|copy| meta::restores(&copy)).map_err(|failure| failure.at(backup))?,
        };
        if carried.is_some() {
            verified_again(&draft, &store, owner, watch)?;
        }
        let backup = std::path::absolute(backup).unwrap_or_else(|_| backup.to_owned());
        Ok(Self { draft, store, backup, report, carried, counts_uses_anew, hand, forgets, untold })
    }

    /// What is in the backup.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What was carried over, or what was forgotten if that was asked for; `None`: there is no present store.
    #[must_use]
    pub fn carried(&self) -> Option<&Carried> {
        self.carried.as_ref()
    }

    /// Whether not all uses since the backup are known: no token counts as unused before this moment then.
    #[must_use]
    pub fn counts_uses_anew(&self) -> bool {
        self.counts_uses_anew
    }

    /// Puts the copy in the store's place, and answers where the former store is, if there was one: its name with
    /// `.before-restore-` and `stamp`. The copy says that it comes from a restore, until the gateway has told it.
    ///
    /// # Errors
    /// Another program has the store open, or the folder can't be written.
    pub fn finish(mut self, stamp: &str) -> Result<Option<PathBuf>, ArchiveError> {
        let kept = companion(&self.store, &format!(".before-restore-{stamp}"));
        let mark = self.mark(&kept);
        self.untold.push(mark);
        let marked = writer(&self.draft).and_then(|copy| meta::set_restores(&copy, &self.untold));
        marked.map_err(|failure| failure.at(&self.store))?;
        fold(&self.store)?;
        let set_aside = set_aside(&self.store, &kept).map_err(|error| from_io(&kept, &error))?;
        self.draft.replace().map_err(|error| from_io(&self.store, &error))?;
        Ok(set_aside.then_some(kept))
    }
}

impl Restore {
    fn mark(&self, kept: &Path) -> Restored {
        let is_kept =
            self.store.exists() || COMPANIONS.into_iter().any(|suffix| companion(&self.store, suffix).exists());
        let revocations = match &self.carried {
            None => Revocations::Unknown,
            Some(_) if self.forgets => Revocations::Forgotten,
            Some(carried) if carried.is_complete => Revocations::CarriedOver,
            Some(_) => Revocations::CarriedOverInPart,
        };
        let carried = self.carried.clone().unwrap_or_default();
        Restored {
            at: self.hand.at.0,
            by: self.hand.by.clone(),
            backup: self.backup.display().to_string(),
            made: if let Seal::Good(made) = self.report.seal { Some(made.0) } else { None },
            revocations,
            taken: carried.taken(),
            lost: carried.lost + carried.lost_admins,
            unknown: carried.unknown + carried.unknown_admins,
            kept: is_kept.then(|| kept.display().to_string()),
        }
    }
}

fn refuse_same(backup: &Path, store: &Path) -> Result<(), ArchiveError> {
    let of = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    match (of(backup), of(store)) {
        (Ok(one), Ok(other)) if one == other => Err(ArchiveError::Same { path: backup.to_owned() }),
        (Err(error), _) => Err(from_io(backup, &error).into()),
        _ => Ok(()),
    }
}

/// What the present store says, where there is one. A file that is not ours, or another environment's, is not replaced;
/// the pepper does not matter, for accessors stay what they are.
fn present(store: &Path, owner: Owner<'_>) -> Result<Option<Present>, ArchiveError> {
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

/// The backup's bytes as they are judged, or, of a file without a seal, its pages as they are at one moment.
fn fill(
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
    let stopped = |fault: super::seal::Unpack| fault.at(backup, draft.path()).at(backup);
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
fn verified(draft: &Draft, backup: &Path, owner: Owner<'_>, watch: Watch<'_>) -> Result<Report, ArchiveError> {
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
fn verified_again(draft: &Draft, store: &Path, owner: Owner<'_>, watch: Watch<'_>) -> Result<(), ArchiveError> {
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
fn unfit(failure: Failure, store: &Path) -> ArchiveError {
    match failure {
        Failure::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            ArchiveError::Unfit { path: store.to_owned(), detail: error.to_string() }
        }
        failure => failure.at(store).into(),
    }
}

fn writer(draft: &Draft) -> Result<Connection, Failure> {
    let connection = Place::File(draft.path().to_owned()).connect()?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// What it finds is the same whether the end is to keep it or not.
fn carry(draft: &Draft, present: &Present, at: Timestamp, end: &str) -> Result<Carried, Failure> {
    let connection = writer(draft)?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let carried = present.carry_into(&connection, at)?;
    connection.execute_batch(end)?;
    Ok(carried)
}

/// Brings what was used since into the copy, and says there since when that is known. Answers whether it is since now: the
/// present store does not know all of it, or not all tokens.
fn carry_uses(draft: &Draft, present: Option<&Present>, knows_tokens: bool, at: Timestamp) -> Result<bool, Failure> {
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

/// Makes the present store one file, where it can be. Nobody else may have it open: their log would be left behind.
fn fold(store: &Path) -> Result<(), ArchiveError> {
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
fn set_aside(store: &Path, kept: &Path) -> io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use leastgate_policy::{EnvironmentKey, Pepper};

    use super::*;
    use crate::sqlite::{SqliteOptions, SqliteStore};

    /// What a look at the present store did not find: the backup was whole, and whoever tries another one gains nothing.
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
