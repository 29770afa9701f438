//! Requests whose framing two readers could take differently.

use crate::harness::{OK, harness};

#[test]
fn ambiguous_framing_is_refused_and_nothing_more_is_read() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let smuggled = "GET /v1/smuggled HTTP/1.1\r\nHost: orders.internal\r\n\r\n";
    let bodies = [
        ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: ,chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"),
        ("Content-Length: +5\r\n", "hello"),
        ("Content-Length: 1000000000000000\r\n", "hello"),
        ("Connection: authorization\r\nContent-Length: 0\r\n", ""),
        ("Connection: X-Leastgate-Subject\r\nContent-Length: 0\r\n", ""),
        ("Host: other\r\nContent-Length: 0\r\n", ""),
    ];
    for (fields, body) in bodies {
        let mut client = harness.connect();
        client.send(format!("{}{body}{smuggled}", harness.head("POST /v1/a", fields)));
        let all = client.rest();
        assert!(all.starts_with("HTTP/1.1 400 "), "{fields:?}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {all}");
    }
    assert_eq!(harness.upstream.all(), "");
    assert_eq!(harness.events(bodies.len()).len(), bodies.len());
}

#[test]
fn length_beside_chunked_is_framed_anew_and_the_connection_closed() {
    let harness = harness(|upstream| {
        upstream.read_until("0\r\n\r\n");
        upstream.write(OK);
        upstream.wait_until_closed();
    });
    let mut client = harness.connect();
    client.send(harness.head("POST /v1/a", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"));
    client.send("5;ext=\"x\"\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\nGET /v1/smuggled HTTP/1.1\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    assert!(client.is_closed());
    let received = harness.upstream.all().to_ascii_lowercase();
    assert!(received.contains("transfer-encoding: chunked") && !received.contains("content-length"), "{received}");
    assert!(received.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{received}");
}

#[test]
fn a_get_with_a_chunked_body_keeps_it() {
    let harness = harness(|upstream| {
        upstream.read_until("0\r\n\r\n");
        upstream.write(OK);
        upstream.wait_until_closed();
    });
    let reply = harness.ask(harness.head("GET /v1/a", "Transfer-Encoding: chunked\r\n") + "2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(reply.status, 200);
    assert!(harness.upstream.all().ends_with("2\r\nhi\r\n0\r\n\r\n"));
}

#[test]
fn what_hyper_refuses_leaves_one_record() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    assert!(harness.ask("GET /v1/\u{1} HTTP/1.1\r\n\r\n").head.starts_with("HTTP/1.1 400 "));
    let fields = "X: 1\r\n".repeat(101);
    assert!(harness.ask(format!("GET / HTTP/1.1\r\n{fields}\r\n")).head.starts_with("HTTP/1.1 431 "));
    let big = format!("X: {}\r\n", "a".repeat(9_000)).repeat(4);
    assert!(harness.ask(format!("GET / HTTP/1.1\r\n{big}\r\n")).head.starts_with("HTTP/1.1 431 "));
    let events = harness.events(3);
    assert_eq!(events.len(), 3);
    assert!(events.iter().any(|event| event.contains("request_malformed")));
    assert_eq!(events.iter().filter(|event| event.contains("head_too_large")).count(), 2);
}

#[test]
fn a_malformed_chunk_is_the_clients_fault() {
    let harness = harness(|upstream| {
        upstream.read_until("\u{0}never");
    });
    let reply = harness.ask(harness.head("POST /v1/a", "Transfer-Encoding: chunked\r\n") + "2\r\nhi\r\nZZ\r\n");
    assert_eq!(reply.status, 400);
    assert!(reply.has("connection: close"));
    let event = harness.events(1).remove(0);
    assert!(event.contains("request_malformed"), "{event}");
    assert!(!harness.upstream.all().contains("0\r\n\r\n"), "the upstream never saw the request whole");
}
