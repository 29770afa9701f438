//! What the gateway stands in front of: servers of HTTP/1.1 and of HTTP/2 in this process, which can die, hang and come back
//! on the same port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::ledger::{Ledger, bytes_of, number_of};

/// How the servers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// They answer.
    Up,
    /// They take connections and requests, and answer nothing.
    Hung,
    /// Nobody listens, and every connection was cut.
    Down,
}

/// Both servers.
#[derive(Debug)]
pub(crate) struct Upstream {
    health: watch::Sender<Health>,
    /// Bound, and never listening: while the servers are down their ports are nobody else's.
    _held: [Socket; 2],
    pub(crate) plain: SocketAddr,
    pub(crate) calls: SocketAddr,
}

type Body = BoxBody<Bytes, Infallible>;

/// What a request is served with.
#[derive(Clone)]
struct Serving {
    ledgers: Arc<Vec<Arc<Ledger>>>,
    health: watch::Receiver<Health>,
    speaks_http2: bool,
}

impl Upstream {
    /// Starts both; a request names the gateway it came through, by its place, in its path's first segment.
    pub(crate) fn start(ledgers: Vec<Arc<Ledger>>) -> Self {
        let (health, watched) = watch::channel(Health::Up);
        let held = [hold(), hold()];
        let [plain, calls] = [0, 1].map(|place: usize| {
            let address = held[place].local_addr().ok().and_then(|address| address.as_socket());
            address.expect("a bound socket has an address")
        });
        let ledgers = Arc::new(ledgers);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let serve = |speaks_http2| Serving { ledgers: Arc::clone(&ledgers), health: watched.clone(), speaks_http2 };
            let both = async { tokio::join!(listen(plain, serve(false)), listen(calls, serve(true))) };
            runtime.expect("a runtime can be built").block_on(both);
        });
        Self { health, _held: held, plain, calls }
    }

    pub(crate) fn set(&self, health: Health) {
        self.health.send_replace(health);
    }
}

fn hold() -> Socket {
    let bound = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        let free: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&free.into())?;
        Ok::<_, io::Error>(socket)
    };
    bound().expect("loopback has a free port")
}

/// Serves as long as there is somebody who could change the servers' health.
async fn listen(address: SocketAddr, mut serving: Serving) {
    while serving.health.wait_for(|health| *health != Health::Down).await.is_ok() {
        let listener = TcpListener::bind(address).await.expect("the port is ours");
        let mut connections = JoinSet::new();
        let mut health = serving.health.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((socket, _)) = accepted {
                        connections.spawn(connection(socket, serving.clone()));
                    }
                }
                // Those that ended are not kept until the next outage.
                Some(_) = connections.join_next() => {}
                down = health.wait_for(|health| *health == Health::Down) => {
                    if down.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
    }
}

async fn connection(socket: tokio::net::TcpStream, serving: Serving) {
    let io = TokioIo::new(socket);
    let speaks_http2 = serving.speaks_http2;
    let service = service_fn(move |request| answer(request, serving.clone()));
    // How a connection ends is for the gateway to judge.
    if speaks_http2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
    }
}

async fn answer(request: Request<Incoming>, mut serving: Serving) -> Result<Response<Body>, Infallible> {
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()).and_then(number_of);
    let place = request.headers().get("x-soak").and_then(|place| place.to_str().ok()?.parse::<usize>().ok());
    let (Some(number), Some(ledger)) = (agent, place.and_then(|place| serving.ledgers.get(place))) else {
        return Ok(status(StatusCode::IM_A_TEAPOT));
    };
    ledger.arrived(number);
    // Nobody is left to tell.
    let _ = serving.health.wait_for(|health| *health != Health::Hung).await;
    Ok(match request.uri().path() {
        "/v1/echo" => whole(bytes_of(number, size(&request, "size"))),
        "/v1/upload" => upload(request).await,
        "/v1/events" => events(number, &request),
        "/v1/socket" => socket(request, serving.health),
        "/soak.Echo/Unary" => call(request, 1).await,
        "/soak.Echo/Many" => call(request, MANY).await,
        "/flip" => whole(bytes_of(number, 16)),
        _ => status(StatusCode::NOT_FOUND),
    })
}

/// How many messages a streaming call is answered with.
pub(crate) const MANY: usize = 8;

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = code;
    response
}

fn whole(bytes: Vec<u8>) -> Response<Body> {
    Response::new(Full::from(bytes).boxed())
}

/// A number in the query.
fn size(request: &Request<Incoming>, key: &str) -> usize {
    let query = request.uri().query().unwrap_or_default();
    let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
    found.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
}

/// Says what it was sent: BLAKE3, in hex.
async fn upload(request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let mut hasher = blake3::Hasher::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return status(StatusCode::BAD_REQUEST) };
        if let Some(data) = frame.data_ref() {
            hasher.update(data);
        }
    }
    whole(hasher.finalize().to_hex().as_bytes().to_vec())
}

/// One event of a stream.
pub(crate) fn event(number: u64, place: usize) -> String {
    format!("id: {place}\ndata: {number}-{place}\n\n")
}

fn events(number: u64, request: &Request<Incoming>) -> Response<Body> {
    let (count, pause) = (size(request, "count"), Duration::from_millis(size(request, "pause") as u64));
    let mut response = Response::new(paced((0..count).map(move |place| event(number, place).into()), pause, None));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// A body that comes part by part.
fn paced(parts: impl Iterator<Item = Bytes> + Send + 'static, pause: Duration, trailers: Option<HeaderMap>) -> Body {
    let (send, mut take) = mpsc::channel(1);
    tokio::spawn(async move {
        for part in parts {
            if send.send(Frame::data(part)).await.is_err() {
                return;
            }
            sleep(pause).await;
        }
        if let Some(trailers) = trailers {
            // The client may have gone.
            let _ = send.send(Frame::trailers(trailers)).await;
        }
    });
    let frames = futures_util::stream::poll_fn(move |context| take.poll_recv(context).map(|frame| frame.map(Ok)));
    StreamBody::new(frames).boxed()
}

/// Takes the example handshake of RFC 6455 §1.3 and sends back what comes.
fn socket(request: Request<Incoming>, mut health: watch::Receiver<Health>) -> Response<Body> {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        let echo = async {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                if write.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            // A peer that is gone needs no goodbye.
            let _ = write.shutdown().await;
        };
        tokio::select! {
            () = echo => {}
            _ = health.wait_for(|health| *health == Health::Down) => {}
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in
        [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Answers a call with its own message, so many times, and says in trailers that all is well.
async fn call(request: Request<Incoming>, times: usize) -> Response<Body> {
    let Ok(body) = request.into_body().collect().await else { return status(StatusCode::BAD_REQUEST) };
    let message = body.to_bytes();
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let pause = if times == 1 { Duration::ZERO } else { Duration::from_millis(20) };
    let mut response = Response::new(paced((0..times).map(move |_| message.clone()), pause, Some(trailers)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
