//! Calls that were answered before: a repeated `Idempotency-Key` makes nothing twice, and tells no secret twice.
//!
//! Kept in memory: after a restart a repeated call is refused because its name is taken, which is as safe.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leastgate_policy::{Accessor, TokenDigest};

use crate::call::Identity;
use crate::problem::{Kind, Problem};

/// The last calls with a key.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    seen: Mutex<VecDeque<Replay>>,
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
}
