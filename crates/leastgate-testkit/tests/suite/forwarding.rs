//! Bodies of every size and framing, both ways, streamed; connections used again; what is added to a request.

use std::net::Shutdown;
use std::time::Duration;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::recorder::{Answer, Gate, Step};
use leastgate_testkit::wire::Framing;

use crate::fixtures::{Orders, with_body};

const MIB: usize = 1 << 20;

#[test]
fn request_bodies_arrive_byte_for_byte_whatever_their_size_and_framing() {
    let orders = Orders::start();
    let writer = orders.token("WRITER");
    for size in [0, 1, 5, 65_535, 65_536, MIB] {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let hash = blake3_of(&body);
        for chunked in [false, true] {
            let seen = orders.upstream.count();
            let bytes =
                if chunked { chunks(writer.header(), &body) } else { with_body("POST", "/v1/orders", writer, &body) };
            assert_eq!(orders.gateway.exchange(bytes).status, 200, "{size} bytes, chunked: {chunked}");
            let got = &orders.upstream.since(seen)[0];
            assert_eq!((got.body_length, &got.body_hash), (size as u64, &hash), "{size} bytes, chunked: {chunked}");
            assert_eq!(got.fault, None);
        }
    }
}

fn chunks(credential: String, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{credential}\r\nTransfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    for piece in body.chunks(40_000) {
        bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// BLAKE3 as the recorder writes it.
fn blake3_of(body: &[u8]) -> String {
    blake3::hash(body).to_hex().to_string()
}

#[test]
fn a_request_body_is_streamed_and_held_back_when_the_upstream_takes_nothing() {
    let orders = Orders::start_with(|setup| setup.limit("body: 256MiB"));
    let gate = Gate::default();
    orders.upstream.on("/v1/orders", Answer::early([Step::Wait(gate.clone()), Step::ReadBody, Step::Echo]));
    let total = 64 * MIB;
    let mut client = orders.gateway.client();
    client.set_write_patience(Duration::from_millis(700));
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{}\r\nContent-Length: {total}\r\n\r\n",
        orders.token("WRITER").header()
    );
    client.try_send(&head).unwrap();
    let block = vec![b'b'; 64 * 1024];
    let mut taken = 0;
    // A partial write counts as none: the rest of the test only needs a lower bound, then sends the exact rest.
    while taken < total && write_some(&mut client, &block, &mut taken) {}
    assert!(taken < 32 * MIB, "the gateway swallowed {taken} bytes that nobody read");
    gate.open();
    client.set_write_patience(PATIENCE);
    while taken < total {
        let rest = (total - taken).min(block.len());
        client.try_send(&block[..rest]).unwrap();
        taken += rest;
    }
    assert_eq!(client.read_for("POST", PATIENCE * 3).unwrap().status, 200);
    assert_eq!(orders.upstream.wait_for("/v1/orders", PATIENCE).body_length, total as u64);
}

/// Writes what the socket takes of `block`; `false` when it takes nothing for the client's patience.
fn write_some(client: &mut RawClient, block: &[u8], taken: &mut usize) -> bool {
    match client.write_some(block) {
        Ok(written) => {
            *taken += written;
            true
        }
        Err(_) => false,
    }
}

#[test]
fn a_response_body_is_streamed_and_held_back_when_the_client_takes_nothing() {
    let orders = Orders::start();
    let total: u64 = 64 << 20;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n");
    orders.upstream.on("/v1/orders", Answer::steps([Step::send(head), Step::Flood(total)]));
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(orders.reader())));
    let (_, status, head) = client.read_head(PATIENCE).unwrap();
    assert_eq!((status, head.framing()), (200, Ok(Framing::Length(total))));
    let before = resident(&orders);
    let mut length = 0;
    client.read_framed(&head, PATIENCE * 3, |piece| length += piece.len() as u64).unwrap();
    assert_eq!(length, total);
    assert!(resident(&orders) < before + 32 * MIB as u64, "a streamed body is not gathered");
}

/// The gateway's resident memory in bytes.
fn resident(orders: &Orders) -> u64 {
    let metrics = orders.gateway.metrics();
    let bytes = metrics.sum("process_resident_memory_bytes", &[]);
    assert!(bytes > 0.0, "process_* metrics are there");
    format!("{bytes:.0}").parse().unwrap()
}

#[test]
fn responses_of_every_framing_come_through() {
    let orders = Orders::start();
    let answers = [
        ("/v1/orders/01", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "hi"),
        ("/v1/orders/02", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi"),
        ("/v1/orders/03", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        ("/v1/orders/04", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("/v1/orders/05", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n", ""),
        ("/v1/orders/06", "HTTP/1.1 418 Odd\r\ncontent-length: 3\r\n\r\ntea", "tea"),
    ];
    for (path, answer, body) in answers {
        orders.upstream.on(path, Answer::raw(answer));
        let mut client = orders.gateway.client();
        for _ in 0..2 {
            client.send(request("GET", path, Some(orders.reader())));
            let reply = client.read().unwrap();
            assert_eq!((reply.status.to_string().as_str(), reply.text().as_str()), (&answer[9..12], body), "{path}");
        }
    }
    orders
        .upstream
        .on("/v1/orders/07", Answer::steps([Step::send("HTTP/1.1 200 OK\r\n\r\nuntil the end"), Step::Close]));
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders/07").text(), "until the end");
}

#[test]
fn head_has_the_length_and_no_body() {
    let orders = Orders::start();
    let mut client = orders.gateway.client();
    for _ in 0..3 {
        client.send(request("HEAD", "/v1/orders", Some(orders.reader())));
        let reply = client.read_for("HEAD", PATIENCE).unwrap();
        assert_eq!(reply.status, 200);
        assert!(reply.head.has("content-length"), "{:?}", reply.head.fields);
    }
    client.send(request("HEAD", "/v1/none", Some(orders.reader())));
    assert_eq!(client.read_for("HEAD", PATIENCE).unwrap().status, 403);
}

#[test]
fn connections_are_used_again_on_both_sides() {
    let orders = Orders::start_with(|setup| setup.section("workers", "1"));
    let mut client = orders.gateway.client();
    for _ in 0..50 {
        client.send(request("GET", "/v1/orders", Some(orders.reader())));
        let reply = client.read().unwrap();
        assert_eq!((reply.status, reply.closes), (200, false));
    }
    assert_eq!((orders.upstream.count(), orders.upstream.accepted()), (50, 1));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let orders = Orders::start();
    let mut client = orders.gateway.client();
    let many: String =
        (0x10..0x40).map(|id| request("GET", &format!("/v1/orders/{id:x}"), Some(orders.reader()))).collect();
    client.send(many);
    for id in 0x10..0x40 {
        let reply = client.read().unwrap();
        assert!(reply.text().contains(&format!("/v1/orders/{id:x}\"")), "{}", reply.text());
    }
}

#[test]
fn an_expectation_ends_at_the_gateway() {
    let orders = Orders::start();
    let head = |token: &str| {
        format!(
            "POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            orders.token(token).header()
        )
    };
    let mut client = orders.gateway.client();
    client.send(head("WRITER"));
    client.read_interim(100, PATIENCE);
    client.send("hello");
    assert_eq!(client.read().unwrap().status, 200);
    let got = orders.upstream.wait_for("/v1/orders", PATIENCE);
    assert_eq!((got.body.as_slice(), got.head.has("expect")), (&b"hello"[..], false));

    let mut refused = orders.gateway.client();
    refused.send(head("READER"));
    let reply = refused.read().unwrap();
    assert_eq!((reply.interim.as_slice(), reply.status), (&[][..], 403), "no 100 before a refusal");
    assert_eq!(orders.upstream.count(), 1);
}

#[test]
fn an_early_answer_reaches_the_client_and_the_connection_is_not_used_again() {
    let orders = Orders::start_with(|setup| setup.section("workers", "1"));
    orders.upstream.on(
        "/v1/orders",
        Answer::early([Step::send("HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nno"), Step::Hold]),
    );
    let mut client = orders.gateway.client();
    client.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{}\r\nContent-Length: 1000000\r\n\r\npart",
        orders.token("WRITER").header()
    ));
    let reply = client.read().unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (409, "no"));
    drop(client);
    let reply = orders.gateway.get(orders.reader(), "/v1/orders/7b0e");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(orders.upstream.accepted(), 2, "a connection with half a request on it carries no other");
}

#[test]
fn a_client_that_goes_away_ends_the_request_upstream() {
    let orders = Orders::start();
    let gate = Gate::default();
    orders.upstream.on("/v1/orders", Answer::steps([Step::Hold]));
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(orders.reader())));
    let _ = orders.upstream.wait_for("/v1/orders", PATIENCE);
    client.shutdown(Shutdown::Both);
    until_true("the upstream connection's end", PATIENCE, || orders.upstream.open() == 0);
    gate.open();
    let events = orders.gateway.wait_decisions("the request", 1, |_| true);
    assert_eq!(events.len(), 1, "one event also for a client that went away");
}

#[test]
fn half_a_body_never_becomes_a_whole_one() {
    let orders = Orders::start();
    let mut client = orders.gateway.client();
    client.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{}\r\nContent-Length: 10\r\n\r\nhello",
        orders.token("WRITER").header()
    ));
    client.shutdown(Shutdown::Both);
    let _ = orders.gateway.wait_decisions("the request", 1, |_| true);
    until_true("the upstream connection's end", PATIENCE, || orders.upstream.open() == 0);
    assert!(orders.upstream.requests().iter().all(|request| !request.complete));
}

#[test]
fn what_the_gateway_adds_and_takes() {
    let orders = Orders::start();
    let reader = orders.reader();
    orders.upstream.on(
        "/v1/orders",
        Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nX-Leastgate-Subject: upstream\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Kept: 1\r\n\r\n"),
    );
    let mut client = orders.gateway.client();
    client.send(format!(
        "GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{}\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        reader.header()
    ));
    let reply = client.read().unwrap();
    assert!(
        !reply.head.has("x-leastgate-subject") && !reply.head.has("x-hop") && reply.head.has("x-kept"),
        "{:?}",
        reply.head.fields
    );
    assert!(reply.head.has("x-request-id") && reply.head.has("via"), "{:?}", reply.head.fields);

    let got = orders.upstream.wait_for("/v1/orders", PATIENCE).head;
    assert_eq!(got.one("x-leastgate-subject"), Some("reader"));
    assert_eq!(got.one("x-leastgate-accessor"), Some(reader.accessor.as_str()));
    assert_eq!(got.one("x-leastgate-scopes"), Some("orders:read"));
    assert_eq!(got.one("x-request-id"), reply.head.one("x-request-id"));
    assert_eq!(got.one("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(got.one("x-forwarded-proto"), Some("http"));
    assert_eq!(got.one("x-forwarded-host"), Some("orders.test"));
    assert!(got.one("via").is_some_and(|via| via.contains("leastgate")), "{:?}", got.fields);
    assert!(
        got.one("traceparent").is_some_and(|trace| trace.contains("0af7651916cd43dd8448eb211c80319c")),
        "{:?}",
        got.fields
    );
    let event = orders.gateway.wait_decisions("the request", 1, |_| true).remove(0);
    assert_eq!(event["id"].as_str(), got.one("x-leastgate-decision"));
    assert_eq!(event["actor"]["subject"], "reader");
    assert_eq!(event["request"]["template"], "/v1/orders");
}
