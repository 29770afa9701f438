//! The well-behaved client's side: connections in plain or over TLS, requests with a number, and what an answer must be.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Frame;
use hyper::client::conn::{http1, http2};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, USER_AGENT};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::churn::Churn;
use crate::ledger::{AGENT, Ledger};
use crate::outages::Outages;

/// The host of the api behind the HTTP/1.1 server.
pub(crate) const HOST_PLAIN: &str = "soak.test";
/// The host of the api behind the HTTP/2 server.
pub(crate) const HOST_CALLS: &str = "calls.test";

/// Longest time for a request, whatever happens: past every deadline of the gateway.
const LONGEST: Duration = Duration::from_secs(40);

/// A body of a request.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A connection's bytes.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One gateway in the eyes of its clients.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Which of the gateways it is.
    pub(crate) place: usize,
    pub(crate) address: SocketAddr,
    /// How to speak to it over TLS, HTTP/1.1 and HTTP/2.
    pub(crate) tls: Option<[Arc<ClientConfig>; 2]>,
    /// A token that may do what the load does, and one that may do nothing.
    pub(crate) user: String,
    pub(crate) nobody: String,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) churn: Churn,
    pub(crate) outages: Arc<Outages>,
    /// The load has to stop.
    pub(crate) over: AtomicBool,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    One,
    Two,
}

/// A connection that takes requests.
#[derive(Debug)]
pub(crate) enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) fields: &'a [(&'a str, &'a str)],
    pub(crate) body: Body,
    /// The number the request has, if its body was made with it.
    pub(crate) number: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) number: u64,
    pub(crate) started: Instant,
    /// 0: no head came.
    pub(crate) status: u16,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    /// Why it is not whole.
    pub(crate) broken: Option<String>,
    /// The connection was over before anything of it was sent.
    pub(crate) is_unsent: bool,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: &'a str, token: &'a str) -> Self {
        let body = Empty::new().boxed();
        Self { method: Method::GET, host: HOST_PLAIN, path, token: Some(token), fields: &[], body, number: None }
    }

    /// A POST of these bytes, by the request that was numbered for them.
    pub(crate) fn post(path: &'a str, token: &'a str, number: u64, bytes: Vec<u8>) -> Self {
        let body = Full::from(bytes).boxed();
        Self { method: Method::POST, number: Some(number), body, ..Self::get(path, token) }
    }
}

impl Sender {
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Two(sender) => sender.is_closed(),
        }
    }

    /// Another handle on the same connection, where it carries several requests.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::One(_) => None,
            Self::Two(sender) => Some(Self::Two(sender.clone())),
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<hyper::body::Incoming>> {
        match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

impl Target {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The bytes of a new connection.
    pub(crate) async fn connect(&self, protocol: Protocol, host: &str) -> io::Result<Box<dyn Io>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let Some(configs) = &self.tls else { return Ok(Box::new(socket)) };
        let config = Arc::clone(&configs[usize::from(protocol == Protocol::Two)]);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(config).connect(name, socket).await?))
    }

    /// A new connection; that there is none is a finding.
    pub(crate) async fn open(&self, protocol: Protocol, host: &str) -> Option<Sender> {
        let opened = timeout(LONGEST, self.try_open(protocol, host)).await;
        let why = match opened {
            Ok(Ok(sender)) => return Some(sender),
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        self.ledger.find(format!("{}: no connection of {protocol:?}: {why}", self.name));
        None
    }

    async fn try_open(&self, protocol: Protocol, host: &str) -> io::Result<Sender> {
        let io = TokioIo::new(self.connect(protocol, host).await?);
        match protocol {
            Protocol::One => {
                let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                Ok(Sender::One(sender))
            }
            Protocol::Two => {
                let handshake = http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = handshake.map_err(io::Error::other)?;
                tokio::spawn(connection);
                Ok(Sender::Two(sender))
            }
        }
    }

    /// The request as the protocol writes it.
    pub(crate) fn request(&self, protocol: Protocol, number: u64, ask: Ask<'_>) -> Request<Body> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut request = Request::builder().method(ask.method).header(USER_AGENT, format!("{AGENT}{number}"));
        request = match protocol {
            Protocol::One => request.uri(ask.path).header(HOST, ask.host),
            Protocol::Two => request.version(Version::HTTP_2).uri(format!("{scheme}://{}{}", ask.host, ask.path)),
        };
        request = request.header("x-soak", self.place);
        if let Some(token) = ask.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in ask.fields {
            request = request.header(*name, *value);
        }
        request.body(ask.body).expect("the parts are well-formed")
    }

    /// Sends a request and takes the whole answer.
    pub(crate) async fn exchange(&self, sender: &mut Sender, mut ask: Ask<'_>) -> Got {
        let number = ask.number.take().unwrap_or_else(|| self.ledger.open());
        let protocol = if matches!(sender, Sender::One(_)) { Protocol::One } else { Protocol::Two };
        let is_head = ask.method == Method::HEAD;
        let mut got = Got::nothing(number);
        let request = self.request(protocol, number, ask);
        if timeout(LONGEST, got.fill(sender, request, &self.ledger)).await.is_err() {
            got.broken = Some(format!("not over after {LONGEST:?}"));
        }
        if is_head {
            got.body.clear();
        }
        got
    }

    /// A legitimate request must be answered so, unless its upstream was out.
    pub(crate) fn judge(&self, what: &str, got: &Got, wanted: &[u8]) {
        self.judge_as(what, got, &got.body, wanted, got.broken.is_none() && got.status == 200);
    }

    /// The same with what counts as success, and as the body, said by the caller.
    pub(crate) fn judge_as(&self, what: &str, got: &Got, body: &[u8], wanted: &[u8], succeeded: bool) {
        if got.is_unsent {
            return;
        }
        if succeeded && body == wanted {
            return self.ledger.right();
        }
        let is_other = got.status == 200 && (succeeded || !wanted.starts_with(body));
        let is_failure = matches!(got.status, 0 | 200 | 502..=504) && !is_other;
        if is_failure && self.outages.cover(got.started, Instant::now()) {
            return self.ledger.excused();
        }
        let (length, why) = (body.len(), got.broken.as_deref().unwrap_or("whole"));
        self.ledger.find(format!(
            "{} {what}: request {} after {:?}: status {}, {length} of {} bytes{}, {why}",
            self.name,
            got.number,
            got.started.elapsed(),
            got.status,
            wanted.len(),
            if is_other { ", which are not the right ones" } else { "" },
        ));
    }

    /// A request that must be refused, with the upstream up or not.
    pub(crate) fn judge_refusal(&self, what: &str, got: &Got, wanted: u16) {
        if got.is_unsent {
            return;
        }
        if got.status == wanted && got.broken.is_none() {
            return self.ledger.refused();
        }
        let (status, why) = (got.status, got.broken.as_deref().unwrap_or("whole"));
        self.ledger.find(format!("{} {what}: request {}: {status}, not {wanted}; {why}", self.name, got.number));
    }
}

impl Got {
    fn nothing(number: u64) -> Self {
        Self {
            number,
            started: Instant::now(),
            status: 0,
            fields: HeaderMap::new(),
            body: Vec::new(),
            trailers: HeaderMap::new(),
            broken: None,
            is_unsent: false,
        }
    }

    async fn fill(&mut self, sender: &mut Sender, request: Request<Body>, ledger: &Ledger) {
        let response = match sender.send(request).await {
            Ok(response) => response,
            Err(error) => {
                self.is_unsent = error.is_canceled() || error.is_closed();
                self.broken = Some(format!("{error:?}"));
                return;
            }
        };
        let (head, mut body) = response.into_parts();
        self.status = head.status.as_u16();
        self.fields = head.headers;
        // What is refused to a caller of gRPC is 200 on the wire, and on record by the status of its reason.
        let is_refused_call = self.fields.contains_key("grpc-status");
        ledger.answered(self.number, if is_refused_call { crate::ledger::ANY } else { self.status });
        while let Some(frame) = body.frame().await {
            match frame.map(|frame| frame.into_data().map_err(Frame::into_trailers)) {
                Ok(Ok(data)) => self.body.extend_from_slice(&data),
                Ok(Err(trailers)) => self.trailers = trailers.unwrap_or_default(),
                Err(error) => return self.broken = Some(format!("{error:?}")),
            }
        }
    }
}
