//! Refusals and failures as a gRPC client reads them.

use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::http2::{Client, END_STREAM, HEADERS};

use crate::harness::{
    Connection, Harness, OK, Options, PATIENCE, POLICY, Reply, Upstream, harness, start_as, start_with,
};

/// One message of five bytes, and what stands around it.
const CALL: &str = "Content-Type: application/grpc+proto\r\nTE: trailers\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";

fn call(harness: &Harness, path: &str, token: &str) -> Reply {
    harness.ask(format!("POST {path} HTTP/1.1\r\nHost: orders.internal\r\nAuthorization: Bearer {token}\r\n{CALL}"))
}

/// HTTP 200 without a body, and this status in the place of trailers.
fn assert_status(reply: &Reply, status: u8, message: &str) {
    assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{}", reply.head);
    assert!(reply.has("content-type: application/grpc"), "{}", reply.head);
    assert!(reply.has(&format!("grpc-status: {status}")), "{}", reply.head);
    assert!(reply.has(&format!("grpc-message: {message}")), "{}", reply.head);
    assert!(reply.has("x-request-id: ") && reply.has("proxy-status: leastgate; error="), "{}", reply.head);
}

#[test]
fn a_refusal_is_a_status_of_grpc() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let missing = call(&harness, "/refunds", &harness.token);
    assert_status(&missing, 7, "Token lacks a required scope. POST /refunds needs orders:refund. (decision ");
    assert!(
        missing.has("www-authenticate: Bearer realm=\"test\", error=\"insufficient_scope\", scope=\"orders:refund\"")
    );
    assert_status(&call(&harness, "/nowhere", &harness.token), 7, "No scope allows this request. ");
    assert_status(&call(&harness, "/refunds", "nonsense"), 16, "The token is not valid. ");
    assert_status(&call(&harness, "/v1//a", &harness.token), 3, "The path is ambiguous. ");
    assert_eq!(harness.upstream.all(), "");
}

#[test]
fn what_is_recorded_is_the_status_of_the_table() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    assert_status(&call(&harness, "/refunds", &harness.token), 7, "");
    let event = harness.events(1).remove(0);
    assert!(event.contains("\"status\":403") && event.contains("insufficient_scope"), "{event}");
}

#[test]
fn an_upstream_that_is_down_is_unavailable_and_worth_a_retry() {
    let harness = start_with(Upstream::absent(), |_| {}, Some(POLICY));
    let reply = call(&harness, "/v1/a", &harness.token);
    assert_status(&reply, 14, "The upstream cannot be reached. Nothing was forwarded");
    assert!(reply.has("grpc-retry-pushback-ms: 1000") && reply.has("retry-after: 1"), "{}", reply.head);
    assert!(harness.events(1).remove(0).contains("\"status\":503"));
}

#[test]
fn an_upstream_that_is_slow_is_a_deadline_exceeded() {
    let harness = harness(Connection::wait_until_closed);
    let reply = call(&harness, "/v1/a", &harness.token);
    assert_status(&reply, 4, "The upstream took too long.");
    assert!(!reply.has("retry-after") && !reply.has("grpc-retry-pushback-ms"), "{}", reply.head);
}

#[test]
fn before_the_first_policy_a_call_is_unavailable() {
    let harness = start_with(Upstream::absent(), |_| {}, None);
    assert_status(&call(&harness, "/v1/a", &harness.token), 14, "Requests cannot be authorized right now.");
}

#[test]
fn what_is_not_disclosed_to_others_is_not_disclosed_in_a_message() {
    let upstream = || Upstream::start(|upstream| upstream.answer_all(OK));
    let with = |disclose: &str| POLICY.replace("    public:", &format!("    disclose: {disclose}\n    public:"));
    let silent = start_with(upstream(), |_| {}, Some(&with("none")));
    assert_status(&call(&silent, "/refunds", &silent.token), 7, "urn:leastgate:problem:insufficient-scope");
    assert!(!call(&silent, "/refunds", &silent.token).head.contains("decision"));
    let concealing = start_with(upstream(), |_| {}, Some(&with("conceal")));
    let replies = ["/refunds", "/nowhere"].map(|path| call(&concealing, path, &concealing.token));
    for reply in &replies {
        assert_status(reply, 5, "Not found");
        assert!(!reply.has("www-authenticate"), "{}", reply.head);
    }
    assert_eq!(replies[0].head.lines().count(), replies[1].head.lines().count());
}

#[test]
fn whoever_does_not_speak_grpc_gets_a_status_of_http() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    for fields in ["Content-Type: application/grpc-web\r\n", "Content-Type: application/json\r\n", ""] {
        let reply = harness.ask(harness.head("POST /refunds", &format!("{fields}Content-Length: 0\r\n")));
        assert_eq!(reply.status, 403);
        assert!(!reply.has("grpc-status"), "{}", reply.head);
    }
    let get = harness.ask(harness.head("GET /nowhere", "Content-Type: application/grpc\r\n"));
    assert_eq!(get.status, 403);
}

#[test]
fn over_http2_the_status_ends_the_stream_with_the_head() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let mut client = Client::open_with(harness.connect().stream, &[]);
    let bearer = format!("Bearer {}", harness.token);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "orders.internal"),
        (":path", "/refunds"),
        ("authorization", &bearer),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    // A call that is still sending: it is not waited for.
    let stream = client.open(&fields, 0);
    let head = loop {
        let frame = client.read().unwrap();
        if frame.kind == HEADERS {
            break frame;
        }
    };
    assert_eq!((head.stream, head.flags & END_STREAM), (stream, END_STREAM), "no DATA, no trailers");
    let answer = client.answer(stream);
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("7")));
    assert_eq!(answer.field("content-type"), Some("application/grpc"));
    assert!(answer.field("grpc-message").unwrap().starts_with("Token lacks a required scope."));
    assert!(answer.field("content-length").is_none_or(|length| length == "0"));
    assert!(harness.events(1)[0].contains("\"status\":403"));
}

#[test]
fn the_messages_of_a_call_may_come_slowly_and_those_of_another_request_may_not() {
    let policy = POLICY.replace("\"POST /v1/**\"", "\"POST /v1/**\", \"GRPC shop.Cart/Add\"");
    let upstream = Upstream::start(|upstream| {
        upstream.read_until("0\r\n\r\n");
        upstream.write(OK);
    });
    let harness = start_with(upstream, |limits| limits.body_idle = Duration::from_millis(200), Some(&policy));
    let begun = |path: &str| {
        let mut client = harness.connect();
        let fields = "Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n";
        client.send(harness.head(&format!("POST {path}"), fields) + "5\r\nhello\r\n");
        client
    };
    let mut call = begun("/shop.Cart/Add");
    // Whoever only says that it is gRPC is not let through as such: its silence ends it.
    assert!(begun("/v1/a").reply().has("grpc-status: 3"));
    thread::sleep(Duration::from_millis(400));
    call.send("0\r\n\r\n");
    assert_eq!(call.reply().body, "ok");
}

#[test]
fn a_call_that_falls_silent_is_cut() {
    let policy = POLICY.replace("\"POST /v1/**\"", "\"POST /v1/**\", \"GRPC shop.Cart/Add\"");
    let upstream = Upstream::start(Connection::wait_until_closed);
    let options = Options { policy: Some(&policy), upstream: "response_timeout: 1h", ..Options::default() };
    let harness = start_as(upstream, |limits| limits.stream_idle = Duration::from_millis(300), &options);
    let mut client = harness.connect();
    let fields = "Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n";
    client.send(harness.head("POST /shop.Cart/Add", fields) + "5\r\nhello\r\n");
    let started = Instant::now();
    let reply = client.reply();
    assert!(reply.has("grpc-status: "), "{}", reply.head);
    assert!(started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
    harness.until_in_flight(0);
}
