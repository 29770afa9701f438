//! Upstreams of HTTP/2: one that a library serves and that keeps what it was asked, and one of raw frames that does what
//! no library would.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use leastgate_testkit::http2::{Client, Frame, HEADERS, PREFACE, SETTINGS, frame};

use crate::harness::{Harness, Options, PATIENCE, Upstream, start_as};

/// What one request was, as far as it has come.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) connection: usize,
    pub(crate) head: Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) is_over: bool,
    /// What its end was, if it was no end of a body.
    pub(crate) reset: Option<Reason>,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// The upstream; a script answers each request once its body is whole.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    log: Log,
}

/// What a script answers with.
pub(crate) type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Served {
    pub(crate) fn start(
        settings: Builder,
        script: impl Fn(Seen, SendResponse<Bytes>) -> Answering + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, log) = (listener.local_addr().unwrap(), Log::default());
        let shared = Arc::clone(&log);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || runtime.block_on(serve(listener, settings, shared, Arc::new(script))));
        Self { address, log }
    }

    /// One that answers everything so.
    pub(crate) fn answering(body: &'static str) -> Self {
        Self::start(Builder::new(), move |_, respond| Box::pin(async move { say(respond, body.as_bytes()).await }))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until what was seen is as wanted.
    pub(crate) fn wait_until(&self, wanted: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let started = Instant::now();
        while !wanted(&self.seen()) {
            assert!(started.elapsed() < PATIENCE, "{:?}", self.seen());
            thread::sleep(Duration::from_millis(2));
        }
        self.seen()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen().iter().map(|seen| seen.connection + 1).max().unwrap_or(0)
    }
}

async fn serve(
    listener: TcpListener,
    settings: Builder,
    log: Log,
    script: Arc<impl Fn(Seen, SendResponse<Bytes>) -> Answering + Send + Sync + 'static>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    for connection in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (settings, log, script) = (settings.clone(), Arc::clone(&log), Arc::clone(&script));
        tokio::spawn(async move {
            let Ok(mut served) = settings.handshake::<_, Bytes>(stream).await else { return };
            while let Some(Ok((request, respond))) = served.accept().await {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                tokio::spawn(async move {
                    let seen = receive(request, connection, &log).await;
                    script(seen, respond).await;
                });
            }
        });
    }
}

async fn receive(request: Request<RecvStream>, connection: usize, log: &Log) -> Seen {
    let (head, mut body) = request.into_parts();
    let index = {
        let mut log = log.lock().unwrap();
        log.push(Seen { connection, head, body: Vec::new(), is_over: false, reset: None });
        log.len() - 1
    };
    while let Some(part) = body.data().await {
        match part {
            Ok(part) => {
                body.flow_control().release_capacity(part.len()).unwrap();
                log.lock().unwrap()[index].body.extend_from_slice(&part);
            }
            Err(error) => {
                log.lock().unwrap()[index].reset = error.reason();
                break;
            }
        }
    }
    let mut log = log.lock().unwrap();
    log[index].is_over = true;
    log[index].clone()
}

/// A whole answer.
pub(crate) async fn say(mut respond: SendResponse<Bytes>, body: &[u8]) {
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
    let _ = send_all(&mut stream, body, true).await;
}

/// One whose fields after the body say how it went.
pub(crate) async fn say_with_trailers(mut respond: SendResponse<Bytes>, head: Response<()>, trailers: HeaderMap) {
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    if send_all(&mut stream, b"\0\0\0\0\x01m", false).await {
        let _ = stream.send_trailers(trailers);
    }
}

/// Sends as much at a time as the other side takes.
pub(crate) async fn send_all(stream: &mut h2::SendStream<Bytes>, mut body: &[u8], end: bool) -> bool {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return false };
        let (now, later) = body.split_at(room.min(body.len()));
        if stream.send_data(Bytes::copy_from_slice(now), false).is_err() {
            return false;
        }
        body = later;
    }
    !end || stream.send_data(Bytes::new(), true).is_ok()
}

/// A gateway in front of it, with one worker.
pub(crate) fn before(address: SocketAddr, keys: &str) -> Harness {
    before_with(address, keys, |_| {})
}

pub(crate) fn before_with(address: SocketAddr, keys: &str, set: impl FnOnce(&mut leastgate_config::Limits)) -> Harness {
    let upstream = format!("http2: true, response_timeout: 5s, {keys}");
    start_as(Upstream::at(address), set, &Options { upstream: &upstream, workers: 1, ..Options::default() })
}

/// An upstream of raw frames; its scripts run on threads of their own, one a connection.
pub(crate) struct Raw {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<usize>>>,
}

/// One connection to it.
pub(crate) struct Peer {
    pub(crate) frames: Client,
    pub(crate) index: usize,
    requests: Arc<Mutex<Vec<usize>>>,
}

/// The answer 200 without a body, as HPACK: the index of a field that every table has (RFC 7541, appendix A).
pub(crate) const OK_BLOCK: &[u8] = &[0x88];

impl Raw {
    /// `settings`: pairs of identifier and value.
    pub(crate) fn start(settings: &'static [(u16, u32)], script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (shared, script) = (Arc::clone(&requests), Arc::new(script));
        thread::spawn(move || {
            for (index, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                shared.lock().unwrap().push(0);
                let (requests, script) = (Arc::clone(&shared), Arc::clone(&script));
                thread::spawn(move || {
                    if let Some(frames) = greet(stream, settings) {
                        script(&mut Peer { frames, index, requests });
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// How many requests came over each connection.
    pub(crate) fn requests(&self) -> Vec<usize> {
        self.requests.lock().unwrap().clone()
    }
}

fn greet(mut stream: TcpStream, settings: &[(u16, u32)]) -> Option<Client> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).ok().filter(|()| preface == PREFACE)?;
    let pairs = settings.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
    stream.write_all(&frame(SETTINGS, 0, 0, &pairs.collect::<Vec<_>>())).ok()?;
    Some(Client::silent(stream))
}

impl Peer {
    /// The next frame of this kind.
    pub(crate) fn next(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.frames.read()?;
            if frame.kind == HEADERS {
                self.requests.lock().unwrap()[self.index] += 1;
            }
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The stream of the next request.
    pub(crate) fn request(&mut self) -> Option<u32> {
        self.next(HEADERS).map(|frame| frame.stream)
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.frames.send(frame(kind, flags, stream, payload));
    }

    pub(crate) fn answer(&mut self, stream: u32) {
        self.send(HEADERS, 5, stream, OK_BLOCK);
    }

    /// Answers every request.
    pub(crate) fn answer_all(&mut self) {
        while let Some(stream) = self.request() {
            self.answer(stream);
        }
    }
}
