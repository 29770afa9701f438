//! The one thread that numbers events. It empties the lanes, asks what was lost where, closes batches and hands them to the
//! sinks. It waits for no sink.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::chain::Chain;
use super::control::Shared;
use super::lane::{Buffer, Buffers, Lane, Loss};
use super::places::Hold;
use super::position::{Position, PositionFile};
use super::sinks::{Delivery, Span};
use crate::clock::Micros;
use crate::decision_id::DecisionIds;
use crate::event::{Gap, GapCause, LifecycleEvent, write_gap, write_lifecycle, write_repeated, write_summary};

/// A batch is closed at this age.
const BATCH_AGE: Duration = Duration::from_millis(100);

/// The writer's own state; what it shares with others is [`Shared`].
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    chain: Chain,
    opened: Option<Duration>,
    ids: DecisionIds,
    position: Option<PositionFile>,
    position_failing: bool,
    /// Up to when every sink has what it is to have: what a crash may take begins there.
    kept: Micros,
    lanes: Vec<Arc<Lane>>,
    spare: Buffers,
    scratch: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, chain: Chain, position: Option<PositionFile>, kept: Micros) -> Self {
        Self {
            shared,
            chain,
            opened: None,
            ids: DecisionIds::new(),
            position,
            position_failing: false,
            kept,
            lanes: Vec::new(),
            spare: Buffers::default(),
            scratch: Vec::with_capacity(4096),
        }
    }

    /// Runs until the pipeline is stopped; then everything has been handed to the sinks.
    pub(crate) fn run(mut self) {
        loop {
            let (stopping, wanted) =
                (self.shared.stop.load(Ordering::Acquire), self.shared.wanted.load(Ordering::Acquire));
            self.collect(stopping);
            if stopping || wanted > self.shared.collected() || self.is_due() {
                self.close();
            }
            self.shared.set_collected(wanted);
            if stopping {
                break;
            }
            std::thread::park_timeout(self.time_left());
        }
        self.shared.finish(self.position);
    }

    /// Where the stream stands; call after [`Writer::run`] would be too late, so the shared state keeps it.
    fn collect(&mut self, stopping: bool) {
        self.record_missed(stopping);
        self.lanes.clone_from(&self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        for index in 0..self.lanes.len() {
            let lane = Arc::clone(&self.lanes[index]);
            if stopping {
                lane.seal();
            }
            let mut taken = std::mem::take(&mut self.spare);
            lane.swap(&mut taken);
            self.append_lane(lane.worker, &mut taken);
            taken.kept.clear();
            taken.lossy.clear();
            taken.flood.clear();
            self.spare = taken;
        }
        self.summarise(stopping);
    }

    fn append_lane(&mut self, worker: Option<u32>, taken: &mut Buffers) {
        self.append_lines(&taken.kept, true);
        if self.shared.sinks.iter().any(|sink| sink.is_full()) {
            // A full sink takes only batches with places: nothing droppable may ride along.
            self.close();
        }
        for buffer in [&mut taken.lossy, &mut taken.flood] {
            self.append_lines(buffer, false);
            let loss = buffer.take_loss();
            self.record_loss(worker, loss);
        }
    }

    fn append_lines(&mut self, buffer: &Buffer, reserved: bool) {
        for (at, line) in buffer.lines() {
            self.append(line, at, reserved);
        }
    }

    fn append(&mut self, line: &[u8], at: Micros, reserved: bool) {
        if !self.chain.fits(line.len()) {
            self.close();
        }
        if self.chain.is_empty() {
            self.opened = Some(self.shared.clock.elapsed());
        }
        self.chain.append(line, at, reserved);
    }

    fn record_loss(&mut self, worker: Option<u32>, loss: Loss) {
        if loss.count == 0 {
            return;
        }
        for sink in &self.shared.sinks {
            sink.count_dropped(GapCause::BufferFull, loss.count);
        }
        self.append_gap(&Gap {
            cause: GapCause::BufferFull,
            worker,
            sink: None,
            count: Some(loss.count),
            seqs: None,
            first: loss.first,
            last: loss.last,
        });
    }

    fn record_missed(&mut self, at_any_rate: bool) {
        for index in 0..self.shared.sinks.len() {
            let sink = Arc::clone(&self.shared.sinks[index]);
            if let Some(missed) = sink.take_missed(at_any_rate) {
                self.append_gap(&Gap {
                    cause: missed.cause,
                    worker: None,
                    sink: Some(sink.name.clone()),
                    count: Some(missed.span.events),
                    seqs: Some((missed.span.first_seq, missed.span.last_seq)),
                    first: missed.span.first,
                    last: missed.span.last,
                });
                sink.told_in(self.chain.last_seq());
            }
            if let Some(moved) = sink.take_moved() {
                self.append_moved(&sink.name, moved.as_str());
            }
        }
    }

    /// The gap that an unclean stop left, from the last kept event to now.
    pub(crate) fn record_crash(&mut self, last: Micros) {
        let now = self.shared.clock.now();
        self.append_gap(&Gap {
            cause: GapCause::Crash,
            worker: None,
            sink: None,
            count: None,
            seqs: None,
            first: last,
            last: now.max(last),
        });
    }

    fn append_gap(&mut self, gap: &Gap) {
        self.append_own(|out, id, now, shared| write_gap(out, id, now, &shared.gateway, gap));
    }

    fn append_moved(&mut self, sink: &str, how: &str) {
        let event = LifecycleEvent {
            operation: String::from("audit.file_reopened"),
            result: how.to_owned(),
            target: Some(sink.to_owned()),
            ..LifecycleEvent::default()
        };
        self.append_own(|out, id, now, shared| write_lifecycle(out, id, now, &shared.gateway, &event));
    }

    fn summarise(&mut self, stopping: bool) {
        let mut summaries = Vec::new();
        self.shared.flood.drain(self.shared.clock.now(), stopping, &mut summaries);
        for summary in summaries {
            self.append_own(|out, id, now, shared| write_summary(out, id, now, &shared.gateway, &summary));
        }
        let mut repeated = Vec::new();
        self.shared.baits.drain(self.shared.clock.now(), stopping, &mut repeated);
        for repeated in repeated {
            tracing::error!(
                token = repeated.bait.as_ref().map_or("several", |bait| &bait.name),
                uses = repeated.uses,
                "a bait was used more often: this is the rest of a minute"
            );
            self.append_own(|out, id, now, shared| write_repeated(out, id, now, &shared.gateway, &repeated));
        }
    }

    fn append_own(&mut self, write: impl FnOnce(&mut Vec<u8>, crate::DecisionId, Micros, &Shared)) {
        let now = self.shared.clock.now();
        let mut line = std::mem::take(&mut self.scratch);
        line.clear();
        write(&mut line, self.ids.next(now), now, &self.shared);
        self.append(&line, now, false);
        self.scratch = line;
    }

    fn is_due(&self) -> bool {
        !self.chain.is_empty() && self.time_left().is_zero()
    }

    /// Until the open batch is old enough; an empty one is looked after just as often.
    fn time_left(&self) -> Duration {
        let age = self.opened.map(|opened| self.shared.clock.elapsed().saturating_sub(opened));
        BATCH_AGE.saturating_sub(age.filter(|_| !self.chain.is_empty()).unwrap_or_default())
    }

    /// Closes the batch. Its position is written before any sink sees it: numbers are never given twice.
    fn close(&mut self) {
        if self.chain.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        self.kept = self.kept_by_all().unwrap_or(self.kept);
        let closed = self.chain.close(self.ids.next(now), now, &self.shared.gateway);
        let position = Position {
            instance: self.shared.instance.clone(),
            last_seq: closed.last_seq,
            // Not this batch's: a crash before the sinks have written it takes it along.
            last_time: self.kept,
            prev: closed.prev,
            clean: false,
        };
        let span = Span {
            events: closed.events as u64,
            first_seq: closed.first_seq,
            last_seq: closed.last_seq,
            first: closed.first,
            last: closed.last,
        };
        let bytes = Bytes::copy_from_slice(closed.bytes);
        let hold = Hold::new(&self.shared.places, closed.places);
        self.chain.clear();
        self.write_position(&position);
        self.shared.keep_recent(bytes.clone(), span.events);
        for sink in &self.shared.sinks {
            let hold = hold.as_ref().filter(|_| sink.insists).map(Arc::clone);
            sink.offer(Delivery { bytes: bytes.clone(), span, hold });
        }
        self.shared.set_position(position);
    }

    /// Up to when every sink has written all, or word of what it missed. `None`: there is no sink, or one of which that
    /// can't be said of anything yet.
    fn kept_by_all(&self) -> Option<Micros> {
        let kept = self.shared.sinks.iter().map(|sink| sink.kept());
        kept.min().flatten()
    }

    fn write_position(&mut self, position: &Position) {
        let Some(file) = &mut self.position else { return };
        match file.write(position) {
            Ok(()) => self.position_failing = false,
            Err(error) if !self.position_failing => {
                self.position_failing = true;
                tracing::error!(%error, "the audit position cannot be written");
            }
            Err(_) => {}
        }
    }
}
