//! Unauthenticated requests of one source above N a second become one `summary` event, so a flood can't fill the disk or
//! push out what matters. The table is bounded: sources beyond it are counted together.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lane::Loss;
use crate::clock::Micros;
use crate::event::Summary;

/// Who may still have events of their own this second.
#[derive(Debug)]
pub(crate) struct Flood {
    per_second: u32,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

const SHARDS: usize = 16;
const SOURCES_PER_SHARD: usize = 512;
const WINDOW: u64 = 1_000_000;

#[derive(Debug, Default)]
struct Shard {
    sources: HashMap<IpAddr, Window>,
    others: Window,
    /// Nobody comes to ask for summaries any more.
    sealed: bool,
}

/// One second of one source.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    admitted: u32,
    suppressed: Loss,
    /// Suppressed in seconds that are over: a flood that does not pause is told of every second all the same.
    due: Loss,
}

impl Window {
    fn admit(&mut self, now: Micros, limit: u32) -> bool {
        if self.is_over(now) {
            self.due.add(std::mem::take(&mut self.suppressed));
            self.start = now.0;
            self.admitted = 0;
        }
        if self.admitted < limit {
            self.admitted += 1;
            return true;
        }
        self.suppressed.add(Loss::one(now));
        false
    }

    fn summary(&mut self, ip: Option<IpAddr>, over: bool) -> Option<Summary> {
        let mut loss = std::mem::take(&mut self.due);
        if over {
            loss.add(std::mem::take(&mut self.suppressed));
        }
        (loss.count > 0).then_some(Summary { ip, count: loss.count, first: loss.first, last: loss.last })
    }

    fn is_over(&self, now: Micros) -> bool {
        now.0.saturating_sub(self.start) >= WINDOW
    }
}

impl Flood {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, hasher: RandomState::new(), shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Whether this source may have another event of its own. If not, it has been counted.
    pub(crate) fn admit(&self, source: IpAddr, now: Micros) -> bool {
        let shard = usize::try_from(self.hasher.hash_one(source) % SHARDS as u64).unwrap_or(0);
        let mut shard = lock(&self.shards[shard]);
        if shard.sealed {
            return true;
        }
        let full = shard.sources.len() >= SOURCES_PER_SHARD;
        if full && !shard.sources.contains_key(&source) {
            return shard.others.admit(now, self.per_second);
        }
        shard.sources.entry(source).or_default().admit(now, self.per_second)
    }

    /// Summaries of the windows that are over; forgets sources that have been quiet since. `last`: of all windows, and from
    /// now on nothing is counted here, because nobody would ask for it.
    pub(crate) fn drain(&self, now: Micros, last: bool, out: &mut Vec<Summary>) {
        for shard in &self.shards {
            let Shard { sources, others, sealed } = &mut *lock(shard);
            *sealed = last;
            sources.retain(|ip, window| {
                let over = last || window.is_over(now);
                out.extend(window.summary(Some(*ip), over));
                !over
            });
            let over = last || others.is_over(now);
            out.extend(others.summary(None, over));
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn the_first_n_of_a_second_pass_and_the_rest_are_summarised() {
        let (flood, start) = (Flood::new(3), Micros(10_000_000));
        let passed = (0..10).filter(|&offset| flood.admit(ip(1), Micros(start.0 + offset))).count();
        assert_eq!(passed, 3);
        assert!(flood.admit(ip(2), start));
        let mut summaries = Vec::new();
        flood.drain(Micros(start.0 + 10), false, &mut summaries);
        assert!(summaries.is_empty(), "the second is not over");
        flood.drain(Micros(start.0 + WINDOW), false, &mut summaries);
        let [summary] = summaries.as_slice() else { panic!("{summaries:?}") };
        assert_eq!((summary.ip, summary.count), (Some(ip(1)), 7));
        assert_eq!((summary.first, summary.last), (Micros(start.0 + 3), Micros(start.0 + 9)));
        assert!(flood.admit(ip(1), Micros(start.0 + WINDOW)));
    }

    #[test]
    fn many_sources_are_bounded_and_none_goes_uncounted() {
        let (flood, now) = (Flood::new(1), Micros(5_000_000));
        let sources = 20_000;
        let passed = (0..sources).filter(|&number| flood.admit(ip(number), now)).count() as u64;
        let held: usize = flood.shards.iter().map(|shard| lock(shard).sources.len()).sum();
        assert!(held <= SHARDS * SOURCES_PER_SHARD);
        let mut summaries = Vec::new();
        flood.drain(Micros(now.0 + WINDOW), false, &mut summaries);
        let counted: u64 = summaries.iter().map(|summary| summary.count).sum();
        assert_eq!(passed + counted, u64::from(sources));
        assert!(flood.shards.iter().all(|shard| lock(shard).sources.is_empty()));
    }

    #[test]
    fn a_flood_without_a_pause_is_told_of_every_second() {
        let (flood, mut counted) = (Flood::new(10), Vec::new());
        for request in 0..3_000_u64 {
            flood.admit(ip(1), Micros(10_000_000 + request * 1_000));
            flood.drain(Micros(10_000_000 + request * 1_000), false, &mut counted);
        }
        assert_eq!(counted.iter().map(|summary| summary.count).collect::<Vec<_>>(), [990, 990]);
    }

    #[test]
    fn at_the_end_nothing_stays_behind() {
        let (flood, now, mut summaries) = (Flood::new(2), Micros(10_000_000), Vec::new());
        assert_eq!((0..5).filter(|_| flood.admit(ip(1), now)).count(), 2);
        flood.drain(now, true, &mut summaries);
        assert_eq!(summaries.iter().map(|summary| summary.count).collect::<Vec<_>>(), [3]);
        assert!(flood.admit(ip(1), now), "what comes later is left to the lane, which knows that it is too late");
    }
}
