//! The data plane: accept, read, authorize, forward or reject, drain.
//!
//! Read [`gateway`](Gateway) first: one request from its head to its answer, each call naming the next file. Around it:
//!
//! | file | what |
//! |---|---|
//! | `worker.rs` | threads, each with a runtime, sockets and pools of its own |
//! | `listener.rs` | sockets, permits, the fixed answer over a cap |
//! | `connection.rs`, `client_io.rs`, `client_socket.rs` | hyper's server with our caps and deadlines |
//! | `exchange.rs` | one request and its answer: its record, its place, its end |
//! | `headers/` | everything that names a header |
//! | `forward.rs`, `attempt.rs`, `pool.rs`, `body/` | the only way to an upstream, and back |
//! | `respond.rs` | every status the gateway answers with by itself |
//! | `streams.rs` | long requests, decided again |
//! | `drain.rs` | the end |
//!
//! This crate decides nothing about access, reads no file and parses no HTTP: hyper has parsed it, and a second parser
//! would be a smuggling bug. HTTP/1.1 without upgrades so far.

mod attempt;
mod body;
mod client_io;
mod client_socket;
mod complaints;
mod connection;
mod drain;
mod exchange;
mod failures;
mod forward;
mod gateway;
mod headers;
mod listener;
mod pool;
mod respond;
mod settings;
mod streams;
mod trace;
mod worker;

pub use body::{BodyError, ProxyBody};
pub use drain::DataPlaneHandle;
pub use gateway::Gateway;
pub use settings::DataPlaneConfig;
pub use worker::{DataPlane, StartError};
