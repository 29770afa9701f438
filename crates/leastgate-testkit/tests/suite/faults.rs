//! An upstream that is dead, slow, or lies: 502, 503 or 504, never a hang, never an answer to the wrong request (P20, P24, P28).

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::raw::NoReply;
use leastgate_testkit::recorder::{Answer, Step};
use socket2::{Domain, Socket, Type};

use crate::fixtures::{Orders, setup, with_body};

fn reason_of(orders: &Orders, path: &str) -> String {
    let found = orders.gateway.wait_decisions(path, 1, |event| event["request"]["path"] == path);
    found[0]["response"]["error"].as_str().or(found[0]["decision"]["reason"].as_str()).unwrap_or("-").to_owned()
}

#[test]
fn a_dead_upstream_is_503_and_says_when_to_come_back() {
    // Bound and not listening: the port stays ours, and connecting is refused.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let tokens = orders_tokens();
    let gateway = setup(&tokens).upstream("orders", &format!("http://{address}")).start();
    for _ in 0..3 {
        let reply = gateway.get(&tokens["READER"], "/v1/orders");
        assert_eq!((reply.status, reply.problem().as_deref()), (503, Some("upstream-unreachable")));
        assert!(reply.head.has("retry-after"));
        assert_eq!(reply.head.one("proxy-status"), Some("leastgate; error=destination_unavailable"));
    }
    assert_eq!(gateway.ops("/readyz").status, 200, "an upstream's health is not the gateway's");
}

#[test]
fn what_is_not_one_clean_response_is_502_and_the_connection_is_not_used_again() {
    let orders = Orders::start_with(|setup| setup.section("workers", "1"));
    let lies: &[(&str, &[u8])] = &[
        ("garbage", b"garbage\r\n\r\n"),
        ("binary", b"\x00\x01\x02\x03\xff\r\n\r\n"),
        ("another protocol", b"SSH-2.0-x\r\n\r\n"),
        ("version", b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("status", b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n"),
        (
            "cl and te",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "te and cl",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
        ("a list of lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\nhello!"),
        ("a signed length", b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello"),
        ("101", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: foo\r\nconnection: upgrade\r\n\r\n"),
        ("NUL", b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n"),
    ];
    for (number, (what, answer)) in lies.iter().enumerate() {
        let path = format!("/v1/orders/{:x}", number + 0xa00);
        orders.upstream.on(&path, Answer::steps([Step::send(answer)]));
        let reply = orders.gateway.get(orders.reader(), &path);
        assert_eq!(
            (reply.status, reply.problem().as_deref()),
            (502, Some("upstream-protocol")),
            "{what}: {}",
            reply.text()
        );
        assert_eq!(reply.head.one("proxy-status"), Some("leastgate; error=http_protocol_error"), "{what}");
        assert_eq!(reason_of(&orders, &path), "upstream_protocol", "{what}");
        until_true("the end of the connection it came over", PATIENCE, || orders.upstream.open() == 0);
        let canary = orders.gateway.get(orders.reader(), "/v1/orders");
        assert!(canary.text().contains("\"/v1/orders\""), "{what}: the canary got {}", canary.text());
    }
}

#[test]
fn an_upstream_that_closes_at_once_is_an_error_and_no_hang() {
    let orders = Orders::start();
    for step in [Step::Close, Step::Reset] {
        orders.upstream.on("/v1/orders", Answer::early([step]));
        let reply = orders.gateway.exchange(with_body("POST", "/v1/orders", orders.token("WRITER"), b"hello"));
        assert!([502, 503].contains(&reply.status), "{}", reply.text());
    }
}

#[test]
fn a_slow_upstream_is_504() {
    let orders = Orders::start_with(|setup| setup.limit("upstream_response: 300ms"));
    orders.upstream.on("/v1/orders", Answer::steps([Step::Hold]));
    let start = Instant::now();
    let reply = orders.gateway.get(orders.reader(), "/v1/orders");
    assert_eq!((reply.status, reply.problem().as_deref()), (504, Some("upstream-timeout")));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(reason_of(&orders, "/v1/orders"), "upstream_timeout");
}

#[test]
fn a_response_that_breaks_off_breaks_off() {
    let orders = Orders::start();
    let cut = [
        ("/v1/orders/01", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
        ("/v1/orders/02", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("/v1/orders/03", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nXX\r\n"),
    ];
    for (path, answer) in cut {
        orders.upstream.on(path, Answer::steps([Step::send(answer), Step::Close]));
        let mut client = orders.gateway.client();
        client.send(request("GET", path, Some(orders.reader())));
        assert!(
            matches!(client.read(), Err(NoReply::Cut(_))),
            "{path}: the client must see that the body is not whole"
        );
        assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
    }
}

#[test]
fn what_an_upstream_sends_unasked_answers_nobody() {
    let orders = Orders::start_with(|setup| setup.section("workers", "1"));
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let two = answer("first") + &answer("unasked");
    orders.upstream.on("/v1/orders", Answer::raw(two));
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(orders.reader())));
    assert_eq!(client.read().unwrap().text(), "first");
    for _ in 0..3 {
        client.send(request("GET", "/v1/orders/7b0e", Some(orders.reader())));
        let reply = client.read().unwrap();
        assert!(reply.text().contains("/v1/orders/7b0e"), "an answer to another request: {}", reply.text());
    }
}

#[test]
fn interim_responses_are_swallowed() {
    let orders = Orders::start();
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    orders.upstream.on("/v1/orders", Answer::raw(answer));
    let reply = orders.gateway.get(orders.reader(), "/v1/orders");
    assert_eq!((reply.interim.as_slice(), reply.status, reply.text().as_str()), (&[][..], 200, "ok"));
}

#[test]
fn answers_are_never_crossed_however_the_upstream_behaves() {
    let orders = Orders::start();
    orders.upstream.on(
        "/v1/orders/bad",
        Answer::steps([Step::send("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf"), Step::Close]),
    );
    orders.upstream.on("/v1/orders/dead", Answer::early([Step::Close]));
    thread::scope(|scope| {
        for worker in 0..8 {
            let orders = &orders;
            scope.spawn(move || hammer(orders, worker));
        }
    });
}

fn hammer(orders: &Orders, worker: u32) {
    let mut client = orders.gateway.client();
    for round in 0..100 {
        let bad = ["/v1/orders/bad", "/v1/orders/dead"].get(round % 10);
        let probe = format!("{worker}-{round}");
        let path = bad.map_or_else(|| format!("/v1/orders/{worker:x}{round:04x}"), ToString::to_string);
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: orders.test\r\nX-Probe: {probe}\r\n{}\r\n\r\n",
            orders.reader().header()
        ));
        match client.read_for("GET", PATIENCE) {
            Ok(reply) if reply.status == 200 => {
                assert_eq!(reply.head.one("x-echo"), Some(probe.as_str()), "an answer to another request");
                assert!(reply.text().contains(&path), "{path} got {}", reply.text());
            }
            other => {
                assert!(bad.is_some(), "{path} got {other:?}");
                client = orders.gateway.client();
            }
        }
    }
}
