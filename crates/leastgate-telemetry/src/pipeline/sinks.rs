//! A bounded queue and a thread for each sink. Batches that hold reserved events are always taken, because the places
//! bound them, and no more of those are given while there is no room for their bytes; others only while there is room.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::most_bytes;
use super::places::Hold;
use crate::clock::{Clock, Micros};
use crate::event::{GapCause, utc_seconds};
use crate::metrics::SinkMetrics;
use crate::sink::{Moved, Sink, SinkError};

/// A batch on its way to one sink.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) bytes: Bytes,
    pub(crate) span: Span,
    pub(crate) hold: Option<Arc<Hold>>,
}

/// Which events a batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) events: u64,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
}

/// What a sink has missed and nobody has recorded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) cause: GapCause,
    pub(crate) span: Span,
}

#[derive(Debug)]
struct Failing {
    cause: GapCause,
    error: String,
    since: Micros,
}

/// How a sink does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkState {
    /// The sink's name.
    pub name: String,
    /// `ok`; or what is wrong and since when: `disk full since …`, `failing since …: …`, `behind since …: 12 events`;
    /// or `ended`, when it writes nothing any more.
    pub state: String,
}

/// One sink as the writer sees it.
#[derive(Debug)]
pub(crate) struct SinkQueue {
    pub(crate) name: String,
    /// Some class may not be dropped here.
    pub(crate) insists: bool,
    capacity: u64,
    most_bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
    reopen: AtomicBool,
    metrics: SinkMetrics,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Delivery>,
    queued: u64,
    bytes: usize,
    stopping: bool,
    abandoned: bool,
    finished: bool,
    /// The thread is gone: at its end, or in a panic of the sink.
    ended: bool,
    /// Why the newest batch that was tried did not get through.
    failing: Option<Failing>,
    /// Since when the batch in front has been in front.
    moved_on: Micros,
    missed: Option<Missed>,
    /// The number of the event that tells what was missed before, until it is written; the greatest: it has none yet.
    telling: Option<u64>,
    moved: Option<Moved>,
    /// When the last event happened that is written, with all before it or word of their loss.
    kept: Option<Micros>,
}

impl SinkQueue {
    /// Starts the sink's thread.
    pub(crate) fn start(
        name: String,
        insists: bool,
        capacity: usize,
        sink: Box<dyn Sink>,
        metrics: SinkMetrics,
        clock: Arc<dyn Clock>,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (capacity, most_bytes) = (capacity as u64, most_bytes(capacity));
        metrics.capacity(capacity);
        let queue = Arc::new(Self {
            name,
            insists,
            capacity,
            most_bytes,
            state: Mutex::default(),
            changed: Condvar::new(),
            reopen: AtomicBool::new(false),
            metrics,
            clock,
        });
        let runner = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name(String::from("audit-sink")).spawn(move || runner.run(sink))?;
        Ok((queue, thread))
    }

    /// Takes a batch, or counts it as missed.
    pub(crate) fn offer(&self, delivery: Delivery) {
        let mut state = self.lock();
        let fits = state.queued + delivery.span.events <= self.capacity
            && state.bytes + delivery.bytes.len() <= self.most_bytes;
        let room = fits || state.queue.is_empty();
        if state.finished || !(room || delivery.hold.is_some()) {
            let cause = state.failing.as_ref().map_or(GapCause::QueueFull, |failing| failing.cause);
            self.miss(&mut state, cause, delivery.span);
            return;
        }
        if state.queue.is_empty() {
            state.moved_on = self.clock.now();
        }
        state.queued += delivery.span.events;
        state.bytes += delivery.bytes.len();
        self.metrics.depth(state.queued);
        state.queue.push_back(delivery);
        drop(state);
        self.changed.notify_all();
    }

    /// Whether only reserved events are still taken.
    pub(crate) fn is_full(&self) -> bool {
        let state = self.lock();
        state.queued >= self.capacity || state.bytes >= self.most_bytes
    }

    /// Whether what waits is so large that no more may be promised.
    pub(crate) fn is_overfull(&self) -> bool {
        self.insists && self.lock().bytes >= self.most_bytes
    }

    pub(crate) fn describe(&self) -> SinkState {
        let (state, now) = (self.lock(), self.clock.now());
        let behind = !state.queue.is_empty() && now.0.saturating_sub(state.moved_on.0) >= BEHIND;
        let text = match &state.failing {
            _ if state.ended => String::from("ended"),
            Some(Failing { cause: GapCause::DiskFull, since, .. }) => {
                format!("disk full since {}", utc_seconds(*since))
            }
            Some(Failing { error, since, .. }) => format!("failing since {}: {error}", utc_seconds(*since)),
            None if behind => format!("behind since {}: {} events", utc_seconds(state.moved_on), state.queued),
            None => String::from("ok"),
        };
        SinkState { name: self.name.clone(), state: text }
    }

    /// Up to when everything is written, or is known to be missing; `None`: nothing is yet.
    pub(crate) fn kept(&self) -> Option<Micros> {
        self.lock().kept
    }

    /// What was missed since the last call, once there is room to say so. `at_any_rate`: also without room. Whoever takes it
    /// says in which event it is told ([`Self::told_in`]).
    pub(crate) fn take_missed(&self, at_any_rate: bool) -> Option<Missed> {
        let mut state = self.lock();
        let room = state.queued < self.capacity / 2 + 1;
        let missed = if room || at_any_rate { state.missed.take() } else { None }?;
        state.telling = Some(u64::MAX);
        Some(missed)
    }

    pub(crate) fn told_in(&self, seq: u64) {
        self.lock().telling = Some(seq);
    }

    /// The file that vanished since the last call.
    pub(crate) fn take_moved(&self) -> Option<Moved> {
        self.lock().moved.take()
    }

    /// Events that were lost before they reached any sink.
    pub(crate) fn count_dropped(&self, cause: GapCause, count: u64) {
        self.metrics.dropped(cause, count);
    }

    pub(crate) fn request_reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Lets the thread end once its queue is empty.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    /// Waits for the thread to end; after the deadline it is left to itself. `true`: everything was written.
    pub(crate) fn wait_finished(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.abandoned = true;
                self.changed.notify_all();
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.finished && state.queue.is_empty() && state.missed.is_none()
    }

    fn run(&self, mut sink: Box<dyn Sink>) {
        let _ended = Ended(self);
        while let Some(next) = self.next() {
            let checked = self.look_after(&mut *sink);
            let Some(delivery) = next else { continue };
            match checked.and_then(|()| sink.write(&delivery.bytes)) {
                Ok(()) => self.written(&delivery),
                Err(SinkError::Lost(error)) => self.lost(&delivery, &error),
                Err(SinkError::Retry(error)) => self.pause(&error),
            }
        }
        if let Err(error) = sink.flush() {
            tracing::warn!(sink = %self.name, %error, "the audit sink could not be flushed");
        }
        self.lock().finished = true;
    }

    /// The oldest batch, which stays in the queue until it is written; `Some(None)`: time for a look; `None`: the end.
    fn next(&self) -> Option<Option<Delivery>> {
        let mut state = self.lock();
        if state.queue.is_empty() && !state.stopping && !self.reopen.load(Ordering::Acquire) {
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.abandoned || (state.stopping && state.queue.is_empty()) {
            return None;
        }
        Some(state.queue.front().cloned())
    }

    fn look_after(&self, sink: &mut dyn Sink) -> Result<(), SinkError> {
        if self.reopen.swap(false, Ordering::AcqRel) {
            sink.reopen()?;
        }
        if let Some(moved) = sink.check()? {
            self.lock().moved = Some(moved);
        }
        Ok(())
    }

    fn written(&self, delivery: &Delivery) {
        self.metrics.written(delivery.span.events, self.clock.now());
        let mut state = self.lock();
        if state.failing.take().is_some() {
            tracing::info!(sink = %self.name, "the audit sink writes again");
        }
        // The word of a loss may stand behind batches that were taken after it.
        if state.missed.is_none() && state.telling.is_none_or(|seq| seq <= delivery.span.last_seq) {
            state.kept = Some(delivery.span.last);
            state.telling = None;
        }
        self.pop(&mut state);
    }

    fn lost(&self, delivery: &Delivery, error: &io::Error) {
        let mut state = self.lock();
        if self.fail(&mut state, GapCause::SinkFailed, error) {
            tracing::error!(sink = %self.name, %error, "the audit sink loses events");
        }
        self.miss(&mut state, GapCause::SinkFailed, delivery.span);
        self.pop(&mut state);
    }

    /// Waits before the same batch is tried again, at most until the process ends.
    fn pause(&self, error: &io::Error) {
        let mut state = self.lock();
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let cause = if full { GapCause::DiskFull } else { GapCause::SinkFailed };
        if self.fail(&mut state, cause, error) {
            tracing::error!(sink = %self.name, %error, "the audit sink cannot write; trying again");
        }
        if !state.abandoned {
            drop(self.changed.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// `true`: it did not fail before.
    fn fail(&self, state: &mut State, cause: GapCause, error: &io::Error) -> bool {
        let since = state.failing.as_ref().map(|failing| failing.since);
        let new = Failing { cause, error: error.to_string(), since: since.unwrap_or_else(|| self.clock.now()) };
        state.failing.replace(new).is_none()
    }

    fn pop(&self, state: &mut State) {
        state.moved_on = self.clock.now();
        if let Some(done) = state.queue.pop_front() {
            state.queued -= done.span.events;
            state.bytes -= done.bytes.len();
        }
        self.metrics.depth(state.queued);
    }

    fn miss(&self, state: &mut State, cause: GapCause, span: Span) {
        self.metrics.dropped(cause, span.events);
        let missed = state.missed.get_or_insert(Missed { cause, span: Span { events: 0, ..span } });
        missed.span.events += span.events;
        missed.span.last_seq = span.last_seq;
        missed.span.last = missed.span.last.max(span.last);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says so when the sink's thread ends, however it ends.
struct Ended<'a>(&'a SinkQueue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// A sink that takes so many microseconds for a batch is behind.
const BEHIND: u64 = 1_000_000;
/// A deleted file is to be noticed within a second.
const LOOK: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(250);
