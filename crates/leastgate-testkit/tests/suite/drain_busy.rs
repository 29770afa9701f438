//! SIGTERM while everybody is busy: what the upstream got is what clients have answers to, under both protocols. Within
//! `drain_delay` every client is told to go with an answer, and none is left without one. Without a delay HTTP/1.1 has no
//! word for a client that asks at the moment of the end: its connection closes, and nobody saw the request (RFC 9112
//! §9.5); over HTTP/2 it can know that (RFC 9113 §6.8).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::http2::{Client, END_STREAM, head};
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::raw::{NoReply, RawClient};
use leastgate_testkit::recorder::{Answer, Gate, Step};
use leastgate_testkit::results;
use leastgate_testkit::token::Token;
use rustix::process::Signal;

use crate::fixtures::{Orders, with_policy_and};
use crate::upstream_faults::milliseconds;

/// Connections of HTTP/1.1; or streams of HTTP/2, on an eighth of as many connections.
const BUSY: usize = 64;
const STREAMS: usize = 8;

/// How much traffic there is before the end.
const BEFORE: usize = 1_000;

/// No stream has a number over this, so this one takes none away (RFC 9113 §6.8).
const EVERY_STREAM: u32 = 0x7fff_ffff;

fn rounds() -> usize {
    results::sized(2, 20)
}

/// What clients know of their requests.
#[derive(Default)]
struct Known {
    answered: BTreeSet<String>,
    /// Sent, and known not to have been looked at.
    unseen: BTreeSet<String>,
}

impl Known {
    fn join(mut self, other: Self) -> Self {
        self.answered.extend(other.answered);
        self.unseen.extend(other.unseen);
        self
    }
}

/// A target that no other request of a round has.
fn path(client: usize, number: usize) -> String {
    format!("/v1/orders/{client:02x}{number:06x}")
}

/// One request after the other until the connection ends.
fn ask_http1(mut client: RawClient, number: usize, token: &Token, answered: &AtomicUsize) -> Known {
    let mut known = Known::default();
    for path in (0..).map(|count| path(number, count)) {
        client.send(request("GET", &path, Some(token)));
        match client.read() {
            Ok(reply) => {
                assert!(reply.status == 200 && reply.text().contains(&path), "{path} got {}", reply.text());
                answered.fetch_add(1, Ordering::SeqCst);
                known.answered.insert(path);
                if reply.closes {
                    return known;
                }
            }
            Err(NoReply::Closed) => {
                known.unseen.insert(path);
                return known;
            }
            Err(other) => panic!("{path} was lost: {other:?}"),
        }
    }
    known
}

/// Several requests at a time until the connection ends, new ones as long as the gateway has not said which are the last.
fn ask_http2(mut client: Client, number: usize, token: &Token, answered: &AtomicUsize) -> Known {
    let (mut known, mut open, mut count) = (Known::default(), BTreeMap::new(), 0);
    let bearer = format!("Bearer {}", token.secret());
    loop {
        while open.len() < STREAMS && client.goaway.is_none_or(|(last, _)| last == EVERY_STREAM) {
            let path = path(number, count);
            count += 1;
            open.insert(client.open(&head("GET", &path, &bearer), END_STREAM), path);
        }
        let is_open = client.read().is_some();
        let over: Vec<u32> = open.keys().copied().filter(|stream| client.is_over(*stream)).collect();
        for stream in over {
            let (path, answer) = (open.remove(&stream).unwrap(), client.answer(stream));
            match answer.reset {
                // REFUSED_STREAM: it was not looked at.
                Some(7) => drop(known.unseen.insert(path)),
                _ => {
                    let is_own = answer.status == 200 && answer.is_whole && answer.text().contains(&path);
                    assert!(is_own, "{path} got {answer:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                    known.answered.insert(path);
                }
            }
        }
        if !is_open {
            let (last, code) = client.goaway.expect("a good-bye before the end");
            assert_eq!(code, 0, "nobody did anything wrong");
            for (stream, path) in open {
                assert!(stream > last, "{path} was lost: stream {stream}, and the last one served is {last}");
                known.unseen.insert(path);
            }
            return known;
        }
    }
}

/// How long clients are told to go before nobody listens any more.
const DELAY: Duration = Duration::from_secs(1);

/// SIGTERM as soon as there is traffic; gives how long the end took, what was answered, and what was not and not seen.
fn drain<C: Send>(
    delay: Duration,
    clients: usize,
    connect: impl Fn(&Orders) -> C,
    ask: impl Fn(C, usize, &Token, &AtomicUsize) -> Known + Sync,
) -> (Duration, usize, usize) {
    let delay = format!("drain_delay: {}s", delay.as_secs());
    let mut orders = Orders::start_with(|setup| setup.limit("drain_timeout: 10s").limit(&delay));
    let (answered, token) = (AtomicUsize::new(0), orders.reader().clone());
    let connected: Vec<C> = (0..clients).map(|_| connect(&orders)).collect();
    let (known, took) = thread::scope(|scope| {
        let (ask, answered, token) = (&ask, &answered, &token);
        let asking = connected.into_iter().enumerate();
        let asking: Vec<_> =
            asking.map(|(number, client)| scope.spawn(move || ask(client, number, token, answered))).collect();
        until_true("traffic", PATIENCE * 2, || answered.load(Ordering::SeqCst) > BEFORE);
        let began = Instant::now();
        let ended = orders.gateway.stop();
        let took = began.elapsed();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let known = asking.into_iter().map(|client| client.join().unwrap()).fold(Known::default(), Known::join);
        (known, took)
    });
    let got: BTreeSet<String> = orders.upstream.requests().iter().map(|request| request.path().to_owned()).collect();
    let lost: Vec<_> = got.difference(&known.answered).collect();
    assert!(lost.is_empty(), "the upstream got what nobody has an answer to: {lost:?}");
    assert_eq!(got.len(), orders.upstream.count(), "each once");
    assert!(known.unseen.is_disjoint(&got), "what is known to be unseen was seen");
    assert!(took < Duration::from_secs(10), "{took:?}");
    (took, known.answered.len(), known.unseen.len())
}

/// Gives how many requests were not answered.
fn drain_again_and_again(name: &str, promise: &str, run: impl Fn() -> (Duration, usize, usize)) -> usize {
    let runs: Vec<_> = (0..rounds()).map(|_| run()).collect();
    let slowest = milliseconds(runs.iter().map(|(took, ..)| *took).max().unwrap());
    let answered: usize = runs.iter().map(|(_, answered, _)| answered).sum();
    let unseen: usize = runs.iter().map(|(.., unseen)| unseen).sum();
    let measured = format!(
        "{} times: {answered} requests answered, {unseen} neither answered nor seen, none lost; the end {slowest} after SIGTERM at most",
        runs.len()
    );
    let name = format!("SIGTERM under load: {name}");
    results::record("faults", &name, &[("promise", promise.to_owned()), ("measured", measured)]);
    unseen
}

#[test]
fn a_drain_under_64_busy_connections_loses_no_request() {
    let run = |delay| drain(delay, BUSY, |orders| orders.gateway.client(), ask_http1);
    let name = format!("{BUSY} connections of h1, drain_delay 1 s");
    let promise = "every request is answered; the end within drain_delay and drain_timeout";
    assert_eq!(drain_again_and_again(&name, promise, || run(DELAY)), 0, "every client was told with an answer");
    let name = format!("{BUSY} connections of h1, no drain_delay");
    let promise = "what the upstream got is answered, of the rest it saw nothing; the end within drain_timeout";
    drain_again_and_again(&name, promise, || run(Duration::ZERO));
}

#[test]
fn a_drain_under_64_busy_streams_loses_no_request() {
    let name = format!("{} connections of h2 with {STREAMS} streams each", BUSY / STREAMS);
    let promise = "what the upstream got is answered, the rest is known to be unseen; the end within drain_timeout";
    drain_again_and_again(&name, promise, || {
        drain(Duration::ZERO, BUSY / STREAMS, |orders| Client::connect(orders.gateway.data(), &[]), ask_http2)
    });
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Close frames (RFC 6455 §5.5.1): the gateway's, code 1001, and the client's, masked with zeros.
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
const GOOD_BYE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
    9\r\ndata: 1\n\n\r\n";

/// A client behind its handshake.
fn websocket(orders: &Orders) -> RawClient {
    let mut client = orders.gateway.client();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    // The example of RFC 6455 §1.3.
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let token = orders.reader().header();
    client.send(format!("GET /v1/feed HTTP/1.1\r\nHost: orders.test\r\n{upgrade}{key}\r\n{token}\r\n\r\n"));
    assert_eq!(client.read_head(PATIENCE).unwrap().1, 101);
    client
}

#[test]
fn a_websocket_is_told_to_go_and_a_stream_of_events_has_until_the_deadline() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let policy = ORDERS.replace("GET /v1/a.b", "WS /v1/feed");
    let mut orders = with_policy_and(&policy, |setup| setup.limit("drain_timeout: 3s"));
    let gate = Gate::default();
    let last = Step::send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
    orders.upstream.on("/v1/feed", Answer::steps([Step::send(SWITCH), Step::Hold]));
    orders.upstream.on("/v1/orders/1", Answer::steps([Step::send(EVENTS), Step::Wait(gate.clone()), last]));
    orders.upstream.on("/v1/orders/2", Answer::steps([Step::send(EVENTS), Step::Hold]));
    let mut socket = websocket(&orders);
    let mut streams = ["/v1/orders/1", "/v1/orders/2"].map(|path| {
        let mut client = orders.gateway.client();
        client.send(request("GET", path, Some(orders.reader())));
        let (_, status, head) = client.read_head(PATIENCE).unwrap();
        assert_eq!(status, 200);
        (client, head)
    });

    let began = Instant::now();
    orders.gateway.signal(Signal::TERM);
    let mut frame = [0; 4];
    socket.socket().read_exact(&mut frame).unwrap();
    let told = began.elapsed();
    assert_eq!(frame, GOING_AWAY);
    socket.send(GOOD_BYE);
    socket.expect_close(PATIENCE).unwrap();
    gate.open();
    let [(first, first_head), (second, second_head)] = &mut streams;
    let mut events = Vec::new();
    first.read_framed(first_head, PATIENCE, |part| events.extend_from_slice(part)).unwrap();
    assert_eq!(events, b"data: 1\n\ndata: 2\n\n", "what ends in time ends whole");
    let cut = second.read_framed(second_head, PATIENCE, |_| ());
    assert!(cut.is_err(), "the client sees that it is not whole");
    let ended = orders.gateway.process().wait(TIMEOUT * 2).expect("it ends");
    let took = began.elapsed();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(took >= TIMEOUT && took < TIMEOUT * 2, "{took:?}");
    let promise = "a WebSocket is told to go (1001), what ends in time ends whole, the rest is cut at drain_timeout";
    let measured = format!("told after {}; the end {} after SIGTERM, of 3 s", milliseconds(told), milliseconds(took));
    let values = [("promise", promise.to_owned()), ("measured", measured)];
    results::record("faults", "SIGTERM under load: a WebSocket and two streams of events", &values);
}
