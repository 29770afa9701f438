//! The only way to an upstream. What goes in is an authorized request and nothing else; what comes out is a response
//! whose framing can be trusted, or whose fault it was that there is none.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use leastgate_config::{HostHeader, Upstream};
use leastgate_policy::{AuthorizedRequest, Permit, Reason};
use tokio::time::{Instant, timeout_at};

use crate::body::{Upload, UploadFault, UpstreamBody};
use crate::headers::{self, BadResponse, Framing, Identity, Outgoing};
use crate::pool::{ConnectError, Lease, Pool, PoolSettings, UpstreamRequestBody};
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

struct Deadlines {
    head: Duration,
    whole: Option<Instant>,
}

/// One exchange over a lent connection. A request that comes back unsent, because the upstream had closed the
/// connection between two requests, is sent once more over a new one if repeating it could do no harm anyway.
async fn exchange(
    pool: &Rc<Pool>,
    request: Request<UpstreamRequestBody>,
    upload: &Upload,
    deadlines: &Deadlines,
) -> Result<(Response<Incoming>, Lease), ForwardError> {
    let mut lease = pool.lend().await?;
    match send(&mut lease, request, upload, deadlines).await {
        Ok(response) => Ok((response, lease)),
        Err(Unanswered::Unsent(request)) if lease.is_reused() && is_repeatable(&request) => {
            lease.reconnect().await?;
            let response = send(&mut lease, *request, upload, deadlines).await.map_err(ForwardError::from)?;
            Ok((response, lease))
        }
        Err(unanswered) => Err(unanswered.into()),
    }
}

fn is_repeatable(request: &Request<UpstreamRequestBody>) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    idempotent.contains(request.method()) && request.body().is_end_stream()
}

/// Why a connection gave no response.
enum Unanswered {
    /// hyper gave the request back: not a byte of it was written.
    Unsent(Box<Request<UpstreamRequestBody>>),
    Failed(ForwardError),
}

impl From<Unanswered> for ForwardError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unsent(_) => Self::Connect(ConnectError::Refused(std::io::ErrorKind::ConnectionReset.into())),
            Unanswered::Failed(error) => error,
        }
    }
}

async fn send(
    lease: &mut Lease,
    request: Request<UpstreamRequestBody>,
    upload: &Upload,
    deadlines: &Deadlines,
) -> Result<Response<Incoming>, Unanswered> {
    let sending = lease.sender().try_send_request(request);
    let Some(sent) = within(sending, upload, deadlines).await else {
        return Err(Unanswered::Failed(ForwardError::TimedOut));
    };
    sent.map_err(|mut failure| match (upload.fault(), failure.take_message()) {
        (Some(fault), _) => Unanswered::Failed(fault.into()),
        (None, Some(request)) => Unanswered::Unsent(Box::new(request)),
        (None, None) => Unanswered::Failed(ForwardError::Http(failure.into_error())),
    })
}

/// Waits for a response head. Its time counts from when the upstream has the request: as long as a client is still
/// sending, the deadlines of its body are the ones that end it.
async fn within<F: Future>(sending: F, upload: &Upload, deadlines: &Deadlines) -> Option<F::Output> {
    let mut sending = pin!(sending);
    let mut due = Instant::now() + deadlines.head;
    loop {
        let until = deadlines.whole.map_or(due, |whole| due.min(whole));
        if let Ok(sent) = timeout_at(until, &mut sending).await {
            return Some(sent);
        }
        due = upload.sent_by() + deadlines.head;
        if until >= due || deadlines.whole.is_some_and(|whole| until >= whole) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::num::NonZeroUsize;

    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use leastgate_config::Limits;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;
    use crate::body::RequestBody;
    use crate::settings::DataPlaneConfig;

    #[test]
    fn an_absolute_form_is_forwarded_as_origin_form_byte_for_byte() {
        let forwarded = |target: &str| origin_form(&target.parse().unwrap()).to_string();
        assert_eq!(forwarded("http://a.b/x/%7Ey?q=%2f&&"), "/x/%7Ey?q=%2f&&");
        assert_eq!(forwarded("/x?"), "/x?");
        assert_eq!(forwarded("http://a.b"), "/");
    }

    /// A request with a body as hyper's server hands it over.
    async fn received() -> Request<UpstreamRequestBody> {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET /v1/a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (heard, mut requests) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            heard.send(request).unwrap();
            std::future::pending::<Result<Response<String>, Infallible>>()
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let request = tokio::select! {
            _ = serving => None,
            request = requests.recv() => request,
        };
        let limits = Settings::new(DataPlaneConfig {
            addresses: Vec::new(),
            workers: NonZeroUsize::MIN,
            limits: Limits::default(),
            upstreams: Vec::new(),
            trusted_proxies: Vec::new(),
        });
        request.unwrap().map(|body| RequestBody::new(body, limits.body(), Rc::new(Upload::new()), None))
    }

    fn pool_of_one(port: u16) -> Rc<Pool> {
        Rc::new(Pool::new(PoolSettings {
            host: "127.0.0.1".into(),
            port,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            max_connections: 1,
        }))
    }

    /// Answers a connection's one request and hands the connection over.
    async fn answer(upstream: &TcpListener) -> TcpStream {
        let (mut stream, _) = upstream.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        stream
    }

    /// The pool's only place is the failed connection's own: the second attempt must not wait for it.
    #[tokio::test]
    async fn a_request_that_comes_back_unsent_goes_out_again_in_the_place_it_has() {
        let test = async {
            let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let pool = pool_of_one(upstream.local_addr().unwrap().port());
            let (upload, deadlines) = (Upload::new(), Deadlines { head: Duration::from_secs(10), whole: None });
            let first = exchange(&pool, received().await, &upload, &deadlines);
            let (first, stream) = tokio::join!(first, answer(&upstream));
            first.unwrap().1.give_back();

            let second = received().await;
            drop(stream);
            // The reactor hears of the end here, and the connection's task only runs after this one has sent on it.
            tokio::task::yield_now().await;
            let second = exchange(&pool, second, &upload, &deadlines);
            let (second, _stream) = tokio::join!(second, answer(&upstream));
            let (response, lease) = second.unwrap();
            assert_eq!(response.status(), 204);
            assert!(!lease.is_reused());
        };
        timeout(Duration::from_secs(5), LocalSet::new().run_until(test)).await.expect("no wait for its own place");
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
