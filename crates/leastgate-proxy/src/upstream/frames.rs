//! What an upstream sends over HTTP/2, frame by frame: less those that say nothing, and with word of new settings.
//!
//! At the hundredth empty DATA frame in a connection's life h2 ends it, and every request on it, for a flood of them fills
//! its queues (RUSTSEC-2026-0258). But some upstreams flush with one such frame an answer. A DATA frame that is empty and
//! ends nothing means nothing (RFC 9113 §6.1), so h2 never gets to see one. A padded one it does, for its padding counts.
//!
//! And how many requests an upstream takes, hyper tells whoever asks, but not that it has changed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Of every frame (§4.1).
const HEAD: usize = 9;

const DATA: u8 = 0;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// Enough to go on with where there is next to no room.
const SCRATCH: usize = 64;

/// A connection, as h2 reads it.
#[derive(Debug)]
pub(super) struct Framed<S> {
    inner: S,
    heard: Arc<Notify>,
    frames: Frames,
    /// The beginning of a frame's head.
    head: SmallVec<[u8; HEAD]>,
    /// Read, and for whoever reads next.
    spare: SmallVec<[u8; HEAD]>,
}

/// Where in the sequence of frames the next byte stands.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of a frame that are still to come.
    left: usize,
    is_settings: bool,
    /// Whole settings have come.
    has_settings: bool,
}

impl Frames {
    /// Takes frames that say nothing out of what comes next. Gives how much of it is left, and how many bytes behind that
    /// are the beginning of a head.
    fn squeeze(&mut self, bytes: &mut [u8]) -> (usize, usize) {
        let (mut from, mut to) = (0, 0);
        loop {
            let payload = self.left.min(bytes.len() - from);
            self.left -= payload;
            if self.left == 0 && std::mem::take(&mut self.is_settings) {
                self.has_settings = true;
            }
            let Some(head) = bytes.get(from + payload..from + payload + HEAD).filter(|_| self.left == 0) else {
                shift(bytes, from, to);
                let is_within = self.left > 0;
                let rest = bytes.len() - from;
                return if is_within { (to + rest, 0) } else { (to + payload, rest - payload) };
            };
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let kind = head[3];
            let is_nothing = length == 0 && kind == DATA && head[4] & (END_STREAM | PADDED) == 0;
            let kept = if is_nothing { payload } else { payload + HEAD };
            if from != to {
                bytes.copy_within(from..from + kept, to);
            }
            (from, to) = (from + payload + HEAD, to + kept);
            (self.left, self.is_settings) = (length, kind == SETTINGS);
        }
    }
}

fn shift(bytes: &mut [u8], from: usize, to: usize) {
    if from != to {
        bytes.copy_within(from.., to);
    }
}

impl<S> Framed<S> {
    /// `heard` tells whenever settings have come, or the end.
    pub(super) fn new(inner: S, heard: &Arc<Notify>) -> Self {
        let heard = Arc::clone(heard);
        Self { inner, heard, frames: Frames::default(), head: SmallVec::new(), spare: SmallVec::new() }
    }
}

impl<S: AsyncRead + Unpin> Framed<S> {
    /// Reads until there is something to hand on, or the end. There is room for more than a head.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        loop {
            buffer.put_slice(&self.head);
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
            if !matches!(read, Poll::Ready(Ok(()))) {
                buffer.set_filled(start);
                if read.is_ready() {
                    self.heard.notify_waiters();
                }
                return read;
            }
            self.head.clear();
            if buffer.filled().len() == before {
                self.heard.notify_waiters();
                return Poll::Ready(Ok(()));
            }
            let bytes = &mut buffer.filled_mut()[start..];
            let (whole, beginning) = self.frames.squeeze(bytes);
            self.head.extend_from_slice(&bytes[whole..whole + beginning]);
            buffer.set_filled(start + whole);
            if std::mem::take(&mut self.frames.has_settings) {
                self.heard.notify_waiters();
            }
            if whole > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.spare.is_empty() {
            if buffer.remaining() > HEAD {
                return this.poll_fill(cx, buffer);
            }
            let mut scratch = [0; SCRATCH];
            let mut own = ReadBuf::new(&mut scratch);
            ready!(this.poll_fill(cx, &mut own))?;
            this.spare.extend_from_slice(own.filled());
        }
        let now = this.spare.len().min(buffer.remaining());
        buffer.put_slice(&this.spare[..now]);
        this.spare.drain(..now);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use leastgate_testkit::http2::frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The next of a sequence of numbers that are as good as any (Marsaglia, Xorshift RNGs, 2003).
    fn next(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        usize::try_from(*state >> 40).unwrap()
    }

    /// Frames of all kinds, and those of them that say something.
    fn frames(state: &mut u64) -> (Vec<u8>, Vec<u8>) {
        let (mut all, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..next(state) % 40 {
            let kind = u8::try_from(next(state) % 3).unwrap();
            let flags = [0, 1, 4, 8, 9][next(state) % 5];
            let payload = vec![0; [0, 0, 0, 1, 8, 9, 10, 300][next(state) % 8]];
            let one = frame(kind, flags, u32::try_from(next(state) % 5).unwrap(), &payload);
            all.extend_from_slice(&one);
            if kind != DATA || flags & 9 != 0 || !payload.is_empty() {
                kept.extend_from_slice(&one);
            }
        }
        (all, kept)
    }

    #[tokio::test]
    async fn whatever_comes_in_whatever_pieces_is_there_less_what_says_nothing() {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for round in 0..500 {
            let (mut all, mut kept) = frames(&mut state);
            let cut = [0, 0, 3][next(&mut state) % 3];
            let rest = frame(9, 0, 1, b"whatever")[..cut].to_vec();
            all.extend_from_slice(&rest);
            kept.extend_from_slice(&rest);
            let (mut sender, receiver) = tokio::io::duplex(1 + next(&mut state) % 40);
            let sending = async {
                for piece in all.chunks(1 + next(&mut state.clone()) % 30) {
                    sender.write_all(piece).await.unwrap();
                }
                drop(sender);
            };
            let (mut got, mut room) = (Vec::new(), state);
            let mut receiver = Framed::new(receiver, &Arc::default());
            let receiving = async {
                loop {
                    let mut buffer = vec![0; 1 + next(&mut room) % 40];
                    match receiver.read(&mut buffer).await.unwrap() {
                        0 => break,
                        read => got.extend_from_slice(&buffer[..read]),
                    }
                }
            };
            tokio::join!(sending, receiving);
            assert_eq!(got, kept, "round {round}");
        }
    }
}
