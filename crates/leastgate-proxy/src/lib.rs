//! The data plane: accept, read, authorize, forward or reject, drain.
//!
//! Read [`gateway`](Gateway) first: one request from its head to its answer, each call naming the next file. Around it:
//!
//! | file | what |
//! |---|---|
//! | `worker.rs`, `tasks.rs` | threads, each with a runtime, sockets and pools of its own, and what they can't do without |
//! | `listener.rs` | sockets, permits, the fixed answer over a cap |
//! | `tls/` | the handshake: certificates by name, clients' certificates, their replacement |
//! | `connection/`, `client_io.rs`, `client_stall.rs`, `client_socket.rs` | hyper's servers, HTTP/1.1 and HTTP/2, with our caps and deadlines |
//! | `exchange.rs` | one request and its answer: its record, its place, its end |
//! | `headers/` | everything that names a header |
//! | `upstream/`, `body/` | the only way to an upstream, and back |
//! | `respond/` | every status the gateway answers with by itself |
//! | `streams.rs` | long requests, decided again |
//! | `tunnel/` | a WebSocket after its handshake |
//! | `drain.rs` | the end |
//!
//! This crate decides nothing about access, reads no file and parses no HTTP: hyper has parsed it, and a second parser
//! would be a smuggling bug.

mod body;
mod client_io;
mod client_socket;
mod client_stall;
mod complaints;
mod connection;
mod drain;
mod exchange;
mod failures;
mod gateway;
mod headers;
mod listener;
mod moment;
mod respond;
mod settings;
mod streams;
mod tasks;
pub mod tls;
mod trace;
mod tunnel;
mod untaken;
mod upstream;
mod worker;

pub use body::{BodyError, ProxyBody};
pub use drain::DataPlaneHandle;
pub use gateway::Gateway;
pub use settings::DataPlaneConfig;
pub use upstream::{Trust, UpstreamCertificates, UpstreamTls};
pub use worker::{DataPlane, StartError};
