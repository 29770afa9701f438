//! How many requests a connection may carry, and how old it may grow: it ends with an answer that says so.

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{OK, harness_with};

#[test]
fn the_last_request_a_connection_may_carry_is_answered_with_a_close() {
    let harness = harness_with(|upstream| upstream.answer_all(OK), |limits| limits.connection_requests = 3);
    for _ in 0..2 {
        let mut client = harness.connect();
        let heads = [
            harness.head("GET /v1/a", ""),
            harness.head("GET /nowhere", ""),
            harness.head("GET /v1/last", ""),
            harness.head("GET /v1/beyond", ""),
        ];
        client.send(heads.concat());
        for (status, closes) in [(200, false), (403, false), (200, true)] {
            let reply = client.reply();
            assert_eq!((reply.status, reply.has("connection: close")), (status, closes), "{}", reply.head);
        }
        assert!(client.is_closed());
    }
    assert_eq!(harness.upstream.all().matches("/v1/last").count(), 2, "each connection counts for itself");
    assert!(!harness.upstream.all().contains("/v1/beyond"));
}

#[test]
fn an_old_connection_ends_with_its_next_answer_and_not_within_a_response() {
    const AGE: Duration = Duration::from_millis(1500);
    let (finish, finished) = mpsc::channel::<()>();
    let finished = Mutex::new(finished);
    let harness = harness_with(
        move |upstream| {
            upstream.read_until("\r\n\r\n");
            upstream.write(OK);
            upstream.read_until("\r\n\r\n");
            upstream.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            let _ = finished.lock().unwrap().recv();
            upstream.write("6\r\nsecond\r\n0\r\n\r\n");
            upstream.answer_all(OK);
        },
        |limits| limits.connection_age = AGE,
    );
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    let young = client.reply();
    let established = Instant::now();
    assert!(!young.has("connection: close"), "{}", young.head);
    client.send(harness.head("GET /v1/long", ""));
    client.read_to("first\r\n");
    thread::sleep(AGE.saturating_sub(established.elapsed()));
    finish.send(()).unwrap();
    client.read_to("second\r\n0\r\n\r\n");
    client.send(harness.head("GET /v1/a", ""));
    let old = client.reply();
    assert_eq!((old.status, old.body.as_str()), (200, "ok"));
    assert!(old.has("connection: close"), "{}", old.head);
    assert!(client.is_closed());
    let events = harness.events(3);
    assert!(events.iter().all(|event| !event.contains("\"error\":\"")), "{events:?}");
}
