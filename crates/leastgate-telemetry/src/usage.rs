//! Which token used which rule, how often and when last: counted in memory with relaxed atomics, handed over on a timer.
//! Never a write per request: that is why other gateways have no last-used at all.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use leastgate_policy::{Accessor, RuleKey, Timestamp};

/// Use since the last time it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageDelta {
    /// The token.
    pub accessor: Accessor,
    /// The rule.
    pub rule: RuleKey,
    /// How often more.
    pub count: u64,
    /// When last.
    pub last_used: Timestamp,
}

/// Use of one rule by one token since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleUsage {
    /// The rule.
    pub rule: RuleKey,
    /// How often.
    pub count: u64,
    /// When last.
    pub last_used: Timestamp,
}

/// The counters.
#[derive(Debug)]
pub struct Usage {
    tokens: DashMap<Accessor, Vec<Counter>>,
    entries: AtomicUsize,
    capacity: usize,
    overflow: AtomicU64,
}

#[derive(Debug)]
struct Counter {
    rule: RuleKey,
    count: AtomicU64,
    drained: AtomicU64,
    last_used: AtomicU64,
}

impl Counter {
    fn new(rule: RuleKey) -> Self {
        Self { rule, count: AtomicU64::new(0), drained: AtomicU64::new(0), last_used: AtomicU64::new(0) }
    }

    fn used(&self, now: Timestamp) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last_used.fetch_max(now.0, Ordering::Relaxed);
    }
}

impl Usage {
    /// Room for so many pairs of token and rule.
    pub fn new(capacity: usize) -> Self {
        Self { tokens: DashMap::new(), entries: AtomicUsize::new(0), capacity, overflow: AtomicU64::new(0) }
    }

    /// Counts one use. A pair for which there is no room is counted in [`Usage::overflow`].
    pub fn record(&self, accessor: Accessor, rule: RuleKey, now: Timestamp) {
        let known = self.tokens.get(&accessor).is_some_and(|counters| used(&counters, rule, now));
        if !known {
            self.record_new(accessor, rule, now);
        }
    }

    fn record_new(&self, accessor: Accessor, rule: RuleKey, now: Timestamp) {
        if self.entries.load(Ordering::Relaxed) >= self.capacity {
            self.overflow.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut counters = self.tokens.entry(accessor).or_default();
        if !used(&counters, rule, now) {
            let counter = Counter::new(rule);
            counter.used(now);
            counters.push(counter);
            self.entries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What has been used since the last call. Makes room, when it is scarce, by forgetting pairs not used since.
    pub fn drain(&self) -> Vec<UsageDelta> {
        let mut deltas = Vec::new();
        let scarce = self.entries.load(Ordering::Relaxed) > self.capacity / 2;
        self.tokens.retain(|accessor, counters| {
            let before = counters.len();
            counters.retain(|counter| {
                let count = counter.count.load(Ordering::Relaxed);
                let more = count - counter.drained.swap(count, Ordering::Relaxed);
                if more > 0 {
                    let last_used = Timestamp(counter.last_used.load(Ordering::Relaxed));
                    deltas.push(UsageDelta { accessor: *accessor, rule: counter.rule, count: more, last_used });
                }
                more > 0 || !scarce
            });
            self.entries.fetch_sub(before - counters.len(), Ordering::Relaxed);
            !counters.is_empty()
        });
        deltas
    }

    /// What a token has used since the process began.
    pub fn of(&self, accessor: Accessor) -> Vec<RuleUsage> {
        let Some(counters) = self.tokens.get(&accessor) else { return Vec::new() };
        let usage = |counter: &Counter| RuleUsage {
            rule: counter.rule,
            count: counter.count.load(Ordering::Relaxed),
            last_used: Timestamp(counter.last_used.load(Ordering::Relaxed)),
        };
        counters.iter().map(usage).collect()
    }

    /// Uses that were not counted for want of room.
    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }
}

fn used(counters: &[Counter], rule: RuleKey, now: Timestamp) -> bool {
    let counter = counters.iter().find(|counter| counter.rule == rule);
    counter.inspect(|counter| counter.used(now)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64) -> Accessor {
        Accessor::from_random(number)
    }

    fn delta(number: u64, rule: u32, count: u64, last_used: u64) -> UsageDelta {
        UsageDelta { accessor: token(number), rule: RuleKey(rule), count, last_used: Timestamp(last_used) }
    }

    #[test]
    fn use_is_handed_over_once_and_remembered() {
        let usage = Usage::new(100);
        for now in [10, 30, 20] {
            usage.record(token(1), RuleKey(7), Timestamp(now));
        }
        usage.record(token(1), RuleKey(8), Timestamp(5));
        usage.record(token(2), RuleKey(7), Timestamp(6));
        let mut drained = usage.drain();
        drained.sort_by_key(|delta| (delta.accessor, delta.last_used));
        assert_eq!(drained, [delta(1, 8, 1, 5), delta(1, 7, 3, 30), delta(2, 7, 1, 6)]);
        assert!(usage.drain().is_empty());
        usage.record(token(1), RuleKey(7), Timestamp(40));
        assert_eq!(usage.drain(), [delta(1, 7, 1, 40)]);
        assert_eq!(usage.of(token(1))[0], RuleUsage { rule: RuleKey(7), count: 4, last_used: Timestamp(40) });
        assert!(usage.of(token(3)).is_empty());
    }

    #[test]
    fn it_is_bounded_and_makes_room() {
        let usage = Usage::new(2);
        for number in 1..=4 {
            usage.record(token(number), RuleKey(1), Timestamp(1));
        }
        assert_eq!(usage.overflow(), 2);
        assert_eq!(usage.drain().len(), 2);
        usage.drain();
        usage.record(token(4), RuleKey(1), Timestamp(2));
        assert_eq!(usage.drain(), [delta(4, 1, 1, 2)]);
    }

    #[test]
    fn threads_count_together() {
        let usage = Usage::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..1000_u32).for_each(|n| usage.record(token(u64::from(n % 10)), RuleKey(n % 3), Timestamp(1)));
                });
            }
        });
        assert_eq!(usage.drain().iter().map(|delta| delta.count).sum::<u64>(), 4000);
    }
}
