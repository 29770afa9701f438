//! NDJSON on standard output, whole lines in batches. Operational logs go to standard error, so the two never mix.
//!
//! Nothing is buffered here: what was not taken is known to the byte, so a batch tried again goes on where it stopped.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::{Sink, SinkError};

/// Writes batches to a stream, by default standard output.
#[derive(Debug)]
pub struct StdoutSink<W = File> {
    stream: W,
    insists: bool,
    /// Bytes of the batch at hand that the stream has taken.
    taken: usize,
    /// A batch was given up in the middle of a line.
    torn: bool,
}

impl StdoutSink {
    /// Standard output, past the buffer of [`io::stdout`]: what that holds back could be neither counted nor tried again.
    ///
    /// # Errors
    /// What the system said.
    pub fn new() -> io::Result<Self> {
        Ok(Self::over(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }
}

impl<W: Write> StdoutSink<W> {
    /// Another unbuffered stream, with the same promise.
    pub fn over(stream: W) -> Self {
        Self { stream, insists: false, taken: 0, torn: false }
    }

    /// Whether some class may not be dropped here: no batch is then ever given up, and whoever needs a place waits or is
    /// refused.
    #[must_use]
    pub fn insisting(mut self, insists: bool) -> Self {
        self.insists = insists;
        self
    }

    fn write_rest(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.torn {
            self.stream.write_all(b"\n")?;
            self.torn = false;
        }
        while let Some(rest) = batch.get(self.taken..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.stream.flush()
    }

    /// The next batch must not go on in the line that this one has begun.
    fn give_up(&mut self, batch: &[u8]) {
        let last = self.taken.checked_sub(1).and_then(|index| batch.get(index));
        self.torn = last.map_or(self.torn, |&byte| byte != b'\n');
        self.taken = 0;
    }
}

impl<W: Write + Send + std::fmt::Debug> Sink for StdoutSink<W> {
    /// A reader that has gone does not come back: without a class that insists the batch is lost, and the loss recorded. A
    /// stream that is only full (somebody made it non-blocking) is tried again in any case.
    fn write(&mut self, batch: &[u8]) -> Result<(), SinkError> {
        match self.write_rest(batch) {
            Ok(()) => {
                self.taken = 0;
                Ok(())
            }
            Err(error) if self.insists || error.kind() == io::ErrorKind::WouldBlock => Err(SinkError::Retry(error)),
            Err(error) => {
                self.give_up(batch);
                Err(SinkError::Lost(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A stream that is soon full, and its reader.
    fn narrow() -> (UnixStream, UnixStream) {
        let (stream, reader) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        (stream, reader)
    }

    #[test]
    fn a_batch_tried_again_goes_on_where_it_stopped() {
        for insists in [false, true] {
            let (stream, mut reader) = narrow();
            let mut sink = StdoutSink::over(stream).insisting(insists);
            let batch: Vec<u8> = (0..200_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
            let mut read = Vec::new();
            let mut tries = 0;
            while let Err(error) = sink.write(&batch) {
                assert!(matches!(error, SinkError::Retry(_)), "{error:?}");
                let mut some = vec![0; 64 * 1024];
                let count = reader.read(&mut some).unwrap();
                read.extend_from_slice(&some[..count]);
                tries += 1;
                assert!(read.len() <= batch.len(), "a retry began anew");
            }
            assert!(tries > 1, "the stream was to be narrow");
            drop(sink);
            reader.read_to_end(&mut read).unwrap();
            assert!(read == batch, "nothing twice, nothing missing");
        }
    }

    #[test]
    fn without_a_reader_a_batch_is_kept_if_some_class_insists_and_else_lost() {
        for insists in [false, true] {
            let (reader, stream) = io::pipe().unwrap();
            drop(reader);
            let error = StdoutSink::over(stream).insisting(insists).write(b"line\n").unwrap_err();
            assert_eq!(matches!(error, SinkError::Retry(_)), insists, "{error:?}");
        }
    }

    /// Takes so many bytes, then fails once, then takes everything.
    #[derive(Debug)]
    struct FailsOnce {
        taken: Vec<u8>,
        before: Option<usize>,
    }

    impl Write for FailsOnce {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = match self.before {
                Some(0) => {
                    self.before = None;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Some(room) => room.min(bytes.len()),
                None => bytes.len(),
            };
            self.before = self.before.map(|room| room - count);
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_lost_batch_leaves_no_line_that_the_next_one_goes_on_in() {
        for (room, expect) in [(7, "one\ntwo\nthree\n"), (6, "one\ntw\nthree\n"), (4, "one\nthree\n"), (0, "three\n")] {
            let mut sink = StdoutSink::over(FailsOnce { taken: Vec::new(), before: Some(room) });
            assert!(matches!(sink.write(b"one\ntwo\n"), Err(SinkError::Lost(_))));
            sink.write(b"three\n").unwrap();
            assert_eq!(String::from_utf8(sink.stream.taken).unwrap(), expect);
        }
    }
}
