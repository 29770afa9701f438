//! The meter against a bucket that a child would draw: filled drop by drop, emptied by the request.

use std::thread;

use proptest::prelude::*;

use super::*;
use crate::token::LimitsError;

/// A bucket as it is told of: so much in it, since then. Shares nothing with the meter but the length of an interval.
struct Naive {
    interval: u128,
    size: u128,
    level: u128,
    since: u128,
}

impl Naive {
    fn new(rate: u32, burst: u32) -> Self {
        let interval = 1_000_000_000_u128.div_ceil(u128::from(rate));
        let size = interval * u128::from(burst);
        Self { interval, size, level: size, since: 0 }
    }

    /// How many requests are left in it, or how long it takes to hold one.
    fn take(&mut self, now: u128) -> Result<u128, u128> {
        self.level = self.size.min(self.level + now - self.since);
        self.since = now;
        if self.level < self.interval {
            return Err(self.interval - self.level);
        }
        self.level -= self.interval;
        Ok(self.level / self.interval)
    }
}

fn limited(rate: u32, burst: Option<u32>) -> TokenLimits {
    TokenLimits { rate: Some(rate), burst, concurrent: None }
}

/// An attempt under these limits.
fn take(meter: &Arc<Meter>, limits: &TokenLimits, now: Duration) -> Result<Metered, OverLimit> {
    meter.govern(limits);
    meter.take(now)
}

/// Of no matter what: what is left of the rate, or how long to wait.
fn attempt(meter: &Arc<Meter>, limits: &TokenLimits, now: Duration) -> Result<RateLeft, Duration> {
    take(meter, limits, now).map(|metered| metered.allowance.rate.unwrap()).map_err(|over| over.wait())
}

fn rates() -> impl Strategy<Value = u32> {
    prop_oneof![1..20_u32, 1..5000_u32, 1..=u32::MAX, Just(u32::MAX)]
}

fn bursts() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), (1..8_u32).prop_map(Some), (1..=u32::MAX).prop_map(Some)]
}

/// Pauses between attempts: none, some nanoseconds, and about as long as a request of the rate takes.
fn pauses(rate: u32) -> impl Strategy<Value = Vec<u64>> {
    let interval = SECOND.div_ceil(u64::from(rate));
    let pause = prop_oneof![3 => Just(0), 2 => 0..20_u64, 5 => 0..=interval * 2, 1 => 0..=interval * 20];
    prop::collection::vec(pause, 1..120)
}

fn cases() -> impl Strategy<Value = (u32, Option<u32>, u64, Vec<u64>)> {
    rates().prop_flat_map(|rate| (Just(rate), bursts(), prop_oneof![Just(0), 0..1_u64 << 60], pauses(rate)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn it_lets_through_what_the_bucket_does((rate, burst, start, pauses) in cases()) {
        let (meter, limits) = (Arc::new(Meter::default()), limited(rate, burst));
        let size = burst.unwrap_or(rate);
        let mut naive = Naive::new(rate, size);
        let (mut now, mut passed) = (start, Vec::new());
        naive.since = u128::from(start);
        for pause in pauses {
            now += pause;
            match (attempt(&meter, &limits, Duration::from_nanos(now)), naive.take(u128::from(now))) {
                (Ok(left), Ok(expected)) => {
                    prop_assert_eq!(u128::from(left.left), expected);
                    prop_assert!(left.left < size && left.rate == rate && left.reset == 1, "{left:?}");
                    passed.push(now);
                }
                (Err(wait), Err(expected)) => {
                    prop_assert_eq!(wait.as_millis(), expected.div_ceil(1_000_000));
                    let later = Duration::from_nanos(now) + wait;
                    let copy = Arc::new(Meter { arrival: meter.arrival.load(Ordering::Relaxed).into(), ..Meter::default() });
                    prop_assert!(attempt(&copy, &limits, later).is_ok(), "waiting as long as told is enough");
                }
                (told, expected) => prop_assert!(false, "{told:?}, not {expected:?}"),
            }
        }
        // Over any window, no more than the rate allows, and the burst.
        for (first, began) in passed.iter().enumerate() {
            for (last, ended) in passed.iter().enumerate().skip(first) {
                let allowed = u128::from(rate) * u128::from(ended - began) / u128::from(SECOND) + u128::from(size);
                prop_assert!((last - first + 1) as u128 <= allowed, "{} in {} ns", last - first + 1, ended - began);
            }
        }
    }
}

#[test]
fn a_clock_that_does_not_move_lets_a_burst_through_and_no_more() {
    for (start, rate, burst) in [(0, 10, 5), (1, 1, 1), (u64::MAX / 2, 1000, 7), (0, u32::MAX, 9)] {
        let (meter, limits) = (Arc::new(Meter::default()), limited(rate, Some(burst)));
        let passed = (0..100).filter(|_| attempt(&meter, &limits, Duration::from_nanos(start)).is_ok()).count();
        assert_eq!(passed, burst as usize);
    }
    let (meter, limits) = (Arc::new(Meter::default()), limited(3, None));
    assert_eq!((0..100).filter(|_| attempt(&meter, &limits, Duration::ZERO).is_ok()).count(), 3, "as many as the rate");
}

#[test]
fn nothing_overflows_and_the_end_of_the_clock_lets_nothing_through() {
    for limits in [limited(u32::MAX, Some(u32::MAX)), limited(1, Some(u32::MAX)), limited(1, None)] {
        let meter = Arc::new(Meter::default());
        assert!(attempt(&meter, &limits, Duration::ZERO).is_ok());
        assert!(attempt(&meter, &limits, Duration::from_nanos(u64::MAX)).is_err());
        assert!(attempt(&meter, &limits, Duration::MAX).is_err());
    }
}

#[test]
fn a_rate_of_nothing_lets_nothing_through() {
    let meter = Arc::new(Meter::default());
    for now in [0, 1, 1000] {
        assert!(attempt(&meter, &limited(0, Some(5)), Duration::from_secs(now)).is_err());
    }
}

#[test]
fn a_clock_that_goes_back_gives_nothing_back() {
    let (meter, limits) = (Arc::new(Meter::default()), limited(1, Some(2)));
    assert!(attempt(&meter, &limits, Duration::from_secs(100)).is_ok());
    assert!(attempt(&meter, &limits, Duration::from_secs(100)).is_ok());
    assert_eq!(attempt(&meter, &limits, Duration::from_secs(40)), Err(Duration::from_secs(61)));
}

#[test]
fn threads_share_one_bucket_and_the_same_places() {
    let meter = Arc::new(Meter::default());
    let limits = TokenLimits { rate: Some(1000), burst: Some(50), concurrent: Some(30) };
    let attempts = || {
        let mut held = Vec::new();
        for micros in 0..200_000_u64 {
            match take(&meter, &limits, Duration::from_micros(micros)) {
                Ok(metered) => held.push(metered),
                Err(over) if over.reason == Reason::TokenConcurrencyLimited => held.clear(),
                Err(_) => {}
            }
            assert!(meter.underway.load(Ordering::Relaxed) <= 30);
        }
        held
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(attempts)).collect();
        threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    assert_eq!(meter.underway.load(Ordering::Relaxed), 0);
    // 200 ms at a thousand a second, and the burst: to the request, whoever came when.
    let used = Duration::from_nanos(meter.arrival.load(Ordering::Relaxed)).as_micros() / 1000;
    assert!(used <= 250, "{used}");
    let still = Arc::new(Meter::default());
    let passed = thread::scope(|scope| {
        let count = || (0..1000).filter(|_| attempt(&still, &limited(1, Some(777)), Duration::ZERO).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(passed, 777);
}

#[test]
fn a_place_is_given_back_when_it_is_dropped() {
    let (meter, limits) = (Arc::new(Meter::default()), TokenLimits { concurrent: Some(2), ..TokenLimits::default() });
    let take = || take(&meter, &limits, Duration::ZERO);
    let (first, second) = (take().unwrap(), take().unwrap());
    let left = |left| Some(ConcurrentLeft { quota: 2, left });
    assert_eq!((first.allowance.concurrent, second.allowance.concurrent), (left(1), left(0)));
    let over = take().unwrap_err();
    assert_eq!((over.reason, over.allowance.concurrent), (Reason::TokenConcurrencyLimited, left(0)));
    assert!(!over.wait().is_zero());
    drop(first);
    assert!(take().is_ok());
    drop(second);
    assert_eq!(meter.underway.load(Ordering::Relaxed), 0);
}

#[test]
fn an_attempt_that_finds_no_place_has_used_the_rate() {
    let limits = TokenLimits { rate: Some(1), burst: Some(3), concurrent: Some(1) };
    let meter = Arc::new(Meter::default());
    let held = take(&meter, &limits, Duration::ZERO).unwrap();
    let reasons: Vec<Reason> = (0..3).map(|_| take(&meter, &limits, Duration::ZERO).unwrap_err().reason).collect();
    assert_eq!(reasons, [Reason::TokenConcurrencyLimited, Reason::TokenConcurrencyLimited, Reason::TokenRateLimited]);
    drop(held);
}

#[test]
fn what_is_left_is_told_in_whole_requests_and_seconds() {
    let (meter, limits) = (Arc::new(Meter::default()), limited(10, Some(25)));
    let all: Vec<RateLeft> = (0..25).map(|_| attempt(&meter, &limits, Duration::ZERO).unwrap()).collect();
    let left = |left| RateLeft { rate: 10, left, reset: 1 };
    assert_eq!((all[0], all[23], all[24]), (left(24), left(1), left(0)));
    let over = take(&meter, &limits, Duration::from_millis(40)).unwrap_err();
    assert_eq!((over.wait(), over.allowance.rate), (Duration::from_millis(60), Some(left(0))));
}

/// All of a burst is used; then the rate is another. As many requests stay used as there may be.
#[test]
fn an_edit_of_the_rate_counts_what_was_used_in_requests() {
    let day = limited(1, Some(86_400));
    let (seconds, at) = (Duration::from_secs, Duration::from_secs(7));
    let exhausted = |limits: &TokenLimits| {
        let meter = Arc::new(Meter::default());
        while attempt(&meter, limits, at).is_ok() {}
        meter
    };
    for (limits, edited, wait) in [
        (day, limited(1000, None), Duration::from_millis(1)),
        (day, limited(1000, Some(100_000)), Duration::ZERO),
        (day, limited(1, Some(10)), seconds(1)),
        (limited(1000, None), limited(1, None), seconds(1)),
        (limited(1000, None), limited(1, Some(1000)), seconds(1)),
        (limited(1000, Some(10)), limited(1, Some(11)), Duration::ZERO),
    ] {
        let meter = exhausted(&limits);
        let told = attempt(&meter, &edited, at).map_or_else(|wait| wait, |_| Duration::ZERO);
        assert_eq!(told, wait, "{limits:?} {edited:?}");
        assert!(attempt(&meter, &edited, at + wait.max(seconds(1))).is_ok());
    }
    // There and back: nothing is given and nothing taken, and in between requests go on counting.
    let meter = exhausted(&limited(10, Some(10)));
    assert!(attempt(&meter, &limited(1, Some(20)), at).is_ok());
    assert_eq!(attempt(&meter, &limited(10, Some(10)), at), Err(Duration::from_millis(100)));
    // Without a rate for a while: what was used before is used.
    let concurrent = TokenLimits { concurrent: Some(5), ..TokenLimits::default() };
    assert!(take(&meter, &concurrent, at).is_ok());
    assert_eq!(attempt(&meter, &limited(10, Some(10)), at), Err(Duration::from_millis(100)));
}

/// However edits and requests fall together, an edit fills no bucket.
#[test]
fn edits_under_way_fill_nothing() {
    let burst = 50_000;
    let meter = Arc::new(Meter::new(&limited(10, Some(burst))));
    let attempt = |number: &u32| {
        if number.is_multiple_of(97) {
            meter.govern(&limited(10 + number % 7, Some(burst)));
        }
        meter.take(Duration::ZERO).is_ok()
    };
    let count = || (0..60_000).filter(attempt).count();
    let passed = thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    // The very first ones may be counted by a rate that has just ended.
    assert!(passed <= burst as usize + 3, "{passed}");
    assert!(passed > burst as usize / 2, "{passed}");
}

#[test]
fn limits_that_let_nothing_through_are_none() {
    let limits = |rate, burst, concurrent| TokenLimits { rate, burst, concurrent }.check();
    assert_eq!(limits(None, None, None), Ok(()));
    assert_eq!(limits(Some(1), Some(1), Some(1)), Ok(()));
    assert_eq!(limits(Some(0), None, None), Err(LimitsError::Zero("rate")));
    assert_eq!(limits(Some(1), Some(0), None), Err(LimitsError::Zero("burst")));
    assert_eq!(limits(None, None, Some(0)), Err(LimitsError::Zero("concurrent")));
    assert_eq!(limits(None, Some(5), Some(1)), Err(LimitsError::BurstWithoutRate));
    assert_eq!(
        (limits(Some(1_000_000), None, None), limits(Some(1_000_001), None, None)),
        (Ok(()), Err(LimitsError::Rate))
    );
    assert_eq!(
        (limits(Some(2), Some(172_800), None), limits(Some(2), Some(172_801), None)),
        (Ok(()), Err(LimitsError::Burst))
    );
    assert_eq!(limits(Some(1_000_000), Some(u32::MAX), None), Ok(()));
}
