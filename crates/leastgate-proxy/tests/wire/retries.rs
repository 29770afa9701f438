//! A pooled connection that its upstream closes just as a request is sent on it: what may have arrived is not repeated.

use crate::harness::{Connection, Harness, OK, Reply, harness};

/// An upstream whose first connection ends with its second request, after these bytes.
fn closing(answering: &'static str, with_reset: bool) -> Harness {
    harness(move |upstream: &mut Connection| {
        if upstream.index() > 0 {
            return upstream.answer_all(OK);
        }
        upstream.read_until("\r\n\r\n");
        upstream.write(OK);
        upstream.read_until("\r\n\r\n");
        upstream.write(answering);
        if with_reset {
            upstream.end_with_reset();
        }
    })
}

/// The answer to the second request, and how often it arrived on each connection.
fn second(harness: &Harness, request: &str) -> (Reply, Vec<usize>) {
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/first", ""));
    assert_eq!(client.reply().status, 200);
    client.send(request);
    let reply = client.reply();
    assert_eq!(harness.events(2).len(), 2, "one event for each request");
    let arrived = harness.upstream.received().iter().map(|received| received.matches("/v1/second").count()).collect();
    (reply, arrived)
}

#[test]
fn a_request_that_may_have_arrived_is_sent_once() {
    for (line, fields, body) in [
        ("GET /v1/second", "", ""),
        ("PUT /v1/second", "Content-Length: 0\r\n", ""),
        ("POST /v1/second", "Content-Length: 0\r\n", ""),
        ("GET /v1/second", "Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
    ] {
        for with_reset in [false, true] {
            let harness = closing("", with_reset);
            let (reply, arrived) = second(&harness, &(harness.head(line, fields) + body));
            assert_eq!((reply.status, arrived), (502, vec![1]), "{line}");
            assert!(reply.body.contains("may have acted"), "{}", reply.body);
        }
    }
}

#[test]
fn after_a_byte_of_a_response_nothing_is_repeated() {
    for answering in ["H", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let harness = closing(answering, false);
        let (reply, arrived) = second(&harness, &harness.head("GET /v1/second", ""));
        assert_eq!((reply.status, arrived), (502, vec![1]), "{answering:?}");
    }
}
