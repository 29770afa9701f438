//! Access that ends while it is used: each kind of end, and each protocol's word for it, with the answer that says how many.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::{Setup, TestGateway, request};
use leastgate_testkit::http2::{Client, END_STREAM, head};
use leastgate_testkit::policies::{ORDERS, orders_tokens};
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::recorder::{Answer, RecorderUpstream, Step};
use leastgate_testkit::token::Token;
use serde_json::{Value, json};

use crate::stored::Stored;

/// Close frames (RFC 6455 §5.5.1): the gateway's, 1008, and the client's, masked with zeros.
const VIOLATION: [u8; 4] = [0x88, 2, 0x03, 0xf0];
const GOOD_BYE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf0];

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\u{1}\u{2}hi";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
    9\r\ndata: 1\n\n\r\n";
const MESSAGES: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n\
    7\r\n\0\0\0\0\u{2}hi\r\n";

/// RST_STREAM's code (RFC 9113 §7).
const CANCEL: u32 = 8;

/// The orders policy with a WebSocket and a method of gRPC beside the events.
pub(crate) fn policy() -> String {
    ORDERS.replace("      - GET /v1/a.b\n", "      - WS /v1/feed\n      - GRPC shop.Cart/Watch\n")
}

pub(crate) fn upstream() -> RecorderUpstream {
    let upstream = RecorderUpstream::start();
    for (path, begins) in [("/v1/feed", SWITCH), ("/v1/orders", EVENTS), ("/shop.Cart/Watch", MESSAGES)] {
        upstream.on(path, Answer::steps([Step::send(begins), Step::Hold]));
    }
    upstream
}

fn stored() -> Stored {
    let upstream = upstream();
    let setup = Setup::new(&policy()).section("tokens", "{ source: store }").upstream("orders", &upstream.url());
    Stored { gateway: setup.start(), upstream }
}

/// The same with declared tokens.
fn declared(token: &Token) -> (TestGateway, RecorderUpstream) {
    let upstream = upstream();
    let tokens: BTreeMap<_, _> = orders_tokens();
    let setup = Setup::new(&policy()).tokens(tokens.values()).token(token).upstream("orders", &upstream.url());
    (setup.start(), upstream)
}

/// A WebSocket that has had its first frame.
pub(crate) fn websocket(gateway: &TestGateway, secret: &str) -> TcpStream {
    let mut client = gateway.client();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    // The example of RFC 6455 §1.3.
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    client.send(format!(
        "GET /v1/feed HTTP/1.1\r\nHost: orders.test\r\n{upgrade}{key}\r\nAuthorization: Bearer {secret}\r\n\r\n"
    ));
    let mut socket = client.socket();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\x01\x02hi") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

/// It hears 1008 and nothing else, answers, and the connection ends.
fn assert_told(mut socket: TcpStream) {
    let mut frame = [0; 4];
    socket.read_exact(&mut frame).unwrap();
    assert_eq!(frame, VIOLATION);
    socket.write_all(&GOOD_BYE).unwrap();
    let end = socket.read(&mut frame);
    assert!(matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

pub(crate) fn events(gateway: &TestGateway, secret: &str) -> RawClient {
    let mut client = gateway.client();
    client.send(format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n"));
    assert_eq!(client.read_head(PATIENCE).unwrap().1, 200);
    client
}

/// It ends, without the chunk that would make it whole.
fn assert_broken_off(mut client: RawClient) {
    let rest = match client.read_rest(PATIENCE) {
        Ok(rest) => rest,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            return;
        }
    };
    assert_eq!(rest, b"9\r\ndata: 1\n\n\r\n");
}

/// A stream whose first bytes have come.
pub(crate) fn stream(client: &mut Client, method: &str, path: &str, secret: &str) -> u32 {
    let bearer = format!("Bearer {secret}");
    let mut fields = head(method, path, &bearer).to_vec();
    if method == "POST" {
        fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    }
    let stream = client.open(&fields, END_STREAM);
    while client.so_far(stream).is_none_or(|answer| answer.body.is_empty()) {
        client.read().expect("the connection stays open");
    }
    stream
}

fn assert_status(client: &mut Client, call: u32, status: &str) {
    let answer = client.answer(call);
    assert!(answer.is_whole && answer.reset.is_none(), "{answer:?}");
    let said = |name: &str| answer.trailers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
    assert_eq!(said("grpc-status"), Some(status), "{answer:?}");
    assert!(said("grpc-message").is_some_and(|message| message.contains("(decision ")), "{answer:?}");
}

#[test]
fn a_revocation_cuts_every_protocol_and_says_how_many() {
    let stored = stored();
    let (secret, other) =
        (stored.create("leaked", &["--role", "reader"]), stored.create("kept", &["--role", "reader"]));
    let (socket, download) = (websocket(&stored.gateway, &secret), events(&stored.gateway, &secret));
    let mut kept = websocket(&stored.gateway, &other);
    let mut http2 = Client::connect(stored.gateway.data(), &[]);
    let streamed = stream(&mut http2, "GET", "/v1/orders", &secret);
    let call = stream(&mut http2, "POST", "/shop.Cart/Watch", &secret);
    let neighbour = stream(&mut http2, "POST", "/shop.Cart/Watch", &other);

    let ended = stored.cli(&["token", "revoke", "leaked", "--reason", "in a log", "--yes"]);
    assert!(ended.stdout.contains("is revoked; 4 open requests were cut"), "{}", ended.stdout);
    assert_told(socket);
    assert_broken_off(download);
    assert_eq!(http2.answer(streamed).reset, Some(CANCEL));
    assert_status(&mut http2, call, "16");
    assert!(!http2.is_over(neighbour), "whoever shares the connection goes on");
    kept.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let waits = kept.read(&mut [0]).unwrap_err();
    assert!(matches!(waits.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "another token's goes on: {waits}");

    let metrics = stored.gateway.metrics();
    assert_eq!(metrics.sum("leastgate_streams_cut_total", &["reason=\"token_revoked\""]), 4.0);
    assert_eq!(metrics.sum("leastgate_revocation_duration_seconds_count", &[]), 1.0);
    assert!(metrics.sum("leastgate_revocation_duration_seconds_sum", &[]) < 1.0, "no worker kept it waiting");
    let events = stored.gateway.wait_decisions("the cut requests", 4, |event| event["actor"]["subject"] == "leaked");
    assert!(events.iter().all(|event| event["decision"]["cut"]["reason"] == "token_revoked"), "{events:?}");
    let ended = stored.cli(&["token", "revoke", "leaked", "--reason", "again", "--yes"]);
    assert!(ended.stdout.trim_end().ends_with("is revoked"), "nothing was left to cut: {}", ended.stdout);
}

#[test]
fn the_answer_of_the_api_says_how_many_and_that_these_are_all() {
    let stored = stored();
    let root = stored.administrator("root-2", "admin");
    let change = |name: &str, change: &str| {
        let path = format!("/v1/tokens/{name}/{change}");
        let reply = stored.api("POST", &path, Some(&root), Some(json!({ "reason": "r" })));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let Value::Object(mut told) = reply.json() else { panic!("{}", reply.text()) };
        (told.remove("streams_cut").unwrap(), told.remove("streams_cut_complete").unwrap())
    };
    let secret = stored.create("bot", &["--role", "reader"]);
    let sockets: Vec<_> = (0..5).map(|_| websocket(&stored.gateway, &secret)).collect();
    assert_eq!(change("bot", "disable"), (json!(5), json!(true)));
    sockets.into_iter().for_each(assert_told);
    assert_eq!(change("bot", "enable"), (json!(0), json!(true)));
    assert_told({
        let socket = websocket(&stored.gateway, &secret);
        assert_eq!(change("bot", "revoke"), (json!(1), json!(true)));
        socket
    });
    until_true("the upstream's connections to end", PATIENCE, || stored.upstream.open() == 0);
    let changes: Vec<Value> = stored.gateway.events().into_iter().filter(|event| event["kind"] == "admin").collect();
    let cut = json!({ "name": "streams_cut", "value": "5" });
    assert!(changes.iter().any(|event| event["change"]["details"].as_array().unwrap().contains(&cut)), "{changes:?}");
}

/// Requests that come all the time, on every worker, are none that a revocation has to wait for; and none that was let
/// through before it is answered by the upstream behind its answer.
#[test]
fn a_revocation_under_load_is_complete_when_it_is_answered() {
    let stored = stored();
    let root = stored.administrator("root-2", "admin");
    for round in 0..3 {
        let name = format!("bot-{round}");
        let secret = stored.create(&name, &["--role", "reader"]);
        let mut clients: Vec<_> = (0..32).map(|_| events(&stored.gateway, &secret)).collect();
        let mut late: Vec<_> = (0..32).map(|_| stored.gateway.client()).collect();
        let head = format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n");
        late.iter_mut().for_each(|client| client.send(&head));
        let path = format!("/v1/tokens/{name}/revoke");
        let reply = stored.api("POST", &path, Some(&root), Some(json!({ "reason": "r" }))).json();
        assert_eq!(reply["streams_cut_complete"], true);
        let cut = usize::try_from(reply["streams_cut"].as_u64().unwrap()).unwrap();
        let decided = |event: &Value| event["actor"]["subject"] == name.as_str();
        let events = stored.gateway.wait_decisions("every request", 64, decided);
        let recorded = events.iter().filter(|event| event["decision"]["cut"]["reason"] == "token_revoked").count();
        assert_eq!(cut, recorded, "what was let through before was cut before the answer, each once");
        assert!(cut >= 32, "{cut}");
        clients.drain(..).for_each(assert_broken_off);
    }
}

#[test]
fn the_end_of_a_tokens_life_cuts() {
    let token = Token::new("brief", &["reader"]).expiring_in(3);
    let (gateway, _upstream) = declared(&token);
    let socket = websocket(&gateway, token.secret());
    let mut http2 = Client::connect(gateway.data(), &[]);
    let call = stream(&mut http2, "POST", "/shop.Cart/Watch", token.secret());
    let began = Instant::now();
    assert_told(socket);
    assert_status(&mut http2, call, "16");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(gateway.metrics().sum("leastgate_streams_cut_total", &["reason=\"token_expired\""]), 2.0);
}

/// The token lives on, and what it was granted for a while does not.
#[test]
fn the_end_of_a_grant_cuts() {
    let token = Token::new("jit", &["misc"]).granted("orders:read", 3);
    let (gateway, _upstream) = declared(&token);
    let socket = websocket(&gateway, token.secret());
    let download = events(&gateway, token.secret());
    let mut http2 = Client::connect(gateway.data(), &[]);
    let call = stream(&mut http2, "POST", "/shop.Cart/Watch", token.secret());
    assert_told(socket);
    assert_broken_off(download);
    assert_status(&mut http2, call, "7");
    assert_eq!(gateway.metrics().sum("leastgate_streams_cut_total", &["reason=\"insufficient_scope\""]), 3.0);
    let reply = gateway.exchange(request("GET", "/v1/orders", Some(&token)));
    assert_eq!((reply.status, reply.problem().as_deref()), (403, Some("insufficient-scope")));
}

#[test]
fn a_policy_without_their_rules_cuts() {
    let token = Token::new("bot", &["reader"]);
    let (gateway, _upstream) = declared(&token);
    let socket = websocket(&gateway, token.secret());
    let mut http2 = Client::connect(gateway.data(), &[]);
    let call = stream(&mut http2, "POST", "/shop.Cart/Watch", token.secret());
    let streamed = stream(&mut http2, "GET", "/v1/orders", token.secret());
    gateway.replace_policy(&ORDERS.replace("      - GET /v1/orders\n", ""));
    assert_told(socket);
    assert_status(&mut http2, call, "7");
    assert_eq!(http2.answer(streamed).reset, Some(CANCEL));
    // Another scope would allow the two, and none a WebSocket.
    for (reason, cut) in [("insufficient_scope", 2.0), ("no_matching_scope", 1.0)] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(gateway.metrics().sum("leastgate_streams_cut_total", &[&label]), cut, "{reason}");
    }
}
