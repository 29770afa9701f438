//! How much of its limits a token has used: its rate by GCRA (the virtual scheduling algorithm of ITU-T I.371) in one
//! atomic number, and how many of its requests are under way. Beside the record and not in it, because both outlive an
//! edit of the record: neither a new note nor a new rate fills the bucket or forgets a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::terms::TokenLimits;
use crate::reason::Reason;

const SECOND: u64 = 1_000_000_000;

/// What a token has used of its limits.
#[derive(Debug, Default)]
pub(crate) struct Meter {
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
    /// Requests that a full one holds.
    pub quota: u32,
    /// Seconds that an empty one takes to be full, at least 1.
    pub window: u32,
    /// Requests it holds now.
    pub left: u32,
    /// Seconds until it is full; of an empty one, until it holds a request.
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
    /// After how long another attempt may pass, in whole milliseconds, rounded up.
    #[must_use]
    pub fn wait(&self) -> Duration {
        Duration::from_millis(self.wait.into())
    }
}

/// Nobody knows when a request ends that is under way.
const SOON: Duration = Duration::from_secs(1);

impl Meter {
    /// Takes a request out of the rate, then a place among those under way. An attempt that finds no place has used the
    /// rate, so that whoever does not wait is slowed down.
    pub(crate) fn take(self: &Arc<Self>, limits: &TokenLimits, elapsed: Duration) -> Result<Metered, OverLimit> {
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let over = |reason, wait, rate| {
            let concurrent = limits.concurrent.map(|quota| self.left(quota));
            Err(OverLimit { reason, wait: millis(wait), allowance: Allowance { rate, concurrent } })
        };
        let rate = match Bucket::of(limits) {
            None => None,
            Some(bucket) => match self.pass(&bucket, now) {
                Ok(used) => Some(bucket.left(used)),
                Err(wait) => {
                    let wait = Duration::from_nanos(wait);
                    return over(Reason::TokenRateLimited, wait, Some(bucket.empty(wait)));
                }
            },
        };
        let Some(before) = self.enter(limits.concurrent.unwrap_or(u32::MAX)) else {
            return over(Reason::TokenConcurrencyLimited, SOON, rate);
        };
        let concurrent = limits.concurrent.map(|quota| ConcurrentLeft { quota, left: quota - before - 1 });
        Ok(Metered { place: TokenPlace(Arc::clone(self)), allowance: Allowance { rate, concurrent } })
    }

    /// How much of the bucket is used with this request, or how long it is before there is room for it. Told two times in
    /// the wrong order, it takes the later one for both.
    fn pass(&self, bucket: &Bucket, now: u64) -> Result<u64, u64> {
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            // A clock at the end of its range is none to let anything through by.
            let next = arrival.max(now).checked_add(bucket.interval).ok_or(bucket.interval)?;
            let used = next - now;
            if used > bucket.size {
                return Err(used - bucket.size);
            }
            match self.arrival.compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(used),
                Err(moved) => arrival = moved,
            }
        }
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

/// A rate and its burst, in the nanoseconds that requests stand for.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    quota: u32,
    window: u32,
    /// One request. Rounded up: what passes is never above the rate, and below it by a millionth at a thousand a second.
    interval: u64,
    /// All of the burst: below 2^32 seconds.
    size: u64,
}

impl Bucket {
    fn of(limits: &TokenLimits) -> Option<Self> {
        let rate = limits.rate?;
        // A record that was not written by us may have a rate of nothing: then nothing passes.
        let quota = if rate == 0 { 0 } else { limits.at_once()?.max(1) };
        let interval = SECOND.div_ceil(u64::from(rate.max(1)));
        let window = quota.div_ceil(rate.max(1)).max(1);
        Some(Self { quota, window, interval, size: u64::from(quota) * interval })
    }

    fn left(&self, used: u64) -> RateLeft {
        let left = u32::try_from((self.size - used) / self.interval).unwrap_or(self.quota);
        let until = if left == 0 { used + self.interval - self.size } else { used };
        RateLeft { quota: self.quota, window: self.window, left, reset: seconds(until).min(self.window) }
    }

    fn empty(&self, wait: Duration) -> RateLeft {
        let wait = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        RateLeft { quota: self.quota, window: self.window, left: 0, reset: seconds(wait) }
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
