//! What one worker needs to record requests: its lane, its counters' children, and records to use again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use leastgate_policy::{Api, Bait, Reason};

use super::{Facts, LineKind, Record, Recorder, Totals, write_line};
use crate::clock::{Clock, Micros};
use crate::config::ClassPolicy;
use crate::decision_id::DecisionIds;
use crate::event::{Class, write_bait};
use crate::metrics::{ConnectError, Decisions, EndpointMetrics, RouteTable};
use crate::pipeline::{AuditFull, Lane, Place, Queue};
use crate::telemetry::Core;

/// A worker's part of the telemetry. It belongs to the worker's thread.
#[derive(Clone, Debug)]
pub struct WorkerTelemetry(Rc<Worker>);

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) core: Arc<Core>,
    pub(crate) decisions: Decisions,
    lane: Arc<Lane>,
    ids: RefCell<DecisionIds>,
    table: RefCell<Arc<RouteTable>>,
    line: RefCell<Vec<u8>>,
    records: RefCell<Vec<Rc<Record>>>,
    until_sample: Cell<u32>,
    cuts: RefCell<HashMap<Reason, prometheus::IntCounter>>,
}

impl WorkerTelemetry {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self(Rc::new(Worker {
            decisions: Decisions::new(&core.families),
            lane: core.pipeline.worker_lane(),
            ids: RefCell::new(DecisionIds::new()),
            table: RefCell::new(core.routes.newest()),
            line: RefCell::new(Vec::with_capacity(4096)),
            records: RefCell::default(),
            until_sample: Cell::new(1),
            cuts: RefCell::default(),
            core,
        }))
    }

    /// Starts the record of a request that arrived at `arrival`.
    pub fn begin(&self, peer: SocketAddr, arrival: Micros) -> Recorder {
        let worker = &self.0;
        let record = worker.record();
        {
            let mut facts = record.facts.borrow_mut();
            facts.id = worker.ids.borrow_mut().next(arrival);
            facts.arrival = arrival;
            facts.started = worker.clock().elapsed();
            facts.peer = (peer.ip().to_canonical(), peer.port());
        }
        worker.core.families.in_flight.inc();
        Recorder::new(Rc::clone(worker), record)
    }

    /// Records a request that hyper itself refused: there is neither method nor path. `status`: what hyper answered, if
    /// anything. `baits`: those that were in what came of it.
    pub fn connection_error(
        &self,
        peer: SocketAddr,
        arrival: Micros,
        reason: Reason,
        status: Option<u16>,
        baits: &[Bait],
    ) {
        let recorder = self.begin(peer, arrival);
        recorder.refused(reason);
        recorder.shown(baits);
        if let Some(status) = status {
            recorder.response(status, super::Origin::Gateway);
        }
        recorder.finish();
    }

    /// Counts a connection to an upstream that did not come about.
    pub fn upstream_connect_error(&self, upstream: &str, error: ConnectError) {
        let table = self.0.core.routes.newest();
        if let Some(labels) = table.upstream(upstream).and_then(|index| table.upstream_labels(index)) {
            labels.connect_error(error);
        }
    }

    /// What this worker tells of an endpoint of an upstream, for as long as it has it.
    pub fn endpoint(&self, upstream: &str, endpoint: SocketAddr, is_checked: bool) -> EndpointMetrics {
        self.0.core.families.endpoints.hold(upstream, endpoint, is_checked)
    }

    /// The clock that records are measured by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.0.clock()
    }
}

impl Worker {
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.core.clock
    }

    pub(crate) fn environment(&self) -> &str {
        &self.core.environment
    }

    pub(crate) fn table(&self, revision: &str) -> Arc<RouteTable> {
        let mut table = self.table.borrow_mut();
        if !table.is_of(revision) {
            *table = self.core.routes.get(revision);
        }
        Arc::clone(&table)
    }

    pub(crate) fn sample_decision(&self, duration: Duration) {
        let left = self.until_sample.get() - 1;
        if left == 0 {
            self.core.families.decision_duration.observe(duration.as_secs_f64());
        }
        self.until_sample.set(if left == 0 { SAMPLE } else { left });
    }

    /// Masks what the api marks in its paths. Where no api was found, any of them may have been meant.
    pub(crate) fn mask_path(&self, facts: &mut Facts, api: Option<&Api>) {
        if facts.path.is_empty() || facts.is_masked || api.is_some_and(|api| api.redact.is_empty()) {
            return;
        }
        let table = facts.table.clone().unwrap_or_else(|| self.core.routes.newest());
        match (api, table.redacted()) {
            (_, []) => {}
            (Some(_), marked) => facts.mask_segments(marked, &self.core.redaction_key),
            (None, [first, ..]) => facts.mask_rest(first.index, &self.core.redaction_key),
        }
    }

    pub(crate) fn reserve(&self, class: Class) -> Result<Option<Place>, AuditFull> {
        match self.core.classes.of(class) {
            ClassPolicy::Drop if self.core.pipeline.is_closing() => Err(AuditFull),
            ClassPolicy::Drop => Ok(None),
            ClassPolicy::Block => self.core.pipeline.places().take().map(Some),
        }
    }

    pub(crate) fn count_cut(&self, reason: Reason) {
        let mut cuts = self.cuts.borrow_mut();
        cuts.entry(reason)
            .or_insert_with(|| self.core.families.streams_cut.with_label_values(&[reason.as_str()]))
            .inc();
    }

    /// A bait was used: counted always, and said at once, unless it was said often enough this minute.
    pub(crate) fn bait_used(&self, facts: &Facts, bait: &Bait) {
        self.core.families.canary_uses.inc();
        if !self.core.pipeline.baits().admit(bait, facts.arrival) {
            return;
        }
        tracing::error!(
            token = %bait.name,
            accessor = %bait.accessor,
            source = %facts.source(),
            decision = %facts.id,
            reason = facts.verdict.map_or("", |verdict| verdict.reason.as_str()),
            "a bait was used: somebody has found it and tried it"
        );
        let id = self.ids.borrow_mut().next(self.clock().now());
        let mut line = Vec::with_capacity(1024);
        write_bait(&mut line, id, facts, self.core.pipeline.gateway(), bait);
        let place = self.reserve(Class::Lifecycle).ok().flatten();
        let queue = match place {
            Some(place) => {
                place.used();
                Queue::Kept
            }
            None => Queue::Lossy,
        };
        self.core.pipeline.leave(&self.lane, queue, &line, facts.arrival);
    }

    pub(crate) fn write_open(&self, record: &Record) {
        let facts = record.facts.borrow();
        self.leave(LineKind::StreamOpen, &facts, self.totals(record, &facts), Queue::Lossy);
    }

    pub(crate) fn totals(&self, record: &Record, facts: &Facts) -> Totals {
        let duration = self.clock().elapsed().saturating_sub(facts.started);
        Totals {
            request_bytes: record.request_bytes.get(),
            response_bytes: record.response_bytes.get(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Encodes a line and leaves it for the writer.
    pub(crate) fn leave(&self, kind: LineKind, facts: &Facts, totals: Totals, queue: Queue) {
        let mut line = self.line.borrow_mut();
        line.clear();
        write_line(&mut line, kind, facts, self.core.pipeline.gateway(), totals);
        self.core.pipeline.leave(&self.lane, queue, &line, facts.arrival);
    }

    /// A record to fill: a used one's buffers, or new ones.
    fn record(&self) -> Rc<Record> {
        let mut used = self.records.borrow_mut().pop();
        match used.as_mut().and_then(Rc::get_mut) {
            Some(record) => record.reset(),
            None => used = None,
        }
        used.unwrap_or_default()
    }

    /// Keeps a record's buffers for a later request, unless a handle still points at it.
    pub(crate) fn recycle(&self, record: &Rc<Record>) {
        let mut records = self.records.borrow_mut();
        if records.len() < RECORDS && Rc::strong_count(record) == 1 {
            records.push(Rc::clone(record));
        }
    }
}

const SAMPLE: u32 = 64;
/// Enough for the requests a worker has in flight at a time on most machines.
const RECORDS: usize = 128;
