//! Tokens that come and go while they are in use, and a rule that is in force or not: what a request may expect depends on
//! what was certain before it was sent and still is when it is answered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Revoked tokens that are still tried.
const KEPT: usize = 24;

/// Tokens by age, and the rule.
#[derive(Debug, Default)]
pub(crate) struct Churn {
    tokens: Mutex<VecDeque<Arc<Passing>>>,
    flip: Mutex<(u64, Option<bool>)>,
}

/// A token that will be revoked.
pub(crate) struct Passing {
    pub(crate) accessor: String,
    pub(crate) secret: String,
    life: Mutex<Life>,
}

impl std::fmt::Debug for Passing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passing").field("accessor", &self.accessor).finish_non_exhaustive()
    }
}

/// What is certain of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// The admin API has answered that it exists.
    Valid,
    /// Its revocation is under way: either answer is right.
    Ending,
    /// The admin API has answered that it is revoked.
    Revoked(Instant),
}

impl Passing {
    pub(crate) fn life(&self) -> Life {
        *self.life.lock().expect("no holder panics")
    }

    pub(crate) fn set(&self, life: Life) {
        *self.life.lock().expect("no holder panics") = life;
    }

    /// Whether its revocation was answered longer ago than this.
    pub(crate) fn is_gone_for(&self, time: Duration) -> bool {
        matches!(self.life(), Life::Revoked(at) if at.elapsed() > time)
    }
}

impl Churn {
    pub(crate) fn add(&self, accessor: String, secret: String) {
        let passing = Passing { accessor, secret, life: Mutex::new(Life::Valid) };
        let mut tokens = self.tokens.lock().expect("no holder panics");
        tokens.push_back(Arc::new(passing));
        while tokens.len() > KEPT {
            tokens.pop_front();
        }
    }

    /// The oldest that is still valid.
    pub(crate) fn oldest(&self) -> Option<Arc<Passing>> {
        self.all().into_iter().find(|token| token.life() == Life::Valid)
    }

    /// The one that is valid the longest from now on.
    pub(crate) fn newest(&self) -> Option<Arc<Passing>> {
        self.all().into_iter().rfind(|token| token.life() == Life::Valid)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Passing>> {
        self.tokens.lock().expect("no holder panics").iter().cloned().collect()
    }

    /// How many are still valid.
    pub(crate) fn valid(&self) -> usize {
        self.all().iter().filter(|token| token.life() == Life::Valid).count()
    }

    /// Whether the rule is certain to be in force, or certain not to be; and since which change.
    pub(crate) fn flip(&self) -> (u64, Option<bool>) {
        *self.flip.lock().expect("no holder panics")
    }

    /// From now on it is certain, or uncertain.
    pub(crate) fn set_flip(&self, certain: Option<bool>) {
        let mut flip = self.flip.lock().expect("no holder panics");
        *flip = (flip.0 + 1, certain);
    }
}
