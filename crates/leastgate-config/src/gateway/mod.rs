//! The gateway's file as typed values: one part for each crate that needs one, none that needs them all.

pub(crate) mod keys;
mod limits;
mod load;
mod overlay;
mod read;
mod render;
mod rules;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use http::uri::Authority;
use ipnet::IpNet;

pub use self::limits::{FailureLimit, Limits};
pub use self::load::{GatewayInputs, LoadedGateway, Override, find_gateway_file, load_gateway, parse_gateway};
use crate::scalar::Rate;
use crate::secret::SecretSource;

/// Everything the gateway's file says. Relative paths in it are relative to the file.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// The one environment this gateway serves.
    pub environment: String,
    /// Where the store and the audit position are kept.
    pub state_dir: Option<PathBuf>,
    /// Worker threads.
    pub workers: Workers,
    /// Where the gateway listens.
    pub listeners: Listeners,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The APIs behind the gateway, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// Caps and deadlines of the data plane.
    pub limits: Limits,
    /// How long dead token records are kept.
    pub retention: Duration,
    /// The header field that carries the token.
    pub credential_header: HeaderName,
    /// The key that token digests are made under.
    pub pepper: PepperConfig,
    /// Where tokens come from.
    pub tokens: TokenSource,
    /// The policy's files.
    pub policy: PolicyFiles,
    /// The record of every decision and change.
    pub audit: AuditConfig,
    /// Prometheus metrics.
    pub metrics: MetricsConfig,
}

/// How many worker threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One for each CPU of the cgroup's quota.
    Auto,
    /// So many.
    Count(NonZeroUsize),
}

/// Where the gateway listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// The gateway itself, plain HTTP.
    pub data: DataListener,
    /// Health, metrics and probes.
    pub ops: SocketAddr,
    /// The admin API.
    pub admin: AdminAddress,
}

/// The listener of the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataListener {
    /// Its address; off loopback only where `plaintext` is said.
    pub address: SocketAddr,
    /// Plain HTTP was asked for aloud.
    pub plaintext: bool,
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// An API behind the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The name that policy files call it by.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// The Host it sees.
    pub host: HostHeader,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the head of a response.
    pub response_timeout: Duration,
    /// Most connections to it at a time.
    pub max_connections: usize,
    /// Whether header fields with `_` in their name are forwarded.
    pub allow_underscores: bool,
    /// What the ops listener asks it.
    pub probe: Probe,
}

/// `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Authority);

/// The Host an upstream sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Preserve,
    /// The endpoint's.
    Rewrite,
}

/// Fixed upstream paths behind `/probe/<upstream>/…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Behind `/live`.
    pub live: Option<String>,
    /// Behind `/ready`.
    pub ready: Option<String>,
}

/// Where the pepper is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PepperConfig {
    /// The pepper in use.
    pub current: SecretSource,
}

/// Where tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// The store in `state_dir`.
    Store,
    /// The policy files, by digest.
    Declared,
}

/// The files of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFiles {
    /// In the order of the file; they merge as sets.
    pub files: Vec<PathBuf>,
}

/// The audit stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Where events go, in the order of the file.
    pub sinks: Vec<SinkConfig>,
    /// Unauthenticated events of one address beyond which they become one summary.
    pub unauthenticated_per_source: Rate,
    /// Events kept in memory.
    pub recent: usize,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// Its name, a metric label.
    pub name: String,
    /// What it is.
    pub kind: SinkKind,
    /// What happens when it can't keep up: `audit.classes`, and where the sink differs, its own.
    pub classes: Classes,
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// The standard output.
    Stdout,
    /// A file.
    File(FileSink),
}

/// A file that events are written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSink {
    /// Where it is.
    pub path: PathBuf,
    /// It is rotated at so many bytes.
    pub rotate_size: u64,
    /// It is rotated at this age.
    pub rotate_age: Duration,
    /// When written events are forced to disk.
    pub fsync: Fsync,
}

/// When written events are forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After each batch.
    Batch,
    /// When the system sees fit.
    Never,
}

/// What happens, for each class of event, when a sink can't keep up. Unauthenticated ones are always dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Requests that were forwarded.
    pub allow: ClassPolicy,
    /// Requests that were refused.
    pub deny: ClassPolicy,
    /// Changes that an administrator made.
    pub admin: ClassPolicy,
    /// Starts, stops, reloads, expiries.
    pub lifecycle: ClassPolicy,
}

/// What happens when a sink can't keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassPolicy {
    /// Count, and record the gap.
    Drop,
    /// Reserve a place before forwarding, else 503.
    Block,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Most route templates that are labels.
    pub max_routes: usize,
}

impl AdminAddress {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') && path.len() > 1 => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err("expected unix: and an absolute path".to_owned()),
            None => crate::scalar::socket(text).map(Self::Tcp),
        }
    }
}

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected http://, a host and a port, such as http://127.0.0.1:8081";
        if text.starts_with("https://") {
            return Err("https upstreams are not supported yet".to_owned());
        }
        let rest = text.strip_prefix("http://").ok_or(expected)?;
        let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| expected)?;
        let port_is_there = authority.as_str() == authority.host() || authority.port_u16().is_some_and(|port| port > 0);
        if authority.host().is_empty() || authority.as_str().contains('@') || !port_is_there {
            return Err(expected.to_owned());
        }
        Ok(Self(authority))
    }

    /// Host and port as written: what a rewritten Host says.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.0
    }

    /// The host; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host()
    }

    /// The port, 80 if none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(80)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// A header field that can carry a credential: none that frames, routes or is read by the gateway otherwise.
pub(crate) fn credential_header(text: &str) -> Result<HeaderName, String> {
    const TAKEN: &[&str] = &[
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "cookie",
        "set-cookie",
        "forwarded",
        "via",
        "date",
        "x-request-id",
        "traceparent",
        "tracestate",
        "proxy-authorization",
        "proxy-connection",
    ];
    let name: HeaderName = text.parse().map_err(|_| "expected the name of a header field")?;
    let reserved = ["x-leastgate-", "x-forwarded-"].iter().any(|prefix| name.as_str().starts_with(prefix));
    if TAKEN.contains(&name.as_str()) || reserved {
        Err("can't carry a credential: the gateway needs it for something else".to_owned())
    } else if name.as_str().contains('_') {
        Err("can't carry a credential: the gateway refuses field names with _".to_owned())
    } else {
        Ok(name)
    }
}
