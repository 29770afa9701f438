//! The APIs behind the gateway: their keys, what the keys mean, and what they must agree on.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;

use super::limits::Limits;
use super::read::{Paths, choose};
use super::tls::{CertificateFiles, certificate};
use crate::diagnostic::Fault;
use crate::notation::{DURATION, WORDS};
use crate::scalar;
use crate::shape::{Field, Notation, Shape, View, defaulted, optional, required};

/// An API behind the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The name that policy files call it by.
    pub name: String,
    /// Where it listens: at least one, and all with TLS or none.
    pub endpoints: Vec<Endpoint>,
    /// Whether it is spoken to in HTTP/2: over TLS if it agrees, else without asking.
    pub http2: bool,
    /// How its https endpoints are met.
    pub tls: UpstreamTlsFiles,
    /// The Host it sees.
    pub host: HostHeader,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the head of a response.
    pub response_timeout: Duration,
    /// Most connections to it at a time, to all endpoints together.
    pub max_connections: usize,
    /// Whether header fields with `_` in their name are forwarded.
    pub allow_underscores: bool,
    /// What each of its endpoints is asked, to find out whether it is well.
    pub check: Option<HealthCheck>,
    /// What the ops listener asks it.
    pub probe: Probe,
}

/// `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    authority: Authority,
    is_https: bool,
}

/// How https endpoints are met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTlsFiles {
    /// The authorities that sign their certificates; else those of the system.
    pub ca: Option<PathBuf>,
    /// What the gateway shows where it is asked for a certificate.
    pub identity: Option<CertificateFiles>,
    /// The name that their certificates must be for, in place of the endpoint's own.
    pub name: Option<String>,
}

/// The Host an upstream sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Preserve,
    /// The endpoint's.
    Rewrite,
}

/// A question to each endpoint, which is left out unless the answer is a 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The path.
    pub path: String,
    /// From one question to the next.
    pub interval: Duration,
}

/// Fixed upstream paths behind `/probe/<upstream>/…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Behind `/live`.
    pub live: Option<String>,
    /// Behind `/ready`.
    pub ready: Option<String>,
}

impl Upstream {
    /// Whether its endpoints are https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.endpoints.iter().any(Endpoint::is_https)
    }
}

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected http:// or https://, a host and a port, such as http://127.0.0.1:8081";
        let (is_https, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(expected.to_owned()),
        };
        let authority: Authority = rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| expected)?;
        let port_is_there = authority.as_str() == authority.host() || authority.port_u16().is_some_and(|port| port > 0);
        if authority.host().is_empty() || authority.as_str().contains('@') || !port_is_there {
            return Err(expected.to_owned());
        }
        Ok(Self { authority, is_https })
    }

    /// Host and port as written: what a rewritten Host says.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The host; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port; if none is written, that of the scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.is_https { 443 } else { 80 })
    }

    /// Whether it is reached through TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_https { "https" } else { "http" }, self.authority)
    }
}

/// The names of upstreams.
pub(super) const NAME: Notation = Notation {
    check: |text| {
        let named = text.len() <= 63 && text.starts_with(|first: char| first.is_ascii_lowercase());
        let plain =
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
        if named && plain {
            Ok(())
        } else {
            Err("expected 1 to 63 of a-z, 0-9, - and _, the first a letter".to_owned())
        }
    },
    pattern: Some("^[a-z][a-z0-9_-]{0,62}$"),
};

/// The keys of one upstream.
pub(super) const KEYS: &[Field] = &[
    required(
        "endpoints",
        Shape::List(&Shape::Text(&ENDPOINT), 1, None),
        "Where it listens: URLs of scheme, host and port; a name stands for all its addresses.",
    ),
    defaulted(
        "http2",
        Shape::Flag,
        "false",
        "Speak HTTP/2 to it: over https if it agrees, over http without asking. gRPC needs it; a WebSocket can't be opened over it.",
    ),
    optional("tls", Shape::Object(TLS), "How its https endpoints are met; replaced files are taken without a restart."),
    defaulted(
        "host",
        Shape::Choice(&["preserve", "rewrite"], &[]),
        "preserve",
        "The Host it sees: the client's, or the endpoint's.",
    ),
    optional(
        "connect_timeout",
        Shape::Text(&DURATION),
        "Longest wait for a free connection, or for a new one with its TLS handshake; default limits.upstream_connect.",
    ),
    optional(
        "response_timeout",
        Shape::Text(&DURATION),
        "Longest wait from the whole request to the head of its response; default limits.upstream_response.",
    ),
    defaulted(
        "max_connections",
        Shape::Count(1, 1_000_000),
        "256",
        "Most connections to it at a time, to all endpoints together; each worker may open one more to ask how one is.",
    ),
    defaulted(
        "allow_underscores",
        Shape::Flag,
        "false",
        "Forward header fields with _ or another odd byte in their name.",
    ),
    optional(
        "check",
        Shape::Object(CHECK),
        "Asks each endpoint how it is, the way requests go to it, and leaves it out until the answer is a 2xx within 2 s.",
    ),
    optional(
        "probe",
        Shape::Object(PROBE),
        "Fixed paths behind /probe/NAME/live and /ready of the ops listener; of http endpoints without http2 only.",
    ),
];

const ENDPOINT: Notation =
    Notation { check: |text| Endpoint::parse(text).map(drop), pattern: Some("^https?://[^/?#@]+/?$") };

const TLS: &[Field] = &[
    optional("ca", Shape::Text(&WORDS), "PEM file of the authorities that sign its certificates; else the system's."),
    optional("cert", Shape::Text(&WORDS), "PEM file of the certificate that the gateway shows to it."),
    optional("key", Shape::Text(&WORDS), "PEM file of that certificate's private key."),
    optional("name", Shape::Text(&TLS_NAME), "The name its certificate must be for, in place of the endpoint's own."),
];

const TLS_NAME: Notation = Notation {
    check: |text| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name = (1..=253).contains(&text.len()) && text.bytes().all(is_plain);
        if is_name || text.parse::<IpAddr>().is_ok() { Ok(()) } else { Err("expected a DNS name".to_owned()) }
    },
    pattern: Some("^[0-9A-Za-z._:-]{1,253}$"),
};

const CHECK: &[Field] = &[
    required("path", Shape::Text(&PROBE_PATH), "The path that is asked for with a GET."),
    defaulted("interval", Shape::Text(&DURATION), "5s", "From one question to the next, for each worker."),
];

const PROBE: &[Field] = &[
    optional("live", Shape::Text(&PROBE_PATH), "Path of its liveness probe."),
    optional("ready", Shape::Text(&PROBE_PATH), "Path of its readiness probe."),
];

const PROBE_PATH: Notation = Notation {
    check: |text| {
        let target = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok() && !text.contains('#');
        if target { Ok(()) } else { Err("expected a path such as /healthz".to_owned()) }
    },
    pattern: Some("^/[^#\\s]*$"),
};

pub(super) fn upstreams(view: View<'_>, limits: &Limits, paths: Paths<'_>) -> Result<Vec<Upstream>, Fault> {
    view.entries().map(|(name, _, view)| upstream(name, view, limits, paths)).collect()
}

fn upstream(name: &str, view: View<'_>, limits: &Limits, paths: Paths<'_>) -> Result<Upstream, Fault> {
    let timeout = |key, default| view.find(key).map_or(Ok(default), |view| view.parse(scalar::duration));
    let path = |key| {
        view.find("probe").and_then(|probe| probe.find(key)).map(|path| path.text().map(str::to_owned)).transpose()
    };
    let endpoints = view.get("endpoints")?.items().map(|endpoint| endpoint.parse(Endpoint::parse));
    Ok(Upstream {
        name: name.to_owned(),
        endpoints: endpoints.collect::<Result<_, _>>()?,
        http2: view.get("http2")?.flag()?,
        tls: view.find("tls").map(|view| tls(view, paths)).transpose()?.unwrap_or_default(),
        host: choose(view.get("host")?, &[("preserve", HostHeader::Preserve), ("rewrite", HostHeader::Rewrite)])?,
        connect_timeout: timeout("connect_timeout", limits.upstream_connect)?,
        response_timeout: timeout("response_timeout", limits.upstream_response)?,
        max_connections: view.get("max_connections")?.count()?,
        allow_underscores: view.get("allow_underscores")?.flag()?,
        check: view.find("check").map(check).transpose()?,
        probe: Probe { live: path("live")?, ready: path("ready")? },
    })
}

fn check(view: View<'_>) -> Result<HealthCheck, Fault> {
    Ok(HealthCheck {
        path: view.get("path")?.text()?.to_owned(),
        interval: view.get("interval")?.parse(scalar::duration)?,
    })
}

fn tls(view: View<'_>, paths: Paths<'_>) -> Result<UpstreamTlsFiles, Fault> {
    Ok(UpstreamTlsFiles {
        ca: view.find("ca").map(|view| paths.read(view)).transpose()?,
        identity: view.find("cert").map(|_| certificate(view, paths)).transpose()?,
        name: view.find("name").map(|name| name.text().map(str::to_owned)).transpose()?,
    })
}

/// Adds what contradicts itself within an upstream.
pub(super) fn judge(root: View<'_>, faults: &mut Vec<Fault>) {
    let Some(upstreams) = root.find("upstreams").filter(|upstreams| upstreams.is_map()) else { return };
    for (_, _, upstream) in upstreams.entries() {
        let Some(endpoints) = upstream.find("endpoints") else { continue };
        let parsed = endpoints.items().filter_map(|view| Some((view, view.parse(Endpoint::parse).ok()?)));
        let (tls, plain): (Vec<_>, Vec<_>) = parsed.partition(|(_, endpoint)| endpoint.is_https());
        if let ([(secure, _), ..], [(open, _), ..]) = (&tls[..], &plain[..]) {
            let fault = Fault::new(open.at(), "an upstream is reached through TLS at every endpoint or at none");
            let fault = fault.related(secure.at(), "this one is https");
            faults.push(fault.hint("whoever makes the https endpoint fail would get its requests in plain text"));
        }
        half_an_identity(upstream, tls.is_empty(), faults);
        probe_that_cannot_ask(upstream, tls.is_empty(), faults);
    }
}

fn half_an_identity(upstream: View<'_>, is_plain: bool, faults: &mut Vec<Fault>) {
    let Some(tls) = upstream.find("tls").filter(|tls| tls.is_map()) else { return };
    if is_plain {
        faults.push(Fault::new(tls.at(), "no endpoint beside it is https").hint("write https:// in endpoints"));
    }
    match (tls.find("cert"), tls.find("key")) {
        (Some(cert), None) => faults.push(Fault::new(cert.at(), "a certificate without its key").hint("add key: FILE")),
        (None, Some(key)) => faults.push(Fault::new(key.at(), "a key without its certificate").hint("add cert: FILE")),
        _ => {}
    }
}

fn probe_that_cannot_ask(upstream: View<'_>, is_plain: bool, faults: &mut Vec<Fault>) {
    let is_http2 = upstream.find("http2").is_some_and(|http2| http2.flag().unwrap_or(false));
    if let Some(probe) = upstream.find("probe").filter(|_| is_http2 || !is_plain) {
        let fault = Fault::new(probe.at(), "probes of https and HTTP/2 upstreams are not supported yet");
        faults.push(fault.hint("let the kubelet ask the application itself"));
    }
}
