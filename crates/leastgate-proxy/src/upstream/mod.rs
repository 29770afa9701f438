//! The only way to an upstream: from an authorized request to the head of its response.
//!
//! | file | what |
//! |---|---|
//! | `forward.rs` | which upstream, and what it is sent |
//! | `attempt.rs` | one exchange, and the one case in which a request is sent again |
//! | `pool/` | the choice of an endpoint, the connections to it, which endpoints are out |
//! | `target.rs`, `health.rs` | one endpoint |
//! | `places.rs` | how many connections there may be, and who waits for one |
//! | `check.rs` | an endpoint asked how it is |
//! | `names.rs` | addresses of names, asked for again and again |
//! | `connect.rs`, `socket.rs`, `tls.rs` | sockets and TLS |
//! | `last_word.rs` | an answer that came before its request was sent whole |
//! | `frames.rs` | what comes over HTTP/2, less what says nothing, and with word of new settings |
//! | `http1.rs`, `http2.rs`, `lease.rs` | a connection in either protocol, and its loan to one request |

mod attempt;
mod check;
mod connect;
mod forward;
mod frames;
mod health;
mod http1;
mod http2;
mod last_word;
mod lease;
mod names;
mod places;
mod pool;
mod socket;
mod target;
mod tls;

pub(crate) use forward::{Answer, Failed, Fault, ForwardContext, ForwardError, Forwarder, Switched};
pub(crate) use lease::Lease;
pub(crate) use names::Names;
pub use tls::{Trust, UpstreamCertificates, UpstreamTls};
