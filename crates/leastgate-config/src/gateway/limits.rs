//! Every cap and deadline of the data plane: the names, units and defaults that the proxy goes by.
//!
//! One declaration gives the type, its defaults, the keys under `limits:` and the reading of them. A test holds
//! the default values equal to the default texts.

use std::time::Duration;

use crate::diagnostic::Fault;
use crate::notation::{BYTE_RATE, DURATION, DURATION_OR_NONE, DURATION_OR_ZERO, RATE, SIZE, SIZE_OR_NONE};
use crate::scalar::{self, Rate};
use crate::shape::{Field, Shape, View, defaulted};

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, $text:literal, $shape:expr, $read:expr;)*) => {
        /// Caps and deadlines of the data plane.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: $type,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// The keys under `limits:`.
        pub(super) const FIELDS: &[Field] =
            &[$(defaulted(stringify!($name), $shape, $text, concat!($($doc),+)),)*];

        impl Limits {
            pub(super) fn read(view: View<'_>) -> Result<Self, Fault> {
                Ok(Self { $($name: $read(view.get(stringify!($name))?)?,)* })
            }
        }
    };
}

const MOST: u64 = 10_000_000;
const TIME: Shape = Shape::Text(&DURATION);
const BYTES: Shape = Shape::Text(&SIZE);
const NUMBER: Shape = Shape::Count(1, MOST);

limits! {
    /// From accept to the first byte of a client, in time.
    first_byte: Duration = Duration::from_secs(5), "5s", TIME, time;
    /// From accept to the end of a client's TLS handshake.
    tls_handshake: Duration = Duration::from_secs(5), "5s", TIME, time;
    /// From the first byte of a request head to its last.
    head_timeout: Duration = Duration::from_secs(10), "10s", TIME, time;
    /// Largest request head, in bytes.
    head_size: usize = 32 << 10, "32KiB", BYTES, bytes;
    /// Most header fields of a request.
    head_fields: usize = 100, "100", Shape::Count(1, 10_000), number;
    /// Largest header field, name and value, in bytes.
    field_size: usize = 16 << 10, "16KiB", BYTES, bytes;
    /// Largest request target, path and query, in bytes. It can only be lowered.
    target_size: usize = 8 << 10, "8KiB", Shape::Text(&TARGET_SIZE), bytes;
    /// Most segments of a path. It can only be lowered.
    path_segments: usize = 128, "128", Shape::Count(1, 128), number;
    /// Largest request body, in bytes, or none; an api may set its own.
    body: u64 = 16 << 20, "16MiB", Shape::Text(&SIZE_OR_NONE), size_or_none;
    /// Longest silence within a request body, while the gateway wants to read.
    body_idle: Duration = Duration::from_secs(30), "30s", TIME, time;
    /// Least rate of a request body, in bytes a second, while the gateway wants to read.
    body_min_rate: u64 = 240, "240B/s", Shape::Text(&BYTE_RATE), byte_rate;
    /// How long a request body may be slower than that at its start.
    body_grace: Duration = Duration::from_secs(5), "5s", Shape::Text(&DURATION_OR_ZERO), time_or_zero;
    /// A response is cut when its client takes nothing for so long.
    response_stall: Duration = Duration::from_secs(30), "30s", TIME, time;
    /// Longest silence of a WebSocket, both directions together, and of a gRPC call's messages.
    stream_idle: Duration = Duration::from_secs(3_600), "1h", TIME, time;
    /// Most HTTP/2 streams of a client connection at a time.
    http2_streams: u32 = 100, "100", Shape::Count(1, 10_000), number;
    /// Bytes of one request body that an HTTP/2 client may send unasked.
    http2_stream_window: u32 = 64 << 10, "64KiB", Shape::Text(&WINDOW_SIZE), window;
    /// Bytes of all request bodies that an HTTP/2 connection may send unasked.
    http2_connection_window: u32 = 1 << 20, "1MiB", Shape::Text(&WINDOW_SIZE), window;
    /// Largest HTTP/2 head, in bytes as HPACK counts them: 32 more a field.
    http2_header_list: u32 = 16 << 10, "16KiB", Shape::Text(&WINDOW_SIZE), window;
    /// Largest HPACK table of an HTTP/2 connection, in bytes.
    http2_header_table: u32 = 4 << 10, "4KiB", Shape::Text(&WINDOW_SIZE), window;
    /// Most HTTP/2 streams that a client has reset and the gateway has not seen yet; more end the connection.
    http2_pending_resets: usize = 20, "20", Shape::Count(1, 10_000), number;
    /// Most HTTP/2 streams that the gateway resets for a client's errors; more end the connection.
    http2_error_resets: usize = 64, "64", Shape::Count(1, 10_000), number;
    /// How often an HTTP/2 client is asked whether it is there.
    http2_ping: Duration = Duration::from_secs(20), "20s", TIME, time;
    /// How long an HTTP/2 client may take to say so.
    http2_ping_timeout: Duration = Duration::from_secs(10), "10s", TIME, time;
    /// Longest time of an HTTP/2 connection without a stream.
    http2_idle: Duration = Duration::from_secs(120), "120s", TIME, time;
    /// Longest wait for a connection to an upstream that sets no `connect_timeout`.
    upstream_connect: Duration = Duration::from_secs(2), "2s", TIME, time;
    /// Longest wait for the head of a response, for upstreams that set no `response_timeout`.
    upstream_response: Duration = Duration::from_secs(30), "30s", TIME, time;
    /// Longest life of a request at its upstream, from sending to the last byte; or none.
    upstream_total: Option<Duration> = None, "none", Shape::Text(&DURATION_OR_NONE), time_or_none;
    /// Longest idle time of a client's connection between requests.
    keep_alive_client: Duration = Duration::from_secs(60), "60s", TIME, time;
    /// Longest idle time of a connection to an upstream.
    keep_alive_upstream: Duration = Duration::from_secs(30), "30s", TIME, time;
    /// Most requests on one client connection.
    connection_requests: u64 = 10_000, "10000", NUMBER, number;
    /// Longest life of a client connection.
    connection_age: Duration = Duration::from_secs(3_600), "1h", TIME, time;
    /// Largest trailers of a message, in bytes.
    trailer_size: usize = 8 << 10, "8KiB", BYTES, bytes;
    /// Most trailer fields of a message.
    trailer_fields: usize = 32, "32", Shape::Count(0, 10_000), number;
    /// Most client connections at a time.
    connections: usize = 10_000, "10000", NUMBER, number;
    /// Most client connections at a time from one address, trusted proxies excepted.
    connections_per_source: usize = 256, "256", NUMBER, number;
    /// Most requests in flight at a time.
    in_flight: usize = 10_000, "10000", NUMBER, number;
    /// Most requests in flight at a time on the connections of one address, trusted proxies excepted.
    in_flight_per_source: usize = 2_500, "2500", NUMBER, number;
    /// How many failed authentications of one address are answered before 429.
    failures_per_source: FailureLimit =
        FailureLimit { rate: Rate::per_second(20), burst: 100 }, "{}", Shape::Object(FAILURE_FIELDS), FailureLimit::read;
    /// From SIGTERM to the end of accepting, so that load balancers can look away.
    drain_delay: Duration = Duration::from_secs(5), "5s", Shape::Text(&DURATION_OR_ZERO), time_or_zero;
    /// How long requests in flight may then take to finish.
    drain_timeout: Duration = Duration::from_secs(30), "30s", TIME, time;
}

/// A token bucket for failed authentications of one source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureLimit {
    /// How fast it refills.
    pub rate: Rate,
    /// How much it holds.
    pub burst: u32,
}

const FAILURE_FIELDS: &[Field] = &[
    defaulted("rate", Shape::Text(&RATE), "20/s", "How many are answered in a time."),
    defaulted("burst", Shape::Count(1, MOST), "100", "How many are answered at once."),
];

impl FailureLimit {
    fn read(view: View<'_>) -> Result<Self, Fault> {
        Ok(Self { rate: view.get("rate")?.parse(scalar::rate)?, burst: number(view.get("burst")?)? })
    }
}

/// The policy judges no longer target than this (§3 of the scope language), so a greater limit would be a lie.
const TARGET_SIZE: crate::shape::Notation = crate::shape::Notation {
    check: |text| match scalar::size(text)? {
        1..=8_192 => Ok(()),
        _ => Err("expected a size from 1B to 8KiB".to_owned()),
    },
    pattern: SIZE.pattern,
};

/// What a setting of HTTP/2 can say (RFC 9113 §6.9.1).
const WINDOW_SIZE: crate::shape::Notation = crate::shape::Notation {
    check: |text| match scalar::size(text)? {
        1..=0x7fff_ffff => Ok(()),
        _ => Err("expected a size under 2GiB".to_owned()),
    },
    pattern: SIZE.pattern,
};

fn window(view: View<'_>) -> Result<u32, Fault> {
    view.parse(|text| u32::try_from(scalar::size(text)?).map_err(|_| "expected a size under 2GiB".to_owned()))
}

fn time(view: View<'_>) -> Result<Duration, Fault> {
    view.parse(scalar::duration)
}

fn time_or_zero(view: View<'_>) -> Result<Duration, Fault> {
    view.parse(scalar::duration_or_zero)
}

fn time_or_none(view: View<'_>) -> Result<Option<Duration>, Fault> {
    view.parse(scalar::duration_or_none)
}

fn size_or_none(view: View<'_>) -> Result<u64, Fault> {
    view.parse(scalar::size_or_none)
}

fn bytes(view: View<'_>) -> Result<usize, Fault> {
    view.parse(|text| usize::try_from(scalar::size(text)?).map_err(|_| "is more than this machine can hold".to_owned()))
}

fn byte_rate(view: View<'_>) -> Result<u64, Fault> {
    view.parse(scalar::byte_rate)
}

fn number<T: TryFrom<i64>>(view: View<'_>) -> Result<T, Fault> {
    view.count()
}
