//! Which token used which rule, how often, when last and from where: counted in memory with relaxed atomics, handed over on
//! a timer. Never a write per request: that is why other gateways have no last-used at all.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use leastgate_policy::{Accessor, RuleKey, Timestamp};

/// Use since the last time it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageDelta {
    /// The token.
    pub accessor: Accessor,
    /// The rule; `None`: requests of the token that no rule let through. They show that somebody has it.
    pub rule: Option<RuleKey>,
    /// How often more; 0: a use that goes on.
    pub count: u64,
    /// When last.
    pub last_used: Timestamp,
    /// Where that came from, or the last one before that came from somewhere.
    pub last_source: Option<IpAddr>,
}

/// The last use of one token since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUsed {
    /// When.
    pub at: Timestamp,
    /// From where; where nothing came from anywhere then (another token stood in for it), from where last before.
    pub source: Option<IpAddr>,
    /// By which rule; `None`: no rule let it through.
    pub rule: Option<RuleKey>,
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
    rule: Option<RuleKey>,
    count: AtomicU64,
    drained: AtomicU64,
    last_used: AtomicU64,
    /// The last use that was handed over.
    told: AtomicU64,
    /// When, and from where.
    last_source: Mutex<(Timestamp, Option<IpAddr>)>,
}

impl Counter {
    fn new(rule: Option<RuleKey>) -> Self {
        let (count, drained, last_used, told, last_source) = Default::default();
        Self { rule, count, drained, last_used, told, last_source }
    }

    fn used(&self, uses: u64, now: Timestamp, source: Option<IpAddr>) {
        self.count.fetch_add(uses, Ordering::Relaxed);
        self.last_used.fetch_max(now.0, Ordering::Relaxed);
        // Who finds it taken waits for nobody: another use of this very moment writes its own.
        if let Ok(mut last) = self.last_source.try_lock()
            && last.0 <= now
        {
            *last = (now, source.or(last.1));
        }
    }

    fn last(&self) -> LastUsed {
        let source = self.last_source.try_lock().ok().and_then(|last| last.1);
        LastUsed { at: Timestamp(self.last_used.load(Ordering::Relaxed)), source, rule: self.rule }
    }
}

impl Usage {
    /// Room for so many pairs of token and rule.
    pub fn new(capacity: usize) -> Self {
        Self { tokens: DashMap::new(), entries: AtomicUsize::new(0), capacity, overflow: AtomicU64::new(0) }
    }

    /// Counts one use, of a rule or of none that let it through. A pair for which there is no room is counted in
    /// [`Usage::overflow`].
    pub fn record(&self, accessor: Accessor, rule: Option<RuleKey>, now: Timestamp, source: Option<IpAddr>) {
        self.add(accessor, rule, 1, (now, source));
    }

    /// The same for a use that goes on: it is counted when it is over.
    pub fn goes_on(&self, accessor: Accessor, rule: Option<RuleKey>, now: Timestamp, source: Option<IpAddr>) {
        self.add(accessor, rule, 0, (now, source));
    }

    fn add(&self, accessor: Accessor, rule: Option<RuleKey>, uses: u64, last: (Timestamp, Option<IpAddr>)) {
        let known = self.tokens.get(&accessor).is_some_and(|counters| used(&counters, rule, uses, last));
        if !known {
            self.add_new(accessor, rule, uses, last);
        }
    }

    fn add_new(&self, accessor: Accessor, rule: Option<RuleKey>, uses: u64, last: (Timestamp, Option<IpAddr>)) {
        if self.entries.load(Ordering::Relaxed) >= self.capacity {
            self.overflow.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut counters = self.tokens.entry(accessor).or_default();
        if !used(&counters, rule, uses, last) {
            let counter = Counter::new(rule);
            counter.used(uses, last.0, last.1);
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
                let LastUsed { at, source, rule } = counter.last();
                let is_news = more > 0 || counter.told.load(Ordering::Relaxed) < at.0;
                counter.told.store(at.0, Ordering::Relaxed);
                if is_news {
                    deltas.push(UsageDelta {
                        accessor: *accessor,
                        rule,
                        count: more,
                        last_used: at,
                        last_source: source,
                    });
                }
                is_news || !scarce
            });
            self.entries.fetch_sub(before - counters.len(), Ordering::Relaxed);
            !counters.is_empty()
        });
        deltas
    }

    /// The last use of a token, as far as it is in memory.
    pub fn last_of(&self, accessor: Accessor) -> Option<LastUsed> {
        let counters = self.tokens.get(&accessor)?;
        let order = |last: &LastUsed| (last.at, last.rule.is_some());
        let last = counters.iter().map(Counter::last).max_by_key(order)?;
        let known = || counters.iter().map(Counter::last).filter(|last| last.source.is_some()).max_by_key(order);
        Some(LastUsed { source: last.source.or_else(|| known()?.source), ..last })
    }

    /// Uses that were not counted for want of room.
    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }
}

fn used(counters: &[Counter], rule: Option<RuleKey>, uses: u64, (now, source): (Timestamp, Option<IpAddr>)) -> bool {
    let counter = counters.iter().find(|counter| counter.rule == rule);
    counter.inspect(|counter| counter.used(uses, now, source)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64) -> Accessor {
        Accessor::from_random(number)
    }

    /// A source for each moment, so that the latest is told from the others.
    fn source(at: u64) -> IpAddr {
        IpAddr::from(std::net::Ipv6Addr::from(u128::from(at)))
    }

    fn record(usage: &Usage, number: u64, rule: impl Into<Option<u32>>, at: u64) {
        usage.record(token(number), rule.into().map(RuleKey), Timestamp(at), Some(source(at)));
    }

    fn delta(number: u64, rule: impl Into<Option<u32>>, count: u64, at: u64) -> UsageDelta {
        let rule = rule.into().map(RuleKey);
        UsageDelta { accessor: token(number), rule, count, last_used: Timestamp(at), last_source: Some(source(at)) }
    }

    #[test]
    fn use_is_handed_over_once_and_remembered() {
        let usage = Usage::new(100);
        for now in [10, 30, 20] {
            record(&usage, 1, 7, now);
        }
        record(&usage, 1, 8, 5);
        record(&usage, 2, 7, 6);
        let mut drained = usage.drain();
        drained.sort_by_key(|delta| (delta.accessor, delta.last_used));
        assert_eq!(drained, [delta(1, 8, 1, 5), delta(1, 7, 3, 30), delta(2, 7, 1, 6)]);
        assert!(usage.drain().is_empty());
        record(&usage, 1, 7, 40);
        assert_eq!(usage.drain(), [delta(1, 7, 1, 40)]);
    }

    #[test]
    fn a_use_that_goes_on_is_the_last_one_and_counted_once() {
        let usage = Usage::new(100);
        let goes_on = |at| usage.goes_on(token(1), Some(RuleKey(7)), Timestamp(at), Some(source(at)));
        goes_on(10);
        assert_eq!(usage.drain(), [delta(1, 7, 0, 10)]);
        assert!(usage.drain().is_empty(), "no news");
        goes_on(12);
        goes_on(13);
        assert_eq!(usage.last_of(token(1)).unwrap().at, Timestamp(13));
        assert_eq!(usage.drain(), [delta(1, 7, 0, 13)]);
        record(&usage, 1, 7, 9);
        assert_eq!(usage.drain(), [delta(1, 7, 1, 13)], "its end counts it, and its beginning is not its last use");
    }

    #[test]
    fn the_last_use_of_a_token_is_the_latest_of_all_its_rules_and_of_none() {
        let usage = Usage::new(100);
        assert_eq!(usage.last_of(token(1)), None);
        record(&usage, 1, 7, 30);
        record(&usage, 1, 8, 20);
        let last = |at, rule: Option<u32>| {
            Some(LastUsed { at: Timestamp(at), source: Some(source(at)), rule: rule.map(RuleKey) })
        };
        assert_eq!(usage.last_of(token(1)), last(30, Some(7)));
        record(&usage, 1, None, 30);
        assert_eq!(usage.last_of(token(1)), last(30, Some(7)), "of one moment the one that a rule let through");
        record(&usage, 1, None, 31);
        assert_eq!(usage.last_of(token(1)), last(31, None));
        let refused: Vec<_> = usage.drain().into_iter().filter(|delta| delta.rule.is_none()).collect();
        assert_eq!(refused, [delta(1, None, 2, 31)]);
    }

    #[test]
    fn a_use_from_nowhere_moves_the_time_and_not_the_source() {
        let usage = Usage::new(100);
        let nowhere = |at| usage.record(token(1), None, Timestamp(at), None);
        nowhere(1);
        assert_eq!(usage.last_of(token(1)).unwrap().source, None);
        record(&usage, 1, 7, 5);
        nowhere(9);
        let last = LastUsed { at: Timestamp(9), source: Some(source(5)), rule: None };
        assert_eq!(usage.last_of(token(1)), Some(last));
        record(&usage, 1, None, 10);
        nowhere(12);
        assert_eq!(usage.last_of(token(1)), Some(LastUsed { at: Timestamp(12), source: Some(source(10)), rule: None }));
    }

    #[test]
    fn it_is_bounded_and_makes_room() {
        let usage = Usage::new(2);
        for number in 1..=4 {
            record(&usage, number, 1, 1);
        }
        assert_eq!(usage.overflow(), 2);
        assert_eq!(usage.drain().len(), 2);
        usage.drain();
        record(&usage, 4, 1, 2);
        assert_eq!(usage.drain(), [delta(4, 1, 1, 2)]);
    }

    #[test]
    fn threads_count_together_and_wait_for_nobody() {
        let usage = Usage::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|n: u32| record(&usage, u64::from(n % 10), n % 3, 1)));
            }
        });
        assert_eq!(usage.drain().iter().map(|delta| delta.count).sum::<u64>(), 4000);
        record(&usage, 1, 0, 2);
        let held = usage.tokens.get(&token(1)).unwrap();
        let counter = held.iter().find(|counter| counter.rule == Some(RuleKey(0))).unwrap();
        let taken = counter.last_source.lock().unwrap();
        // With a lock that waits this would never end.
        counter.used(1, Timestamp(3), Some(source(3)));
        assert_eq!((counter.last().at, counter.last().source), (Timestamp(3), None));
        drop(taken);
        assert_eq!(counter.last().source, Some(source(2)));
    }
}
