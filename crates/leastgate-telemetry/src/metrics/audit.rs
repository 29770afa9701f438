//! What one sink counts.

use prometheus::{Gauge, IntCounter, IntGauge};

use super::families::Families;
use crate::clock::Micros;
use crate::event::GapCause;

/// The children of one sink in the audit families.
#[derive(Clone, Debug)]
pub(crate) struct SinkMetrics {
    events: IntCounter,
    dropped: [IntCounter; 4],
    depth: IntGauge,
    capacity: IntGauge,
    last_success: Gauge,
}

impl SinkMetrics {
    pub(crate) fn new(families: &Families, sink: &str) -> Self {
        let dropped = |cause: GapCause| families.audit_dropped.with_label_values(&[sink, cause.as_str()]);
        Self {
            events: families.audit_events.with_label_values(&[sink]),
            dropped: CAUSES.map(dropped),
            depth: families.audit_depth.with_label_values(&[sink]),
            capacity: families.audit_capacity.with_label_values(&[sink]),
            last_success: families.audit_last_success.with_label_values(&[sink]),
        }
    }

    pub(crate) fn written(&self, events: u64, now: Micros) {
        self.events.inc_by(events);
        self.last_success.set(now.seconds());
    }

    pub(crate) fn dropped(&self, cause: GapCause, events: u64) {
        if let Some(index) = CAUSES.iter().position(|known| *known == cause) {
            self.dropped[index].inc_by(events);
        }
    }

    pub(crate) fn depth(&self, events: u64) {
        self.depth.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    pub(crate) fn capacity(&self, events: u64) {
        self.capacity.set(i64::try_from(events).unwrap_or(i64::MAX));
    }
}

/// A crash is nothing a running process counts.
const CAUSES: [GapCause; 4] = [GapCause::BufferFull, GapCause::QueueFull, GapCause::DiskFull, GapCause::SinkFailed];
