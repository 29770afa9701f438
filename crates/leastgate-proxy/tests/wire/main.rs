//! The data plane over real sockets: a client that writes bytes, an upstream that keeps them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may be blunt, in its helpers too")]

mod bodies;
mod certificates;
mod clocks;
mod connections;
mod cors;
mod cuts;
mod deadlines;
mod draining;
mod draining_arrivals;
mod endpoints;
mod framing;
mod grpc;
mod handshakes;
mod harness;
mod http2;
mod http2_hostile;
mod http2_limits;
mod http2_peers;
mod http2_stalls;
mod http2_unread;
mod own_token;
mod pools;
mod requests;
mod retries;
mod scripted;
mod secure;
mod streams;
mod tls;
mod tls_requests;
mod token_end;
mod token_limits;
mod trailers;
mod tunnel_cuts;
mod tunnels;
mod upstream_checks;
mod upstream_http2;
mod upstream_http2_ends;
mod upstream_http2_neighbours;
mod upstream_http2_windows;
mod upstream_tls;
mod upstream_tls_reload;
mod upstreams;
mod websocket;
mod workers;
