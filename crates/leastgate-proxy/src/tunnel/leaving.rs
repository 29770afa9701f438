//! One side of a tunnel whose request is refused after all. From that decision on nothing is carried any more, not even the
//! rest of a frame that has begun: so a word can be said only to a side that stands between two frames, and the other kind
//! sees a connection that closes in the middle of one. What a side that was told still sends is read and thrown away until
//! it closes too: a socket that is closed with bytes unread resets the connection, and a reset can overtake the word.
//!
//! How long this may take is the business of whoever has refused the request (`streams.rs`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// Most bytes that are read at once of what nobody wants.
const CHUNK: usize = 4 * 1024;

/// What one side still has to hear and to say.
#[derive(Debug)]
pub(super) struct Leaving {
    word: Vec<u8>,
    said: usize,
    /// Where what it sends is; `None`: it is not waited for.
    hears: Option<Frames>,
    is_over: bool,
}

impl Leaving {
    /// `got`: where the side is in what was sent to it. `sends`: where it is in what it sends.
    pub(super) fn new(got: &Frames, sends: Frames, word: impl FnOnce() -> Vec<u8>) -> Self {
        let can_hear = got.is_at_boundary();
        let word = if can_hear && !got.closes() { word() } else { Vec::new() };
        Self { word, said: 0, hears: can_hear.then_some(sends), is_over: false }
    }

    /// Ready: there is nothing more to wait for on this side.
    pub(super) fn poll<S: AsyncRead + AsyncWrite + Unpin>(&mut self, side: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_over {
            // One that is gone has nothing more to hear.
            let _ = ready!(self.poll_part(side, cx));
            self.is_over = true;
        }
        Poll::Ready(())
    }

    fn poll_part<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        side: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.said < self.word.len() {
            let said = ready!(Pin::new(&mut *side).poll_write(cx, &self.word[self.said..]))?;
            if said == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.said += said;
        }
        ready!(Pin::new(&mut *side).poll_flush(cx))?;
        while self.hears.as_ref().is_some_and(|frames| !frames.closes()) {
            let mut space = [0; CHUNK];
            let mut buffer = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut *side).poll_read(cx, &mut buffer))?;
            match &mut self.hears {
                Some(frames) if !buffer.filled().is_empty() => frames.pass(buffer.filled()),
                hears => *hears = None,
            }
        }
        Pin::new(side).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    const WORD: [u8; 4] = [0x88, 2, 3, 0xf0];

    fn at(bytes: &[u8]) -> Frames {
        let mut frames = Frames::default();
        frames.pass(bytes);
        frames
    }

    /// What a side gets that was sent this before, and whether it is over once the side has answered so.
    async fn part(got: &[u8], answers: &[u8]) -> (Vec<u8>, bool) {
        let (mut ours, mut theirs) = duplex(64);
        let mut leaving = Leaving::new(&at(got), Frames::default(), || WORD.to_vec());
        theirs.write_all(answers).await.unwrap();
        let over = timeout(Duration::from_secs(1), poll_fn(|cx| leaving.poll(&mut ours, cx))).await.is_ok();
        drop(ours);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        (heard, over)
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_between_two_frames_is_told_and_waited_for() {
        for got in [&b""[..], &[0x81, 1, b'a']] {
            assert_eq!(part(got, &[0x81, 1, b'x', 0x88, 0]).await, (WORD.to_vec(), true), "{got:?}");
            assert_eq!(part(got, &[0x82, 5, 0]).await, (WORD.to_vec(), false), "it has not closed: {got:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_in_the_middle_of_a_frame_can_be_told_nothing_and_is_not_waited_for() {
        for got in [&[0x81_u8][..], &[0x81, 2, b'a'], &[0x82, 127, 0, 0, 0, 0, 0x40]] {
            assert_eq!(part(got, &[0x81, 1]).await, (Vec::new(), true), "{got:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_follows_a_close_that_was_said_before() {
        assert_eq!(part(&[0x88, 2, 3, 0xe9], &[0x88, 0]).await, (Vec::new(), true));
    }
}
