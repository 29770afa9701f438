//! The only way to an upstream. What goes in is an authorized request and nothing else; what comes out is a response
//! whose framing can be trusted, or whose fault it was that there is none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::Body;
use leastgate_config::{HostHeader, Upstream};
use leastgate_policy::{AuthorizedRequest, Permit, Reason};
use tokio::time::Instant;

use crate::attempt::{Deadlines, exchange};
use crate::body::{Upload, UploadFault, UpstreamBody};
use crate::headers::{self, BadResponse, Framing, Identity, Outgoing};
use crate::pool::{ConnectError, Pool, PoolSettings, UpstreamRequestBody};
use crate::settings::Settings;
use crate::trace::Trace;

/// Why there is no response to pass on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// The request's own body ended it.
    #[error(transparent)]
    Client(#[from] UploadFault),
    /// No connection; nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The policy names an upstream the gateway was not started with.
    #[error("the upstream is not configured")]
    Unknown,
    /// No response head in time.
    #[error("no response head in time")]
    TimedOut,
    /// The connection broke, or what came was not HTTP.
    #[error("no valid response: {0}")]
    Http(#[source] hyper::Error),
    /// HTTP, but not to be trusted.
    #[error("the response was refused: {0}")]
    Response(#[from] BadResponse),
}

/// A request that was let through and got no response.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: ForwardError,
    /// What had let it through.
    pub(crate) permit: Permit,
}

/// Who has to change something before the same request can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Client,
    Gateway,
    Upstream,
}

impl ForwardError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Client(fault) => fault.reason(),
            Self::Connect(ConnectError::Saturated) => Reason::Overloaded,
            Self::Connect(_) | Self::Unknown => Reason::UpstreamUnreachable,
            Self::TimedOut => Reason::UpstreamTimeout,
            Self::Http(_) | Self::Response(_) => Reason::UpstreamProtocol,
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Client(_) => Fault::Client,
            Self::Connect(ConnectError::Saturated) | Self::Unknown => Fault::Gateway,
            Self::Connect(_) | Self::TimedOut | Self::Http(_) | Self::Response(_) => Fault::Upstream,
        }
    }

    /// Whether the client may send the request again without asking what became of the first: no byte of it was sent.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Unknown)
    }
}

/// What the gateway adds to one request, and learns of its body.
#[derive(Debug)]
pub(crate) struct ForwardContext<'a> {
    pub(crate) peer: IpAddr,
    pub(crate) peer_is_trusted: bool,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) trace: &'a Trace,
    pub(crate) decision: &'a str,
    pub(crate) upload: &'a Rc<Upload>,
}

/// The upstreams of one worker.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: HashMap<String, UpstreamRoute>,
    settings: Arc<Settings>,
}

#[derive(Debug)]
struct UpstreamRoute {
    pool: Rc<Pool>,
    rewrite_host: Option<HeaderValue>,
    response_timeout: Duration,
}

impl UpstreamRoute {
    fn new(upstream: &Upstream, settings: &Settings) -> Self {
        let endpoint = &upstream.endpoint;
        let pool = Pool::new(PoolSettings {
            host: endpoint.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: endpoint.port(),
            connect_timeout: upstream.connect_timeout,
            idle_timeout: settings.limits.keep_alive_upstream,
            max_connections: settings.share(upstream.max_connections),
        });
        let rewritten = || HeaderValue::from_str(endpoint.authority().as_str()).ok();
        Self {
            pool: Rc::new(pool),
            rewrite_host: if upstream.host == HostHeader::Rewrite { rewritten() } else { None },
            response_timeout: upstream.response_timeout,
        }
    }
}

impl Forwarder {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let route = |upstream: &Upstream| (upstream.name.clone(), UpstreamRoute::new(upstream, &settings));
        Self { upstreams: settings.upstreams.iter().map(route).collect(), settings }
    }

    /// Sends an authorized request and waits for the head of its response.
    pub(crate) async fn forward(
        &self,
        request: AuthorizedRequest<UpstreamRequestBody>,
        context: &ForwardContext<'_>,
    ) -> Result<Response<UpstreamBody>, Failed> {
        let (request, permit) = request.into_parts();
        let sent = self.send(request, &permit, context).await;
        sent.map_err(|error| Failed { error, permit })
    }

    async fn send(
        &self,
        mut request: Request<UpstreamRequestBody>,
        permit: &Permit,
        context: &ForwardContext<'_>,
    ) -> Result<Response<UpstreamBody>, ForwardError> {
        let api = permit.case().api().ok_or(ForwardError::Unknown)?;
        let route = self.upstreams.get(&*api.upstream).ok_or(ForwardError::Unknown)?;
        self.prepare(&mut request, permit, route, context);
        let deadlines = Deadlines {
            head: api.limits.response_timeout.unwrap_or(route.response_timeout),
            whole: self.settings.limits.upstream_total.map(|total| Instant::now() + total),
        };
        let (response, lease) = exchange(&route.pool, request, context.upload, &deadlines).await?;
        headers::check_framing(response.status(), response.headers())?;
        Ok(response.map(|incoming| UpstreamBody::new(incoming, lease, context.upload, deadlines.whole)))
    }

    /// Closes connections to upstreams that have been idle for too long.
    pub(crate) fn reap(&self) {
        self.upstreams.values().for_each(|route| route.pool.reap());
    }

    fn prepare(
        &self,
        request: &mut Request<UpstreamRequestBody>,
        permit: &Permit,
        route: &UpstreamRoute,
        context: &ForwardContext<'_>,
    ) {
        let out = Outgoing {
            credential: permit.case().snapshot().credential_header(),
            peer: context.peer,
            peer_is_trusted: context.peer_is_trusted,
            rewrite_host: route.rewrite_host.as_ref(),
            request_id: context.request_id,
            trace: context.trace,
            decision: context.decision,
            identity: identity(permit),
            framing: framing(request.body()),
        };
        let (method, version) = (request.method().clone(), request.version());
        headers::prepare_request(request.headers_mut(), &method, version, &out);
        *request.uri_mut() = origin_form(request.uri());
        *request.version_mut() = Version::HTTP_11;
        request.extensions_mut().clear();
    }
}

/// The target as it was received, without the scheme and authority of an absolute form (P3, P5).
fn origin_form(received: &Uri) -> Uri {
    received.path_and_query().cloned().map_or_else(|| Uri::from(PathAndQuery::from_static("/")), Uri::from)
}

fn framing(body: &UpstreamRequestBody) -> Framing {
    match body.size_hint().exact() {
        _ if body.is_end_stream() => Framing::Empty,
        Some(_) => Framing::Sized,
        None => Framing::Chunked,
    }
}

fn identity(permit: &Permit) -> Option<Identity<'_>> {
    let token = permit.case().identity()?;
    Some(Identity { subject: &token.name, accessor: token.accessor.to_string(), scopes: permit.granted_by() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_form_is_forwarded_as_origin_form_byte_for_byte() {
        let forwarded = |target: &str| origin_form(&target.parse().unwrap()).to_string();
        assert_eq!(forwarded("http://a.b/x/%7Ey?q=%2f&&"), "/x/%7Ey?q=%2f&&");
        assert_eq!(forwarded("/x?"), "/x?");
        assert_eq!(forwarded("http://a.b"), "/");
    }

    #[test]
    fn every_failure_has_a_culprit_and_a_reason() {
        assert_eq!(ForwardError::TimedOut.reason(), Reason::UpstreamTimeout);
        assert_eq!(ForwardError::from(UploadFault::TooLarge).fault(), Fault::Client);
        assert_eq!(ForwardError::from(ConnectError::Saturated).fault(), Fault::Gateway);
        assert_eq!(ForwardError::from(ConnectError::TimedOut).reason(), Reason::UpstreamUnreachable);
        assert!(ForwardError::from(ConnectError::TimedOut).is_retryable());
        assert!(!ForwardError::from(BadResponse::TwoFramings).is_retryable());
    }
}
