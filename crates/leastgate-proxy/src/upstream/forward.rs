//! The only way to an upstream. What goes in is an authorized request and nothing else; what comes out is a response
//! whose framing can be trusted, or whose fault it was that there is none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use leastgate_config::{Endpoint, HealthCheck, HostHeader, Upstream};
use leastgate_policy::{AuthorizedRequest, Permit, Reason};
use leastgate_telemetry::WorkerTelemetry;
use tokio::time::{Instant, timeout};

use super::attempt::{Deadlines, Terms, exchange};
use super::check::Check;
use super::connect::{ConnectError, Connector};
use super::http2::Http2Terms;
use super::lease::Lease;
use super::pool::{Pool, PoolSettings};
use super::target::Target;
use super::tls::UpstreamTls;
use crate::body::{ClientBody, OutboundBody, Received, Upload, UploadFault, UpstreamBody};
use crate::headers::{self, BadResponse, Framing, Handshake, Identity, Outgoing};
use crate::settings::Settings;
use crate::trace::Trace;

/// How often idle connections and new addresses of names are looked at where there are no requests.
const TENDING: Duration = Duration::from_secs(5);

/// How long hyper may take to hand over a connection that has switched protocols.
const SWITCHING: Duration = Duration::from_secs(5);

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
    /// Its Host can't be said in HTTP/2.
    #[error("the request can't be said in HTTP/2")]
    Untranslatable,
    /// The upstream chose HTTP/2, in which there is no upgrade.
    #[error("a WebSocket needs HTTP/1.1, and the upstream chose HTTP/2")]
    NoUpgrade,
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
            Self::Untranslatable => Reason::RequestMalformed,
            Self::Http(_) | Self::Response(_) | Self::NoUpgrade => Reason::UpstreamProtocol,
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Client(_) | Self::Untranslatable => Fault::Client,
            Self::Connect(ConnectError::Saturated) | Self::Unknown | Self::NoUpgrade => Fault::Gateway,
            Self::Connect(_) | Self::TimedOut | Self::Http(_) | Self::Response(_) => Fault::Upstream,
        }
    }

    /// What there is to say to a caller beyond the reason, which is that of a full gateway too.
    pub(crate) fn detail(&self) -> Option<&'static str> {
        self.is_saturation().then_some("every connection to the upstream is in use; nothing was forwarded, try again")
    }

    /// Whether more connections to the upstream would have helped.
    pub(crate) fn is_saturation(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Saturated))
    }

    /// Whether the client may send the request again without asking what became of the first: no byte of it was sent.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Unknown | Self::Untranslatable | Self::NoUpgrade)
    }
}

/// What the gateway adds to one request, and learns of its body.
#[derive(Debug)]
pub(crate) struct ForwardContext<'a> {
    pub(crate) peer: IpAddr,
    pub(crate) peer_is_trusted: bool,
    pub(crate) is_tls: bool,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) trace: &'a Trace,
    pub(crate) decision: &'a str,
    pub(crate) upload: &'a Rc<Upload>,
    /// The request is an admitted WebSocket handshake: an upgrade goes along, and this is what its answer must prove.
    pub(crate) handshake: Option<&'a Handshake>,
}

/// What an upstream answers.
pub(crate) enum Answer {
    Response(Response<UpstreamBody>),
    /// The handshake was understood.
    Switched(Switched),
}

/// A connection that is no longer HTTP.
#[derive(Debug)]
pub(crate) struct Switched {
    /// The head of the 101.
    pub(crate) head: Response<()>,
    pub(crate) upstream: Upgraded,
    /// The place that the connection takes among those of its upstream.
    pub(crate) lease: Lease,
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
    rewrites_host: bool,
    response_timeout: Duration,
}

impl UpstreamRoute {
    fn new(upstream: &Upstream, settings: &Settings, telemetry: &WorkerTelemetry) -> Self {
        let tls = settings.upstream_tls.get(&upstream.name);
        let targets = upstream.endpoints.iter().map(|endpoint| target(endpoint, tls)).collect();
        let pool = PoolSettings {
            name: upstream.name.clone(),
            telemetry: telemetry.clone(),
            idle_timeout: settings.limits.keep_alive_upstream,
            max_connections: settings.share(upstream.max_connections),
            connector: Connector {
                timeout: upstream.connect_timeout,
                tls: tls.map(|tls| tls.offering(upstream.http2)),
                http2: upstream.http2.then(|| Http2Terms::from(&settings.limits)),
            },
            check: upstream.check.as_ref().and_then(check),
        };
        Self {
            pool: Pool::new(pool, targets, &settings.names),
            rewrites_host: upstream.host == HostHeader::Rewrite,
            response_timeout: upstream.response_timeout,
        }
    }
}

fn check(check: &HealthCheck) -> Option<Check> {
    Some(Check { path: check.path.parse().ok()?, interval: check.interval })
}

fn target(endpoint: &Endpoint, tls: Option<&UpstreamTls>) -> Target {
    Target {
        host: host(endpoint).to_owned(),
        port: endpoint.port(),
        authority: HeaderValue::from_str(endpoint.authority().as_str()).ok(),
        is_https: endpoint.is_https(),
        server_name: tls.and_then(|tls| tls.name_of(host(endpoint))),
    }
}

/// A name, or an address without brackets.
pub(super) fn host(endpoint: &Endpoint) -> &str {
    endpoint.host().trim_start_matches('[').trim_end_matches(']')
}

impl Forwarder {
    pub(crate) fn new(settings: Arc<Settings>, telemetry: &WorkerTelemetry) -> Self {
        let route = |upstream: &Upstream| (upstream.name.clone(), UpstreamRoute::new(upstream, &settings, telemetry));
        Self { upstreams: settings.upstreams.iter().map(route).collect(), settings }
    }

    /// Sends an authorized request and waits for the head of its response.
    pub(crate) async fn forward(
        &self,
        request: AuthorizedRequest<ClientBody>,
        context: &ForwardContext<'_>,
    ) -> Result<Answer, Failed> {
        let (request, permit) = request.into_parts();
        let sent = self.send(request, &permit, context).await;
        sent.map_err(|error| Failed { error, permit })
    }

    async fn send(
        &self,
        mut request: Request<ClientBody>,
        permit: &Permit,
        context: &ForwardContext<'_>,
    ) -> Result<Answer, ForwardError> {
        let api = permit.case().api().ok_or(ForwardError::Unknown)?;
        let route = self.upstreams.get(&*api.upstream).ok_or(ForwardError::Unknown)?;
        request.body_mut().end_of_nothing().await?;
        prepare(&mut request, permit, context);
        let deadlines = Deadlines {
            head: api.limits.response_timeout.unwrap_or(route.response_timeout),
            whole: self.settings.limits.upstream_total.map(|total| Instant::now() + total),
        };
        let terms = Terms { upload: context.upload, deadlines: &deadlines, rewrites_host: route.rewrites_host };
        let (response, lease) = exchange(&route.pool, request.map(OutboundBody::new), &terms).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && context.handshake.is_some_and(|handshake| handshake.is_answered_by(response.headers()))
        {
            return switched(response, lease).await.map(Answer::Switched);
        }
        headers::check_framing(response.status(), response.headers())?;
        let trailers = headers::is_grpc(response.headers()).then(|| self.settings.trailers());
        let is_http2 = lease.is_http2();
        let received = |incoming| Received::new(incoming, is_http2);
        let body = |incoming| UpstreamBody::new(received(incoming), lease, context.upload, deadlines.whole, trailers);
        Ok(Answer::Response(response.map(body)))
    }

    /// Looks after the upstreams for as long as the worker runs.
    pub(crate) async fn tend(&self) {
        self.settings.names.resolve();
        for route in self.upstreams.values() {
            tokio::task::spawn_local(Rc::clone(&route.pool).keep_checking());
        }
        loop {
            tokio::time::sleep(TENDING).await;
            self.upstreams.values().for_each(|route| route.pool.tend());
        }
    }
}

/// Takes the connection out of hyper's hands, which has nothing left to wait for but its own task.
async fn switched(mut response: Response<Incoming>, lease: Lease) -> Result<Switched, ForwardError> {
    let upgrade = timeout(SWITCHING, hyper::upgrade::on(&mut response)).await;
    let upstream = upgrade.map_err(|_| ForwardError::TimedOut)?.map_err(ForwardError::Http)?;
    Ok(Switched { head: response.map(drop), upstream, lease })
}

fn prepare(request: &mut Request<ClientBody>, permit: &Permit, context: &ForwardContext<'_>) {
    let out = Outgoing {
        credential: permit.case().snapshot().credential_header(),
        peer: context.peer,
        peer_is_trusted: context.peer_is_trusted,
        host_is_judged: permit.case().snapshot().judges_hosts(),
        is_tls: context.is_tls,
        request_id: context.request_id,
        trace: context.trace,
        decision: context.decision,
        identity: identity(permit),
        framing: framing(request.body()),
    };
    let (method, version) = (request.method().clone(), request.version());
    headers::prepare_request(request.headers_mut(), &method, version, &out);
    if context.handshake.is_some() {
        headers::name_upgrade(request.headers_mut());
    }
    *request.uri_mut() = origin_form(request.uri());
    request.extensions_mut().clear();
}

/// The target as it was received, without the scheme and authority of an absolute form (P3, P5).
fn origin_form(received: &Uri) -> Uri {
    received.path_and_query().cloned().map_or_else(|| Uri::from(PathAndQuery::from_static("/")), Uri::from)
}

fn framing(body: &ClientBody) -> Framing {
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
