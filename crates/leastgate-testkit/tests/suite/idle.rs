//! What a connection costs that has been served and now waits: ten thousand of them where results are kept, a few in a
//! run of all tests.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::{Setup, request};
use leastgate_testkit::http2::{Client, END_STREAM, head};
use leastgate_testkit::results;
use leastgate_testkit::vitals::{may_open, resident};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::fixtures::Orders;

/// What one may cost in any build: a debug build needs several times as much, and a few connections divide what all share.
const BOUND: u64 = 96 << 10;

/// What one may cost in the build that ships; what is aimed at stands in the table.
const HTTP1: u64 = 15 << 10;
const HTTP1_TLS: u64 = 24 << 10;
const HTTP2: u64 = 30 << 10;

/// Files that a process has open beside its connections.
const BESIDE: u64 = 500;

/// How long its memory has to stay as it is to count as what it comes down to.
const STEADY: Duration = Duration::from_millis(500);

fn count() -> usize {
    results::sized(200, 10_000)
}

/// A gateway that lets everybody stay, with further changes.
fn patient(setup: Setup) -> Setup {
    let limits = ["connections: 20000", "connections_per_source: 20000", "in_flight: 20000", "keep_alive_client: 1h"];
    let setup = limits.into_iter().fold(setup, Setup::limit);
    setup.limit("http2_idle: 1h").limit("http2_ping: 1h").limit("first_byte: 60s")
}

/// Opens so many, lets each be served once, and looks at what the gateway takes then.
fn measure<C>(name: &str, bound: u64, orders: &Orders, serve: impl Fn(&Orders) -> C) {
    let promise = "aim: 15 KiB each".to_owned();
    let name = format!("idle connections: {} of {name}", count());
    if !may_open(count() as u64 + BESIDE) {
        let measured = "not measured: this system lets no process have so many files open".to_owned();
        return results::record("faults", &name, &[("promise", promise), ("measured", measured)]);
    }
    // What the first of them cost once and for all is there already.
    let warm: Vec<C> = (0..100).map(|_| serve(orders)).collect();
    let before = settled(orders.gateway.id());
    let open: Vec<C> = (0..count()).map(|_| serve(orders)).collect();
    let each = settled(orders.gateway.id()).saturating_sub(before) / count() as u64;
    let bound = results::sized(BOUND, bound);
    assert!(each <= bound, "{name}: {each} bytes each");
    let refused = orders.gateway.metrics().sum("leastgate_limited_total", &[]);
    assert_eq!(refused, 0.0, "all {} are connected", open.len() + warm.len());
    results::record("faults", &name, &[("promise", promise), ("measured", format!("{} each", results::bytes(each)))]);
}

/// Resident memory once it stays as it is.
fn settled(process: u32) -> u64 {
    let (mut last, mut since) = (resident(process), std::time::Instant::now());
    until_true("steady memory", PATIENCE, || {
        let now = resident(process);
        if now.abs_diff(last) > 64 << 10 {
            (last, since) = (now, std::time::Instant::now());
        }
        since.elapsed() > STEADY
    });
    last
}

/// One answer, read to the end of its body.
fn read_answer(stream: &mut impl Read) {
    let (mut text, mut buffer) = (Vec::new(), [0; 4_096]);
    let is_whole = |text: &[u8]| text.starts_with(b"HTTP/1.1 200") && text.ends_with(b"}");
    while !is_whole(&text) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..read]);
    }
}

fn connect(orders: &Orders) -> TcpStream {
    let stream = TcpStream::connect(orders.gateway.data()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[test]
fn an_idle_connection_of_http1_costs_little() {
    let orders = Orders::start_with(patient);
    measure("h1", HTTP1, &orders, |orders| {
        let mut stream = connect(orders);
        stream.write_all(request("GET", "/v1/orders", Some(orders.reader())).as_bytes()).unwrap();
        read_answer(&mut stream);
        stream
    });
}

#[test]
fn an_idle_connection_of_http2_costs_little() {
    let orders = Orders::start_with(patient);
    let bearer = format!("Bearer {}", orders.reader().secret());
    measure("h2", HTTP2, &orders, |orders| {
        let mut client = Client::open_with(connect(orders), &[]);
        let stream = client.open(&head("GET", "/v1/orders", &bearer), END_STREAM);
        assert_eq!(client.answer(stream).status, 200);
        client
    });
}

#[test]
fn an_idle_connection_of_http1_over_tls_costs_little() {
    let made = rcgen::generate_simple_self_signed(["orders.test".to_owned()]).unwrap();
    let orders = Orders::start_with(|setup| {
        fs::write(setup.path().join("web.pem"), made.cert.pem()).unwrap();
        fs::write(setup.path().join("web.key"), made.signing_key.serialize_pem()).unwrap();
        patient(setup).data_tls("cert: web.pem, key: web.key")
    });
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    measure("h1 over TLS", HTTP1_TLS, &orders, |orders| {
        let connection = ClientConnection::new(Arc::clone(&config), "orders.test".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, connect(orders));
        stream.write_all(request("GET", "/v1/orders", Some(orders.reader())).as_bytes()).unwrap();
        read_answer(&mut stream);
        stream
    });
}
