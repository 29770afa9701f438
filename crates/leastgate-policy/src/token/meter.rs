//! How much of its limits a token has used: its rate by GCRA (the virtual scheduling algorithm of ITU-T I.371) in one
//! atomic number, and how many of its requests are under way. Beside the record and not in it, because both outlive an
//! edit of the record: neither a new note nor a new rate fills the bucket or forgets a request. Only a token from which all
//! its limits were taken begins anew when it gets some.
//!
//! The limits that govern are here too, not those of each record: what shares a meter shares them, or the slow one would use
//! up in its own long intervals what the fast one has.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::terms::TokenLimits;
use crate::reason::Reason;

const SECOND: u64 = 1_000_000_000;

/// What a token has used of its limits, and which they are.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// The rate and burst in force, as [`Bucket::pack`] writes them.
    rate: AtomicU64,
    /// Requests that may be under way.
    concurrent: AtomicU64,
    /// The rate and burst that `arrival` was reckoned with: after an edit, until the next request, the former ones.
    reckoned: AtomicU64,
    /// Held while `arrival` is reckoned anew.
    reckoning: Mutex<()>,
    /// When the token will have all of its burst again: GCRA's theoretical arrival time, in nanoseconds of the monotonic
    /// clock that its requests are told the time by.
    arrival: AtomicU64,
    underway: AtomicU32,
}

/// What an allowed request has of its token's limits, until it is over.
#[derive(Debug)]
pub struct Metered {
    /// The place among the token's requests under way.
    pub place: TokenPlace,
    /// What is left.
    pub allowance: Allowance,
}

/// A place among a token's requests under way, given back when it is dropped.
#[derive(Debug)]
pub struct TokenPlace(Arc<Meter>);

/// What is left of a token's limits; `None`: there is no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Of its rate.
    pub rate: Option<RateLeft>,
    /// Of its requests at a time.
    pub concurrent: Option<ConcurrentLeft>,
}

/// What is left of a rate, seen as a bucket that is filled again all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLeft {
    /// Requests a second, on the long run.
    pub rate: u32,
    /// Requests that may come now: more than in a second, where the burst is.
    pub left: u32,
    /// Seconds until there is one more.
    pub reset: u32,
}

/// What is left of the requests a token may have under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrentLeft {
    /// How many there may be.
    pub quota: u32,
    /// How many more.
    pub left: u32,
}

/// A request that is over a limit of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// Which.
    pub reason: Reason,
    /// Milliseconds after which another attempt may pass: a refusal stays small.
    wait: u32,
    /// What is left of all of them.
    pub allowance: Allowance,
}

impl OverLimit {
    /// After how long another attempt may pass, in whole milliseconds, rounded up: no longer than one request of the rate
    /// takes, or a second, as long as the clock goes forward.
    #[must_use]
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait.into())
    }
}

/// Nobody knows when a request ends that is under way.
const SOON: Duration = Duration::from_secs(1);

impl Meter {
    /// Nothing is used yet.
    pub(crate) fn new(limits: &TokenLimits) -> Self {
        let meter = Self::default();
        meter.govern(limits);
        meter
    }

    /// Has these limits govern from now on. What was used stays used, counted in requests.
    pub(crate) fn govern(&self, limits: &TokenLimits) {
        self.concurrent.store(limits.concurrent.map_or(NO_LIMIT, u64::from), Ordering::Relaxed);
        self.rate.store(Bucket::pack(limits), Ordering::Relaxed);
    }

    /// Takes a request out of the rate, then a place among those under way. An attempt that finds no place has used the
    /// rate, so that whoever does not wait is slowed down.
    pub(crate) fn take(self: &Arc<Self>, elapsed: Duration) -> Result<Metered, OverLimit> {
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let most = u32::try_from(self.concurrent.load(Ordering::Relaxed)).ok();
        let over = |reason, wait, rate| {
            let concurrent = most.map(|quota| self.left(quota));
            Err(OverLimit { reason, wait: millis(wait), allowance: Allowance { rate, concurrent } })
        };
        let rate = match self.pass(now) {
            Ok(rate) => rate,
            Err((wait, rate)) => return over(Reason::TokenRateLimited, wait, Some(rate)),
        };
        let Some(before) = self.enter(most.unwrap_or(u32::MAX)) else {
            return over(Reason::TokenConcurrencyLimited, SOON, rate);
        };
        let concurrent = most.map(|quota| ConcurrentLeft { quota, left: quota - before - 1 });
        Ok(Metered { place: TokenPlace(Arc::clone(self)), allowance: Allowance { rate, concurrent } })
    }

    /// What is left of the rate behind this request, or how long it is before there is room for it. Told two times in the
    /// wrong order, it takes the later one for both.
    fn pass(&self, now: u64) -> Result<Option<RateLeft>, (Duration, RateLeft)> {
        loop {
            let packed = self.rate.load(Ordering::Relaxed);
            let Some(bucket) = Bucket::unpack(packed) else { return Ok(None) };
            if self.reckoned.load(Ordering::Acquire) != packed {
                self.reckon(now);
                continue;
            }
            let arrival = self.arrival.load(Ordering::Relaxed);
            // A clock at the end of its range is none to let anything through by.
            let Some(next) = arrival.max(now).checked_add(bucket.interval) else {
                return Err(bucket.empty(bucket.interval));
            };
            let used = next - now;
            if used > bucket.size {
                return Err(bucket.empty(used - bucket.size));
            }
            if self.arrival.compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Ok(Some(bucket.left(used)));
            }
        }
    }

    /// After an edit: as many requests are used as were, and no more than there may be. Whoever is in the middle of
    /// [`Self::pass`] finds another arrival than it has read, and begins again.
    fn reckon(&self, now: u64) {
        let _one = self.reckoning.lock().unwrap_or_else(PoisonError::into_inner);
        let packed = self.rate.load(Ordering::Relaxed);
        if let (Some(old), Some(new)) = (Bucket::unpack(self.reckoned.load(Ordering::Relaxed)), Bucket::unpack(packed))
        {
            let anew = |arrival: u64| {
                let used = u128::from(arrival.saturating_sub(now)) * u128::from(new.interval);
                let used = u64::try_from(used.div_ceil(u128::from(old.interval))).unwrap_or(u64::MAX).min(new.size);
                (used > 0).then(|| now.saturating_add(used))
            };
            let _ = self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, anew);
        }
        self.reckoned.store(packed, Ordering::Release);
    }

    /// How many were under way before this one.
    fn enter(&self, most: u32) -> Option<u32> {
        let one_more = |underway| (underway < most).then(|| underway + 1);
        self.underway.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()
    }

    fn left(&self, quota: u32) -> ConcurrentLeft {
        ConcurrentLeft { quota, left: quota.saturating_sub(self.underway.load(Ordering::Relaxed)) }
    }
}

impl Drop for TokenPlace {
    fn drop(&mut self) {
        self.0.underway.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No requests under way are too many.
const NO_LIMIT: u64 = u64::MAX;

/// A rate and its burst, in the nanoseconds that requests stand for.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: u32,
    /// One request. Rounded up: what passes is never above the rate, and below it by a millionth at a thousand a second, by a
    /// thousandth at a million.
    interval: u64,
    /// All of the burst: below 2^32 seconds.
    size: u64,
}

impl Bucket {
    /// A rate and what may come at once, in one number; 0 for no limit.
    fn pack(limits: &TokenLimits) -> u64 {
        let (Some(rate), Some(at_once)) = (limits.rate, limits.at_once()) else { return 0 };
        // A record that was not written by us may have a rate of nothing: then nothing passes.
        let (rate, at_once) = if rate == 0 { (1, 0) } else { (rate, at_once.max(1)) };
        u64::from(rate) << 32 | u64::from(at_once)
    }

    fn unpack(packed: u64) -> Option<Self> {
        let (rate, at_once) = (u32::try_from(packed >> 32).ok()?, packed & u64::from(u32::MAX));
        let interval = SECOND.div_ceil(u64::from(rate.max(1)));
        (rate > 0).then_some(Self { rate, interval, size: at_once * interval })
    }

    fn left(&self, used: u64) -> RateLeft {
        let left = u32::try_from((self.size - used) / self.interval).unwrap_or(u32::MAX);
        RateLeft { rate: self.rate, left, reset: 1 }
    }

    fn empty(&self, wait: u64) -> (Duration, RateLeft) {
        (Duration::from_nanos(wait), RateLeft { rate: self.rate, left: 0, reset: seconds(wait) })
    }
}

fn millis(wait: Duration) -> u32 {
    u32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

fn seconds(nanos: u64) -> u32 {
    u32::try_from(nanos.div_ceil(SECOND)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
