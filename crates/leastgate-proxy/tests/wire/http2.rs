//! HTTP/2 from clients, by prior knowledge: what an upstream of HTTP/1.1 gets, and what a connection and a stream may do.

use std::sync::mpsc;
use std::thread;

use leastgate_testkit::http2::{CONTINUATION, Client, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame};

use crate::harness::{Connection, Harness, OK, PATIENCE, harness, harness_with};

const CANCEL: u32 = 8;

pub(crate) fn answering() -> Harness {
    harness(|upstream: &mut Connection| upstream.answer_all(OK))
}

pub(crate) fn connect(harness: &Harness, settings: &[(u16, u32)]) -> Client {
    Client::open_with(harness.connect().stream, settings)
}

/// The fields of an ordinary request.
pub(crate) fn head<'a>(method: &'a str, path: &'a str, authorization: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":authority", "orders.internal"),
        (":path", path),
        ("authorization", authorization),
    ]
}

/// Sends a request without a body, with the token.
pub(crate) fn request(harness: &Harness, client: &mut Client, method: &str, path: &str) -> u32 {
    client.open(&head(method, path, &format!("Bearer {}", harness.token)), END_STREAM)
}

/// The connection still serves after whatever came before.
#[track_caller]
pub(crate) fn canary(harness: &Harness, client: &mut Client) {
    let stream = request(harness, client, "GET", "/v1/canary");
    assert_eq!(client.answer(stream).status, 200);
}

#[test]
fn an_upstream_gets_the_judged_request_in_its_own_protocol() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let mut fields = head("GET", "/v1/a%20b?q=%2f&&", &bearer);
    fields.extend([("cookie", "a=1"), ("cookie", "b=2"), ("x-mine", "1"), ("te", "trailers")]);
    let stream = client.open(&fields, END_STREAM);
    let answer = client.answer(stream);
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert!(answer.field("connection").is_none() && answer.field("date").is_some());
    let received = harness.upstream.received().concat();
    assert!(received.starts_with("GET /v1/a%20b?q=%2f&& HTTP/1.1\r\n"), "{received}");
    for line in ["\r\nhost: orders.internal\r\n", "cookie: a=1; b=2\r\n", "via: 2.0 leastgate\r\n", "x-mine: 1\r\n"] {
        assert_eq!(received.matches(line).count(), 1, "{line} in {received}");
    }
    assert!(!received.contains("authorization") && !received.contains("te:"), "{received}");
    let event = harness.events(1).concat();
    assert!(event.contains("\"protocol\":\"HTTP/2\"") && event.contains("\"host\":\"orders.internal\""), "{event}");
}

/// A request of no length is one when its end has come, and not before: what comes instead makes it none.
#[test]
fn a_request_of_no_length_waits_for_its_end() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let fields = [&head("POST", "/v1/a", &bearer)[..], &[("content-length", "0")]].concat();
    let (whole, broken) = (client.open(&fields, 0), client.open(&fields, 0));
    harness.until_in_flight(2);
    assert!(harness.upstream.all().is_empty(), "nothing goes upstream before the end");
    client.data(broken, b"hello", END_STREAM);
    let answer = client.answer(broken);
    assert!(answer.status != 200, "{answer:?}");
    client.data(whole, b"", END_STREAM);
    assert_eq!(client.answer(whole).status, 200);
    let text = harness.upstream.all();
    assert_eq!(text.matches("POST /v1/a").count(), 1, "{text}");
    canary(&harness, &mut client);
}

#[test]
fn a_refusal_ends_its_stream_and_nothing_else() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    let without = client.open(&head("GET", "/v1/a", "Bearer nothing"), END_STREAM);
    let elsewhere = request(&harness, &mut client, "DELETE", "/v1/a");
    let unfinished = client.open(&head("POST", "/v1/a", "Bearer nothing"), 0);
    let refused = client.answer(without);
    assert_eq!((refused.status, refused.field("content-type")), (401, Some("application/problem+json")));
    assert!(refused.field("www-authenticate").is_some());
    assert_eq!(client.answer(elsewhere).status, 403);
    assert_eq!(client.answer(unfinished).status, 401);
    canary(&harness, &mut client);
    assert!(client.goaway.is_none());
    assert_eq!(harness.upstream.received().concat().matches("HTTP/1.1\r\n").count(), 1);
    assert_eq!(harness.events(4).len(), 4);
}

/// What the h2 crate resets by itself leaves no event; what it lets through is ours to refuse.
#[test]
fn a_request_that_two_readers_could_read_differently_reaches_nobody() {
    let harness = answering();
    let bearer = format!("Bearer {}", harness.token);
    let pseudo = |name: &'static str, value: &'static str| {
        let mut fields = head("GET", "/v1/a", &bearer);
        fields.iter_mut().filter(|(own, _)| *own == name).for_each(|field| field.1 = value);
        fields
    };
    let with = |name: &'static str, value: &'static str| {
        let mut fields = head("GET", "/v1/a", &bearer);
        fields.push((name, value));
        fields
    };
    let without = |name: &'static str| {
        let mut fields = head("GET", "/v1/a", &bearer);
        fields.retain(|(own, _)| *own != name);
        fields
    };
    // The status, or 0 for a reset.
    let cases = [
        (pseudo(":path", "v1/a"), &[0, 400][..]),
        (pseudo(":path", "*"), &[0, 400]),
        (pseudo(":path", ""), &[0]),
        (pseudo(":path", "/v1/../admin"), &[400]),
        (pseudo(":path", "/v1/a b"), &[0]),
        (pseudo(":path", "http://orders.internal/v1/a"), &[0, 400]),
        (pseudo(":authority", "orders.internal@evil"), &[0, 400]),
        (pseudo(":authority", "evil.internal"), &[421]),
        (pseudo(":authority", ""), &[0, 400]),
        (pseudo(":scheme", "ftp"), &[0, 400]),
        (pseudo(":method", "GET /admin HTTP/1.1\r\nx: y"), &[0]),
        (pseudo(":method", "CONNECT"), &[0, 501]),
        (pseudo(":method", "TRACE"), &[501]),
        (with(":path", "/v1/b"), &[0]),
        (with(":status", "200"), &[0]),
        (with("host", "evil.internal"), &[400]),
        (with("X-Upper", "1"), &[0]),
        (with("x y", "1"), &[0]),
        (with("x-mine", "1\r\nx-other: 2"), &[0]),
        (with("x-mine", "1\0"), &[0]),
        (with("connection", "close"), &[0]),
        (with("transfer-encoding", "chunked"), &[0]),
        (with("upgrade", "h2c"), &[0]),
        (with("keep-alive", "1"), &[0]),
        (with("proxy-connection", "1"), &[0]),
        (with("te", "gzip"), &[0]),
        (with("content-length", "5"), &[0, 400]),
        (with("content-length", "+0"), &[0, 400]),
        (with("x_leastgate_subject", "admin"), &[400]),
        (with("authorization", "Bearer x"), &[400]),
        (with("expect", "200-ok"), &[417]),
        (without(":method"), &[0]),
        (without(":path"), &[0]),
        (without(":authority"), &[0, 400]),
    ];
    for (fields, expected) in cases {
        let mut client = connect(&harness, &[]);
        let stream = client.open(&fields, END_STREAM);
        let answer = client.answer(stream);
        assert!(expected.contains(&answer.status), "{fields:?}: {answer:?}");
        assert!(answer.status != 0 || answer.reset.is_some() || client.goaway.is_some(), "{fields:?}: {answer:?}");
        canary(&harness, &mut connect(&harness, &[]));
    }
    let received = harness.upstream.received().concat();
    assert_eq!(received.matches(" HTTP/1.1\r\n").count(), received.matches("/v1/canary").count(), "{received}");
}

/// The library that reads a target drops what is behind `#`: so does the judgement, and the upstream never sees it.
#[test]
fn a_fragment_is_neither_judged_nor_forwarded() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    for (path, status) in [("/v1/a#/../admin", 200), ("/admin#/v1/a", 403)] {
        let stream = request(&harness, &mut client, "GET", path);
        assert_eq!(client.answer(stream).status, status, "{path}");
    }
    assert_eq!(harness.upstream.received().concat().lines().next(), Some("GET /v1/a HTTP/1.1"));
}

#[test]
fn both_names_of_a_host_may_be_said_if_they_agree() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let mut fields = head("GET", "/v1/a", &bearer);
    fields.push(("host", "orders.internal"));
    let stream = client.open(&fields, END_STREAM);
    assert_eq!(client.answer(stream).status, 200);
    fields.retain(|(name, _)| *name != ":authority");
    let stream = client.open(&fields, END_STREAM);
    assert_eq!(client.answer(stream).status, 200, "as a gateway of HTTP/1.1 requests sends it");
    assert_eq!(harness.upstream.received().concat().matches("\r\nhost: orders.internal\r\n").count(), 2);
}

#[test]
fn a_head_has_a_largest_size_and_number_of_fields() {
    let harness = answering();
    let bearer = format!("Bearer {}", harness.token);
    let names: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
    let mut many = head("GET", "/v1/a", &bearer);
    many.extend(names.iter().map(|name| (name.as_str(), "1")));
    let large = "a".repeat(17 * 1024);
    let mut fat = head("GET", "/v1/a", &bearer);
    fat.push(("x-large", &large));
    for fields in [many, fat] {
        let mut client = connect(&harness, &[]);
        let block = client.block(&fields);
        let (first, rest) = block.split_at(block.len().min(16_000));
        client.send(frame(HEADERS, END_STREAM | if rest.is_empty() { END_HEADERS } else { 0 }, 1, first));
        if !rest.is_empty() {
            client.send(frame(CONTINUATION, END_HEADERS, 1, rest));
        }
        assert_eq!(client.answer(1).status, 431);
    }
    assert!(harness.upstream.received().is_empty());
}

#[test]
fn streams_do_not_wait_for_each_other() {
    let (release, released) = mpsc::channel();
    let released = std::sync::Mutex::new(released);
    let harness = harness(move |upstream| {
        upstream.read_until("\r\n\r\n");
        if upstream.text().contains("/v1/slow") {
            released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        upstream.write(OK);
        upstream.answer_all(OK);
    });
    let mut client = connect(&harness, &[]);
    let slow = request(&harness, &mut client, "GET", "/v1/slow");
    let quick: Vec<u32> = (0..40).map(|n| request(&harness, &mut client, "GET", &format!("/v1/{n}"))).collect();
    for stream in quick {
        assert_eq!(client.answer(stream).status, 200);
    }
    release.send(()).unwrap();
    assert_eq!(client.answer(slow).status, 200);
}

#[test]
fn a_stream_that_is_reset_ends_its_request_upstream() {
    let (ended, has_ended) = mpsc::channel();
    let harness = harness(move |upstream| {
        upstream.read_until("\r\n\r\n");
        if upstream.text().contains("/v1/left") {
            upstream.wait_until_closed();
            ended.send(()).unwrap();
        } else {
            upstream.write(OK);
            upstream.answer_all(OK);
        }
    });
    let mut client = connect(&harness, &[]);
    let left = request(&harness, &mut client, "GET", "/v1/left");
    harness.upstream.wait_for("\r\n\r\n");
    client.send(frame(RST_STREAM, 0, left, &8_u32.to_be_bytes()));
    has_ended.recv_timeout(PATIENCE).expect("the upstream's connection to end");
    canary(&harness, &mut client);
    assert_eq!(harness.events(2).len(), 2);
}

/// What a revocation cuts is the stream it is about: others on the same connection may be somebody else's.
#[test]
fn a_revocation_cuts_its_own_stream_alone() {
    let (release, released) = mpsc::channel();
    let released = std::sync::Mutex::new(released);
    let harness = harness(move |upstream| {
        upstream.read_until("\r\n\r\n");
        if upstream.text().contains("/healthz") {
            released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            upstream.write(OK);
        } else {
            upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart");
            upstream.wait_until_closed();
        }
    });
    let mut client = connect(&harness, &[]);
    let theirs = request(&harness, &mut client, "GET", "/v1/long");
    let upload = client.open(&head("POST", "/v1/upload", &format!("Bearer {}", harness.token)), 0);
    let public: Vec<_> = head("GET", "/healthz", "").into_iter().filter(|(name, _)| *name != "authorization").collect();
    let ours = client.open(&public, END_STREAM);
    harness.upstream.wait_for("/healthz");
    for stream in [theirs, upload] {
        while client.so_far(stream).is_none_or(|answer| answer.body.is_empty()) {
            client.read().expect("a part of the response");
        }
    }
    assert!(harness.authority.set_state(&harness.digest, leastgate_policy::TokenState::Revoked));
    for stream in [theirs, upload] {
        let cut = client.answer(stream);
        assert!(cut.status == 200 && !cut.is_whole && cut.reset == Some(CANCEL), "{cut:?}");
    }
    release.send(()).unwrap();
    assert_eq!(client.answer(ours).status, 200);
    assert!(client.goaway.is_none());
}

/// hyper sends the body of an answer to a HEAD over HTTP/2; clients take that for an error of the protocol.
#[test]
fn a_refused_head_request_has_no_body() {
    let harness = answering();
    let mut client = connect(&harness, &[]);
    let stream = client.open(&head("HEAD", "/v1/a", "Bearer nothing"), END_STREAM);
    let answer = client.answer(stream);
    assert_eq!((answer.status, answer.body.len(), answer.is_whole), (401, 0, true));
    assert!(answer.field("content-length").is_some_and(|length| length != "0"));
    canary(&harness, &mut client);
}

#[test]
fn a_drain_says_goaway_and_lets_streams_end() {
    let (release, released) = mpsc::channel();
    let released = std::sync::Mutex::new(released);
    let mut harness = harness(move |upstream| {
        upstream.read_until("\r\n\r\n");
        released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        upstream.write(OK);
    });
    let mut client = connect(&harness, &[]);
    let stream = request(&harness, &mut client, "GET", "/v1/a");
    harness.upstream.wait_for("\r\n\r\n");
    let plane = harness.plane.take().unwrap();
    let drained = thread::spawn(move || plane.drain(PATIENCE, &|| false));
    while client.goaway.is_none() {
        client.read().expect("GOAWAY before the end");
    }
    release.send(()).unwrap();
    assert_eq!(client.answer(stream).status, 200);
    client.read_to_end();
    drained.join().unwrap();
}

#[test]
fn a_worn_out_connection_is_told_to_go() {
    let harness = harness_with(|upstream| upstream.answer_all(OK), |limits| limits.connection_requests = 3);
    let mut client = connect(&harness, &[]);
    for n in 0..3 {
        assert!(client.goaway.is_none(), "at {n}");
        canary(&harness, &mut client);
    }
    client.read_to_end();
    assert_eq!(client.goaway.map(|(_, code)| code), Some(0));
}
