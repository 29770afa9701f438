//! Bodies on their way through: frames are passed on as they come, one at a time and only when the other side takes
//! them. Trailers stay behind (P17).

mod download;
mod drain;
mod outbound;
mod received;
mod request;
mod response;
mod trailers;
mod unread;

pub(crate) use download::{DownloadError, UpstreamBody};
pub(crate) use drain::drain_buffered;
pub(crate) use outbound::{OutboundBody, Stop, Turn};
pub(crate) use received::{BrokenOff, Received};
pub(crate) use request::{BodyLimits, RequestBody, Upload, UploadFault};
pub use response::{BodyError, ProxyBody};
pub(crate) use trailers::TrailerLimits;
pub(crate) use unread::{Ending, Inbound};

/// The body of a client's request, with its limits.
pub(crate) type ClientBody = RequestBody<Inbound>;
