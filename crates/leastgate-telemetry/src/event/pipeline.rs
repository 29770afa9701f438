//! Events the pipeline writes about itself: what was lost, what was summarised, and the checkpoint that closes a batch.

use std::net::IpAddr;

use super::admin::open;
use super::{GatewayFragment, rfc3339};
use crate::clock::Micros;
use crate::decision_id::DecisionId;

/// Events that could not be kept.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    pub(crate) cause: GapCause,
    /// The worker whose buffer was full.
    pub(crate) worker: Option<u32>,
    /// The sink that could not keep up; without one the events are lost to every sink.
    pub(crate) sink: Option<String>,
    /// `None`: nobody knows.
    pub(crate) count: Option<u64>,
    /// The sequence numbers a sink misses. Events lost before they got one have none.
    pub(crate) seqs: Option<(u64, u64)>,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapCause {
    /// A worker's buffer was full.
    BufferFull,
    /// A sink's queue was full.
    QueueFull,
    /// The disk was full.
    DiskFull,
    /// A sink failed for good.
    SinkFailed,
    /// The process ended without closing the stream.
    Crash,
}

impl GapCause {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BufferFull => "buffer_full",
            Self::QueueFull => "queue_full",
            Self::DiskFull => "disk_full",
            Self::SinkFailed => "sink_failed",
            Self::Crash => "crash",
        }
    }
}

/// Unauthenticated events of one source that were only counted.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// `None`: of the many sources there was no room to tell apart.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) count: u64,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
}

/// Closes a batch. `hash` is BLAKE3 over the exact bytes of the lines from `first_seq` to `last_seq`; `prev` is BLAKE3 over
/// the exact bytes of the checkpoint line before, all zeros for the first: one checkpoint vouches for all before it.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) bytes: u64,
    pub(crate) hash: blake3::Hash,
    pub(crate) prev: blake3::Hash,
}

/// Appends the body of a gap.
pub(crate) fn write_gap(out: &mut Vec<u8>, id: DecisionId, now: Micros, gateway: &GatewayFragment, gap: &Gap) {
    let mut line = open(out, "gap", id, now, gateway, None);
    let mut object = line.object("gap");
    object.word("cause", gap.cause.as_str());
    if let Some(worker) = gap.worker {
        object.number("worker", worker.into());
    }
    object.optional("sink", gap.sink.as_deref());
    match gap.count {
        Some(count) => object.number("count", count),
        None => object.raw("count", b"null"),
    }
    if let Some((first, last)) = gap.seqs {
        object.number("first_seq", first);
        object.number("last_seq", last);
    }
    rfc3339(object.value("first_time"), gap.first);
    rfc3339(object.value("last_time"), gap.last);
    object.end();
    line.end();
}

/// Appends the body of a summary.
pub(crate) fn write_summary(
    out: &mut Vec<u8>,
    id: DecisionId,
    now: Micros,
    gateway: &GatewayFragment,
    summary: &Summary,
) {
    let mut line = open(out, "summary", id, now, gateway, None);
    if let Some(ip) = summary.ip {
        let mut source = line.object("source");
        source.text("ip", ip.to_string());
        source.end();
    }
    let mut object = line.object("summary");
    object.word("class", "unauthenticated");
    object.number("count", summary.count);
    rfc3339(object.value("first_time"), summary.first);
    rfc3339(object.value("last_time"), summary.last);
    object.end();
    line.end();
}

/// Appends the body of a checkpoint.
pub(crate) fn write_checkpoint(
    out: &mut Vec<u8>,
    id: DecisionId,
    now: Micros,
    gateway: &GatewayFragment,
    checkpoint: &Checkpoint,
) {
    let mut line = open(out, "checkpoint", id, now, gateway, None);
    let mut object = line.object("checkpoint");
    object.number("first_seq", checkpoint.first_seq);
    object.number("last_seq", checkpoint.last_seq);
    object.number("bytes", checkpoint.bytes);
    object.text("hash", checkpoint.hash.to_hex().as_str());
    object.text("prev", checkpoint.prev.to_hex().as_str());
    object.end();
    line.end();
}
