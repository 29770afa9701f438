//! What the data plane is told when it starts: plain values of the configuration, and what follows from them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use leastgate_config::{Limits, Upstream};

use crate::body::{BodyLimits, TrailerLimits};
use crate::connection::PhaseLimits;
use crate::tls::ServerTls;
use crate::upstream::{Names, UpstreamTls};

/// Everything [`crate::DataPlane::start`] needs besides the shared parts.
#[derive(Clone, Debug)]
pub struct DataPlaneConfig {
    /// Where to listen; port 0 takes a free one.
    pub addresses: Vec<SocketAddr>,
    /// Worker threads, each with a runtime, a listener and connection pools of its own.
    pub workers: NonZeroUsize,
    /// Caps and deadlines.
    pub limits: Limits,
    /// The upstreams that the policy's apis name.
    pub upstreams: Vec<Upstream>,
    /// By upstream, what its https endpoints are met with. Without it they can't be connected to.
    pub upstream_tls: BTreeMap<String, UpstreamTls>,
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// TLS towards clients; without it plain HTTP.
    pub tls: Option<ServerTls>,
}

/// The configuration as the workers use it.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) upstream_tls: BTreeMap<String, UpstreamTls>,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) workers: NonZeroUsize,
    pub(crate) phases: PhaseLimits,
    /// Of the upstreams' endpoints.
    pub(crate) names: Arc<Names>,
}

impl Settings {
    pub(crate) fn new(config: DataPlaneConfig) -> Self {
        let limits = config.limits;
        let phases = PhaseLimits {
            first_byte: limits.first_byte,
            head: limits.head_timeout,
            idle: limits.keep_alive_client,
            http2_idle: limits.http2_idle,
        };
        Self {
            limits,
            names: Names::of(&config.upstreams),
            upstreams: config.upstreams,
            upstream_tls: config.upstream_tls,
            trusted_proxies: config.trusted_proxies,
            tls: config.tls,
            workers: config.workers,
            phases,
        }
    }

    /// hyper counts one time from the last response to the end of the next head.
    pub(crate) fn header_read_timeout(&self) -> Duration {
        self.phases.idle.max(self.phases.first_byte) + self.phases.head
    }

    /// The limits of a request's body, where its api sets none of its own.
    pub(crate) fn body(&self) -> BodyLimits {
        let limits = &self.limits;
        BodyLimits {
            bytes: limits.body,
            idle: limits.body_idle,
            min_rate: limits.body_min_rate,
            grace: limits.body_grace,
            trailers: self.trailers(),
        }
    }

    /// The limits of trailers, in either direction.
    pub(crate) fn trailers(&self) -> TrailerLimits {
        TrailerLimits { bytes: self.limits.trailer_size, fields: self.limits.trailer_fields }
    }

    /// A worker's share of an upstream's connections: together they open no more than rounding up makes.
    pub(crate) fn share(&self, connections: usize) -> usize {
        connections.div_ceil(self.workers.get()).max(1)
    }
}
