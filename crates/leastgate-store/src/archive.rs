//! Copies of a store: `leastgate store backup|restore|check`.
//!
//! A backup is a store of its own, under a seal: who changes a byte of it without the pepper is found out. A
//! restore puts a copy in the place of the present store and keeps that one beside it; what was taken away since
//! the backup stays taken away. Both check every record first, and a file that is not whole never gets a name
//! that looks as if it were.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use leastgate_policy::EnvironmentKey;

use crate::error::{Failure, StoreError};
pub use crate::sqlite::{Carried, Holdings, Problem, Report, Restore, RestoreOptions, Seal, backup, check};

/// Whose records a file must hold: what the gateway's file says.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The environment.
    pub environment: &'a str,
    /// Its key.
    pub key: &'a EnvironmentKey,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Pages, records or bytes so far.
    pub done: u64,
    /// How many there are; 0 where nobody knows.
    pub total: u64,
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Copies pages.
    Copy,
    /// Has SQLite look at the file's structure.
    Structure,
    /// Reads every record.
    Records,
    /// Computes the seal.
    Seal,
}

/// Is told how far the work is, and may end it.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// Why there is no backup, or no restore. Nothing was changed, unless the message says so.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What is wrong with a store's file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A backup overwrites nothing.
    #[error("{} is there already, and a backup overwrites nothing: name another file, or remove that one", .path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// The name is one that SQLite or the gateway gives a meaning of its own.
    #[error("{} is a name that the gateway uses itself: name another file", .path.display())]
    Reserved {
        /// The name.
        path: PathBuf,
    },
    /// The file does not hold what it should.
    #[error("{} has {} fault(s); the first: {}; `leastgate store check` lists them all", .path.display(), .report.faults,
            .report.problems.first().map_or_else(|| "unknown".to_owned(), ToString::to_string))]
    Faulty {
        /// The file.
        path: PathBuf,
        /// All that was found.
        report: Box<Report>,
    },
    /// The seal is not one that these bytes got under this pepper.
    #[error("the seal of {} does not fit: it was changed after it was written, is damaged, or was made under another pepper; \
             use another backup", .path.display())]
    BrokenSeal {
        /// The file.
        path: PathBuf,
    },
    /// SQLite would read a sealed file together with what lies beside it, which no seal covers.
    #[error("{} is sealed, and {} lies beside it: what is in there would count as if it were in the sealed file, and it may have \
             been put there for that. A backup is one file: move the other away", .path.display(), .companion.display())]
    NotAlone {
        /// The sealed file.
        path: PathBuf,
        /// What lies beside it.
        companion: PathBuf,
    },
    /// There is no seal.
    #[error("{} has no seal: it was not made by `leastgate store backup`, or somebody took the seal away, and nothing shows \
             whether its tokens are as they were; if you trust where it comes from, say --unsealed", .path.display())]
    Unsealed {
        /// The file.
        path: PathBuf,
    },
    /// The backup is the store itself.
    #[error("{} is the present store: name a backup of it", .path.display())]
    Same {
        /// The file.
        path: PathBuf,
    },
    /// Root would write where somebody else can put links in its way.
    #[error("the folder {} belongs to the user with uid {uid}, who could lead what root writes there elsewhere: run this as that \
             user (sudo -u '#{uid}')", .path.display())]
    OthersFolder {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Nothing says what was revoked since the backup.
    #[error("{}, so it can't be known what was revoked since the backup, and all of that would live again. On a new machine that is \
             as it has to be: say --forget-revocations, and look through what lives then{}", .why, hint(.former.as_deref(), .path))]
    NothingKnown {
        /// The present store, if there were one.
        path: PathBuf,
        /// What is there instead.
        why: String,
        /// The youngest of those that were set aside by restores.
        former: Option<PathBuf>,
    },
    /// What was revoked since the backup can't be read, or not all of it.
    #[error("the present store {} can't be read whole ({detail}), so not everything that was revoked since the backup would stay \
             so: --salvage carries over what can be read, --forget-revocations nothing", .path.display())]
    Unreadable {
        /// The present store.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// What the present store says does not go into the backup.
    #[error("what was taken away since the backup can't be carried over, for a fault of the present store {} ({detail}); the \
             backup is whole: `leastgate store check` tells the present store's faults, and --forget-revocations does without \
             it (then revoke again what has to be)", .path.display())]
    Unfit {
        /// The present store.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The watcher ended it.
    #[error("interrupted: nothing was changed")]
    Interrupted,
}

fn hint(former: Option<&Path>, store: &Path) -> String {
    former.map_or_else(String::new, |former| {
        format!(
            ". A former store is {}: if the gateway ran on that one last, put it in the place of {} first, and what was revoked \
             there is carried over",
            former.display(),
            store.display()
        )
    })
}

/// A failure inside the work, before the file's path is known.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Failure),
    Interrupted,
}

impl<T: Into<Failure>> From<T> for Stop {
    fn from(failure: T) -> Self {
        Self::Failed(failure.into())
    }
}

impl Stop {
    pub(crate) fn at(self, path: &Path) -> ArchiveError {
        match self {
            Self::Failed(failure) => failure.at(path).into(),
            Self::Interrupted => ArchiveError::Interrupted,
        }
    }
}

/// Tells `watch`, and ends the work where it wants that.
pub(crate) fn tell(watch: Watch<'_>, step: Step, done: u64, total: u64) -> Result<(), Stop> {
    match watch(Progress { step, done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Stop::Interrupted),
    }
}
