//! What has arrived when accepting ends: in the kernel's queue, in a socket, within a handshake.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use leastgate_proxy::tls::ServerTls;
use leastgate_testkit::http2::{self, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::certificates::Authority;
use crate::clocks::TestClock;
use crate::handshakes::{Rustls, Stream, plain_set};
use crate::harness::{Client, Harness, OK, Options, Upstream, start_as};
use crate::http2::{head, request};

/// More than a worker accepts in one go, and than it has tasks begin in one turn.
const MANY: usize = 200;
const DRAIN: Duration = Duration::from_secs(10);

/// A gateway of one worker that a test can hold up.
struct Held {
    harness: Harness,
    clock: Arc<TestClock>,
}

impl Held {
    fn start(tls: Option<ServerTls>) -> Self {
        let clock = Arc::new(TestClock::default());
        let options = Options { clock: Some(clock.clone()), workers: 1, tls, ..Options::default() };
        let upstream = Upstream::start(|upstream| upstream.answer_all(OK));
        Self { harness: start_as(upstream, |_| {}, &options), clock }
    }

    /// Holds the worker up in a request over this connection.
    fn hold(&self, client: &mut impl Write) {
        self.clock.hold();
        client.write_all(self.harness.head("GET /v1/held", "").as_bytes()).unwrap();
        client.flush().unwrap();
        self.clock.wait_for_a_waiter();
    }

    /// Begins a drain, of which the worker learns with everything else when it goes on.
    fn drain(&mut self) -> JoinHandle<usize> {
        let (plane, clock) = (self.harness.plane.take().unwrap(), Arc::clone(&self.clock));
        let go_on = move || {
            clock.go_on();
            false
        };
        thread::spawn(move || plane.drain(DRAIN, &go_on))
    }
}

#[track_caller]
fn is_served_and_closed(client: &mut Client) {
    let reply = client.try_reply().expect("an answer");
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
    assert!(reply.has("connection: close"), "{}", reply.head);
    assert!(client.is_closed());
}

#[test]
fn requests_in_the_kernels_queue_are_served() {
    let mut held = Held::start(None);
    let mut busy = held.harness.connect();
    held.hold(&mut busy.stream);
    let mut waiting: Vec<_> = (0..MANY).map(|_| held.harness.connect()).collect();
    for (index, client) in waiting.iter_mut().enumerate() {
        client.send(held.harness.head(&format!("GET /v1/{index}"), ""));
    }
    let mut silent = held.harness.connect();
    let (started, drain) = (Instant::now(), held.drain());
    for mut client in waiting.into_iter().chain([busy]) {
        is_served_and_closed(&mut client);
    }
    assert!(silent.is_closed());
    assert_eq!(drain.join().unwrap(), 0);
    assert!(started.elapsed() < DRAIN / 2, "{:?}", started.elapsed());
    assert_eq!(held.harness.events(MANY + 1).len(), MANY + 1);
}

#[test]
fn requests_on_idle_connections_are_served() {
    let mut held = Held::start(None);
    let mut kept: Vec<_> = (0..MANY).map(|_| held.harness.connect()).collect();
    for client in &mut kept {
        client.send(held.harness.head("GET /v1/a", ""));
        assert_eq!(client.reply().status, 200);
    }
    let mut busy = held.harness.connect();
    held.hold(&mut busy.stream);
    let (mut idle, mut slow) = (kept.remove(0), kept.remove(0));
    let request = held.harness.head("GET /v1/b", "");
    let (begins, ends) = request.split_at(20);
    slow.send(begins);
    for client in &mut kept {
        client.send(request.clone() + &held.harness.head("GET /v1/beyond", ""));
    }
    let drain = held.drain();
    assert!(idle.is_closed());
    slow.send(ends);
    for client in kept.iter_mut().chain([&mut slow]) {
        is_served_and_closed(client);
    }
    assert_eq!(drain.join().unwrap(), 0);
    assert!(!held.harness.upstream.all().contains("/v1/beyond"));
}

#[test]
fn streams_that_wait_in_the_kernel_are_served_and_goaway_names_the_last() {
    let mut held = Held::start(None);
    let mut kept = crate::http2::connect(&held.harness, &[]);
    let first = request(&held.harness, &mut kept, "GET", "/v1/a");
    assert_eq!(kept.answer(first).status, 200);
    let mut busy = held.harness.connect();
    held.hold(&mut busy.stream);
    let mut clients = vec![kept];
    clients.extend((0..MANY / 2).map(|_| crate::http2::connect(&held.harness, &[])));
    let streams: Vec<_> = clients
        .iter_mut()
        .map(|client| [0, 1].map(|index| request(&held.harness, client, "GET", &format!("/v1/{index}"))))
        .collect();
    let drain = held.drain();
    for (client, streams) in clients.iter_mut().zip(streams) {
        for stream in streams {
            assert_eq!(client.answer(stream).status, 200);
        }
        client.read_to_end();
        assert_eq!(client.goaway, Some((streams[1], 0)));
    }
    assert_eq!(drain.join().unwrap(), 0);
}

#[test]
fn handshakes_that_have_begun_are_finished_and_what_they_bring_is_served() {
    let authority = Authority::new("servers");
    let mut held = Held::start(Some(ServerTls::new(&plain_set(&authority, &["orders.internal"])).unwrap()));
    let client = |alpn| Rustls::new(authority.roots(), rustls::ALL_VERSIONS, &[alpn], None);
    let (http1, http2) = (client("http/1.1"), client("h2"));
    let mut busy = begin(&http1, held.harness.connect().stream);
    held.hold(&mut busy);
    let begun: Vec<_> = (0..20).map(|_| begin(&http1, held.harness.connect().stream)).collect();
    let begun_http2: Vec<_> = (0..20).map(|_| begin(&http2, held.harness.connect().stream)).collect();
    let mut silent = held.harness.connect();
    let (started, drain) = (Instant::now(), held.drain());
    for mut stream in begun {
        stream.write_all(held.harness.head("GET /v1/a", "").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a close that TLS can tell from a cut");
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nok"), "{text}");
        assert!(text.to_ascii_lowercase().contains("connection: close"), "{text}");
    }
    for mut stream in begun_http2 {
        stream.write_all(&said_in_http2(&held.harness)).unwrap();
        is_answered(&mut stream);
    }
    assert!(silent.is_closed());
    drop(busy);
    assert_eq!(drain.join().unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(4), "nobody waited for a handshake that never began");
}

/// A connection over which the first word of a handshake is sent, and no more.
fn begin(client: &Rustls, mut socket: TcpStream) -> Stream {
    let name = ServerName::try_from("orders.internal").unwrap();
    let mut connection = ClientConnection::new(Arc::clone(&client.0), name).unwrap();
    connection.write_tls(&mut socket).unwrap();
    StreamOwned::new(connection, socket)
}

/// Reads the body of an answer in HTTP/2; the client answers no ping, so that what follows is not for it.
fn is_answered(stream: &mut Stream) {
    let (mut read, mut chunk) = (Vec::new(), [0; 1024]);
    while !read.ends_with(b"ok") {
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "{read:?}");
        read.extend_from_slice(&chunk[..count]);
    }
}

fn said_in_http2(harness: &Harness) -> Vec<u8> {
    let bearer = format!("Bearer {}", harness.token);
    let block = http2::Client::silent(TcpStream::connect(harness.upstream.address).unwrap())
        .block(&head("GET", "/v1/a", &bearer));
    [PREFACE, &frame(SETTINGS, 0, 0, b""), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)].concat()
}
