//! Upstreams that are dead, slow or send garbage: never a hang, never an answer to the wrong request.

use std::io::Read;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::harness::{Connection, OK, PATIENCE, Upstream, harness, harness_with, start};

#[test]
fn each_failure_has_its_status() {
    let answers: [(&str, u16); 16] = [
        ("HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", 204),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nok", 502),
        ("HTTP/1.1 200 OK\r\nconnection: x-internal, \"q q\"\r\nx-internal: 1\r\ncontent-length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", 502),
        ("garbage\r\n\r\n", 502),
        ("", 502),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            200,
        ),
        ("HTTP/1.0 200 OK\r\n\r\nok", 200),
        ("silence", 504),
    ];
    for (answer, status) in answers {
        let harness = harness(move |upstream: &mut Connection| {
            upstream.read_until("\r\n\r\n");
            if answer == "silence" {
                upstream.wait_until_closed();
            } else {
                upstream.write(answer);
            }
        });
        let reply = harness.ask(harness.head("GET /v1/a", ""));
        assert_eq!(reply.status, status, "{answer:?}: {reply:?}");
        assert!(!reply.head.contains("early"), "interim responses are swallowed");
        assert_eq!(harness.events(1).len(), 1);
    }
}

#[test]
fn an_absent_upstream_is_a_503_that_says_when_to_come_back() {
    let harness = start(Upstream::absent(), |_| {});
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    let reply = client.reply();
    assert_eq!(reply.status, 503);
    assert!(reply.has("retry-after: 1") && reply.has("proxy-status: leastgate; error=destination_unavailable"));
    client.send(harness.head("POST /v1/a", "Content-Length: 2\r\n") + "hi");
    assert_eq!(client.reply().status, 503);
}

#[test]
fn after_a_response_of_http10_the_next_request_has_a_connection_and_a_body_of_its_own() {
    const KEPT: &str = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
    let harness = harness(|upstream| {
        for _ in 0..2 {
            upstream.read_head();
            if upstream.received().contains("chunked") {
                upstream.read_until("0\r\n\r\n");
            }
            upstream.write(KEPT);
        }
    });
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    assert_eq!(client.reply().status, 200);
    client.send(harness.head("PUT /v1/a", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    let received = harness.upstream.all();
    assert!(received.contains("PUT /v1/a HTTP/1.1\r\n") && received.contains("5\r\nhello\r\n0\r\n\r\n"), "{received}");
}

#[test]
fn a_client_that_is_slower_than_its_upstream_has_no_more_time_for_it() {
    let harness = harness_with(
        |upstream| {
            upstream.read_until("\r\n\r\n");
            upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n");
            upstream.write_bytes(&vec![b'x'; 64 << 20]);
        },
        |limits| {
            (limits.upstream_total, limits.response_stall) = (Some(Duration::from_millis(300)), PATIENCE * 2);
        },
    );
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    let began = std::time::Instant::now();
    while client.stream.read(&mut [0; 8 * 1024]).is_ok_and(|read| read > 0) && harness.in_flight() > 0 {
        assert!(began.elapsed() < PATIENCE, "it is still served");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(harness.events(1)[0].contains("upstream_timeout"), "{}", harness.events(1)[0]);
}

#[test]
fn a_connection_with_something_unasked_on_it_is_not_used_again() {
    let harness = harness(|upstream| {
        if upstream.index() == 0 {
            upstream.read_until("\r\n\r\n");
            upstream.write(&format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"));
            upstream.wait_until_closed();
        } else {
            upstream.answer_all(OK);
        }
    });
    let mut client = harness.connect();
    for _ in 0..3 {
        client.send(harness.head("GET /v1/a", ""));
        assert_eq!(client.reply().body, "ok");
    }
    assert_eq!(harness.upstream.received().len(), 2);
}

#[test]
fn an_upstream_that_closes_idle_connections_is_not_a_failure() {
    let harness = harness(|upstream| {
        upstream.read_until("\r\n\r\n");
        upstream.write(OK);
        let mark = format!("closed {}.", upstream.index());
        upstream.close(&mark);
    });
    let mut client = harness.connect();
    for round in 0..20 {
        client.send(harness.head("GET /v1/a", ""));
        assert_eq!(client.reply().status, 200);
        harness.upstream.wait_for(&format!("closed {round}."));
    }
}

#[test]
fn a_response_that_breaks_off_breaks_the_client_connection_off() {
    let harness = harness(|upstream| {
        upstream.read_until("\r\n\r\n");
        upstream.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    });
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    let all = client.rest();
    assert!(all.contains("hello") && !all.contains("0\r\n\r\n"), "{all}");
    let event = harness.events(1).remove(0);
    assert!(event.contains("upstream_protocol"), "{event}");
}

#[test]
fn identity_in_a_response_is_removed() {
    let harness = harness(|upstream| {
        upstream.answer_all("HTTP/1.1 200 OK\r\nX-Leastgate-Subject: admin\r\nX-Other: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\ncontent-length: 2\r\n\r\nok");
    });
    let reply = harness.ask(harness.head("GET /v1/a", ""));
    assert!(reply.has("x-other: 1"));
    for gone in ["x-leastgate", "x-hop", "keep-alive", "connection"] {
        assert!(!reply.has(gone), "{gone}: {}", reply.head);
    }
}

#[test]
fn the_time_a_client_takes_to_send_is_not_the_upstreams() {
    let harness = harness(|upstream| {
        upstream.read_until("\r\n0\r\n\r\n");
        upstream.write(OK);
        upstream.wait_until_closed();
    });
    let mut client = harness.connect();
    client.send(harness.head("POST /v1/a", "Transfer-Encoding: chunked\r\n"));
    for _ in 0..5 {
        client.send("2\r\nhi\r\n");
        thread::sleep(Duration::from_millis(400));
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.reply().status, 200, "two seconds of sending, one second to answer");
}

#[test]
fn a_response_may_be_limited_as_a_whole() {
    let harness = harness_with(
        |upstream| {
            upstream.read_until("\r\n\r\n");
            upstream.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
            upstream.wait_until_closed();
        },
        |limits| limits.upstream_total = Some(Duration::from_millis(300)),
    );
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    let all = client.rest();
    assert!(all.contains("hello") && !all.contains("0\r\n\r\n"), "{all}");
    let event = harness.events(1).remove(0);
    assert!(event.contains("upstream_timeout"), "{event}");
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let (ended, end) = mpsc::channel();
    let harness = harness_with(
        move |upstream| {
            upstream.answer_all(OK);
            let _ = ended.send(());
        },
        |limits| limits.keep_alive_upstream = Duration::from_millis(100),
    );
    assert_eq!(harness.ask(harness.head("GET /v1/a", "")).status, 200);
    end.recv_timeout(PATIENCE).expect("it is closed without a request");
}
