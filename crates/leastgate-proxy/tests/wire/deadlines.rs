//! Clients that are silent, slow or too many.

use std::time::{Duration, Instant};

use crate::harness::{Connection, Harness, OK, PATIENCE, harness_with};

#[test]
fn a_silent_client_half_a_head_and_an_idle_connection_are_let_go() {
    let harness = harness_with(
        |upstream| upstream.answer_all(OK),
        |limits| {
            limits.first_byte = Duration::from_millis(200);
            limits.head_timeout = Duration::from_millis(300);
            limits.keep_alive_client = Duration::from_millis(400);
        },
    );
    let started = Instant::now();
    assert!(harness.connect().is_closed());
    for start in ["P", "GET /v1/a HTTP/1.1\r\nHost:", "\r\n", "PRI * HTTP/2.0\r\n\r\n"] {
        let mut client = harness.connect();
        client.send(start);
        client.rest();
    }
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    assert_eq!(client.reply().status, 200);
    assert!(client.is_closed());
    assert!(started.elapsed() < Duration::from_secs(10));
    let events = harness.events(4);
    assert!(events.iter().filter(|event| event.contains("request_timeout")).count() >= 2, "{events:?}");
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let harness = harness_with(
        |upstream| {
            upstream.read_until("\r\n\r\n");
            let body = "x".repeat(64 << 20);
            upstream.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        },
        |limits| limits.response_stall = Duration::from_millis(300),
    );
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    assert_eq!(harness.events(1).len(), 1, "it ended although the client still holds the connection");
}

#[test]
fn over_the_caps_clients_are_turned_away_unread() {
    let harness = harness_with(|upstream| upstream.answer_all(OK), |limits| limits.connections_per_source = 2);
    let mut first = harness.connect();
    let mut second = harness.connect();
    for client in [&mut first, &mut second] {
        client.send(harness.head("GET /v1/a", ""));
        assert_eq!(client.reply().status, 200);
    }
    let turned = harness.connect().reply();
    assert_eq!(turned.status, 503);
    assert!(turned.has("retry-after: 1"));
    drop(first);
    until_served(&harness);
}

/// A place is given back some time after its connection was closed.
fn until_served(harness: &Harness) {
    let started = Instant::now();
    while harness.ask(harness.head("GET /v1/a", "")).status != 200 {
        assert!(started.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

#[test]
fn the_cap_on_all_connections_holds_and_is_given_back() {
    let harness = harness_with(|upstream| upstream.answer_all(OK), |limits| limits.connections = 1);
    let mut first = harness.connect();
    first.send(harness.head("GET /v1/a", ""));
    assert_eq!(first.reply().status, 200);
    assert_eq!(harness.connect().reply().status, 503);
    drop(first);
    until_served(&harness);
}

#[test]
fn over_the_cap_of_requests_in_flight_a_client_is_told_to_come_back() {
    let harness = harness_with(Connection::wait_until_closed, |limits| limits.in_flight = 1);
    let mut waiting = harness.connect();
    waiting.send(harness.head("GET /v1/a", ""));
    harness.upstream.wait_for("/v1/a");
    let reply = harness.ask(harness.head("GET /v1/b", ""));
    assert_eq!(reply.status, 503);
    assert!(reply.has("retry-after"));
    assert!(!harness.upstream.all().contains("/v1/b"));
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let harness = harness_with(Connection::wait_until_closed, |_| {});
    let mut client = harness.connect();
    client.send(harness.head("GET /v1/a", ""));
    harness.upstream.wait_for("/v1/a");
    drop(client);
    assert_eq!(harness.events(1).len(), 1);
    assert_eq!(harness.plane.as_ref().unwrap().in_flight(), 0);
}
