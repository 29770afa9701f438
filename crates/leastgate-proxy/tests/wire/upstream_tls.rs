//! TLS towards upstreams: who they must prove to be, who the gateway is to them, and which protocol both agree on.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use leastgate_proxy::{Trust, UpstreamTls};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificates::{Authority, Issued, pem};
use crate::harness::{Connection, Harness, Options, Upstream, start_as};

/// An upstream that says which protocol it was asked in.
struct Secure {
    port: u16,
    /// The name asked for by SNI, and whether a certificate was shown.
    met: Met,
}

type Met = Arc<Mutex<Vec<(Option<String>, bool)>>>;

impl Secure {
    fn start(shown: &Issued, client_ca: Option<&Authority>, alpn: &[&str]) -> Self {
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
        let (port, met) = (listener.local_addr().unwrap().port(), Arc::default());
        let shared = Arc::clone(&met);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || runtime.block_on(serve(listener, TlsAcceptor::from(Arc::new(config)), shared)));
        Self { port, met }
    }

    fn met(&self) -> Vec<(Option<String>, bool)> {
        self.met.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, met: Met) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, met) = (acceptor.clone(), Arc::clone(&met));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let connection = stream.get_ref().1;
            let is_http2 = connection.alpn_protocol() == Some(b"h2");
            let name = connection.server_name().map(str::to_owned);
            met.lock().unwrap().push((name, connection.peer_certificates().is_some()));
            if is_http2 { answer_http2(stream).await } else { answer_http1(stream).await }
        });
    }
}

async fn answer_http1(mut stream: TlsStream<tokio::net::TcpStream>) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhttp1").await.unwrap();
        }
    }
}

async fn answer_http2(stream: TlsStream<tokio::net::TcpStream>) {
    let mut served = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = served.accept().await {
        let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from(format!("http2 {scheme}")), true).unwrap();
    }
}

fn before(host: &str, port: u16, tls: UpstreamTls, keys: &str) -> Harness {
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let options = Options {
        endpoints: vec![format!("https://{host}:{port}")],
        upstream_tls: Some(tls),
        upstream: keys,
        workers: 1,
        ..Options::default()
    };
    start_as(Upstream::at(address), |_| {}, &options)
}

fn trusting(authority: &Authority) -> UpstreamTls {
    UpstreamTls::new(Trust::File(&pem("ca.pem", &authority.pem())), None).unwrap()
}

fn ask(harness: &Harness) -> (u16, String) {
    let reply = harness.ask(harness.head("GET /v1/a", ""));
    (reply.status, reply.body)
}

fn connect_errors(harness: &Harness) -> u64 {
    harness.metric("leastgate_upstream_connect_errors_total{error=\"tls\",upstream=\"up\"}")
}

#[test]
fn an_upstream_must_prove_its_name() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let right = ours.issue(&["localhost"]);
    for (shown, trusted, name, is_let_in) in [
        (&right, &ours, None, true),
        (&right, &theirs, None, false),
        (&right, &ours, Some("other.internal"), false),
        (&ours.issue(&["up.internal"]), &ours, None, false),
        (&ours.issue(&["up.internal"]), &ours, Some("up.internal"), true),
        (&ours.issue_expired(&["localhost"]), &ours, None, false),
    ] {
        let upstream = Secure::start(shown, None, &[]);
        let tls = trusting(trusted);
        let tls = name.map_or_else(|| tls.clone(), |name| tls.clone().with_name(name).unwrap());
        let harness = before("localhost", upstream.port, tls, "response_timeout: 5s");
        let (status, body) = ask(&harness);
        if is_let_in {
            assert_eq!((status, body.as_str()), (200, "http1"));
            assert_eq!(upstream.met(), [(Some(name.unwrap_or("localhost").to_owned()), false)]);
        } else {
            assert_eq!(status, 503, "{name:?}");
            assert!(body.contains("urn:leastgate:problem:upstream-unreachable"), "{body}");
            harness.events(1);
            assert_eq!(connect_errors(&harness), 1);
        }
    }
}

#[test]
fn an_address_can_be_a_name() {
    let authority = Authority::new("ours");
    let upstream = Secure::start(&authority.issue(&["127.0.0.1"]), None, &[]);
    let harness = before("127.0.0.1", upstream.port, trusting(&authority), "response_timeout: 5s");
    assert_eq!(ask(&harness).0, 200);
}

#[test]
fn the_gateway_shows_its_certificate_where_it_is_asked_for_one() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let upstream = Secure::start(&servers.issue(&["localhost"]), Some(&clients), &[]);
    let ca = pem("ca.pem", &servers.pem());
    let identity = clients.issue(&["gateway.internal"]).pair("gateway");
    let with = UpstreamTls::new(Trust::File(&ca), Some(&identity)).unwrap();
    assert_eq!(ask(&before("localhost", upstream.port, with, "response_timeout: 5s")).0, 200);
    assert_eq!(upstream.met(), [(Some("localhost".to_owned()), true)]);
    let without = UpstreamTls::new(Trust::File(&ca), None).unwrap();
    let status = ask(&before("localhost", upstream.port, without, "response_timeout: 5s")).0;
    assert!(matches!(status, 502 | 503), "{status}: in TLS 1.3 the refusal comes after the handshake");
}

#[test]
fn a_key_that_is_not_the_certificates_is_found_at_once() {
    let authority = Authority::new("ours");
    let mut mixed = authority.issue(&["a"]);
    mixed.key = authority.issue(&["b"]).key;
    let ca = pem("ca.pem", &authority.pem());
    let error = UpstreamTls::new(Trust::File(&ca), Some(&mixed.pair("gateway"))).unwrap_err().to_string();
    assert!(error.contains("gateway.key") && error.contains("gateway.pem"), "{error}");
}

#[test]
fn both_agree_on_a_protocol() {
    let authority = Authority::new("ours");
    let shown = authority.issue(&["localhost"]);
    for (alpn, keys, body) in [
        (&["h2", "http/1.1"][..], "http2: true", "http2 https"),
        (&["http/1.1"], "http2: true", "http1"),
        (&[], "http2: true", "http1"),
        (&["h2", "http/1.1"], "http2: false", "http1"),
    ] {
        let upstream = Secure::start(&shown, None, alpn);
        let keys = format!("{keys}, response_timeout: 5s");
        let harness = before("localhost", upstream.port, trusting(&authority), &keys);
        for _ in 0..3 {
            let (status, answer) = ask(&harness);
            assert_eq!(status, 200, "{answer}");
            assert!(answer.contains(body), "{alpn:?}, {keys}: {answer}");
        }
        assert_eq!(upstream.met().len(), 1, "one connection serves them all");
    }
}

#[test]
fn an_upstream_that_never_shakes_hands_is_a_503_in_time() {
    let authority = Authority::new("ours");
    let silent = Upstream::start(|upstream: &mut Connection| upstream.wait_until_closed());
    let keys = "connect_timeout: 300ms, response_timeout: 20s";
    let harness = before("127.0.0.1", silent.address.port(), trusting(&authority), keys);
    let started = Instant::now();
    assert_eq!(ask(&harness).0, 503);
    assert!((300..3000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn plain_http_is_no_tls() {
    let authority = Authority::new("ours");
    let plain = Upstream::start(|upstream: &mut Connection| upstream.answer_all(crate::harness::OK));
    let harness = before("127.0.0.1", plain.address.port(), trusting(&authority), "connect_timeout: 500ms");
    assert_eq!(ask(&harness).0, 503);
    assert!(!plain.all().contains("GET"), "nothing was said in plain text");
}
