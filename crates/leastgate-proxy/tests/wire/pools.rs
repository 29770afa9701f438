//! Connections to an upstream: one that is never accepted, and too few of them.

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Connection, Harness, OK, Options, Upstream, start_as};
use crate::scripted::BlackHole;

#[test]
fn an_upstream_that_accepts_nothing_is_a_503_in_time() {
    let black_hole = BlackHole::open();
    let options = Options { upstream: "connect_timeout: 300ms, response_timeout: 20s", ..Options::default() };
    let harness = start_as(Upstream::at(black_hole.address), |_| {}, &options);
    let mut client = harness.connect();
    let bodies = [harness.head("GET /v1/a", ""), harness.head("POST /v1/a", "Content-Length: 2\r\n") + "hi"];
    for request in &bodies {
        let started = Instant::now();
        client.send(request);
        let reply = client.reply();
        assert!((300..3000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        assert_eq!(reply.status, 503);
        assert!(reply.has("retry-after: 1") && reply.has("proxy-status: leastgate; error=destination_unavailable"));
        assert!(reply.body.contains("urn:leastgate:problem:upstream-unreachable"), "{}", reply.body);
    }
    let events = harness.events(2);
    assert!(events.iter().all(|event| event.contains("upstream_unreachable")), "{events:?}");
    assert_eq!(harness.metric("leastgate_upstream_connect_errors_total{error=\"timeout\",upstream=\"up\"}"), 2);
    assert_eq!(harness.in_flight(), 0);
}

/// An upstream with room for one connection, whose first answer waits for word.
fn narrow(keys: &str, in_flight: usize) -> (Harness, mpsc::Sender<()>) {
    let (answer, answered) = mpsc::channel::<()>();
    let answered = Mutex::new(answered);
    let upstream = Upstream::start(move |upstream: &mut Connection| {
        upstream.read_until("\r\n\r\n");
        let _ = answered.lock().unwrap().recv();
        upstream.write(OK);
        upstream.answer_all(OK);
    });
    let keys = format!("max_connections: 1, response_timeout: 20s, {keys}");
    let options = Options { upstream: &keys, workers: 1, ..Options::default() };
    (start_as(upstream, |limits| limits.in_flight = in_flight, &options), answer)
}

#[test]
fn a_request_waits_for_a_connection_only_so_long() {
    let (harness, answer) = narrow("connect_timeout: 300ms", 10);
    let mut first = harness.connect();
    first.send(harness.head("GET /v1/first", ""));
    harness.upstream.wait_for("/v1/first");
    let started = Instant::now();
    let reply = harness.ask(harness.head("GET /v1/refused", ""));
    assert!((300..3000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert_eq!(reply.status, 503);
    assert!(reply.has("retry-after: 1") && reply.has("proxy-status: leastgate; error=proxy_internal_error"));
    assert!(reply.body.contains("urn:leastgate:problem:overloaded"), "{}", reply.body);
    let event = harness.events(1).remove(0);
    assert!(event.contains("\"error\":\"overloaded\""), "{event}");
    assert!(reply.body.contains("Every connection to the upstream is in use"), "{}", reply.body);
    assert_eq!(harness.metric("leastgate_upstream_connect_errors_total{error=\"saturated\",upstream=\"up\"}"), 1);
    answer.send(()).unwrap();
    assert_eq!(first.reply().status, 200);
    assert_eq!(harness.ask(harness.head("GET /v1/next", "")).status, 200);
    let received = harness.upstream.received();
    assert_eq!(received.len(), 1, "{received:?}");
    assert!(!received[0].contains("/v1/refused"));
}

#[test]
fn a_place_that_comes_free_goes_to_those_who_wait() {
    let (harness, answer) = narrow("connect_timeout: 20s", 10);
    let mut clients: Vec<_> = ["first", "left", "second", "third"]
        .into_iter()
        .enumerate()
        .map(|(index, path)| {
            let mut client = harness.connect();
            client.send(harness.head(&format!("GET /v1/{path}"), ""));
            harness.until_in_flight(index + 1);
            client
        })
        .collect();
    drop(clients.remove(1));
    harness.until_in_flight(3);
    answer.send(()).unwrap();
    for mut client in clients {
        assert_eq!(client.reply().status, 200);
    }
    let received = harness.upstream.received();
    assert_eq!(received.len(), 1, "one connection, one after the other: {received:?}");
    assert!(!received[0].contains("/v1/left"), "who has left has no turn");
}

#[test]
fn those_who_wait_are_requests_in_flight_and_capped_as_such() {
    let (harness, answer) = narrow("connect_timeout: 20s", 2);
    let [mut first, mut second] = ["first", "second"].map(|path| {
        let mut client = harness.connect();
        client.send(harness.head(&format!("GET /v1/{path}"), ""));
        client
    });
    harness.until_in_flight(2);
    let reply = harness.ask(harness.head("GET /v1/third", ""));
    assert_eq!(reply.status, 503);
    assert!(reply.has("retry-after: 1"));
    answer.send(()).unwrap();
    assert_eq!((first.reply().status, second.reply().status), (200, 200));
}

/// A connection that ends with its answer is told of twice: as one that is free again, and as a place.
#[test]
fn those_who_wait_are_served_in_the_order_they_came() {
    let upstream = Upstream::start(|upstream: &mut Connection| {
        upstream.read_until("\r\n\r\n");
        thread::sleep(Duration::from_millis(5));
        upstream.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    });
    let keys = "max_connections: 1, connect_timeout: 5s, response_timeout: 20s";
    let harness = start_as(upstream, |_| {}, &Options { upstream: keys, workers: 1, ..Options::default() });
    let longest = |_| {
        let mut client = harness.connect();
        let ask = |_| {
            let asked = Instant::now();
            client.send(harness.head("GET /v1/a", ""));
            assert_eq!(client.reply().status, 200);
            asked.elapsed()
        };
        (0..60).map(ask).max().unwrap()
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|index| scope.spawn(move || longest(index))).collect();
        for client in clients {
            let longest = client.join().unwrap();
            assert!(longest < Duration::from_millis(500), "five others were served again and again: {longest:?}");
        }
    });
}
