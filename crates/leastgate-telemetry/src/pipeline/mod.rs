//! The way of an event from a worker to the sinks:
//!
//! 1. A worker encodes the line without its number and puts it into its own bounded [`Lane`]. It waits for nobody.
//! 2. One writer thread swaps the lanes' buffers for empty ones, gives each line its gap-free `seq`, and gathers batches of
//!    64 KiB or 100 ms. A checkpoint line closes each.
//! 3. Every sink has a queue and a thread, so a slow one delays nobody.
//!
//! Whatever falls off on the way is counted where it fell and becomes a `gap` event.

mod baits;
mod chain;
mod control;
mod flood;
mod lane;
mod places;
mod position;
mod recent;
mod sinks;
mod writer;

pub(crate) use baits::Repeated;
pub(crate) use control::{Pipeline, PipelineParts};
pub(crate) use lane::{Lane, Queue};
pub(crate) use places::Place;
pub(crate) use position::{Position, PositionFile};
pub use recent::RecentFilter;
pub(crate) use sinks::SinkQueue;
pub use sinks::SinkState;

/// What so many events may take in memory. They are few hundred bytes as a rule, and hundreds of thousand where one tells of
/// many tokens: a bound of their number alone would bound nothing.
pub(crate) fn most_bytes(events: usize) -> usize {
    events.saturating_mul(4096).max(1024 * 1024)
}

/// No event can be kept as its class demands: the request must be answered 503, the change refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit stream has no room for an event that must be kept")]
pub struct AuditFull;
