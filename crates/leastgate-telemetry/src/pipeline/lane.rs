//! The buffers between one producer and the writer. The producer only appends; the writer only swaps, so neither holds the
//! lock longer than one copy of a line.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Micros;

/// Which of a lane's buffers an event goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// A place was reserved: there is always room.
    Kept,
    /// Dropped when the buffer is full.
    Lossy,
    /// Unauthenticated: dropped too, from a buffer of its own, so a flood takes nobody's room.
    Flood,
}

/// What was lost for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) count: u64,
    pub(crate) first: Micros,
    pub(crate) last: Micros,
}

impl Loss {
    pub(crate) fn add(&mut self, other: Self) {
        if other.count == 0 {
            return;
        }
        self.first = if self.count == 0 { other.first } else { self.first.min(other.first) };
        self.last = self.last.max(other.last);
        self.count += other.count;
    }

    pub(crate) fn one(at: Micros) -> Self {
        Self { count: 1, first: at, last: at }
    }
}

/// Lines on their way to the writer, each framed by its length and time.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    loss: Loss,
}

const FRAME: usize = 12;

impl Buffer {
    fn push(&mut self, line: &[u8], at: Micros) {
        self.bytes.extend_from_slice(&u32::try_from(line.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(&at.0.to_le_bytes());
        self.bytes.extend_from_slice(line);
    }

    /// The lines, oldest first.
    pub(crate) fn lines(&self) -> Lines<'_> {
        Lines(&self.bytes)
    }

    pub(crate) fn take_loss(&mut self) -> Loss {
        std::mem::take(&mut self.loss)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        // A burst must not keep its memory for ever.
        self.bytes.shrink_to(KEEP);
    }
}

const KEEP: usize = 128 * 1024;

/// Reads the lines of a [`Buffer`].
#[derive(Debug)]
pub(crate) struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = (Micros, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.0.split_first_chunk::<4>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (line, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        self.0 = rest;
        Some((Micros(u64::from_le_bytes(*at)), line))
    }
}

/// The three buffers of a lane.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) kept: Buffer,
    pub(crate) lossy: Buffer,
    pub(crate) flood: Buffer,
}

/// Where one producer leaves its lines.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The worker's number; `None` for the lane that admin and lifecycle events share.
    pub(crate) worker: Option<u32>,
    lossy_limit: usize,
    flood_limit: usize,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    buffers: Buffers,
    sealed: bool,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The writer finds it when it comes by.
    Waiting,
    /// The writer should be woken: enough has gathered for a batch.
    Enough,
    /// The writer has ended: the line is lost, and the stream must not be called closed.
    TooLate,
}

impl Lane {
    pub(crate) fn new(worker: Option<u32>, lossy_limit: usize, flood_limit: usize) -> Self {
        Self { worker, lossy_limit, flood_limit, content: Mutex::default() }
    }

    /// Leaves a line, or counts it as lost for want of room.
    pub(crate) fn push(&self, queue: Queue, line: &[u8], at: Micros) -> Pushed {
        let mut content = self.lock();
        if content.sealed {
            return Pushed::TooLate;
        }
        let buffers = &mut content.buffers;
        let (buffer, limit) = match queue {
            // Bounded by the places there are.
            Queue::Kept => (&mut buffers.kept, usize::MAX),
            Queue::Lossy => (&mut buffers.lossy, self.lossy_limit),
            Queue::Flood => (&mut buffers.flood, self.flood_limit),
        };
        let before = buffer.bytes.len();
        if before.saturating_add(FRAME + line.len()) > limit {
            buffer.loss.add(Loss::one(at));
            return Pushed::Waiting;
        }
        buffer.push(line, at);
        if before < WAKE && buffer.bytes.len() >= WAKE { Pushed::Enough } else { Pushed::Waiting }
    }

    /// Hands the writer everything, and takes its empty buffers in exchange.
    pub(crate) fn swap(&self, empty: &mut Buffers) {
        std::mem::swap(&mut self.lock().buffers, empty);
    }

    /// The writer comes for the last time after this, if at all: from now on every line is too late.
    pub(crate) fn seal(&self) {
        self.lock().sealed = true;
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Half a batch: the writer then has it numbered before the batch is full.
const WAKE: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_in_order_and_losses_are_counted() {
        let lane = Lane::new(Some(0), 60, 0);
        assert_eq!(lane.push(Queue::Lossy, b"first line", Micros(1)), Pushed::Waiting);
        lane.push(Queue::Lossy, b"second", Micros(2));
        lane.push(Queue::Lossy, &[b'x'; 40], Micros(3));
        lane.push(Queue::Lossy, &[b'x'; 40], Micros(4));
        lane.push(Queue::Flood, b"f", Micros(5));
        lane.push(Queue::Kept, &[b'k'; 100], Micros(6));
        let mut taken = Buffers::default();
        lane.swap(&mut taken);
        let lines: Vec<_> = taken.lossy.lines().collect();
        assert_eq!(lines, [(Micros(1), b"first line".as_slice()), (Micros(2), b"second")]);
        assert_eq!(taken.lossy.take_loss(), Loss { count: 2, first: Micros(3), last: Micros(4) });
        assert_eq!(taken.flood.take_loss().count, 1);
        assert_eq!(taken.kept.lines().count(), 1);
    }

    #[test]
    fn half_a_batch_wakes_the_writer_once() {
        let lane = Lane::new(None, usize::MAX, 0);
        let pushed = (0..100).map(|_| lane.push(Queue::Lossy, &[b'x'; 1000], Micros(0)));
        assert_eq!(pushed.filter(|pushed| *pushed == Pushed::Enough).count(), 1);
    }

    #[test]
    fn a_sealed_lane_gives_up_what_it_has_and_takes_nothing() {
        let lane = Lane::new(None, usize::MAX, 0);
        lane.push(Queue::Kept, b"in time", Micros(1));
        lane.seal();
        assert_eq!(lane.push(Queue::Kept, b"too late", Micros(2)), Pushed::TooLate);
        let mut taken = Buffers::default();
        lane.swap(&mut taken);
        assert_eq!(taken.kept.lines().collect::<Vec<_>>(), [(Micros(1), b"in time".as_slice())]);
    }
}
