//! The gateway's file as typed values: one part for each crate that needs one, none that needs them all.

pub(crate) mod keys;
mod limits;
mod load;
mod overlay;
mod read;
mod render;
mod rules;
mod tls;
mod upstream;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

pub use self::limits::{FailureLimit, Limits};
pub use self::load::{GatewayInputs, LoadedGateway, Override, find_gateway_file, load_gateway, parse_gateway};
pub use self::tls::{CertificateFiles, ListenerTls, read_pem};
pub use self::upstream::{Endpoint, HealthCheck, HostHeader, Probe, Upstream, UpstreamTlsFiles};
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
    /// The gateway itself.
    pub data: DataListener,
    /// Health, metrics and probes.
    pub ops: SocketAddr,
    /// The admin API.
    pub admin: AdminAddress,
    /// TLS of the admin API, if it serves that: always with `client_ca`, and never with `sni`.
    pub admin_tls: Option<ListenerTls>,
}

/// The listener of the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataListener {
    /// Its address; off loopback only with TLS, or where `plaintext` is said.
    pub address: SocketAddr,
    /// Plain HTTP was asked for aloud.
    pub plaintext: bool,
    /// Callers are told about their own tokens.
    pub well_known: bool,
    /// TLS, if it serves that.
    pub tls: Option<ListenerTls>,
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// An address; off loopback only with TLS.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// Where the pepper is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PepperConfig {
    /// The pepper in use.
    pub current: SecretSource,
    /// The one before it, while it is being replaced.
    pub previous: Option<SecretSource>,
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
    } else if !leastgate_policy::fields::is_plain(&name) {
        Err("can't carry a credential: the gateway refuses field names of other bytes than letters, digits and -"
            .to_owned())
    } else {
        Ok(name)
    }
}
