//! NDJSON on standard output, whole lines in batches. Operational logs go to standard error, so the two never mix.

use std::io::{self, Write};

use super::{Sink, SinkError};

/// Writes batches to a stream, by default standard output.
#[derive(Debug)]
pub struct StdoutSink<W = io::Stdout>(W);

impl StdoutSink {
    /// Standard output.
    pub fn new() -> Self {
        Self(io::stdout())
    }
}

impl Default for StdoutSink {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Write> StdoutSink<W> {
    /// Another stream, with the same promise.
    pub fn over(stream: W) -> Self {
        Self(stream)
    }
}

impl<W: Write + Send + std::fmt::Debug> Sink for StdoutSink<W> {
    /// A reader that has gone does not come back: nothing is tried twice.
    fn write(&mut self, batch: &[u8]) -> Result<(), SinkError> {
        self.0.write_all(batch).and_then(|()| self.0.flush()).map_err(SinkError::Lost)
    }
}
