//! The id of a decision: a UUIDv7 (RFC 9562 §5.7), which the client reads in `X-Request-Id` or a problem body and an
//! operator pastes into `explain`. Ids sort by time. They are names, not secrets: a worker draws randomness once and counts
//! from there, so an id costs no system call.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::clock::Micros;

/// Names one decision, and each other event of the audit stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(Uuid);

impl DecisionId {
    /// Writes the 36 characters into `buffer` without allocating.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What stands where a decision id should is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a decision id: expected a hyphenated UUID")]
pub struct InvalidDecisionId;

impl FromStr for DecisionId {
    type Err = InvalidDecisionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let canonical = text.len() == 36;
        Uuid::try_parse(text).ok().filter(|_| canonical).map(Self).ok_or(InvalidDecisionId)
    }
}

/// Makes the ids of one worker.
#[derive(Debug)]
pub(crate) struct DecisionIds {
    state: u64,
    counter: u16,
}

impl DecisionIds {
    pub(crate) fn new() -> Self {
        let (high, low) = Uuid::now_v7().as_u64_pair();
        Self { state: low ^ high.rotate_left(32), counter: 0 }
    }

    /// The counter stands where RFC 9562 §6.2 (method 1) puts it, so ids of one worker and millisecond sort as drawn.
    pub(crate) fn next(&mut self, now: Micros) -> DecisionId {
        self.counter = self.counter.wrapping_add(1) & 0x0fff;
        let mut bytes = [0_u8; 10];
        bytes[..2].copy_from_slice(&self.counter.to_be_bytes());
        bytes[2..].copy_from_slice(&self.random().to_be_bytes());
        DecisionId(uuid::Builder::from_unix_timestamp_millis(now.millis(), &bytes).into_uuid())
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): every state is visited once, so one worker does not repeat itself.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_version_7_carry_the_time_and_differ() {
        let mut workers = [DecisionIds::new(), DecisionIds::new(), DecisionIds::new()];
        let now = Micros(1_790_000_000_123_456);
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            for ids in &mut workers {
                let id = ids.next(now);
                assert_eq!(id.0.get_version_num(), 7);
                assert_eq!(id.0.as_u128() >> 80, 1_790_000_000_123);
                assert!(seen.insert(id));
            }
        }
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = DecisionIds::new().next(Micros(1));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.encode(&mut [0; 36]), id.to_string());
        assert!("7b0e".parse::<DecisionId>().is_err());
        assert!(id.to_string().replace('-', "").parse::<DecisionId>().is_err());
    }
}
