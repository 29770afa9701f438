//! Numbers drawn from the seed that a run prints: the same seed draws the same sizes, pauses and disturbances. When each
//! comes to pass is the machine's business.

use std::time::Duration;

/// A `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The `number`th source of a seed.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let mut rng = Self(seed ^ number.wrapping_mul(0xA24B_AED4_963E_E407));
        rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number under `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A time with this mean.
    pub(crate) fn around(&mut self, mean: Duration) -> Duration {
        let doubled = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX).saturating_mul(2);
        Duration::from_micros(self.below(doubled))
    }

    /// One of several.
    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let length = u64::try_from(all.len()).unwrap_or(u64::MAX);
        all[usize::try_from(self.below(length)).unwrap_or_default()]
    }
}
