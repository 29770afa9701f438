//! The mark of a restore: what a restored store says of how it came about, until the gateway has put it on record.

use leastgate_policy::Timestamp;
use serde::{Deserialize, Serialize};

/// A restore that is not on record yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restored {
    /// When, in seconds since the epoch.
    pub at: u64,
    /// The user that ran it.
    pub by: RestoredBy,
    /// The backup, by its path.
    pub backup: String,
    /// When the backup was made, as its seal says, in seconds since the epoch; `None`: it had no seal.
    pub made: Option<u64>,
    /// What became of what was taken away since the backup.
    pub revocations: Revocations,
    /// Tokens and administrators that were taken away from since, whatever became of that.
    pub taken: u64,
    /// Tokens and administrators made since, which are gone.
    pub lost: u64,
    /// Living tokens and administrators that the former store did not know.
    pub unknown: u64,
    /// Where the former store is.
    pub kept: Option<String>,
}

/// Who ran a restore, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestoredBy {
    /// The user's id.
    pub uid: u32,
    /// Who became that user, by what sudo says.
    pub sudo_user: Option<String>,
}

/// What became of what was taken away since the backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocations {
    /// It stays taken away.
    CarriedOver,
    /// As far as the former store could be read it stays taken away.
    CarriedOverInPart,
    /// It was given back, as was asked for.
    Forgotten,
    /// There was no former store to know it from.
    #[default]
    Unknown,
}

impl Revocations {
    /// Its name in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CarriedOver => "carried_over",
            Self::CarriedOverInPart => "carried_over_in_part",
            Self::Forgotten => "forgotten",
            Self::Unknown => "unknown",
        }
    }
}

/// When a restore was run, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hand {
    /// Now.
    pub at: Timestamp,
    /// Who.
    pub by: RestoredBy,
}
