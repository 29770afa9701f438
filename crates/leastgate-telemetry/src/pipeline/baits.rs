//! Uses of baits: the first ones of a minute have an event each, the rest of it becomes one with their number. A bait
//! that a scanner got hold of would else fill the disk and the log, and hide the one use that matters.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leastgate_policy::{Accessor, Bait};

use super::lane::Loss;
use crate::clock::Micros;

/// Uses of one bait that have an event of their own, each minute.
const PER_MINUTE: u32 = 10;
const MINUTE: u64 = 60_000_000;
/// Baits in use at a time that are told apart.
const MOST: usize = 1_024;

/// Which bait may still have events of its own this minute.
#[derive(Debug, Default)]
pub(crate) struct Baits(Mutex<Minutes>);

#[derive(Debug, Default)]
struct Minutes {
    tokens: HashMap<Accessor, Minute>,
    others: Loss,
}

#[derive(Debug)]
struct Minute {
    start: u64,
    told: u32,
    bait: Bait,
    untold: Loss,
}

/// Uses without an event of their own.
#[derive(Clone, Debug)]
pub(crate) struct Repeated {
    /// `None`: of baits for which there was no room.
    pub(crate) bait: Option<Bait>,
    pub(crate) uses: u64,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
}

impl Baits {
    /// Whether this use gets an event of its own. If not, it has been counted.
    pub(crate) fn admit(&self, bait: &Bait, now: Micros) -> bool {
        let mut minutes = self.lock();
        if minutes.tokens.len() >= MOST && !minutes.tokens.contains_key(&bait.accessor) {
            minutes.others.add(Loss::one(now));
            return false;
        }
        let new = || Minute { start: now.0, told: 0, bait: bait.clone(), untold: Loss::default() };
        let minute = minutes.tokens.entry(bait.accessor).or_insert_with(new);
        if minute.told < PER_MINUTE {
            minute.told += 1;
            return true;
        }
        minute.untold.add(Loss::one(now));
        false
    }

    /// What the minutes that are over came to, of `last` all minutes; they begin anew.
    pub(crate) fn drain(&self, now: Micros, last: bool, out: &mut Vec<Repeated>) {
        let Minutes { tokens, others } = &mut *self.lock();
        tokens.retain(|_, minute| {
            let is_over = last || now.0.saturating_sub(minute.start) >= MINUTE;
            if is_over {
                out.extend(Repeated::of(Some(minute.bait.clone()), &minute.untold));
            }
            !is_over
        });
        if last || now.0.saturating_sub(others.first.0) >= MINUTE {
            out.extend(Repeated::of(None, &std::mem::take(others)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Minutes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repeated {
    fn of(bait: Option<Bait>, untold: &Loss) -> Option<Self> {
        let Loss { count, first, last } = *untold;
        (count > 0).then_some(Self { bait, uses: count, first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bait(number: u64) -> Bait {
        Bait { accessor: Accessor::from_random(number), name: "deploy-key".into() }
    }

    fn drained(baits: &Baits, now: u64, last: bool) -> Vec<(Option<Accessor>, u64)> {
        let mut out = Vec::new();
        baits.drain(Micros(now), last, &mut out);
        out.into_iter().map(|repeated| (repeated.bait.map(|bait| bait.accessor), repeated.uses)).collect()
    }

    #[test]
    fn the_first_of_a_minute_are_told_and_the_rest_is_counted() {
        let (baits, one, start) = (Baits::default(), bait(1), 1_000_000_000);
        let told = (0..1_000).filter(|more| baits.admit(&one, Micros(start + more))).count();
        assert_eq!(told, 10);
        assert!(baits.admit(&bait(2), Micros(start)), "another bait's are its own");
        assert!(drained(&baits, start + MINUTE - 1, false).is_empty(), "the minute is not over");
        assert_eq!(drained(&baits, start + MINUTE, false), [(Some(one.accessor), 990)]);
        assert!(baits.admit(&one, Micros(start + MINUTE)), "the next minute begins anew");
        for more in 1..=10 {
            baits.admit(&one, Micros(start + MINUTE + more));
        }
        assert_eq!(drained(&baits, start + MINUTE + 11, true), [(Some(one.accessor), 1)], "nothing stays behind");
    }

    #[test]
    fn many_baits_are_bounded_and_none_goes_uncounted() {
        let (baits, now) = (Baits::default(), Micros(1_000_000_000));
        let told = (0..2_000).filter(|number| baits.admit(&bait(*number), now)).count();
        assert_eq!(told, MOST);
        assert_eq!(drained(&baits, now.0 + MINUTE, false), [(None, 2_000 - MOST as u64)]);
        assert!(baits.lock().tokens.is_empty());
    }
}
