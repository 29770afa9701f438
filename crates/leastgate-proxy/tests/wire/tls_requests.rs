//! Requests over TLS, through the whole data plane: who the client is, which api its connection is for, and what happens
//! to those that are too many.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use leastgate_proxy::tls::{CertificateSet, ServerTls};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::certificates::{Authority, Files, pem};
use crate::handshakes::{Rustls, Stream, mutual_set, plain_set, run};
use crate::harness::{Harness, OK, Options, PATIENCE, POLICY, Upstream, start_as};

const SPIFFE: &str = "spiffe://example.org/ns/web/sa/shop";
const NAMES: &[&str] = &["orders.internal", "bills.internal", "balancer.internal"];

fn two_apis() -> String {
    POLICY.replace(
        "scopes:",
        "  bills:\n    hosts: [bills.internal]\n    base: /bills\n    upstream: up\n    public: [ \"GET /bills/open\" ]\nscopes:",
    )
}

fn serve(set: &CertificateSet, limits: impl FnOnce(&mut leastgate_config::Limits)) -> Harness {
    let policy = two_apis();
    let tls = Some(ServerTls::new(set).unwrap());
    let options = Options { policy: Some(&policy), tls, workers: 1, ..Options::default() };
    start_as(Upstream::start(|upstream| upstream.answer_all(OK)), limits, &options)
}

/// A failure is counted when its alert is out, which the client may see first.
fn until(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not in time");
        thread::sleep(Duration::from_millis(5));
    }
}

fn connect(harness: &Harness, client: &Rustls, name: &'static str) -> Stream {
    let stream: TcpStream = harness.connect().stream;
    let connection = ClientConnection::new(Arc::clone(&client.0), ServerName::try_from(name).unwrap()).unwrap();
    StreamOwned::new(connection, stream)
}

/// The whole answer to one request on a connection of its own.
fn ask(harness: &Harness, client: &Rustls, name: &'static str, host: &str, path: &str) -> String {
    let mut stream = connect(harness, client, name);
    let head = harness.head(&format!("GET {path}"), "Connection: close\r\n");
    stream.write_all(head.replace("orders.internal", host).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, and a close that TLS can tell from a cut");
    answer
}

#[test]
fn a_request_over_tls_is_forwarded_and_its_event_names_the_client() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let set = CertificateSet { default: authority.issue(NAMES).pair("default"), ..mutual_set(&authority, &clients) };
    let harness = serve(&set, |_| {});
    let client =
        Rustls::new(authority.roots(), rustls::ALL_VERSIONS, &["http/1.1"], Some(&clients.issue(&["shop", SPIFFE])));
    let answer = ask(&harness, &client, "orders.internal", "orders.internal", "/v1/a");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    let events = harness.events(1);
    assert!(events[0].contains(&format!("\"peer_san\":[\"{SPIFFE}\"]")), "{events:?}");
    let nameless = Rustls::new(authority.roots(), rustls::ALL_VERSIONS, &[], Some(&clients.issue(&["shop"])));
    ask(&harness, &nameless, "orders.internal", "orders.internal", "/v1/a");
    assert!(harness.events(2)[1].contains("\"peer_san\":[]"));
}

#[test]
fn curl_speaks_http2_and_http1_over_tls() {
    let (authority, files) = (Authority::new("servers"), Files::new());
    let harness = serve(&plain_set(&authority, NAMES), |_| {});
    let (ca, port) = (files.write("ca.pem", &authority.pem()), harness.plane.as_ref().unwrap().local_addr().port());
    let (resolve, url) = (format!("orders.internal:{port}:127.0.0.1"), format!("https://orders.internal:{port}/v1/a"));
    let bearer = format!("Authorization: Bearer {}", harness.token);
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--tlsv1.3", "2"), ("--tls-max", "2")] {
        let version_limit: &[&str] = if flag == "--tls-max" { &["1.2"] } else { &[] };
        let common = ["-sS", "--max-time", "20", "--noproxy", "*", "--resolve", &resolve, "-H", &bearer, "--cacert"];
        let rest = [ca.to_str().unwrap(), "-w", " %{http_version} %{http_code}", &url, flag];
        let (is_ok, text) = run("curl", &[&common[..], &rest, version_limit].concat(), "");
        assert!(is_ok && text == format!("ok {version} 200"), "{flag}: {text}");
    }
    let events = harness.events(4);
    assert!(events.iter().all(|event| !event.contains("peer_san")), "none was asked for a certificate: {events:?}");
}

#[test]
fn a_connection_made_for_one_api_reaches_no_other() {
    let authority = Authority::new("servers");
    let harness = serve(&plain_set(&authority, NAMES), |_| {});
    let client = Rustls::trusting(&authority);
    for (name, host, path, status) in [
        ("orders.internal", "orders.internal", "/v1/a", 200),
        ("orders.internal", "bills.internal", "/bills/open", 421),
        ("bills.internal", "orders.internal", "/v1/a", 421),
        ("bills.internal", "bills.internal", "/bills/open", 200),
        ("balancer.internal", "bills.internal", "/bills/open", 200),
    ] {
        let answer = ask(&harness, &client, name, host, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name} {host}: {answer}");
        assert_eq!(answer.contains("unknown-host"), status == 421, "{answer}");
    }
    let events = harness.events(5);
    let refused: Vec<_> = events.iter().filter(|event| event.contains("\"reason\":\"host_unknown\"")).collect();
    assert_eq!(refused.len(), 2, "{events:?}");
    assert_eq!(harness.upstream.all().matches("GET /").count(), 3);
}

#[test]
fn over_the_cap_a_connection_is_closed_before_its_handshake() {
    let authority = Authority::new("servers");
    let harness = serve(&plain_set(&authority, NAMES), |limits| limits.connections = 1);
    let client = Rustls::trusting(&authority);
    let mut first = connect(&harness, &client, "orders.internal");
    first.write_all(harness.head("GET /v1/a", "").as_bytes()).unwrap();
    assert_eq!(first.read(&mut [0; 12]).unwrap(), 12);
    assert!(harness.connect().is_closed(), "not a byte is sent, in plain text least of all");
    assert_eq!(harness.metric("leastgate_limited_total{kind=\"connections\"}"), 1);
}

#[test]
fn handshakes_that_fail_are_counted_by_their_reason_and_nothing_is_forwarded() {
    let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
    let set = CertificateSet { client_ca: Some(pem("clients.pem", &clients.pem())), ..plain_set(&authority, NAMES) };
    let harness = serve(&set, |_| {});
    let failures = |reason| harness.metric(&format!("leastgate_tls_handshake_failures_total{{reason=\"{reason}\"}}"));
    let mut plain = harness.connect();
    plain.send(harness.head("GET /v1/a", ""));
    let told = plain.rest();
    assert!(!told.contains("HTTP"), "{told}");
    drop(plain);
    until(|| failures("not_tls") == 1);
    let mut nobody = connect(&harness, &Rustls::trusting(&authority), "orders.internal");
    let sent = nobody.write_all(harness.head("GET /v1/a", "").as_bytes());
    assert!(sent.and_then(|()| nobody.read(&mut [0; 1])).is_err());
    drop(nobody);
    until(|| failures("no_certificate") == 1);
    assert_eq!(harness.upstream.all(), "");
    let own = clients.issue(&[SPIFFE]);
    let client = Rustls::new(authority.roots(), rustls::ALL_VERSIONS, &[], Some(&own));
    let answer = ask(&harness, &client, "orders.internal", "orders.internal", "/v1/a");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// What a handshake agreed on has the deadlines of what is merely begun, and leaves a record as that does.
#[test]
fn http2_that_was_agreed_on_has_to_begin() {
    let authority = Authority::new("servers");
    let harness = serve(&plain_set(&authority, NAMES), |limits| {
        limits.first_byte = Duration::from_millis(300);
        limits.head_timeout = Duration::from_millis(300);
    });
    let client = Rustls::new(authority.roots(), rustls::ALL_VERSIONS, &["h2"], None);
    let mut recorded = 0;
    for (begins, ends, reason) in [
        (&b""[..], false, None),
        (b"", true, None),
        (b"PRI * HT", false, Some("request_timeout")),
        (b"PRI * HT", true, Some("request_malformed")),
        (b"PRI * HTTP/2.0\r\n\r\nXX", false, Some("request_malformed")),
        (b"GET /v1/a HTTP/1.1\r\n\r\n", false, Some("request_malformed")),
    ] {
        let mut stream = connect(&harness, &client, "orders.internal");
        stream.write_all(begins).unwrap();
        stream.flush().unwrap();
        if ends {
            stream.sock.shutdown(Shutdown::Write).unwrap();
        }
        let started = Instant::now();
        let mut rest = Vec::new();
        // A cut is no proper close, and nothing was said.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() && started.elapsed() < PATIENCE / 4, "{begins:?}: {rest:?} {:?}", started.elapsed());
        recorded += usize::from(reason.is_some());
        let events = harness.events(recorded);
        assert_eq!(events.len(), recorded, "{begins:?} {ends}: {events:?}");
        if let Some(reason) = reason {
            assert!(events[recorded - 1].contains(reason), "{begins:?}: {events:?}");
        }
    }
}
