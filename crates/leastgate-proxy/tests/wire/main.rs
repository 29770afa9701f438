//! The data plane over real sockets: a client that writes bytes, an upstream that keeps them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may be blunt, in its helpers too")]

mod bodies;
mod connections;
mod deadlines;
mod draining;
mod framing;
mod harness;
mod pools;
mod requests;
mod retries;
mod scripted;
mod streams;
mod trailers;
mod upstreams;
