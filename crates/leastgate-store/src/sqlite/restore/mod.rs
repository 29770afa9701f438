//! A restore: the copy is made ready beside the store, then takes its place in one step.

mod copy;
mod former;
mod place;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::copy::{carry, carry_uses, fill, unfit, verified, verified_again, writer};
use self::former::{present, refuse_empty, refuse_none, refuse_same, set_aside_name};
use self::place::{fold, set_aside};
use super::carry::Carried;
use super::check::Report;
use super::draft::{Draft, refuse_others_folder};
use super::meta;
use super::seal::Seal;
use super::snapshot::{COMPANIONS, companion};
use crate::archive::{ArchiveError, Owner, Watch};
use crate::error::from_io;
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
    /// Copies the backup into the state directory, checks every record of the copy, and takes from it what was taken
    /// away since.
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
        let forgets = options.forget_revocations;
        if !forgets {
            refuse_none(&store, present.as_ref())?;
        }
        let may_miss_some = options.salvage || forgets;
        if let Some(fault) = present.as_ref().and_then(|present| present.fault.clone()).filter(|_| !may_miss_some) {
            return Err(ArchiveError::Unreadable { path: store, detail: fault });
        }
        Draft::remove_left(&store, Duration::ZERO);
        let draft = Draft::of(&store)?;
        let seal = fill(&draft, backup, owner, options, watch)?;
        let report = verified(&draft, backup, owner, watch)?;
        let report = Report { seal, ..report };
        let end = if forgets { "ROLLBACK" } else { "COMMIT" };
        let carried = present.as_ref().map(|present| carry(&draft, present, hand.at, end)).transpose();
        let carried = carried.map_err(|failure| unfit(failure, &store))?;
        if !forgets {
            refuse_empty(&store, present.as_ref(), carried.as_ref())?;
        }
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
        let kept = set_aside_name(&self.store, stamp);
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
