//! Finding the token that a name or an accessor means, wherever tokens come from.

use std::cmp::Reverse;

use leastgate_policy::{Accessor, Timestamp, TokenDigest, TokenState, token::TokenView as Declared};
use leastgate_store::{StoreError, TokenRecord};

use super::view;
use crate::api::TokenView;
use crate::asking::{HASTE, PATIENCE};
use crate::problem::Problem;
use crate::state::{Shared, Tokens};
use crate::sweeps::Gift;

/// A token that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) digest: TokenDigest,
    pub(super) accessor: Accessor,
    pub(super) name: String,
    kept: Kept,
}

/// Where its record is.
#[derive(Clone, Debug)]
enum Kept {
    Stored(Box<TokenRecord>),
    Declared(Box<Declared>),
    /// The store could not be asked; all that is known is what is in force.
    InForce(Option<Timestamp>),
}

impl Found {
    pub(super) fn stored(shared: &Shared, record: TokenRecord) -> Self {
        Self {
            digest: shared.given.authority.place(&record.digest),
            accessor: record.accessor,
            name: record.name.to_string(),
            kept: Kept::Stored(Box::new(record)),
        }
    }

    fn declared(digest: TokenDigest, token: Declared) -> Self {
        Self { digest, accessor: token.accessor, name: token.name.to_string(), kept: Kept::Declared(Box::new(token)) }
    }

    /// The token's own record; only tokens of the store have one.
    pub(super) fn record(&self) -> Option<&TokenRecord> {
        match &self.kept {
            Kept::Stored(record) => Some(record),
            Kept::Declared(_) | Kept::InForce(_) => None,
        }
    }

    /// The same with its record, for who can wait for it, if the store has it to give.
    pub(super) fn known(self, shared: &Shared) -> Self {
        let (Kept::InForce(_), accessor) = (&self.kept, self.accessor) else { return self };
        let record = shared.asking.ask(move |store| store.token(accessor)).wait(PATIENCE).ok();
        let record = record.and_then(|record| shared.unsynced.without_refused(record).ok());
        record.map_or(self, |record| Self::stored(shared, record))
    }

    /// What filters ask of it. Where the store did not say, it may be as old as any.
    pub(super) fn gift(&self) -> Gift {
        let unknown = Gift { digest: self.digest, created: Timestamp(0), active: Timestamp(0) };
        self.record().map_or(unknown, Gift::from)
    }

    /// The state in force, which may be ahead of the store.
    pub(super) fn state(&self, shared: &Shared) -> TokenState {
        let in_force = shared.given.authority.token(&self.digest).map(|token| token.state);
        in_force.unwrap_or(match &self.kept {
            Kept::Stored(record) => record.state,
            Kept::Declared(entry) => entry.state,
            Kept::InForce(_) => TokenState::Revoked,
        })
    }

    /// Whether a rotation has handed its name over.
    fn has_given_its_name_away(&self, shared: &Shared) -> bool {
        self.record().map_or_else(|| self.state(shared) == TokenState::Rotating, |record| record.successor.is_some())
    }

    pub(super) fn expires(&self) -> Option<Timestamp> {
        match &self.kept {
            Kept::Stored(record) => record.expires,
            Kept::Declared(entry) => entry.expires,
            Kept::InForce(expires) => *expires,
        }
    }

    pub(super) fn view(&self, shared: &Shared, now: Timestamp) -> Option<TokenView> {
        match &self.kept {
            Kept::Stored(record) => Some(view::token(record, self.state(shared), shared, now)),
            Kept::Declared(token) => Some(view::declared(&self.digest, token, shared, now)),
            Kept::InForce(_) => None,
        }
    }
}

/// The token with this name or accessor.
pub(super) fn find(shared: &Shared, wanted: &str) -> Result<Found, Problem> {
    match &shared.given.tokens {
        Tokens::Store => Ok(Found::stored(shared, stored(shared, wanted)?)),
        Tokens::Declared { .. } => find_declared(shared, wanted),
    }
}

/// The same for who takes it out of force: where the store does not answer at once, among what is in force. A broken disk
/// keeps nobody from revoking, and a slow one nobody waiting.
pub(super) fn find_in_force(shared: &Shared, wanted: &str) -> Result<Found, Problem> {
    let name = wanted.to_owned();
    let asked = shared.asking.ask(move |store| store.find_token(&name));
    let error = match kept(shared, wanted, asked.wait(HASTE)) {
        Ok(found) => return Ok(found),
        Err(error @ StoreError::NotFound { .. }) => return Err(error.into()),
        Err(error) => error,
    };
    let now = shared.now();
    match in_force(shared, |token| rank(token, wanted, now)).into_iter().next() {
        Some(found) => Ok(found),
        // Nothing is to be taken out of force that could wait for it.
        None if matches!(error, StoreError::Timeout { .. }) => Ok(kept(shared, wanted, asked.wait(PATIENCE))?),
        None => Err(error.into()),
    }
}

/// What is in force and has a rank, the highest first.
fn in_force(shared: &Shared, rank: impl Fn(&Declared) -> Option<u8>) -> Vec<Found> {
    let mut ranked: Vec<(u8, Found)> = Vec::new();
    shared.given.authority.tokens().for_each(|digest, token| {
        let Some(rank) = rank(token) else { return };
        let (accessor, name, kept) = (token.accessor, token.name.to_string(), Kept::InForce(token.expires));
        ranked.push((rank, Found { digest: *digest, accessor, name, kept }));
    });
    ranked.sort_by_key(|(rank, _)| Reverse(*rank));
    ranked.into_iter().map(|(_, found)| found).collect()
}

/// What a call that takes something away is about.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) asked: Found,
    /// What else has the name that was asked for, and lives.
    pub(super) also: Vec<Found>,
    /// What has given its name away, is in its grace, and was not asked for: an accessor means one token.
    pub(super) in_grace: Vec<Found>,
}

impl Line {
    /// An accessor means this token; a name means everybody who has it and lives: who holds it, and who had it before and is in
    /// its grace. Secrets of both are out under one name, and who takes from it can't know which of them is in the wrong hands.
    pub(super) fn of(shared: &Shared, found: Found, wanted: &str, now: Timestamp) -> Self {
        let mut others = namesakes(shared, &found.name, now);
        others.retain(|other| other.accessor != found.accessor);
        if found.accessor.to_string() == wanted {
            others.retain(|other| other.has_given_its_name_away(shared));
            return Self { asked: found, also: Vec::new(), in_grace: others };
        }
        let is_over = found.state(shared) == TokenState::Revoked && !others.is_empty();
        let asked = if is_over { others.remove(0) } else { found };
        Self { asked, also: others, in_grace: Vec::new() }
    }
}

/// What has given its name to this token, or to one with its name, and is in its grace.
pub(super) fn in_grace(shared: &Shared, token: &Found, now: Timestamp) -> Vec<Found> {
    Line::of(shared, token.clone(), &token.accessor.to_string(), now).in_grace
}

/// Who has this name, is not out of force for good and not past its end: who holds it comes first.
fn namesakes(shared: &Shared, name: &str, now: Timestamp) -> Vec<Found> {
    let wanted = name.to_owned();
    let mut found = match shared.asking.ask(move |store| store.namesakes(&wanted, now)).wait(HASTE) {
        Ok(records) => {
            let made = records.into_iter().filter_map(|record| shared.unsynced.without_refused(record).ok());
            made.map(|record| Found::stored(shared, record)).collect()
        }
        Err(error) => {
            tracing::warn!(%error, "who has a name is asked of what is in force");
            in_force(shared, |token| rank(token, name, now).filter(|rank| (2..4).contains(rank)))
        }
    };
    found.retain(|token| token.state(shared) != TokenState::Revoked);
    found
}

/// What the store has said, asked for no longer than that took.
fn kept(shared: &Shared, wanted: &str, said: Result<TokenRecord, StoreError>) -> Result<Found, StoreError> {
    let record = counting(shared, wanted, said?, |old| shared.asking.ask(move |store| store.token(old)).wait(HASTE))?;
    Ok(Found::stored(shared, record))
}

/// The record in the store.
fn stored(shared: &Shared, wanted: &str) -> Result<TokenRecord, StoreError> {
    let store = &shared.given.store;
    counting(shared, wanted, store.find_token(wanted)?, |old| store.token(old))
}

/// A record without what was refused to whoever asked for it and may be kept all the same.
fn counting(
    shared: &Shared,
    wanted: &str,
    record: TokenRecord,
    token: impl FnOnce(Accessor) -> Result<TokenRecord, StoreError>,
) -> Result<TokenRecord, StoreError> {
    let missing = || StoreError::NotFound { kind: "token", wanted: wanted.chars().take(80).collect() };
    match shared.unsynced.without_refused(record) {
        Ok(record) => Ok(record),
        Err(None) => Err(missing()),
        Err(Some(old)) => shared.unsynced.without_refused(token(old)?).map_err(|_| missing()),
    }
}

/// How well a token in force fits what was asked for: its accessor above all, then who holds the name, then who gave it away
/// and lives on, and last who had it once.
fn rank(token: &Declared, wanted: &str, now: Timestamp) -> Option<u8> {
    if token.accessor.to_string() == wanted {
        return Some(4);
    }
    let is_over = token.expires.is_some_and(|end| end <= now);
    (token.name == wanted).then_some(match token.state {
        TokenState::Revoked => 0,
        _ if is_over => 1,
        TokenState::Rotating => 2,
        TokenState::Active | TokenState::Disabled => 3,
    })
}

fn find_declared(shared: &Shared, wanted: &str) -> Result<Found, Problem> {
    let mut found = None;
    shared.policy()?.tokens().for_each(|digest, token| {
        if token.name == wanted || token.accessor.to_string() == wanted {
            found = Some(Found::declared(*digest, token.clone()));
        }
    });
    let missing = || StoreError::NotFound { kind: "token", wanted: wanted.chars().take(80).collect() };
    Ok(found.ok_or_else(missing)?)
}
