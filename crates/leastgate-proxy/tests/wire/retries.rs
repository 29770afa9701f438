//! A pooled connection that its upstream closes just as a request is sent on it: the request is sent once more where
//! that can do no harm, and only there.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Connection, Harness, OK, Options, Reply, Upstream, harness, start_as};

/// So long an upstream's connection has to lie idle before its end is taken for the end of its idle time.
const IDLE: Duration = Duration::from_millis(250);

/// How an upstream's connections end with a request that had come: after what answer, and how.
#[derive(Clone, Copy)]
struct Ends {
    answering: &'static str,
    with_reset: bool,
    /// How many connections do so; later ones serve on.
    connections: usize,
}

const SILENTLY: Ends = Ends { answering: "", with_reset: false, connections: 1 };

/// An upstream whose connections end with their second request.
fn closing(ends: Ends) -> Harness {
    harness(move |upstream: &mut Connection| {
        if upstream.index() >= ends.connections {
            return upstream.answer_all(OK);
        }
        if upstream.index() == 0 {
            upstream.read_until("\r\n\r\n");
            upstream.write(OK);
        }
        upstream.read_until("\r\n\r\n");
        upstream.write(ends.answering);
        if ends.with_reset {
            upstream.end_with_reset();
        }
    })
}

/// The answer to the second request, and how often it arrived on each connection.
fn second(harness: &Harness, request: &str) -> (Reply, Vec<usize>) {
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/first", ""));
    assert_eq!(client.reply().status, 200);
    thread::sleep(IDLE);
    client.send(request);
    let reply = client.reply();
    assert_eq!(harness.events(2).len(), 2, "one event for each request");
    let arrived = harness.upstream.received().iter().map(|received| received.matches("/v1/second").count()).collect();
    (reply, arrived)
}

#[test]
fn a_safe_request_whose_connection_ends_without_a_byte_is_sent_once_more() {
    for ends in [SILENTLY, Ends { with_reset: true, ..SILENTLY }] {
        for method in ["GET", "HEAD"] {
            let harness = closing(ends);
            let mut client = harness.connect();
            client.send(harness.head("GET /v1/first", ""));
            assert_eq!(client.reply().status, 200);
            thread::sleep(IDLE);
            client.send(harness.head(&format!("{method} /v1/second"), "X-Mine: 1\r\nConnection: close\r\n"));
            let all = client.rest();
            assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{method}: {all}");
            let received = harness.upstream.received();
            assert_eq!(received.len(), 2, "{received:?}");
            let (_, sent) = received[0].split_at(received[0].rfind(method).unwrap());
            assert_eq!(sent, received[1], "the same request");
            assert!(sent.starts_with(&format!("{method} /v1/second")) && sent.contains("x-mine: 1\r\n"), "{sent}");
        }
    }
}

#[test]
fn a_request_that_could_do_something_twice_is_not_repeated() {
    for (line, fields, body) in [
        ("POST /v1/second", "Content-Length: 0\r\n", ""),
        ("PUT /v1/second", "Content-Length: 0\r\n", ""),
        ("GET /v1/second", "Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
    ] {
        let harness = closing(SILENTLY);
        let (reply, arrived) = second(&harness, &(harness.head(line, fields) + body));
        assert_eq!((reply.status, arrived), (502, vec![1]), "{line}");
        assert!(reply.body.contains("may have acted"), "{}", reply.body);
    }
}

#[test]
fn after_a_byte_of_a_response_nothing_is_repeated() {
    for answering in ["H", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let harness = closing(Ends { answering, ..SILENTLY });
        let (reply, arrived) = second(&harness, &harness.head("GET /v1/second", ""));
        assert_eq!((reply.status, arrived), (502, vec![1]), "{answering:?}");
    }
}

#[test]
fn a_request_is_repeated_once_and_only_over_a_new_connection() {
    let harness = closing(Ends { connections: 9, ..SILENTLY });
    let (reply, arrived) = second(&harness, &harness.head("GET /v1/second", ""));
    assert_eq!((reply.status, arrived), (502, vec![1, 1]));

    let harness = self::harness(|upstream| {
        upstream.read_until("\r\n\r\n");
    });
    assert_eq!(harness.ask(harness.head("GET /v1/a", "")).status, 502);
    assert_eq!(harness.upstream.received().len(), 1, "a new connection that ends is a failure");
}

#[test]
fn both_attempts_together_have_the_time_of_one() {
    let upstream = Upstream::start(|upstream| {
        upstream.read_until("\r\n\r\n");
        if upstream.index() > 0 {
            return upstream.wait_until_closed();
        }
        upstream.write(OK);
        upstream.read_until("\r\n\r\n");
        thread::sleep(Duration::from_millis(1500));
    });
    let options = Options { upstream: "response_timeout: 2s", ..Options::default() };
    let harness = start_as(upstream, |_| {}, &options);
    let started = Instant::now();
    let (reply, arrived) = second(&harness, &harness.head("GET /v1/second", ""));
    assert_eq!((reply.status, arrived), (504, vec![1, 1]));
    assert!(started.elapsed() < Duration::from_millis(3200), "{:?}", started.elapsed());
}
