//! Where audit events go. A sink gets whole batches of NDJSON on a thread of its own and may block there.

mod file;
mod stdout;

pub use file::FileSink;
pub use stdout::StdoutSink;

use std::io;

/// A destination of audit events.
pub trait Sink: Send + std::fmt::Debug {
    /// Writes a whole batch: complete lines, the last one a checkpoint.
    fn write(&mut self, batch: &[u8]) -> Result<(), SinkError>;

    /// Called at least every half second, also between batches: time to notice that the ground has moved.
    fn check(&mut self) -> Result<Option<Moved>, SinkError> {
        Ok(None)
    }

    /// The operator asks for the destination to be opened anew (SIGHUP).
    fn reopen(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Makes sure that what was written stays: the stream is being closed.
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A file that was taken away under the gateway, and was opened anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Nothing was there any more.
    Deleted,
    /// Another file was there.
    Replaced,
}

impl Moved {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Replaced => "replaced",
        }
    }
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// It may work later; the same batch is tried again.
    #[error("the sink cannot write now")]
    Retry(#[source] io::Error),
    /// It will not; the batch is lost to this sink.
    #[error("the sink lost a batch")]
    Lost(#[source] io::Error),
}
