//! The seam: what the rest of the product may ask of a store, whichever keeps the records.

use std::fmt;
use std::time::Duration;

use leastgate_policy::{Accessor, Straggler, Timestamp, TokenDigest, TokenEntry};

use crate::admin::AdminRecord;
use crate::error::StoreError;
use crate::pepper::{Redigested, StragglerCounts};
use crate::query::{TimeFilter, TokenPage, TokenQuery};
use crate::record::{StateChange, TokenRecord};
use crate::rotation::{Rotated, Rotation};
use crate::tombstone::Tombstone;
use crate::undo::Undo;
use crate::usage::{UsageBatch, UsageRow};

/// Keeps token and admin records.
///
/// Every method blocks, for a bounded time; an async caller runs it on a thread made for blocking. A change
/// that returns `Ok` is on disk. One that takes access away and ends in [`StoreError::Timeout`] may still be made. One
/// that gives access is then not made any more ([`StoreError::Withdrawn`]), unless it was just being written: that is
/// [`StoreError::InDoubt`], and the caller's to [`TokenStore::undo`]. The store reads no clock: the time comes with each
/// record.
pub trait TokenStore: fmt::Debug + Send + Sync {
    /// Keeps a new token; its `version` becomes 1. A name is taken over from a token that has expired by the time the new one
    /// was made, or else taken in: by the time of its `state_changed`, where it has one.
    ///
    /// # Errors
    /// `NameTaken`, `AlreadyDrawn`, or when it can't be written.
    fn create_token(&self, token: TokenRecord) -> Result<TokenRecord, StoreError>;

    /// Keeps many new tokens, all or none, in one commit.
    ///
    /// # Errors
    /// As [`TokenStore::create_token`], for the first that fails.
    fn create_tokens(&self, tokens: Vec<TokenRecord>) -> Result<usize, StoreError>;

    /// The token with this accessor.
    ///
    /// # Errors
    /// `NotFound`, or when it can't be read.
    fn token(&self, accessor: Accessor) -> Result<TokenRecord, StoreError>;

    /// The token with this accessor or name: of several with the name the one that holds it, else the newest.
    ///
    /// # Errors
    /// `NotFound`, or when it can't be read.
    fn find_token(&self, name_or_accessor: &str) -> Result<TokenRecord, StoreError>;

    /// One page of the tokens, the dead ones included until they are purged.
    ///
    /// # Errors
    /// `BadCursor`, or when they can't be read.
    fn list_tokens(&self, query: &TokenQuery) -> Result<TokenPage, StoreError>;

    /// How many tokens there are, dead ones included.
    ///
    /// # Errors
    /// When they can't be read.
    fn count_tokens(&self) -> Result<u64, StoreError>;

    /// Revokes, disables or enables a token. What it already is stays as it is, with its first reason: asking
    /// twice is not an error. `expected` is the version the caller has seen, if it matters.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Revoked` when a revoked token is to be anything else, or when it can't be
    /// written.
    fn change_state(
        &self,
        accessor: Accessor,
        change: StateChange,
        expected: Option<u64>,
    ) -> Result<TokenRecord, StoreError>;

    /// Revokes many tokens in one commit, all or none; a hundred thousand hold up other changes for a second or so. Those
    /// that are revoked already, or gone, are left out. Returns how many it were.
    ///
    /// # Errors
    /// When it can't be written; then none is.
    fn revoke_tokens(&self, accessors: Vec<Accessor>, change: StateChange) -> Result<usize, StoreError>;

    /// Replaces what may be changed of a token: owner, roles, grants, restrictions, limits, end and note. The version of
    /// `token` is the one the change was made for.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Revoked`, or when it can't be written.
    fn update_token(&self, token: TokenRecord) -> Result<TokenRecord, StoreError>;

    /// The same for a change that what stands in for the token must not survive: it is revoked in the same commit.
    ///
    /// # Errors
    /// As [`TokenStore::update_token`].
    fn narrow_token(&self, token: TokenRecord, end: StateChange) -> Result<TokenRecord, StoreError>;

    /// Takes back gifts that may have been kept although their callers were told that they are not
    /// ([`StoreError::InDoubt`]), in one commit: it comes behind the one that was in doubt. Returns how many had been kept.
    ///
    /// # Errors
    /// When it can't be written; then none is taken back.
    fn undo(&self, gifts: Vec<Undo>) -> Result<usize, StoreError>;

    /// Has a token succeeded by another one that takes its name over, both or neither.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Revoked`, `NotRotatable`, `AlreadyDrawn`, or when it can't be written.
    fn rotate_token(&self, rotation: Rotation) -> Result<Rotated, StoreError>;

    /// The tokens that this one succeeds, the last one first.
    ///
    /// # Errors
    /// When they can't be read.
    fn predecessors_of(&self, accessor: Accessor) -> Result<Vec<TokenRecord>, StoreError>;

    /// The tokens with this name that are neither revoked nor past their end at `now`: the one that holds it, then those that
    /// had it before, the last one first.
    ///
    /// # Errors
    /// When they can't be read.
    fn namesakes(&self, name: &str, now: Timestamp) -> Result<Vec<TokenRecord>, StoreError>;

    /// Pairs of tokens that have their limits in common: a name's tokens in their order, then each token with what stands in
    /// for it. The second of a pair uses what the first has.
    ///
    /// # Errors
    /// When they can't be read.
    fn sharing_limits(&self) -> Result<Vec<(TokenDigest, TokenDigest)>, StoreError>;

    /// The tokens that fit a filter of times, the dead ones included. `take` must not call the store.
    ///
    /// # Errors
    /// When they can't be read; some may have been handed over by then.
    fn for_each_by_time(&self, filter: &TimeFilter, take: &mut dyn FnMut(Accessor)) -> Result<u64, StoreError>;

    /// Tokens in use that were neither used, made nor enabled since, baits and those that had ended by then apart: at
    /// most `limit`.
    ///
    /// # Errors
    /// When they can't be read.
    fn idle_tokens(&self, since: Timestamp, limit: u32) -> Result<Vec<TokenRecord>, StoreError>;

    /// How many tokens in use were made before, baits and stand-ins apart.
    ///
    /// # Errors
    /// When they can't be read.
    fn count_made_before(&self, before: Timestamp, now: Timestamp) -> Result<u64, StoreError>;

    /// Hands every token to the data plane, dead ones included (they are refused for a reason of their own), in no
    /// order and from several threads at once, and returns how many there were. `take` must not call the store, and
    /// nothing may be added meanwhile.
    ///
    /// # Errors
    /// When they can't be read; some may have been handed over by then.
    fn load(&self, take: &(dyn Fn(TokenEntry) + Sync)) -> Result<u64, StoreError>;

    /// Adds to the usage counters, all or nothing, in one commit: some ten thousand at a time. The batch that was added last
    /// adds nothing again.
    ///
    /// # Errors
    /// When it can't be written, or in doubt: hand it over again as it is, before any other.
    fn record_usage(&self, batch: UsageBatch) -> Result<(), StoreError>;

    /// Since when it is known which tokens are used, where the store was restored and that could not be carried over:
    /// no token counts as unused since an earlier moment. `None`: since ever.
    ///
    /// # Errors
    /// When it can't be read.
    fn use_known_since(&self) -> Result<Option<Timestamp>, StoreError>;

    /// What one token was used for, by rule.
    ///
    /// # Errors
    /// When it can't be read.
    fn usage_of(&self, accessor: Accessor) -> Result<Vec<UsageRow>, StoreError>;

    /// All usage counters, and how many there are. `take` must not call the store.
    ///
    /// # Errors
    /// When they can't be read; some may have been handed over by then.
    fn for_each_usage(&self, take: &mut dyn FnMut(UsageRow)) -> Result<u64, StoreError>;

    /// Forgets tokens that were revoked, or expired, before `older_than`, with their usage: at most `limit`,
    /// so that no change waits long for it. Of those that were taken away a tombstone is left. Returns what the token table must drop; call again until it is
    /// fewer than `limit`.
    ///
    /// # Errors
    /// When it can't be written.
    fn purge(&self, older_than: Timestamp, limit: u32) -> Result<Vec<TokenDigest>, StoreError>;

    /// What is left of a token with this accessor or digest that was taken away and purged: none such is to come back.
    ///
    /// # Errors
    /// When it can't be read.
    fn tombstone_of(&self, accessor: Accessor, digest: &TokenDigest) -> Result<Option<Tombstone>, StoreError>;

    /// Keeps a new administrator.
    ///
    /// # Errors
    /// `NameTaken`, `AlreadyDrawn`, or when it can't be written.
    fn create_admin(&self, admin: AdminRecord) -> Result<AdminRecord, StoreError>;

    /// The administrator whose credential has this digest, revoked or not.
    ///
    /// # Errors
    /// When it can't be read.
    fn find_admin(&self, digest: &TokenDigest) -> Result<Option<AdminRecord>, StoreError>;

    /// All administrators, by name, the revoked ones included.
    ///
    /// # Errors
    /// When they can't be read.
    fn list_admins(&self) -> Result<Vec<AdminRecord>, StoreError>;

    /// How many administrators are not revoked: with none, the first is made without one.
    ///
    /// # Errors
    /// When they can't be read.
    fn count_admins(&self) -> Result<u64, StoreError>;

    /// Revokes an administrator; one that is revoked already stays as it is.
    ///
    /// # Errors
    /// `NotFound`, or when it can't be written.
    fn revoke_admin(&self, id: Accessor, at: Timestamp) -> Result<AdminRecord, StoreError>;

    /// Keeps tokens and administrators under the current pepper that were found under the previous one, in one commit;
    /// what became of each, in their order. Asking twice is not an error. A record's version stays: nothing of it changes
    /// that a caller has seen.
    ///
    /// # Errors
    /// When they can't be written.
    fn redigest(&self, stragglers: Vec<Straggler>) -> Result<Vec<Redigested>, StoreError>;

    /// How many living tokens and administrators are not kept under the current pepper.
    ///
    /// # Errors
    /// When they can't be read.
    fn count_stragglers(&self, now: Timestamp) -> Result<StragglerCounts, StoreError>;

    /// Whether changes can still be made. `false` once it is closed, or has failed in a way that only a restart mends.
    fn is_running(&self) -> bool {
        true
    }

    /// Takes no more changes, makes those that wait, and closes the files.
    ///
    /// # Errors
    /// `Timeout` when that is not done within `deadline`.
    fn close(&self, deadline: Duration) -> Result<(), StoreError>;
}
