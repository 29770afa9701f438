//! Collects what happens to one request and, when it ends for whatever reason, says it once: as metrics, as an audit event
//! and as usage. A [`Recorder`] stays on the worker it was begun on.

mod facts;
mod line;
mod verdict;
mod worker;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use leastgate_policy::{Bait, Case, Denial, OwnAnswer, Permit, Reason};

pub(crate) use facts::Facts;
pub use facts::Origin;
pub(crate) use line::{LineKind, Totals, write_line, write_request};
pub(crate) use worker::Worker;
pub use worker::WorkerTelemetry;

use crate::decision_id::DecisionId;
use crate::outcome::{Ending, Outcome};
use crate::pipeline::AuditFull;

/// One request's record. [`Recorder::finish`] or a drop ends it: exactly one outcome either way.
#[derive(Debug)]
pub struct Recorder {
    handle: RecordHandle,
}

/// Another handle on the same record, for what lives beside the response: the request body's counter, the list of streams.
/// It cannot end the record, and after the end does nothing.
#[derive(Clone, Debug)]
pub struct RecordHandle {
    worker: Rc<Worker>,
    record: Rc<Record>,
}

#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) facts: RefCell<Facts>,
    pub(crate) request_bytes: Cell<u64>,
    pub(crate) response_bytes: Cell<u64>,
    finished: Cell<bool>,
}

impl Record {
    fn reset(&mut self) {
        self.facts.get_mut().reset();
        self.request_bytes.set(0);
        self.response_bytes.set(0);
        self.finished.set(false);
    }
}

impl Recorder {
    fn new(worker: Rc<Worker>, record: Rc<Record>) -> Self {
        Self { handle: RecordHandle { worker, record } }
    }

    /// The response was sent to its last byte.
    pub fn finish(self) {
        self.end(Ending::Complete);
    }

    /// A handle that may outlive this recorder.
    pub fn handle(&self) -> RecordHandle {
        self.handle.clone()
    }

    fn end(&self, ending: Ending) {
        if self.record.finished.replace(true) {
            return;
        }
        Outcome::of(&self.worker, &self.record, ending).tell(&self.worker);
    }
}

/// A request that ends without [`Recorder::finish`] was broken off: the client left, or the gateway cut it.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.end(Ending::BrokenOff);
        self.handle.worker.recycle(&self.handle.record);
    }
}

impl Deref for Recorder {
    type Target = RecordHandle;

    fn deref(&self) -> &RecordHandle {
        &self.handle
    }
}

impl RecordHandle {
    /// The id of this request's decision.
    pub fn id(&self) -> DecisionId {
        self.record.facts.borrow().id
    }

    /// The head as hyper read it: the raw path (redacted when written), the query's keys and nothing else of the query.
    pub fn request(&self, method: &http::Method, host: Option<&[u8]>, uri: &http::Uri, version: http::Version) {
        let query = uri.query().map(str::as_bytes);
        self.change(|facts| facts.set_request(method, host, uri.path().as_bytes(), query, version));
    }

    /// The decoded segments that are judged, in place of the raw path.
    pub fn decoded_path<'a>(&self, segments: impl Iterator<Item = &'a str>, trailing_slash: bool) {
        self.change(|facts| facts.set_segments(segments, trailing_slash));
    }

    /// `User-Agent`; its first 256 bytes are kept.
    pub fn user_agent(&self, value: &[u8]) {
        self.change(|facts| facts.set_user_agent(value));
    }

    /// The URIs that the peer's certificate names it by; it was verified. The peer is whoever made the connection, a
    /// trusted proxy too.
    pub fn peer_san<'a>(&self, names: impl Iterator<Item = &'a str>) {
        self.change(|facts| facts.set_peer_san(names));
    }

    /// The ids of the trace the request belongs to.
    pub fn trace(&self, trace_id: Option<&str>, span_id: Option<&str>, request_id: Option<&str>) {
        self.change(|facts| facts.set_trace(trace_id, span_id, request_id));
    }

    /// The client that trusted proxies name. The peer is then recorded under `via`.
    pub fn client(&self, ip: IpAddr) {
        self.change(|facts| facts.client = (ip != facts.peer.0).then_some(ip));
    }

    /// The request may pass. `duration`: what the decision took.
    pub fn permitted(&self, permit: &Permit, duration: Duration) {
        let worker = &self.worker;
        self.decide(permit.case().revision(), duration, |facts| {
            facts.set_permit(permit, duration, worker.environment());
        });
        self.judged(permit.case());
    }

    /// The request is one that the gateway itself answers.
    pub fn answered(&self, answer: &OwnAnswer, duration: Duration) {
        let worker = &self.worker;
        self.decide(answer.case().revision(), duration, |facts| {
            facts.set_answer(answer, duration, worker.environment());
        });
        // The path of a question about one's own token is one that everybody knows: there is nothing in it to hide.
        if let OwnAnswer::OwnToken(_) = answer {
            self.change(|facts| facts.is_masked = true);
        }
        self.judged(answer.case());
    }

    /// The request is refused.
    pub fn denied(&self, denial: &Denial, duration: Duration) {
        let worker = &self.worker;
        self.decide(denial.case().revision(), duration, |facts| {
            facts.set_denial(denial, duration, worker.environment());
        });
        self.judged(denial.case());
    }

    /// The request is refused for a reason that no rule stands behind, in place of any verdict before: a limit, a drain.
    pub fn refused(&self, reason: Reason) {
        let now = self.worker.clock().elapsed();
        self.change(|facts| {
            if facts.verdict.is_none() {
                self.worker.mask_path(facts, None);
            }
            facts.set_refusal(reason);
            facts.decided = Some(crate::clock::after(facts.arrival, now.saturating_sub(facts.started)));
        });
    }

    /// Makes sure that this request's event will be kept, if its class demands it. To be asked after the decision and
    /// before anything is forwarded.
    ///
    /// # Errors
    /// There is no room: the request must be answered 503.
    pub fn reserve(&self) -> Result<(), AuditFull> {
        let mut facts = self.record.facts.borrow_mut();
        let Some(verdict) = facts.verdict else { return Ok(()) };
        if facts.place.is_none() {
            facts.place = self.worker.reserve(verdict.class)?;
        }
        Ok(())
    }

    /// The request goes to this upstream now.
    pub fn upstream(&self, name: &str) {
        let now = self.worker.clock().elapsed();
        self.change(|facts| {
            facts.upstream_name.clear();
            facts.upstream_name.extend_from_slice(name.as_bytes());
            facts.upstream = facts.table.as_ref().and_then(|table| table.upstream(name));
            facts.sent_upstream = Some(now);
        });
    }

    /// The upstream answered: the head of its response is here.
    pub fn upstream_answered(&self, status: u16) {
        let now = self.worker.clock().elapsed();
        self.change(|facts| facts.count_upstream(Some(status), now));
    }

    /// The upstream did not answer, or not with HTTP.
    pub fn upstream_failed(&self, reason: Reason) {
        let now = self.worker.clock().elapsed();
        self.change(|facts| {
            facts.count_upstream(None, now);
            facts.error = Some(reason.as_str());
        });
    }

    /// The head of the response to the client. The last one counts.
    pub fn response(&self, status: u16, origin: Origin) {
        self.change(|facts| (facts.status, facts.origin) = (Some(status), origin));
    }

    /// What went wrong after the decision: one word of a closed set, as `response.error`.
    pub fn failed(&self, error: &'static str) {
        self.change(|facts| facts.error = Some(error));
    }

    /// The connection was handed over (101): its duration says nothing about requests.
    pub fn upgraded(&self) {
        self.change(|facts| facts.upgraded = true);
    }

    /// Bytes of the request's body that came.
    pub fn add_request_bytes(&self, bytes: u64) {
        self.record.request_bytes.set(self.record.request_bytes.get() + bytes);
    }

    /// Bytes of the response's body that went.
    pub fn add_response_bytes(&self, bytes: u64) {
        self.record.response_bytes.set(self.record.response_bytes.get() + bytes);
    }

    /// Writes the `stream` event of a request that goes on for long, once.
    pub fn stream_open(&self) {
        let first = !self.record.finished.get() && !self.record.facts.borrow().open_written;
        if first {
            self.change(|facts| facts.open_written = true);
            self.worker.write_open(&self.record);
        }
    }

    /// The request is still under way, and so its token in use. It is counted at the end.
    pub fn goes_on(&self) {
        if self.record.finished.get() {
            return;
        }
        let (facts, now) = (self.record.facts.borrow(), self.worker.clock().timestamp());
        let (usage, source) = (&self.worker.core.usage, Some(facts.source()));
        facts.for_each_use(|accessor, rule| usage.goes_on(accessor, rule, now, source));
    }

    /// A later look refused the request while it was under way: it is cut, for this reason under this revision.
    pub fn recut(&self, denial: &Denial) {
        let now = self.worker.clock().now();
        if !self.record.finished.get() {
            self.worker.count_cut(denial.reason);
        }
        self.change(|facts| {
            facts.set_cut(denial, now);
            facts.error = Some("cut");
        });
    }

    /// Baits were in what never became a request.
    fn shown(&self, baits: &[Bait]) {
        self.change(|facts| baits.iter().for_each(|bait| self.worker.bait_used(facts, bait)));
    }

    /// What must not be recorded of the path is masked before anything is said of the request.
    fn judged(&self, case: &Case) {
        self.change(|facts| {
            self.worker.mask_path(facts, case.api());
            // Of one request, decided for a second time for a limit or an upstream's fault, they are told once.
            if !case.baits().is_empty() && !std::mem::replace(&mut facts.is_bait_told, true) {
                case.baits().iter().for_each(|bait| self.worker.bait_used(facts, bait));
            }
        });
    }

    fn decide(&self, revision: &str, duration: Duration, set: impl FnOnce(&mut Facts)) {
        let now = self.worker.clock().elapsed();
        let table = self.worker.table(revision);
        self.change(|facts| {
            facts.table = Some(table);
            facts.decided = Some(crate::clock::after(facts.arrival, now.saturating_sub(facts.started)));
            set(facts);
        });
        self.worker.sample_decision(duration);
    }

    /// The end is the end: what comes later belongs to nobody.
    fn change(&self, change: impl FnOnce(&mut Facts)) {
        if !self.record.finished.get() {
            change(&mut self.record.facts.borrow_mut());
        }
    }
}
