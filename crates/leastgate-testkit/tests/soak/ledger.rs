//! What every request came to, in the eyes of whoever took part: the client, the upstream and the audit stream. Each request
//! carries its number in `User-Agent`, which the upstream gets and an event holds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many findings are told in full.
const TOLD: usize = 40;

/// What `User-Agent` begins with.
pub(crate) const AGENT: &str = "soak/";

/// In place of a status: answered, and what stands in the event is not what the client reads (gRPC's refusals).
pub(crate) const ANY: u16 = 1;

/// One gateway's requests.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    requests: Mutex<Vec<Request>>,
    findings: Mutex<Vec<String>>,
    found: AtomicU64,
    right: AtomicU64,
    excused: AtomicU64,
    refused: AtomicU64,
    /// Sent without a number, because no head of theirs could be read: answered, or perhaps on record.
    unnamed: AtomicU64,
}

/// One request; 0 stands for what did not happen.
#[derive(Clone, Copy, Debug, Default)]
struct Request {
    /// What its client read.
    status: u16,
    /// What its event says.
    recorded: u16,
    events: u8,
    arrived: u8,
}

/// All of them, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) right: u64,
    pub(crate) excused: u64,
    pub(crate) refused: u64,
    /// With a number, and without an event: nothing of them came of which anybody could have one.
    pub(crate) unseen: u64,
    pub(crate) found: u64,
    pub(crate) unnamed: u64,
}

impl Ledger {
    /// A number for a request that is about to be sent.
    pub(crate) fn open(&self) -> u64 {
        let mut requests = self.requests.lock().expect("no holder panics");
        requests.push(Request::default());
        requests.len() as u64 - 1
    }

    /// One whose head cannot be read, or is not sent whole.
    pub(crate) fn open_unnamed(&self) {
        self.unnamed.fetch_add(1, Ordering::Relaxed);
    }

    /// The head of an answer came.
    pub(crate) fn answered(&self, number: u64, status: u16) {
        self.with(number, |request| request.status = status);
    }

    /// It has reached the upstream.
    pub(crate) fn arrived(&self, number: u64) {
        let times = self.with(number, |request| {
            request.arrived = request.arrived.saturating_add(1);
            request.arrived
        });
        if times != Some(1) {
            self.find(format!("request {number} has reached the upstream {times:?} times"));
        }
    }

    /// An event of it was read.
    pub(crate) fn on_record(&self, number: u64, status: u16) {
        let known = self.with(number, |request| {
            request.events = request.events.saturating_add(1);
            request.recorded = status;
        });
        if known.is_none() {
            self.find(format!("an event of request {number}, which was never sent"));
        }
    }

    /// A legitimate request was answered as it must be.
    pub(crate) fn right(&self) {
        self.right.fetch_add(1, Ordering::Relaxed);
    }

    /// One was not, while its upstream was out.
    pub(crate) fn excused(&self) {
        self.excused.fetch_add(1, Ordering::Relaxed);
    }

    /// One that must be refused was, with the status it must have.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Something that may not be.
    pub(crate) fn find(&self, what: String) {
        self.found.fetch_add(1, Ordering::Relaxed);
        let mut findings = self.findings.lock().expect("no holder panics");
        if findings.len() < TOLD {
            findings.push(what);
        }
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.findings.lock().expect("no holder panics").clone()
    }

    pub(crate) fn totals(&self) -> Totals {
        let requests = self.requests.lock().expect("no holder panics");
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            sent: requests.len() as u64,
            answered: requests.iter().filter(|request| request.status != 0).count() as u64,
            right: load(&self.right),
            excused: load(&self.excused),
            refused: load(&self.refused),
            unseen: requests.iter().filter(|request| request.events == 0).count() as u64,
            found: load(&self.found),
            unnamed: load(&self.unnamed),
        }
    }

    /// Requests whose events are not what they must be: one event with the client's status where there was an answer; one
    /// where there was none and the upstream got it; else one at most. Only for when the gateway has ended: an event comes
    /// after its request.
    pub(crate) fn unbalanced(&self) -> Vec<String> {
        let requests = self.requests.lock().expect("no holder panics");
        let wrong = requests.iter().enumerate().filter(|(_, request)| !request.is_balanced());
        wrong.map(|(number, request)| format!("request {number}: {request:?}")).collect()
    }

    fn with<T>(&self, number: u64, change: impl FnOnce(&mut Request) -> T) -> Option<T> {
        let mut requests = self.requests.lock().expect("no holder panics");
        requests.get_mut(usize::try_from(number).ok()?).map(change)
    }
}

impl Request {
    fn is_balanced(self) -> bool {
        match self.status {
            0 => self.events <= 1 && (self.arrived == 0 || self.events == 1),
            ANY => self.events == 1,
            status => self.events == 1 && self.recorded == status,
        }
    }
}

/// The number in a `User-Agent`.
pub(crate) fn number_of(agent: &str) -> Option<u64> {
    agent.strip_prefix(AGENT)?.parse().ok()
}

/// A body that no other request has: its bytes are made of the request's number and their place.
pub(crate) fn bytes_of(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
