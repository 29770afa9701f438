//! Calls that were answered before: a repeated `Idempotency-Key` makes nothing twice, and tells no secret twice.
//!
//! Kept in memory, and lost with a restart: a repeated creation is refused then because its name is taken, and a repeated
//! rotation gives the successor a successor. Neither tells a secret twice.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leastgate_policy::{Accessor, TokenDigest};

use crate::call::Identity;
use crate::problem::{Kind, Problem};

/// The last calls with a key.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    seen: Mutex<VecDeque<Replay>>,
    /// Those that are not answered yet; as many as there are calls under way.
    underway: Mutex<Vec<(Identity, String)>>,
}

/// A call with a key that is under way.
#[derive(Debug)]
pub(crate) struct Underway<'a> {
    replays: &'a Replays,
    key: (Identity, String),
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.replays.underway().retain(|key| *key != self.key);
    }
}

/// A call with a key, and what it made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replay {
    ticket: Ticket,
    made: Accessor,
}

/// Who used which key for which body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) caller: Identity,
    pub(crate) key: String,
    /// The body's keyed hash: two calls with one key must ask for the same.
    pub(crate) body: TokenDigest,
}

/// Calls that are remembered.
const MOST: usize = 1024;

impl Replays {
    /// Begins a call: two with one key at a time would both find that nothing was made yet.
    pub(crate) fn begin(&self, ticket: &Ticket) -> Result<Underway<'_>, Problem> {
        let key = (ticket.caller, ticket.key.clone());
        let mut underway = self.underway();
        if underway.contains(&key) {
            return Err(Problem::new(Kind::Conflict, "a call with this Idempotency-Key is still under way")
                .hint("ask again in a moment: what it makes is told then"));
        }
        underway.push(key.clone());
        Ok(Underway { replays: self, key })
    }

    fn underway(&self) -> MutexGuard<'_, Vec<(Identity, String)>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the same call made before.
    pub(crate) fn made(&self, ticket: &Ticket) -> Result<Option<Accessor>, Problem> {
        let seen = self.lock();
        let same_key = |replay: &&Replay| replay.ticket.key == ticket.key && replay.ticket.caller == ticket.caller;
        match seen.iter().find(same_key) {
            None => Ok(None),
            Some(replay) if replay.ticket.body == ticket.body => Ok(Some(replay.made)),
            Some(_) => Err(Problem::new(Kind::Conflict, "this Idempotency-Key was used for another request")
                .hint("draw a new key for each request that is not a repetition")),
        }
    }

    pub(crate) fn remember(&self, ticket: Ticket, made: Accessor) {
        let mut seen = self.lock();
        if seen.len() >= MOST {
            seen.pop_front();
        }
        seen.push_back(Replay { ticket, made });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Replay>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let replays = Replays::default();
        let ticket =
            |n: usize| Ticket { caller: Identity::User(1), key: n.to_string(), body: TokenDigest::from_bytes([1; 32]) };
        for n in 0..=MOST {
            replays.remember(ticket(n), Accessor::from_random(n as u64));
        }
        assert_eq!(replays.made(&ticket(0)), Ok(None));
        assert_eq!(replays.made(&ticket(MOST)), Ok(Some(Accessor::from_random(MOST as u64))));
        let other = Ticket { caller: Identity::User(2), ..ticket(MOST) };
        assert_eq!(replays.made(&other), Ok(None), "a key is its caller's own");
    }

    #[test]
    fn a_call_that_is_not_answered_yet_is_not_repeated() {
        let replays = Replays::default();
        let ticket = Ticket { caller: Identity::User(1), key: "k".into(), body: TokenDigest::from_bytes([1; 32]) };
        let underway = replays.begin(&ticket).unwrap();
        assert_eq!(replays.begin(&ticket).unwrap_err().kind, Kind::Conflict);
        assert!(replays.begin(&Ticket { key: "other".into(), ..ticket.clone() }).is_ok());
        drop(underway);
        assert!(replays.begin(&ticket).is_ok());
    }
}
