//! One way through a tunnel. It holds at most one read's worth of bytes, and while nothing moves no buffer at all.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// Most bytes that are read before they are written.
const CHUNK: usize = 16 * 1024;

/// Which side broke.
#[derive(Debug)]
pub(super) enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

/// Bytes on their way from a source to a sink.
#[derive(Debug, Default)]
pub(super) struct Way {
    held: Vec<u8>,
    written: usize,
    is_unflushed: bool,
    source_ended: bool,
    is_done: bool,
    /// Where the source is.
    frames: Frames,
    /// Where the sink is: behind the source by what is held, and ahead by what the gateway has said.
    sunk: Frames,
    parting: Parting,
    /// Bytes since they were last asked for.
    came: u64,
    went: u64,
}

/// Whether the gateway has a last word to say on this way.
#[derive(Debug, Default)]
enum Parting {
    #[default]
    None,
    /// At the next boundary between two frames.
    Due(Vec<u8>),
    /// What comes now is thrown away: nothing may follow a close.
    Said,
}

impl Way {
    /// A way that begins with bytes that are already here.
    pub(super) fn beginning_with(early: &[u8]) -> Self {
        let mut way = Self::default();
        way.take_in(early);
        way
    }

    /// Moves what can be moved. Ready: the source has ended, and the sink knows.
    pub(super) fn poll<R, W>(&mut self, source: &mut R, sink: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.is_done {
            ready!(self.poll_write(sink, cx)).map_err(Broken::Sink)?;
            self.part();
            if !self.held.is_empty() {
                continue;
            }
            if self.source_ended {
                // Whoever is gone already needs no telling.
                let _ = ready!(Pin::new(&mut *sink).poll_shutdown(cx));
                self.is_done = true;
            } else if self.poll_read(source, cx).map_err(Broken::Source)?.is_pending() {
                self.held = Vec::new();
                return self.poll_flush(sink, cx).map(Err);
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Has the last word said as soon as no frame is broken by it.
    pub(super) fn part_with(&mut self, word: impl FnOnce() -> Vec<u8>) {
        if matches!(self.parting, Parting::None) {
            self.parting = Parting::Due(word());
        }
    }

    pub(super) fn has_parted(&self) -> bool {
        matches!(self.parting, Parting::Said)
    }

    /// Whether the source has said that it closes.
    pub(super) fn closes(&self) -> bool {
        self.frames.closes()
    }

    /// Ends the way where it is: where its source is, and where its sink.
    pub(super) fn break_off(&mut self) -> (Frames, Frames) {
        self.held = Vec::new();
        self.is_done = true;
        (std::mem::take(&mut self.frames), std::mem::take(&mut self.sunk))
    }

    /// Bytes that came and that went since the last time.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.came), std::mem::take(&mut self.went))
    }

    fn poll_write<W: AsyncWrite + Unpin>(&mut self, sink: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            let wrote = ready!(Pin::new(&mut *sink).poll_write(cx, &self.held[self.written..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sunk.pass(&self.held[self.written..self.written + wrote]);
            self.written += wrote;
            self.went += wrote as u64;
            self.is_unflushed = true;
        }
        self.held.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Never ready but with an error: it is for whoever has to wait anyway.
    fn poll_flush<W: AsyncWrite + Unpin>(&mut self, sink: &mut W, cx: &mut Context<'_>) -> Poll<Broken> {
        if self.is_unflushed {
            ready!(Pin::new(sink).poll_flush(cx)).map_or_else(
                |error| Poll::Ready(Broken::Sink(error)),
                |()| {
                    self.is_unflushed = false;
                    Poll::Pending
                },
            )
        } else {
            Poll::Pending
        }
    }

    fn poll_read<R: AsyncRead + Unpin>(&mut self, source: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [const { MaybeUninit::uninit() }; CHUNK];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(source).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            self.source_ended = true;
        }
        self.take_in(buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Once the last word is due, only the frame that has begun is finished.
    fn take_in(&mut self, bytes: &[u8]) {
        self.came += bytes.len() as u64;
        let kept = match self.parting {
            Parting::None => bytes.len(),
            Parting::Due(_) => self.frames.pass_frame(bytes),
            Parting::Said => 0,
        };
        self.held.extend_from_slice(&bytes[..kept]);
        match self.parting {
            Parting::None => self.frames.pass(bytes),
            Parting::Due(_) | Parting::Said => {
                self.part();
                self.frames.pass(&bytes[kept..]);
            }
        }
        self.heed_close();
    }

    fn part(&mut self) {
        let Parting::Due(word) = &self.parting else { return };
        if self.frames.is_at_boundary() {
            if !self.frames.closes() {
                self.held.extend_from_slice(word);
            }
            self.parting = Parting::Said;
            self.heed_close();
        }
    }

    /// Our word is said, and theirs is heard.
    fn heed_close(&mut self) {
        self.source_ended |= self.has_parted() && self.frames.closes();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::tunnel::frames::{Status, close_to_client};

    fn good_bye() -> Vec<u8> {
        close_to_client(Status::GoingAway)
    }

    /// A way between two pipes that hold a few bytes each, and their other ends.
    fn way() -> (Way, [DuplexStream; 2], [DuplexStream; 2]) {
        let (source, from) = duplex(8);
        let (sink, to) = duplex(8);
        (Way::default(), [from, to], [source, sink])
    }

    async fn run(mut way: Way, [mut from, mut to]: [DuplexStream; 2]) -> Way {
        let _ = poll_fn(|cx| way.poll(&mut from, &mut to, cx)).await;
        way
    }

    #[tokio::test]
    async fn every_byte_arrives_and_the_end_behind_it() {
        let (way, ends, [mut source, mut sink]) = way();
        let bytes: Vec<u8> = (0..1000_u16).map(|n| n.to_le_bytes()[0]).collect();
        let mut arrived = Vec::new();
        let write = async {
            source.write_all(&bytes).await.unwrap();
            source.shutdown().await.unwrap();
        };
        let (mut way, (), read) = tokio::join!(run(way, ends), write, sink.read_to_end(&mut arrived));
        read.unwrap();
        assert_eq!(arrived, bytes);
        assert!(way.is_done());
        assert_eq!(way.take_counts(), (1000, 1000));
    }

    #[tokio::test]
    async fn early_bytes_come_first() {
        let (_, ends, [mut source, mut sink]) = way();
        source.write_all(b"late").await.unwrap();
        source.shutdown().await.unwrap();
        let mut arrived = Vec::new();
        let (_, read) = tokio::join!(run(Way::beginning_with(b"early "), ends), sink.read_to_end(&mut arrived));
        read.unwrap();
        assert_eq!(arrived, b"early late");
    }

    /// One frame of three bytes under way when the last word becomes due, and frames behind it.
    async fn parted(behind: &[u8]) -> (Vec<u8>, Way) {
        let (mut way, mut ends, [mut source, mut sink]) = way();
        source.write_all(&[0x81, 3, b'a']).await.unwrap();
        let [from, to] = &mut ends;
        let pending = poll_fn(|cx| Poll::Ready(way.poll(from, to, cx).is_pending())).await;
        assert!(pending);
        way.part_with(good_bye);
        let write = async {
            source.write_all(b"bc").await.unwrap();
            source.write_all(behind).await.unwrap();
            source.shutdown().await.unwrap();
        };
        let mut arrived = Vec::new();
        let (way, (), read) = tokio::join!(run(way, ends), write, sink.read_to_end(&mut arrived));
        read.unwrap();
        (arrived, way)
    }

    #[tokio::test]
    async fn the_last_word_waits_for_the_end_of_the_frame_and_nothing_follows_it() {
        let expected = [&[0x81, 3][..], b"abc", &good_bye()].concat();
        for behind in [&b""[..], &[0x81, 1, b'x'], &[0x82, 5, 0, 0]] {
            assert_eq!(parted(behind).await.0, expected, "{behind:?}");
        }
    }

    #[tokio::test]
    async fn where_the_source_has_closed_by_itself_no_second_close_is_said() {
        let (mut way, ends, [mut source, mut sink]) = way();
        source.write_all(&[0x88, 0]).await.unwrap();
        way.take_in(&[0x88, 0]);
        way.part_with(good_bye);
        drop(source);
        let mut arrived = Vec::new();
        let (_, read) = tokio::join!(run(way, ends), sink.read_to_end(&mut arrived));
        read.unwrap();
        assert_eq!(arrived, [0x88, 0]);
    }
}
