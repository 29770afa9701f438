//! Bodies: limits, expectations, and what is left of them when a request is refused.

use std::io::Write;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::harness::{Connection, OK, POLICY, Upstream, harness, harness_with, start_with};

#[test]
fn a_body_is_asked_for_only_when_the_request_is_allowed() {
    let harness = harness(|upstream| {
        upstream.read_until("hello");
        upstream.write(OK);
        upstream.wait_until_closed();
    });
    let mut client = harness.connect();
    client.send(harness.head("POST /v1/a", "Expect: 100-continue\r\nContent-Length: 5\r\n"));
    assert_eq!(client.reply().status, 100);
    client.send("hello");
    assert_eq!(client.reply().status, 200);
    assert!(!harness.upstream.all().to_ascii_lowercase().contains("expect"));

    let mut client = harness.connect();
    client.send(harness.head("POST /nowhere", "Expect: 100-continue\r\nContent-Length: 5\r\n"));
    let refused = client.reply();
    assert_eq!(refused.status, 403);
    assert!(refused.has("connection: close"));
    assert!(client.is_closed());
}

#[test]
fn a_refused_body_that_is_here_is_drained_and_one_that_is_not_ends_the_connection() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let mut client = harness.connect();
    client.send(
        harness.head("POST /nowhere", "Content-Length: 50\r\n") + &"GET /v1/smuggled HTTP/1.1\r\n".repeat(2)[..50],
    );
    let refused = client.reply();
    assert_eq!(refused.status, 403);
    assert!(!refused.has("connection: close"));
    client.send(harness.head("GET /v1/next", ""));
    assert_eq!(client.reply().status, 200);

    client.send(harness.head("POST /nowhere", "Transfer-Encoding: chunked\r\n") + "2\r\nhi\r\n3\r\nyou\r\n0\r\n\r\n");
    assert!(!client.reply().has("connection: close"), "a small chunked body is drained too");

    client.send(harness.head("POST /nowhere", "Content-Length: 50\r\n") + "GET /v1/smu");
    let refused = client.reply();
    assert!(refused.has("connection: close"));
    assert!(client.is_closed());
    assert!(!harness.upstream.all().contains("smu"));
}

#[test]
fn a_body_over_the_limit_is_refused_before_or_while_it_comes() {
    let harness = harness_with(Connection::wait_until_closed, |limits| limits.body = 10);
    let declared = harness.ask(harness.head("POST /v1/a", "Content-Length: 11\r\n") + "hello world");
    assert_eq!(declared.status, 413);
    assert_eq!(harness.upstream.all(), "");
    let streamed = harness.ask(harness.head("POST /v1/a", "Transfer-Encoding: chunked\r\n") + "b\r\nhello world\r\n");
    assert_eq!(streamed.status, 413);
    assert!(!harness.upstream.all().contains("hello world"));
    assert!(harness.events(2).iter().all(|event| event.contains("body_too_large")));
}

#[test]
fn a_body_that_comes_too_slowly_is_a_408() {
    let harness = harness_with(Connection::wait_until_closed, |limits| limits.body_idle = Duration::from_millis(200));
    let reply = harness.ask(harness.head("POST /v1/a", "Content-Length: 5\r\n") + "he");
    assert_eq!(reply.status, 408);
    assert!(reply.has("connection: close"));
    let event = harness.events(1).remove(0);
    assert!(event.contains("request_timeout"), "{event}");
}

#[test]
fn what_was_let_through_stays_so_on_record_whatever_its_client_does_then() {
    let upstream = Upstream::start(|upstream| while upstream.read_some().is_some() {});
    let policy = POLICY.replace("GET /healthz", "POST /open");
    let harness = start_with(upstream, |limits| limits.body = 1_000, Some(&policy));
    for (rest, status, error) in [
        ("zz\r\n".to_owned(), 400, "request_malformed"),
        (format!("3e8\r\n{}\r\n", "x".repeat(1_000)), 413, "body_too_large"),
    ] {
        let mut client = harness.connect();
        let head = "POST /open HTTP/1.1\r\nHost: orders.internal\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}5\r\n{error:.5}\r\n"));
        harness.upstream.wait_for(&error[..5]);
        client.send(rest);
        assert_eq!(client.reply().status, status);
        let event = harness.events(1).into_iter().find(|event| event.contains(error)).unwrap_or_default();
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        let said = (&event["decision"]["effect"], &event["decision"]["reason"], &event["response"]["error"]);
        assert_eq!(said, (&"allow".into(), &"public_rule".into(), &error.into()), "{event}");
    }
}

#[test]
fn an_early_answer_ends_the_upstream_connection() {
    let harness = harness(|upstream| {
        if upstream.index() == 0 {
            upstream.read_until("hel");
            upstream.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly");
            upstream.wait_until_closed();
        } else {
            upstream.answer_all(OK);
        }
    });
    let mut client = harness.connect();
    client.send(harness.head("POST /v1/a", "Content-Length: 500\r\n") + "hel");
    assert_eq!(client.reply().body, "early");
    client.send("lo GET /v1/smuggled HTTP/1.1\r\n\r\n");
    assert!(client.is_closed());
    assert_eq!(harness.ask(harness.head("GET /v1/b", "")).body, "ok");
    let received = harness.upstream.received();
    assert_eq!(received.len(), 2, "{received:?}");
    assert!(!received.concat().contains("smuggled"));
}

#[test]
fn a_client_that_is_still_sending_gets_the_whole_of_an_early_answer() {
    let (done, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let harness = harness(move |upstream| {
        upstream.read_head();
        upstream.write(&format!("HTTP/1.1 413 Too Large\r\ncontent-length: 50000\r\n\r\n{}", "e".repeat(50_000)));
        // It reads nothing of the body, and keeps the connection until the client has what it wants.
        let _ = wait.lock().unwrap().recv();
    });
    for _ in 0..5 {
        let mut client = harness.connect();
        client.send(harness.head("POST /v1/a", &format!("Content-Length: {}\r\n", 2 << 20)));
        client.send(vec![b'x'; 1 << 10]);
        client.stream.peek(&mut [0]).unwrap();
        // The answer is here. Most clients look at it only when they have sent everything.
        client.stream.write_all(&vec![b'x'; (2 << 20) - (1 << 10)]).expect("the whole body to be taken");
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.len()), (413, 50_000));
        done.send(()).unwrap();
    }
}

#[test]
fn an_answer_is_heard_although_the_upstream_closes_before_it_has_the_body() {
    let harness = harness(|upstream| {
        upstream.read_head();
        // Closed with bytes unread, so that the gateway's next write fails.
        upstream.write("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 5\r\n\r\nearly");
    });
    for _ in 0..30 {
        let mut client = harness.connect();
        client.send(harness.head("POST /v1/a", &format!("Content-Length: {}\r\n", 2 << 20)));
        client.stream.write_all(&vec![b'x'; 2 << 20]).expect("the whole body to be taken");
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_str()), (413, "early"));
    }
}

#[test]
fn large_bodies_stream_both_ways() {
    let harness = harness(|upstream| {
        upstream.read_until("END");
        upstream.write(&format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100000\r\n{}\r\n0\r\n\r\n",
            "y".repeat(1 << 20)
        ));
        upstream.wait_until_closed();
    });
    let body = "x".repeat((4 << 20) - 3) + "END";
    let mut client = harness.connect();
    client.send(harness.head("PUT /v1/a", &format!("Content-Length: {}\r\n", body.len())));
    client.send(&body);
    let reply = client.reply();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body.matches('y').count(), 1 << 20);
    assert!(harness.upstream.all().ends_with(&body[body.len() - 100..]));
}
