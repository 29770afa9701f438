//! How often a source may fail to authenticate: GCRA (the virtual scheduling algorithm of ITU-T I.371) over a table of
//! fixed size. It is asked only when a 401 is due, so a valid token is never refused for its neighbours.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

/// Sources remembered at a time: `SETS` × `WAYS`. A full set forgets the source that has been quiet longest.
const SETS: usize = 4096;
const WAYS: usize = 4;
/// Locks, so that workers rarely meet.
const SHARDS: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    source: u128,
    /// Theoretical arrival time: when this source would be back at zero, in time since the gateway's start.
    empty_at: Duration,
}

/// The failures of all sources.
#[derive(Debug)]
pub(crate) struct SourceFailures {
    interval: Duration,
    burst: Duration,
    hasher: RandomState,
    shards: Vec<Mutex<Vec<[Slot; WAYS]>>>,
}

impl SourceFailures {
    /// `interval` is the time one failure takes to be forgotten, `burst` how many may come at once.
    pub(crate) fn new(interval: Duration, burst: u32) -> Self {
        let shard = || Mutex::new(vec![[Slot::default(); WAYS]; SETS / SHARDS]);
        Self {
            interval,
            burst: interval * burst,
            hasher: RandomState::new(),
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
        }
    }

    /// Counts a failure. `Err` says how long the source should wait: its answer is a 429.
    pub(crate) fn record(&self, source: IpAddr, now: Duration) -> Result<(), Duration> {
        let source = network_of(source);
        let hash = usize::try_from(self.hasher.hash_one(source) & 0xffff_ffff).unwrap_or_default();
        let shard = &self.shards[hash % SHARDS];
        let mut sets = shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let set = hash / SHARDS % sets.len();
        let slot = slot_for(&mut sets[set], source);
        let empty_at = slot.empty_at.max(now) + self.interval;
        let over = (empty_at - now).saturating_sub(self.burst);
        if over.is_zero() {
            slot.empty_at = empty_at;
            return Ok(());
        }
        Err(over)
    }
}

/// The slot of a source, or the one whose source has been quiet longest.
fn slot_for(set: &mut [Slot; WAYS], source: u128) -> &mut Slot {
    let known = set.iter().position(|slot| slot.source == source);
    let quietest = || (0..WAYS).min_by_key(|way| set[*way].empty_at);
    let way = known.or_else(quietest).unwrap_or_default();
    let slot = &mut set[way];
    if slot.source != source {
        *slot = Slot { source, empty_at: Duration::ZERO };
    }
    slot
}

/// One IPv4 address, or the /64 that one IPv6 host can take addresses from as it likes.
pub(crate) fn network_of(source: IpAddr) -> u128 {
    match source.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter() -> SourceFailures {
        SourceFailures::new(Duration::from_millis(50), 100)
    }

    #[test]
    fn a_burst_passes_then_the_rate() {
        let failures = limiter();
        let source = "192.0.2.1".parse().unwrap();
        let now = 10 * SECOND;
        assert!((0..100).all(|_| failures.record(source, now).is_ok()));
        assert_eq!(failures.record(source, now), Err(Duration::from_millis(50)));
        let later = now + SECOND;
        assert_eq!((0..100).filter(|_| failures.record(source, later).is_ok()).count(), 20);
        assert!(failures.record("192.0.2.2".parse().unwrap(), now).is_ok());
    }

    #[test]
    fn an_ipv6_host_cannot_hop_within_its_network() {
        let failures = limiter();
        let hop = |n: u32| failures.record(format!("2001:db8::{n:x}").parse().unwrap(), SECOND).is_ok();
        assert_eq!((0..200).filter(|n| hop(*n)).count(), 100);
        assert!(failures.record("2001:db8:0:1::1".parse().unwrap(), SECOND).is_ok());
    }

    #[test]
    fn a_flood_of_sources_takes_no_more_memory() {
        let failures = limiter();
        for n in 0..100_000_u32 {
            let _ = failures.record(IpAddr::from(n.to_be_bytes()), SECOND);
        }
        let slots: usize = failures.shards.iter().map(|shard| shard.lock().unwrap().len() * WAYS).sum();
        assert_eq!(slots, SETS * WAYS);
    }
}
