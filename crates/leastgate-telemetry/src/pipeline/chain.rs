//! The batch being gathered and the chain of checkpoints. A hash per event would cost a fifth of a request; per batch it is
//! next to nothing and proves the same.

use blake3::Hash;

use crate::clock::Micros;
use crate::decision_id::DecisionId;
use crate::event::{Checkpoint, GatewayFragment, prefix, write_checkpoint};

/// A batch is closed before it grows larger.
pub(crate) const BATCH: usize = 64 * 1024;

/// Numbered lines on their way into one batch.
#[derive(Debug)]
pub(crate) struct Chain {
    bytes: Vec<u8>,
    events: usize,
    places: usize,
    first_seq: u64,
    next_seq: u64,
    prev: Hash,
    span: Option<(Micros, Micros)>,
}

/// A closed batch, its checkpoint included.
#[derive(Debug)]
pub(crate) struct Closed<'a> {
    pub(crate) bytes: &'a [u8],
    /// Lines, the checkpoint included.
    pub(crate) events: usize,
    pub(crate) places: usize,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
    pub(crate) prev: Hash,
}

impl Chain {
    /// Goes on after `last_seq`; `prev` is the hash of the checkpoint line that closed it.
    pub(crate) fn after(last_seq: u64, prev: Hash) -> Self {
        let next = last_seq + 1;
        Self {
            bytes: Vec::with_capacity(BATCH + 4096),
            events: 0,
            places: 0,
            first_seq: next,
            next_seq: next,
            prev,
            span: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// The number of the last line.
    pub(crate) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Whether a line of this size still belongs into the batch.
    pub(crate) fn fits(&self, line: usize) -> bool {
        self.is_empty() || self.bytes.len() + line + PREFIX_MAX <= BATCH
    }

    /// Gives a line its number. `reserved`: it occupies a place.
    pub(crate) fn append(&mut self, body: &[u8], at: Micros, reserved: bool) {
        prefix(&mut self.bytes, self.next_seq);
        self.bytes.extend_from_slice(body);
        self.bytes.push(b'\n');
        self.next_seq += 1;
        self.events += 1;
        self.places += usize::from(reserved);
        let (first, last) = self.span.unwrap_or((at, at));
        self.span = Some((first.min(at), last.max(at)));
    }

    /// Closes the batch with a checkpoint; call [`Chain::clear`] when done with it.
    pub(crate) fn close(&mut self, id: DecisionId, now: Micros, gateway: &GatewayFragment) -> Closed<'_> {
        let checkpoint = Checkpoint {
            first_seq: self.first_seq,
            last_seq: self.next_seq - 1,
            bytes: self.bytes.len() as u64,
            hash: blake3::hash(&self.bytes),
            prev: self.prev,
        };
        let start = self.bytes.len();
        prefix(&mut self.bytes, self.next_seq);
        write_checkpoint(&mut self.bytes, id, now, gateway, &checkpoint);
        self.bytes.push(b'\n');
        self.prev = blake3::hash(&self.bytes[start..]);
        let (first, last) = self.span.unwrap_or((now, now));
        Closed {
            bytes: &self.bytes,
            events: self.events + 1,
            places: self.places,
            first_seq: checkpoint.first_seq,
            last_seq: self.next_seq,
            first,
            last,
            prev: self.prev,
        }
    }

    /// Begins the next batch.
    pub(crate) fn clear(&mut self) {
        self.next_seq += 1;
        self.first_seq = self.next_seq;
        self.bytes.clear();
        self.events = 0;
        self.places = 0;
        self.span = None;
    }
}

const PREFIX_MAX: usize = 64;
