//! Requests that last: each one older than 50 ms is decided again when it enters this view, and then whenever the policy
//! or a token changes and once a second, because expiries are whole seconds. Who takes access away may ask for more: then
//! every request is decided again at once, however young. What would now be refused is cut (P29), and so is a response
//! that has had all the time there is for it.
//!
//! One task a worker looks at all of them, so that a short request pays for an entry in a list and not for a timer.
//!
//! A cut depends on what the protocol has a word for. A request without a response yet is answered. A WebSocket is told
//! between two frames, a gRPC call over HTTP/2 by its status where a stream's end can still be said; both for a second at
//! most. Everything else is broken off: the connection of HTTP/1.1 closes, the stream of HTTP/2 is reset (CANCEL).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leastgate_policy::{
    Authority, Decision, Denial, PolicySnapshot, Reason, RequestFacts, Reviewer, Timestamp, decide,
};
use leastgate_telemetry::RecordHandle;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::{ConnectionState, StreamControl};
use crate::worker::Worker;

/// From this age a request is decided again.
const LONG: Duration = Duration::from_millis(50);
/// From this age it leaves a record while it is open.
const STREAM: Duration = Duration::from_secs(10);
/// How often, from this age on, it is looked at whether a request's client is still there.
const LOOK: Duration = Duration::from_secs(1);
/// How often, from this age on, it is said that a request's token is in use: within each second that a rule could let it lie idle.
const USE: Duration = Duration::from_millis(500);
/// How often the list is looked at while it is not empty.
const TICK: Duration = Duration::from_millis(25);
/// How long it may take to say why a request is cut. Then it is broken off.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The requests under way on one worker that were let through.
#[derive(Debug)]
pub(crate) struct Streams {
    open: RefCell<Slab<Rc<Underway>>>,
    began: Notify,
    /// Somebody wants to know that a change was heeded.
    asked: Arc<Notify>,
    reviewer: Reviewer,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Underway {
    facts: RequestFacts,
    connection: Rc<ConnectionState>,
    /// Where many requests share the connection, this one's part of it.
    stream: Option<Rc<StreamControl>>,
    record: RecordHandle,
    began: Instant,
    /// When the client was last known to be there.
    looked_at: Cell<Instant>,
    /// When it was last said that its token is in use.
    used_at: Cell<Instant>,
    /// Whether it was decided again on entering.
    entered: Cell<bool>,
    reported: Cell<bool>,
    /// Whether its response is on the way: it can then only be cut off, not answered.
    streaming: Cell<bool>,
    /// Whether that response has an end in which can be said why.
    has_last_word: Cell<bool>,
    /// When that has taken too long.
    due_at: Cell<Option<Instant>>,
    /// When saying why has taken too long.
    told_at: Cell<Option<Instant>>,
    denial: RefCell<Option<Denial>>,
    waiting: RefCell<Option<Waker>>,
}

/// A request's entry in the list; dropped with the request.
#[derive(Debug)]
pub(crate) struct Entry {
    worker: Rc<Worker>,
    underway: Rc<Underway>,
    key: usize,
}

impl Streams {
    /// An empty list, whose owner takes part in the reviews of changes from now on.
    pub(crate) fn new(authority: &Authority) -> Self {
        let asked = Arc::new(Notify::new());
        let wake = Arc::clone(&asked);
        Self {
            open: RefCell::default(),
            began: Notify::new(),
            asked,
            reviewer: authority.reviewer(move || wake.notify_one()),
        }
    }

    /// Puts a request on the list.
    pub(crate) fn enter(
        worker: &Rc<Worker>,
        facts: RequestFacts,
        connection: &Rc<ConnectionState>,
        stream: Option<Rc<StreamControl>>,
        record: RecordHandle,
    ) -> Entry {
        let underway = Rc::new(Underway::new(facts, Rc::clone(connection), stream, record));
        let mut open = worker.streams.open.borrow_mut();
        if open.is_empty() {
            worker.streams.began.notify_one();
        }
        let key = open.insert(Rc::clone(&underway));
        Entry { worker: Rc::clone(worker), underway, key }
    }

    /// Looks after the list, for as long as the worker lives.
    pub(crate) async fn watch(worker: Rc<Worker>) {
        let streams = &worker.streams;
        let mut judged = Judged::default();
        loop {
            let is_asked = tokio::select! {
                biased;
                () = streams.asked.notified() => true,
                () = streams.next_look() => false,
            };
            streams.review(&worker, &mut judged, is_asked);
        }
    }

    async fn next_look(&self) {
        while self.open.borrow().is_empty() {
            self.began.notified().await;
        }
        tokio::time::sleep(TICK).await;
    }

    /// Decisions of this worker are made on this thread and enter the list in the same breath: none is half made now, and
    /// the next one sees every change that was counted before this.
    fn review(&self, worker: &Worker, judged: &mut Judged, is_asked: bool) {
        let judging = Judged { changes: worker.authority().changes(), second: worker.now() };
        if let Some(snapshot) = worker.snapshot() {
            let look = Look {
                snapshot: &snapshot,
                second: judging.second,
                is_stale: judging != *judged,
                is_asked,
                now: Instant::now(),
                reviewer: &self.reviewer,
            };
            for (_, underway) in self.open.borrow().iter() {
                underway.review(&look);
            }
            *judged = judging;
        }
        if is_asked {
            self.reviewer.reviewed(judging.changes);
        }
    }
}

/// One look at the list.
struct Look<'a> {
    snapshot: &'a Arc<PolicySnapshot>,
    second: Timestamp,
    /// Something has changed since the last one.
    is_stale: bool,
    /// It was asked for: nothing is too young for it.
    is_asked: bool,
    now: Instant,
    reviewer: &'a Reviewer,
}

/// What the list was last decided under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Judged {
    changes: u64,
    second: Timestamp,
}

impl Underway {
    fn new(
        facts: RequestFacts,
        connection: Rc<ConnectionState>,
        stream: Option<Rc<StreamControl>>,
        record: RecordHandle,
    ) -> Self {
        let began = Instant::now();
        Self {
            facts,
            connection,
            stream,
            record,
            began,
            looked_at: Cell::new(began),
            used_at: Cell::new(began),
            entered: Cell::new(false),
            reported: Cell::new(false),
            streaming: Cell::new(false),
            has_last_word: Cell::new(false),
            due_at: Cell::new(None),
            told_at: Cell::new(None),
            denial: RefCell::new(None),
            waiting: RefCell::new(None),
        }
    }

    fn review(&self, look: &Look<'_>) {
        let now = look.now;
        self.look_after_client(now);
        if self.due_at.get().is_some_and(|due| due <= now) {
            self.due_at.set(None);
            self.record.failed(Reason::UpstreamTimeout.as_str());
            self.break_off();
        }
        if self.told_at.get().is_some_and(|told| told + LAST_WORD <= now) {
            self.break_off();
        }
        if self.denial.borrow().is_some() {
            return;
        }
        let age = now - self.began;
        let is_long = age >= LONG;
        if look.is_asked || is_long && (look.is_stale || !self.entered.get()) {
            self.entered.set(is_long);
            self.decide_again(look);
        }
        if age >= STREAM && !self.reported.replace(true) {
            self.record.stream_open();
        }
        if now - self.used_at.get() >= USE && self.denial.borrow().is_none() {
            self.used_at.set(now);
            self.record.goes_on();
        }
    }

    /// hyper notices that a client is gone only if nothing else had come from it, and a write only if there is one.
    fn look_after_client(&self, now: Instant) {
        if now - self.looked_at.get() < LOOK {
            return;
        }
        self.looked_at.set(now);
        if self.connection.is_client_gone() {
            self.connection.cut();
        }
    }

    fn decide_again(&self, look: &Look<'_>) {
        let denial = match decide(&self.facts, look.snapshot, look.second) {
            Decision::Deny(denial) => denial,
            Decision::Allow(_) | Decision::Answer(_) => return,
        };
        self.record.recut(&denial);
        look.reviewer.cut(denial.case().identity().map(|token| token.accessor));
        *self.denial.borrow_mut() = Some(denial);
        if self.streaming.get() {
            self.cut();
        } else if let Some(waiting) = self.waiting.borrow_mut().take() {
            waiting.wake();
        }
    }

    /// Ends the response with the reason, where there is a word for it, and breaks it off where there is none.
    fn cut(&self) {
        let is_told = match &self.stream {
            Some(stream) => self.has_last_word.get() && stream.end(),
            None => self.connection.refuse_tunnel(),
        };
        if is_told {
            self.told_at.set(Some(Instant::now()));
        } else {
            self.break_off();
        }
    }

    /// Breaks the response off, without touching what others have on the same connection.
    fn break_off(&self) {
        match &self.stream {
            Some(stream) => stream.cut(),
            None => self.connection.cut(),
        }
    }

    fn poll_denied(&self, cx: &Context<'_>) -> Poll<Denial> {
        if let Some(denial) = &*self.denial.borrow() {
            return Poll::Ready(denial.clone());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Entry {
    /// Waits for the request to be refused after all. The future is for racing against its response.
    pub(crate) async fn denied(&self) -> Denial {
        std::future::poll_fn(|cx| self.underway.poll_denied(cx)).await
    }

    /// The response begins: from now on it can only be cut. It is when it is not over in time, if there is such a time.
    /// `has_last_word`: its end has fields that can say why it came early.
    pub(crate) fn streams(&self, due: Option<Instant>, has_last_word: bool) {
        self.underway.streaming.set(true);
        self.underway.has_last_word.set(has_last_word);
        self.underway.due_at.set(due);
        if self.underway.denial.borrow().is_some() {
            self.underway.cut();
        }
    }

    /// The later decision against the request, if there is one.
    pub(crate) fn denial(&self) -> Option<Denial> {
        self.underway.denial.borrow().clone()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.worker.streams.open.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests;
