//! The handshake of a WebSocket: what reaches the upstream of it, and what makes a tunnel.

use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use leastgate_testkit::clock;

use crate::harness::{Client, Connection, Harness, OK, Options, POLICY, Upstream, start_as, start_with};
use crate::http2_peers::Served;

/// The example of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

pub(crate) fn policy() -> String {
    POLICY
        .replace("allow: [ \"GET /v1/**\" ]", "allow: [ \"GET /v1/**\", \"WS /feed\" ]")
        .replace("\"GET /healthz\" ]", "\"GET /healthz\", \"WS /open\" ]")
}

pub(crate) fn harness(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Harness {
    start_with(Upstream::start(script), |_| {}, Some(&policy()))
}

pub(crate) fn handshake(harness: &Harness, path: &str, more: &str) -> String {
    let fields = format!(
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n{more}"
    );
    harness.head(&format!("GET {path}"), &fields)
}

/// Switches and sends everything back.
pub(crate) fn echo(upstream: &mut Connection) {
    upstream.read_head();
    upstream.write(SWITCH);
    while let Some(bytes) = upstream.read_some() {
        upstream.write_bytes(&bytes);
    }
}

/// A client behind its handshake.
pub(crate) fn open(harness: &Harness) -> Client {
    let mut client = harness.connect();
    client.send(handshake(harness, "/feed", ""));
    let reply = client.reply();
    assert_eq!(reply.status, 101, "{}", reply.head);
    client
}

/// It is open in the eyes of both sides.
pub(crate) fn assert_echoes(client: &mut Client) {
    client.send([0x81, 4]);
    client.send("ping");
    client.read_to("ping");
}

#[test]
fn an_admitted_handshake_becomes_a_tunnel_and_one_record() {
    let harness = harness(echo);
    let mut client = harness.connect();
    client.send(handshake(&harness, "/feed?a=1", "Sec-WebSocket-Protocol: chat, superchat\r\nOrigin: https://a\r\n"));
    let reply = client.reply();
    assert_eq!(reply.status, 101, "{}", reply.head);
    for field in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "sec-websocket-protocol: chat",
        "x-request-id: ",
    ] {
        assert!(reply.has(field), "{field} in {}", reply.head);
    }
    assert_eq!(reply.head.matches("connection:").count(), 1, "{}", reply.head);
    assert!(!reply.has("content-length") && !reply.has("transfer-encoding"), "{}", reply.head);
    assert_echoes(&mut client);
    assert_eq!(harness.in_flight(), 1);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(client.is_closed());
    let event = harness.events(1).remove(0);
    assert!(event.contains("\"status\":101") && event.contains("\"scope_granted\""), "{event}");
    assert_eq!(event.matches("\"bytes\":6").count(), 2, "{event}");
    assert!(!event.contains("\"error\""), "{event}");
    let received = harness.upstream.all().to_ascii_lowercase();
    assert!(received.starts_with("get /feed?a=1 http/1.1\r\n"), "{received}");
    for field in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat, superchat",
        "x-leastgate-subject: reader",
    ] {
        assert_eq!(received.matches(&format!("\r\n{field}\r\n")).count(), 1, "{field} in {received}");
    }
    assert!(!received.contains("lgt_") && !received.contains("content-length"), "{received}");
    assert_eq!(harness.in_flight(), 0);
    assert_eq!(harness.metric("leastgate_http_request_duration_seconds_count{route=\"/feed\"}"), 0);
}

#[test]
fn any_other_answer_is_a_response_and_what_was_sent_early_stays_behind() {
    for answer in [
        OK,
        "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno",
    ] {
        let harness = harness(move |upstream| upstream.answer_all(answer));
        let mut client = harness.connect();
        client.send(handshake(&harness, "/feed", "") + &harness.head("GET /v1/early", ""));
        let reply = client.reply();
        assert_eq!(reply.status.to_string(), answer[9..12]);
        assert!(reply.has("connection: close"), "{}", reply.head);
        assert!(client.is_closed(), "{answer}");
        assert!(!harness.upstream.all().contains("early"));
        assert_eq!(harness.events(1).len(), 1);
    }
}

#[test]
fn what_was_sent_early_waits_for_the_answer() {
    let harness = harness(|upstream| {
        upstream.read_head();
        thread::sleep(Duration::from_millis(100));
        assert!(!upstream.has_more(), "nothing may come before the answer");
        upstream.write(SWITCH);
        upstream.read_until("early");
        upstream.write("late");
    });
    let mut client = harness.connect();
    client.send(handshake(&harness, "/feed", "") + "early");
    assert_eq!(client.reply().status, 101);
    client.read_to("late");
}

#[test]
fn a_101_that_does_not_answer_the_handshake_is_a_502() {
    for (right, wrong) in [
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade\r\n", ""),
        ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("Sec-WebSocket-Accept", "X-Accept"),
    ] {
        let answer = SWITCH.replacen(right, wrong, 1);
        let harness = harness(move |upstream| {
            upstream.read_head();
            upstream.write(&answer);
            upstream.wait_until_closed();
            upstream.close("[closed]");
        });
        let mut client = harness.connect();
        client.send(handshake(&harness, "/feed", "") + "early");
        assert_eq!(client.reply().status, 502, "{wrong}");
        assert!(client.is_closed());
        harness.upstream.wait_for("[closed]");
        assert!(!harness.upstream.all().contains("early"), "{wrong}");
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    let harness = harness(|upstream| {
        upstream.read_head();
        upstream.write(SWITCH);
        upstream.wait_until_closed();
    });
    let reply = harness.ask(harness.head("GET /v1/a", &format!("Sec-WebSocket-Key: {KEY}\r\nUpgrade: h2c\r\n")));
    assert_eq!(reply.status, 502);
    assert!(!harness.upstream.all().to_ascii_lowercase().contains("upgrade"));
}

#[test]
fn only_a_rule_for_websockets_admits_one_and_it_admits_nothing_else() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let refused = harness.ask(handshake(&harness, "/v1/a", "") + &harness.head("GET /v1/early", ""));
    assert_eq!(refused.status, 403);
    assert!(refused.has("connection: close") && refused.body.contains("a `WS` rule does"), "{}", refused.body);
    assert_eq!(harness.ask(harness.head("GET /feed", "")).status, 403);
    let anonymous = format!(
        "GET /feed HTTP/1.1\r\nHost: orders.internal\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    assert_eq!(harness.ask(anonymous).status, 401);
    assert_eq!(harness.upstream.all(), "");
}

#[test]
fn half_a_handshake_or_one_with_a_body_is_malformed() {
    let harness = harness(echo);
    let whole = handshake(&harness, "/feed", "");
    let keyless = whole.replace(&format!("Sec-WebSocket-Key: {KEY}\r\n"), "");
    let short = whole.replace(KEY, "AAAA");
    let twice = handshake(&harness, "/feed", &format!("Sec-WebSocket-Key: {KEY}\r\n"));
    let sized = handshake(&harness, "/feed", "Content-Length: 5\r\n") + "early";
    let chunked = handshake(&harness, "/feed", "Transfer-Encoding: chunked\r\n") + "5\r\nearly\r\n0\r\n\r\n";
    for head in [keyless, short, twice, sized, chunked] {
        let mut client = harness.connect();
        client.send(&head);
        let reply = client.reply();
        assert_eq!(reply.status, 400, "{head}");
        assert!(reply.body.contains("Sec-WebSocket-Key") && client.is_closed(), "{}", reply.body);
    }
    assert_eq!(harness.upstream.all(), "");
    let harmless = harness.ask(handshake(&harness, "/feed", "Content-Length: 0\r\n"));
    assert_eq!(harmless.status, 101);
}

#[test]
fn a_public_rule_may_be_for_websockets() {
    let harness = harness(echo);
    let mut client = harness.connect();
    client.send(handshake(&harness, "/open", ""));
    assert_eq!(client.reply().status, 101);
    assert_echoes(&mut client);
    assert!(!harness.upstream.all().contains("lgt_"));
}

#[test]
fn in_shadow_a_whole_handshake_is_tunnelled_and_recorded() {
    let until = clock::date(clock::now() + 10 * 86_400);
    let shadow =
        POLICY.replace("    upstream: up\n", &format!("    upstream: up\n    mode: shadow\n    until: {until}\n"));
    let harness = start_with(Upstream::start(echo), |_| {}, Some(&shadow));
    assert_echoes(&mut open(&harness));
    let event = harness.events(1).remove(0);
    assert!(event.contains("\"no_matching_scope\"") && event.contains("\"shadow\""), "{event}");
    assert!(event.contains("\"status\":101"), "{event}");
}

#[test]
fn an_upstream_of_http2_has_no_upgrade_and_gets_no_plain_request_instead() {
    let upstream = Served::answering("hello");
    let policy = policy();
    let options =
        Options { policy: Some(&policy), upstream: "http2: true, response_timeout: 5s", ..Options::default() };
    let harness = start_as(Upstream::at(upstream.address), |_| {}, &options);
    let reply = harness.ask(handshake(&harness, "/feed", ""));
    assert_eq!(reply.status, 502, "{}", reply.head);
    assert!(upstream.seen().is_empty());
    assert_eq!(harness.ask(harness.head("GET /v1/a", "")).status, 200);
}
