//! What only a running gateway shows: the real binary, real peers, and the bytes on both sides of it.

// A helper of a test may be as blunt as the test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value)]

mod admin;
mod admin_socket;
mod admin_tls;
mod admin_tls_cli;
mod attacks;
mod attacks_http2;
mod audit;
mod audit_loss;
mod bombs;
mod bootstrap;
mod bootstrap_given;
mod cli;
mod clients;
mod conformance;
mod crash;
mod cuts;
mod deadlines;
mod documents;
mod drain;
mod drain_busy;
mod enforcement;
mod environments;
mod faults;
mod fixtures;
mod forwarding;
mod hostile_http2;
mod idle;
mod large_bodies;
mod limits;
mod metrics;
mod mutations;
mod names;
mod options;
mod overload;
mod own_token;
mod pepper;
mod protocols;
mod readme;
mod refusals;
mod reload;
mod slow_clients;
mod startup;
mod store_commands;
mod store_loss;
mod stored;
mod tls;
mod tls_relay;
mod token_limits;
mod upstream_faults;
mod upstream_faults_http2;
mod upstream_tls;
mod usage;
