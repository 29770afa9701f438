//! How exchanges with upstreams of HTTP/2 fail, and what is sent again: only what the upstream says it has not looked at.

use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::Builder;
use http::Response;
use leastgate_testkit::http2::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, frame};

use crate::harness::{Harness, PATIENCE, POLICY, put_policy_in_force};
use crate::http2_peers::{Peer, Raw, Served, before, before_with};
use crate::upstream_http2::{ask_all, get};

const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

#[test]
fn what_an_upstream_refuses_unseen_is_sent_once_more_if_that_does_no_harm() {
    let refusing = |reason: u32| {
        Raw::start(&[], move |peer: &mut Peer| {
            if peer.index > 0 {
                return peer.answer_all();
            }
            let stream = peer.request().unwrap();
            peer.send(RST_STREAM, 0, stream, &reason.to_be_bytes());
            peer.answer_all();
        })
    };
    for (line, fields, reason, status, sent) in [
        ("GET /v1/a", "", REFUSED_STREAM, 200, 2),
        ("PUT /v1/a", "Content-Length: 0\r\n", REFUSED_STREAM, 200, 2),
        ("POST /v1/a", "Content-Length: 0\r\n", REFUSED_STREAM, 503, 1),
        ("PUT /v1/a", "Content-Length: 1\r\n", REFUSED_STREAM, 503, 1),
        ("GET /v1/a", "", CANCEL, 502, 1),
        ("GET /v1/a", "", INTERNAL_ERROR, 502, 1),
    ] {
        let upstream = refusing(reason);
        let harness = before(upstream.address, "");
        let body = if fields.contains('1') { "x" } else { "" };
        let reply = harness.ask(harness.head(line, fields) + body);
        let requests = upstream.requests();
        assert_eq!((reply.status, &requests[..]), (status, &[sent][..]), "{line} {fields} {reason}, on one connection");
    }
}

fn leaving(last: u32) -> Raw {
    Raw::start(&[], move |peer: &mut Peer| {
        if peer.index > 0 {
            return peer.answer_all();
        }
        peer.request().unwrap();
        peer.send(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
    })
}

#[test]
fn a_good_bye_says_what_may_be_sent_again() {
    for (line, last, status, sent) in [
        ("GET /v1/a", 0, 200, vec![1, 1]),
        ("POST /v1/a", 0, 503, vec![1]),
        ("GET /v1/a", 1, 502, vec![1]),
        ("POST /v1/a", 1, 502, vec![1]),
    ] {
        let upstream = leaving(last);
        let harness = before(upstream.address, "");
        let reply = harness.ask(harness.head(line, "Content-Length: 0\r\n"));
        assert_eq!((reply.status, upstream.requests()), (status, sent), "{line}, last {last}");
    }
}

#[test]
fn after_a_good_bye_new_requests_go_elsewhere_and_old_ones_end_well() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let (left, has_left) = mpsc::channel::<()>();
    let upstream = Raw::start(&[], move |peer: &mut Peer| {
        if peer.index > 0 {
            return peer.answer_all();
        }
        let stream = peer.request().unwrap();
        peer.send(GOAWAY, 0, 0, &[stream.to_be_bytes(), [0; 4]].concat());
        left.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        peer.answer(stream);
        while peer.frames.read().is_some() {}
    });
    let harness = before(upstream.address, "");
    let mut first = harness.connect();
    first.send(harness.head("GET /v1/first", ""));
    has_left.recv_timeout(PATIENCE).unwrap();
    // The good-bye is on its way through the loopback.
    thread::sleep(Duration::from_millis(50));
    let second = harness.ask(harness.head("POST /v1/second", "Content-Length: 0\r\n"));
    assert_eq!(second.status, 200, "no request is sacrificed to find out");
    go_on.send(()).unwrap();
    assert_eq!(first.reply().status, 200);
    assert_eq!(upstream.requests(), [1, 1]);
}

#[test]
fn a_silent_connection_is_not_used_again() {
    for length in [0, 200_000] {
        is_replaced_when_silent(length, |upstream| {
            let harness = before(upstream, "");
            let limits = "upstream: up\n    limits: { response_timeout: 300ms }";
            put_policy_in_force(&harness.authority, &harness.telemetry, &POLICY.replace("upstream: up", limits));
            harness
        });
        is_replaced_when_silent(length, |upstream| {
            before_with(upstream, "", |limits| limits.upstream_total = Some(Duration::from_millis(300)))
        });
    }
}

/// `length`: of what it is sent, and takes no more of than the first window.
fn is_replaced_when_silent(length: usize, start: impl Fn(SocketAddr) -> Harness) {
    let upstream = Raw::start(&[], |peer: &mut Peer| {
        if peer.index > 0 {
            return peer.answer_all();
        }
        peer.frames.takes = false;
        peer.request();
        let reset = peer.next(RST_STREAM).unwrap();
        assert_eq!(reset.payload, CANCEL.to_be_bytes(), "what nobody waits for is cancelled");
        while peer.frames.read().is_some() {}
    });
    let harness = start(upstream.address);
    if length == 0 {
        assert_eq!(get(&harness, "/v1/a"), 504, "what may have been processed is not repeated, even where it could be");
    } else {
        let mut client = harness.connect();
        client.send(harness.head("POST /v1/a", &format!("Content-Length: {length}\r\n")) + &"x".repeat(length));
        assert_eq!(client.reply().status, 504);
    }
    assert_eq!(get(&harness, "/v1/b"), 200);
    assert_eq!(upstream.requests(), [1, 1]);
}

#[test]
fn an_upstream_that_is_killed_fails_what_is_under_way_and_serves_on() {
    let upstream = Raw::start(&[], |peer: &mut Peer| {
        if peer.index > 0 {
            return peer.answer_all();
        }
        (0..5).for_each(|_| assert!(peer.request().is_some()));
    });
    let harness = before(upstream.address, "");
    let started = Instant::now();
    for mut client in ask_all(&harness, 5) {
        assert_eq!(client.reply().status, 502);
    }
    assert_eq!(get(&harness, "/v1/a"), 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(upstream.requests(), [5, 1], "nothing of what may have been processed is sent again");
}

/// Head and fault may come in one breath. A client that gets nothing would not know whether its request was looked at.
#[test]
fn a_client_hears_that_it_was_answered_however_soon_the_answer_breaks() {
    let upstream = Served::start(Builder::new(), |_, mut respond| {
        Box::pin(async move {
            let head = Response::builder().header("content-length", "100").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            let _ = stream.send_data(Bytes::from_static(b"short"), true);
        })
    });
    let harness = before(upstream.address, "");
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    let answer = client.rest();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && body.len() < 100, "{answer:?}");
    assert!(harness.events(1)[0].contains("upstream_protocol"), "and it is on record");
}

/// HTTP/2 lets the end follow the last byte of a known length; a client of HTTP/1.1 has everything by then.
#[test]
fn an_end_behind_the_last_byte_of_a_length_breaks_nothing_off() {
    let upstream = Served::start(Builder::new(), |_, mut respond| {
        Box::pin(async move {
            let head = Response::builder().header("content-length", "5").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::from_static(b"whole"), false).unwrap();
            let _ = stream.send_data(Bytes::new(), true);
        })
    });
    let harness = before(upstream.address, "");
    assert_eq!(harness.ask(harness.head("GET /v1/a", "")).body, "whole");
    assert!(!harness.events(1)[0].contains("broken_off"));
}

/// The same, where nothing hides whether the stream had ended: it had not. What gRPC has to say comes at the end.
#[test]
fn an_answer_that_breaks_off_behind_its_last_byte_is_not_whole() {
    const FIELDS: &[u8] = b"\x88\x0f\x0d\x015\x0f\x10\x10application/grpc";
    for (content_type, ends) in [("text/plain", END_STREAM), ("application/grpc", END_STREAM), ("application/grpc", 0)]
    {
        let upstream = Raw::start(&[], |peer: &mut Peer| {
            let Some(stream) = peer.request() else { return };
            let data = frame(DATA, 0, stream, b"large");
            peer.frames.send([frame(HEADERS, END_HEADERS, stream, FIELDS), data].concat());
        });
        let harness = before(upstream.address, "");
        let mut client = crate::http2::connect(&harness, &[]);
        let mut fields = crate::http2::head("POST", "/v1/a", "");
        let bearer = format!("Bearer {}", harness.token);
        fields.retain(|(name, _)| *name != "authorization");
        fields.extend([("authorization", bearer.as_str()), ("content-type", content_type), ("te", "trailers")]);
        let stream = client.open(&fields, ends);
        assert!(!client.answer(stream).is_whole, "{content_type}, {ends}");
        let event = &harness.events(1)[0];
        assert!(event.contains("upstream_protocol"), "{event}");
    }
}

/// Refused in the middle of an upload, and the door shut behind it. h2 remembers the end of the connection only.
#[test]
fn an_answer_that_came_whole_is_whole_though_its_upstream_leaves_at_once() {
    /// Status 413 is of no table: literals, indexed by the names `:status` and `content-length`.
    const BLOCK: &[u8] = b"\x08\x03413\x0f\x0d\x015";
    for is_http2 in [false, true].repeat(10) {
        let upstream = Raw::start(&[], |peer: &mut Peer| {
            let Some(stream) = peer.request() else { return };
            peer.next(DATA);
            let data = frame(DATA, END_STREAM, stream, b"large");
            peer.frames.send([frame(HEADERS, END_HEADERS, stream, BLOCK), data].concat());
        });
        let harness = before(upstream.address, "");
        if is_http2 {
            let mut client = crate::http2::connect(&harness, &[]);
            let stream = client.open(&crate::http2::head("POST", "/v1/a", &format!("Bearer {}", harness.token)), 0);
            client.data(stream, b"some", 0);
            let answer = client.answer(stream);
            assert!(answer.is_whole, "{answer:?}");
            assert_eq!((answer.status, answer.text().as_str()), (413, "large"));
        } else {
            let mut client = harness.connect();
            client.send(harness.head("POST /v1/a", "Content-Length: 1000\r\n") + "some");
            let reply = client.reply();
            assert_eq!((reply.status, reply.body.as_str()), (413, "large"));
        }
        let event = &harness.events(1)[0];
        assert!(!event.contains("upstream_protocol") && !event.contains("broken_off"), "{event}");
    }
}
