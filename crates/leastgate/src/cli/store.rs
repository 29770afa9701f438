//! The words of `leastgate store`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// `leastgate store`
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Copy the store into a new file, beside a running gateway or without one
    ///
    /// The copy is of one moment: whatever the gateway had acknowledged before is in it. It is checked, sealed with a key
    /// derived from the pepper, and for its owner only.
    Backup {
        /// The new file; nothing is overwritten
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Put a backup in the place of a stopped gateway's store
    ///
    /// What was taken away since the backup stays taken away: revoked, disabled and rotated tokens, revoked
    /// administrators, and whatever narrowed a token: ends, roles, scopes, networks, limits. Tokens and administrators made since are gone. The present store is kept beside the new one.
    ///
    /// The next start of the gateway puts it on record (audit event store.restore).
    ///
    /// Run it as the gateway's user: root is refused where state_dir, its lock or its store is another user's.
    Restore(StoreRestore),
    /// Read every record of the store, or of a backup, and say what is wrong
    Check {
        /// A backup, or any store [default: the store of the gateway's file]
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}

/// `leastgate store restore`
#[derive(Debug, Args)]
pub struct StoreRestore {
    /// The backup
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Let live again what was revoked, disabled, rotated or narrowed since the backup; on a new machine nothing else
    /// can be had
    #[arg(long, conflicts_with = "salvage")]
    pub forget_revocations: bool,
    /// The present store is damaged: carry over what can be read, and revoke those whose records can't be
    #[arg(long)]
    pub salvage: bool,
    /// Take a file without a seal, such as a copy of a stopped gateway's store.db
    #[arg(long)]
    pub unsealed: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
