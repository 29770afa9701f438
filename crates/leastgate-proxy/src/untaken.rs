//! How much of a body lies with h2 because the other side has not taken it yet. hyper calls a stream done when it has
//! handed h2 the last part, no handle tells when that part goes out, and from then on h2 can't reset the stream. But the
//! part is dropped when it goes, and that can be seen.
//!
//! So the end of a body is held back until its parts are gone: an end of its own needs no window, and until then the stream
//! can be reset, alone. Only a response of one part ends with it, because a frame and a system call more for each short
//! answer would be dear: see `connection/stream.rs` for who does not take one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use bytes::Bytes;

/// The parts of one body, counted as they are handed over and as they leave. A buffer must be `Send`, and so must be
/// what it carries: hence the atomics, on one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Untaken(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    offered: AtomicU64,
    taken: AtomicU64,
    waiting: AtomicWaker,
}

impl Untaken {
    /// The same bytes, counted until they have left or been thrown away.
    pub(crate) fn count(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        self.0.offered.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Part { bytes, counts: Arc::clone(&self.0) })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.offered.load(Ordering::Relaxed) == self.taken()
    }

    /// Whether no part was ever offered.
    pub(crate) fn is_unused(&self) -> bool {
        self.0.offered.load(Ordering::Relaxed) == 0
    }

    /// Whether no more than one part was ever offered.
    pub(crate) fn is_short(&self) -> bool {
        self.0.offered.load(Ordering::Relaxed) <= 1
    }

    /// Waits until all of it has left.
    pub(crate) fn poll_empty(&self, cx: &Context<'_>) -> Poll<()> {
        self.register(cx);
        if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// How many parts have left so far.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// The task that asks is woken when the next part has left.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.0.waiting.register(cx.waker());
    }
}

struct Part {
    bytes: Bytes,
    counts: Arc<Counts>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.counts.taken.fetch_add(1, Ordering::Relaxed);
        self.counts.waiting.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_counts_until_its_last_byte_is_dropped() {
        let untaken = Untaken::default();
        assert!(untaken.count(Bytes::new()).is_empty() && untaken.is_empty());
        let mut part = untaken.count(Bytes::from_static(b"part"));
        let first = part.split_to(2);
        assert_eq!((&first[..], &part[..]), (&b"pa"[..], &b"rt"[..]));
        drop(first);
        assert!(!untaken.is_empty());
        drop(part);
        assert!(untaken.is_empty());
        assert_eq!(untaken.taken(), 1);
    }
}
