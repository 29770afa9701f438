//! An upstream behind TLS that keeps who came and what was asked, and answers by its own word.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use http::{Response, StatusCode};
use leastgate_proxy::UpstreamTls;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::{Authority, Issued};
use crate::harness::{Harness, Options, PATIENCE, Upstream, start_as};

/// It says in which protocol it was asked; `/v1/slow` waits for a word, and `/healthz` is a 503 while it is ill.
pub(crate) struct Secure {
    pub(crate) port: u16,
    seen: Arc<Seen>,
}

/// A handshake that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    /// Asked for by SNI.
    pub(crate) name: Option<String>,
    pub(crate) shown: Option<CertificateDer<'static>>,
    pub(crate) is_http2: bool,
}

struct Seen {
    met: Mutex<Vec<Met>>,
    asked: Mutex<Vec<String>>,
    open: AtomicUsize,
    is_ill: AtomicBool,
    answers: Semaphore,
}

impl Secure {
    pub(crate) fn start(shown: &Issued, client_ca: Option<&Authority>, alpn: &[&str]) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()), provider).build().unwrap(),
            ),
        };
        let mut config = builder.with_single_cert(shown.chain(), shown.private_key()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen {
            met: Mutex::default(),
            asked: Mutex::default(),
            open: AtomicUsize::new(0),
            is_ill: AtomicBool::new(false),
            answers: Semaphore::new(0),
        });
        let shared = Arc::clone(&seen);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || runtime.block_on(serve(listener, TlsAcceptor::from(Arc::new(config)), shared)));
        Self { port, seen }
    }

    pub(crate) fn met(&self) -> Vec<Met> {
        self.seen.met.lock().unwrap().clone()
    }

    /// Paths, in the order of their requests.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().unwrap().clone()
    }

    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    pub(crate) fn set_ill(&self, is_ill: bool) {
        self.seen.is_ill.store(is_ill, Ordering::SeqCst);
    }

    /// Lets one `/v1/slow` be answered.
    pub(crate) fn answer(&self) {
        self.seen.answers.add_permits(1);
    }

    pub(crate) fn wait_until(&self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !wanted(self) {
            assert!(started.elapsed() < PATIENCE, "{what}: {:?}, {} open", self.asked(), self.open());
            thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Seen {
    async fn ask(&self, path: &str) -> StatusCode {
        self.asked.lock().unwrap().push(path.to_owned());
        if path == "/v1/slow" {
            self.answers.acquire().await.unwrap().forget();
        }
        let is_out = path == "/healthz" && self.is_ill.load(Ordering::SeqCst);
        if is_out { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let connection = stream.get_ref().1;
            let is_http2 = connection.alpn_protocol() == Some(b"h2");
            let shown = connection.peer_certificates().map(|chain| chain[0].clone().into_owned());
            let name = connection.server_name().map(str::to_owned);
            seen.met.lock().unwrap().push(Met { name, shown, is_http2 });
            seen.open.fetch_add(1, Ordering::SeqCst);
            if is_http2 {
                answer_http2(stream, &seen).await;
            } else {
                answer_http1(stream, &seen).await;
            }
            seen.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn answer_http1(mut stream: TlsStream<TcpStream>, seen: &Seen) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
            let status = seen.ask(text.split(' ').nth(1).unwrap()).await;
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nhttp1");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn answer_http2(stream: TlsStream<TcpStream>, seen: &Arc<Seen>) {
    let Ok(mut served) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = served.accept().await {
        let seen = Arc::clone(seen);
        tokio::spawn(async move {
            let status = seen.ask(request.uri().path()).await;
            let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
            let head = Response::builder().status(status).body(()).unwrap();
            let Ok(mut body) = respond.send_response(head, false) else { return };
            let _ = body.send_data(Bytes::from(format!("http2 {scheme}")), true);
        });
    }
}

/// A gateway of one worker before an upstream of these https endpoints.
pub(crate) fn before_all(endpoints: Vec<String>, tls: UpstreamTls, keys: &str) -> Harness {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let options = Options { endpoints, upstream_tls: Some(tls), upstream: keys, workers: 1, ..Options::default() };
    start_as(Upstream::at(nobody), |_| {}, &options)
}

pub(crate) fn before(host: &str, port: u16, tls: UpstreamTls, keys: &str) -> Harness {
    before_all(vec![format!("https://{host}:{port}")], tls, keys)
}

pub(crate) fn ask(harness: &Harness) -> (u16, String) {
    let reply = harness.ask(harness.head("GET /v1/a", ""));
    (reply.status, reply.body)
}
