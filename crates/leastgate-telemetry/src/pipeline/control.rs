//! The pipeline as the rest of the crate sees it: start it, leave lines, look at recent events, shut it down in time.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::AuditFull;
use super::baits::Baits;
use super::chain::Chain;
use super::flood::Flood;
use super::lane::{Lane, Pushed, Queue};
use super::places::{Place, Places};
use super::position::{Position, PositionFile};
use super::recent::{Recent, RecentFilter, find, search};
use super::sinks::{SinkQueue, SinkState};
use super::writer::Writer;
use crate::clock::{Clock, Micros};
use crate::decision_id::DecisionId;
use crate::event::GatewayFragment;

/// What the writer, the sinks and everyone else share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gateway: GatewayFragment,
    pub(crate) instance: String,
    pub(crate) lanes: Mutex<Vec<Arc<Lane>>>,
    pub(crate) places: Arc<Places>,
    pub(crate) flood: Arc<Flood>,
    pub(crate) baits: Baits,
    pub(crate) sinks: Vec<Arc<SinkQueue>>,
    pub(crate) stop: AtomicBool,
    /// How often somebody has asked for everything to be collected at once.
    pub(crate) wanted: AtomicU64,
    recent: Mutex<Recent>,
    progress: Mutex<Progress>,
    progressed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    collected: u64,
    position: Option<Position>,
    finished: bool,
    /// A line came after the writer had ended.
    late: bool,
    position_file: Option<PositionFile>,
}

impl Progress {
    /// Once the writer has ended. `true`: it is written, or nowhere to be written.
    fn write_position(&mut self, clean: bool) -> bool {
        let (Some(position), Some(file)) = (&self.position, &mut self.position_file) else { return true };
        let position = Position { clean, ..position.clone() };
        let written = file.write(&position).and_then(|()| file.sync());
        if let Err(error) = &written {
            tracing::error!(%error, "the audit position cannot be closed");
        }
        written.is_ok()
    }
}

impl Shared {
    pub(crate) fn collected(&self) -> u64 {
        self.progress().collected
    }

    pub(crate) fn set_collected(&self, wanted: u64) {
        let mut progress = self.progress();
        if progress.collected < wanted {
            progress.collected = wanted;
            self.progressed.notify_all();
        }
    }

    pub(crate) fn set_position(&self, position: Position) {
        self.progress().position = Some(position);
    }

    pub(crate) fn keep_recent(&self, bytes: Bytes, events: u64) {
        lock(&self.recent).push(bytes, usize::try_from(events).unwrap_or(usize::MAX));
    }

    pub(crate) fn finish(&self, file: Option<PositionFile>) {
        let mut progress = self.progress();
        progress.finished = true;
        progress.collected = u64::MAX;
        progress.position_file = file;
        self.progressed.notify_all();
    }

    fn stop_sinks(&self) {
        for sink in &self.sinks {
            sink.stop();
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// Waits until `reached` holds, at most until the deadline.
    fn wait(&self, deadline: Instant, reached: impl Fn(&Progress) -> bool) -> Option<MutexGuard<'_, Progress>> {
        let mut progress = self.progress();
        while !reached(&progress) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            progress = self.progressed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(progress)
    }
}

/// What a pipeline is started from.
#[derive(Debug)]
pub(crate) struct PipelineParts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gateway: GatewayFragment,
    pub(crate) instance: String,
    pub(crate) position: Option<(PositionFile, Option<Position>)>,
    pub(crate) sinks: Vec<(Arc<SinkQueue>, JoinHandle<()>)>,
    pub(crate) places: usize,
    pub(crate) unauthenticated_per_source: u32,
    pub(crate) recent: usize,
    pub(crate) worker_buffer: usize,
    pub(crate) unauthenticated_buffer: usize,
}

/// A running pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    writer: Thread,
    /// Of the sinks, and last the writer's.
    threads: Mutex<Vec<JoinHandle<()>>>,
    workers: AtomicU32,
    worker_buffer: usize,
    unauthenticated_buffer: usize,
    control: Arc<Lane>,
}

impl Pipeline {
    pub(crate) fn start(parts: PipelineParts) -> io::Result<Self> {
        let (sinks, mut threads): (Vec<_>, Vec<_>) = parts.sinks.into_iter().unzip();
        let control = Arc::new(Lane::new(None, parts.worker_buffer, 0));
        let shared = Arc::new(Shared {
            clock: parts.clock,
            gateway: parts.gateway,
            instance: parts.instance,
            lanes: Mutex::new(vec![Arc::clone(&control)]),
            places: Places::new(parts.places),
            flood: Arc::new(Flood::new(parts.unauthenticated_per_source)),
            baits: Baits::default(),
            sinks,
            stop: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            recent: Mutex::new(Recent::new(parts.recent)),
            progress: Mutex::default(),
            progressed: Condvar::new(),
        });
        let writer = start_writer(&shared, parts.position).inspect_err(|_| shared.stop_sinks())?;
        let handle = writer.thread().clone();
        threads.push(writer);
        Ok(Self {
            shared,
            writer: handle,
            threads: Mutex::new(threads),
            workers: AtomicU32::new(0),
            worker_buffer: parts.worker_buffer,
            unauthenticated_buffer: parts.unauthenticated_buffer,
            control,
        })
    }

    /// A lane for another worker.
    pub(crate) fn worker_lane(&self) -> Arc<Lane> {
        let number = self.workers.fetch_add(1, Ordering::Relaxed);
        let lane = Arc::new(Lane::new(Some(number), self.worker_buffer, self.unauthenticated_buffer));
        let mut lanes = lock(&self.shared.lanes);
        lanes.push(Arc::clone(&lane));
        // Under the lock the writer looks at the lanes with: whoever does not see this here is seen by it there.
        if self.shared.stop.load(Ordering::Acquire) {
            lane.seal();
        }
        lane
    }

    /// Leaves a line for the writer, which is woken if it is worth it.
    pub(crate) fn leave(&self, lane: &Lane, queue: Queue, line: &[u8], at: Micros) {
        match lane.push(queue, line, at) {
            Pushed::Waiting => {}
            Pushed::Enough => self.writer.unpark(),
            Pushed::TooLate => self.too_late(),
        }
    }

    /// Nothing says any more that this event is missing, so the next start has to.
    fn too_late(&self) {
        let mut progress = self.shared.progress();
        if !std::mem::replace(&mut progress.late, true) {
            tracing::error!("an audit event came after the stream was closed; the next start records a gap");
            progress.write_position(false);
        }
    }

    /// The lane that threads other than workers share.
    pub(crate) fn control_lane(&self) -> &Lane {
        &self.control
    }

    pub(crate) fn writer(&self) -> &Thread {
        &self.writer
    }

    /// The stream is being closed, or is.
    pub(crate) fn is_closing(&self) -> bool {
        self.shared.places.are_closed()
    }

    /// Every thread runs that an event needs on its way.
    pub(crate) fn is_healthy(&self) -> bool {
        !self.is_closing() && lock(&self.threads).iter().all(|thread| !thread.is_finished())
    }

    pub(crate) fn sinks(&self) -> Vec<SinkState> {
        self.shared.sinks.iter().map(|sink| sink.describe()).collect()
    }

    pub(crate) fn gateway(&self) -> &GatewayFragment {
        &self.shared.gateway
    }

    pub(crate) fn instance(&self) -> &str {
        &self.shared.instance
    }

    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.shared.places
    }

    /// A place for an event that may be large. What was promised before is still taken, so that it is exceeded by no more than
    /// the calls under way tell.
    pub(crate) fn place_for_large(&self) -> Result<Place, AuditFull> {
        if self.shared.sinks.iter().any(|sink| sink.is_overfull()) {
            return Err(AuditFull);
        }
        self.shared.places.take()
    }

    pub(crate) fn flood(&self) -> &Arc<Flood> {
        &self.shared.flood
    }

    pub(crate) fn baits(&self) -> &Baits {
        &self.shared.baits
    }

    pub(crate) fn reopen(&self) {
        for sink in &self.shared.sinks {
            sink.request_reopen();
        }
    }

    /// Has everything that workers have left so far numbered and handed on. `false`: not before the deadline.
    pub(crate) fn collect(&self, within: Duration) -> bool {
        let wanted = self.shared.wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.writer.unpark();
        self.shared.wait(Instant::now() + within, |progress| progress.collected >= wanted).is_some()
    }

    /// Whether every sink has written what happened at this moment, with all before it.
    pub(crate) fn is_written(&self, at: Micros) -> bool {
        self.shared.sinks.iter().all(|sink| sink.kept() >= Some(at))
    }

    pub(crate) fn recent(&self, filter: &RecentFilter) -> Vec<Bytes> {
        self.collect(FRESH);
        let batches = lock(&self.shared.recent).snapshot();
        search(&batches, filter)
    }

    pub(crate) fn find(&self, id: DecisionId) -> Option<Bytes> {
        self.collect(FRESH);
        let batches = lock(&self.shared.recent).snapshot();
        find(&batches, id)
    }

    /// Closes the stream: everything left so far is numbered, written and flushed, and the position marked clean. `false`:
    /// the deadline or a failure came first, and the next start records a gap.
    pub(crate) fn shut_down(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        self.shared.places.close();
        self.shared.stop.store(true, Ordering::Release);
        self.writer.unpark();
        let numbered = self.shared.wait(deadline, |progress| progress.finished).is_some();
        self.shared.stop_sinks();
        let mut written = true;
        for sink in &self.shared.sinks {
            written &= sink.wait_finished(deadline);
        }
        let clean = numbered && written && self.mark_clean();
        if numbered && written {
            for thread in lock(&self.threads).drain(..) {
                // It has said that it is done: nothing to wait for, and nothing to learn from a panic now.
                drop(thread.join());
            }
        }
        clean
    }

    fn mark_clean(&self) -> bool {
        let mut progress = self.shared.progress();
        !progress.late && progress.write_position(true)
    }
}

impl Drop for Pipeline {
    /// Threads must not outlive what they serve. Whoever wants the events written calls `shut_down` with a deadline first.
    fn drop(&mut self) {
        self.shared.places.close();
        self.shared.stop.store(true, Ordering::Release);
        self.writer.unpark();
        self.shared.stop_sinks();
    }
}

/// From the first moment on the position says "not closed", so that a crash before the first batch shows too.
fn start_writer(
    shared: &Arc<Shared>,
    position: Option<(PositionFile, Option<Position>)>,
) -> io::Result<JoinHandle<()>> {
    let (mut file, last) = position.map_or((None, None), |(file, last)| (Some(file), last));
    let begin = Position {
        instance: shared.instance.clone(),
        last_seq: last.as_ref().map_or(0, |last| last.last_seq),
        // Until the gap of a crash is written, what it tells is known from here alone: the next crash may come first.
        last_time: last.as_ref().filter(|last| !last.clean).map_or_else(|| shared.clock.now(), |last| last.last_time),
        prev: last.as_ref().map_or(blake3::Hash::from_bytes([0; 32]), |last| last.prev),
        clean: false,
    };
    if let Some(file) = &mut file {
        file.write(&begin)?;
    }
    let mut writer = Writer::new(Arc::clone(shared), Chain::after(begin.last_seq, begin.prev), file, begin.last_time);
    shared.set_position(begin);
    if let Some(crashed) = last.filter(|last| !last.clean) {
        writer.record_crash(crashed.last_time);
    }
    std::thread::Builder::new().name(String::from("audit-writer")).spawn(move || writer.run())
}

/// How long a reader of recent events waits for the newest.
const FRESH: Duration = Duration::from_millis(250);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
