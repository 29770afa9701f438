//! Dev only: a running gateway, upstreams and clients for the suites in `tests/suite`.
//!
//! Everything here drives the real `leastgate` binary as a process and looks at bytes on sockets. It is written
//! with blocking `std` IO and shares no parser, codec or framing code with the product, so that a fault in the
//! product can't hide behind the same fault in its judge.

// A helper that can't go on ends the test it is in: that is its error channel.
#![allow(clippy::panic, clippy::missing_panics_doc)]

pub mod attacks;
pub mod audit;
pub mod authority;
pub mod clock;
pub mod conformance;
pub mod console;
pub mod curl;
pub mod deadline;
pub mod gateway;
pub mod http2;
pub mod http2_upstream;
pub mod hung_disk;
pub mod leaks;
mod listening;
pub mod metrics;
pub mod nginx;
pub mod paths;
pub mod pattern;
pub mod policies;
pub mod process;
pub mod raw;
pub mod recorder;
pub mod results;
pub mod shifted_clock;
pub mod small_disk;
pub mod token;
pub mod vitals;
pub mod wire;
