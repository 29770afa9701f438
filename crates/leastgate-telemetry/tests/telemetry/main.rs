//! The telemetry as the gateway uses it: real decisions, real threads, real files. An independent verifier reads what
//! comes out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may be as blunt as tests"
)]

mod baits;
mod closing;
mod cost;
mod events;
mod loss;
mod metrics;
mod redaction;
mod stream;
mod support;
